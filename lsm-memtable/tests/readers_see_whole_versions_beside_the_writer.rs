//! One writer and several readers at once: what is published is found, whole and in order.
#![expect(clippy::disallowed_methods, reason = "the test is about threads")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::{Cursor, SequenceNumber, ValueKind};
use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader};
use support::factories;

const ENTRIES: u64 = 60_000;

/// The key of a write. Every tenth overwrites an older key.
type KeyOf = fn(SequenceNumber) -> Vec<u8>;

fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn number_of(sequence: SequenceNumber) -> u64 {
    if sequence.is_multiple_of(10) { scattered(sequence) % sequence } else { sequence }
}

/// Checks that an entry was written as it is read.
fn assert_whole(entry: lsm_core::Entry<'_>, key_of: KeyOf) {
    assert_eq!(entry.key, key_of(entry.sequence));
    assert_eq!(entry.kind, ValueKind::Put);
    assert_eq!(entry.value.len(), 8 + (entry.sequence % 50) as usize);
    assert_eq!(entry.value[..8], entry.sequence.to_le_bytes());
    assert!(entry.value[8..].iter().all(|&byte| byte == entry.sequence as u8));
}

/// Gets keys that are published, the newest ones above all, and some that are yet to come.
fn get(table: &dyn MemtableReader, published: &AtomicU64, key_of: KeyOf, seed: u64) {
    let mut round = seed;
    loop {
        let visible = published.load(Ordering::Acquire);
        for back in 0..20 {
            round += 1;
            let near = visible.saturating_sub(back).max(1);
            let far = scattered(round) % ENTRIES + 1;
            for sequence in [near, far] {
                let key = key_of(sequence);
                match table.get(&key, visible) {
                    Some(entry) => {
                        assert!(entry.key == key && entry.sequence <= visible);
                        assert!(sequence > visible || entry.sequence >= sequence, "a newer version is lost");
                        assert_whole(entry, key_of);
                    }
                    None => assert!(sequence > visible, "number {sequence} of {visible} is lost"),
                }
            }
        }
        if visible == ENTRIES {
            return;
        }
    }
}

/// Walks over everything, back and forth: all that was published before the walk is there, in order.
fn walk(table: &Arc<dyn MemtableReader>, published: &AtomicU64, key_of: KeyOf) {
    let mut cursor = Arc::clone(table).cursor();
    let mut is_forward = true;
    loop {
        let visible = published.load(Ordering::Acquire);
        if is_forward {
            cursor.first();
        } else {
            cursor.last();
        }
        let mut met = 0;
        let mut last: Option<(Vec<u8>, SequenceNumber)> = None;
        while let Some(entry) = cursor.entry() {
            if let Some((key, sequence)) = &last {
                let order = entry.compare(key, *sequence);
                assert!(if is_forward { order.is_gt() } else { order.is_lt() }, "out of order");
            }
            if entry.sequence <= visible {
                met += 1;
            }
            assert_whole(entry, key_of);
            last = Some((entry.key.to_vec(), entry.sequence));
            if is_forward {
                cursor.next();
            } else {
                cursor.prev();
            }
        }
        assert_eq!(met, visible, "a walk lost something");
        if visible == ENTRIES {
            return;
        }
        is_forward = !is_forward;
    }
}

fn run(factory: &dyn MemtableFactory, key_of: KeyOf) {
    let (mut writer, table) = factory.create();
    let published = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let readers = [
            scope.spawn(|| get(&*table, &published, key_of, 1)),
            scope.spawn(|| get(&*table, &published, key_of, 1_000_000)),
            scope.spawn(|| walk(&table, &published, key_of)),
        ];
        for sequence in 1..=ENTRIES {
            let mut value = vec![sequence as u8; 8 + (sequence % 50) as usize];
            value[..8].copy_from_slice(&sequence.to_le_bytes());
            writer.insert(&key_of(sequence), sequence, ValueKind::Put, &value).expect("there is room");
            published.store(sequence, Ordering::Release);
        }
        // Before the table's memory goes to the next one. The end of the scope sees to that too, but a thread sanitizer
        // does not see how.
        for reader in readers {
            reader.join().expect("the reader found nothing wrong");
        }
    });
}

fn run_all(key_of: KeyOf) {
    for factory in factories() {
        run(&*factory, key_of);
    }
}

#[test]
fn random_keys() {
    run_all(|sequence| scattered(number_of(sequence)).to_be_bytes().to_vec());
}

#[test]
fn ascending_keys() {
    run_all(|sequence| format!("a long common prefix/{:012}", number_of(sequence)).into_bytes());
}

#[test]
fn descending_keys() {
    run_all(|sequence| format!("{:012}", u64::MAX - number_of(sequence)).into_bytes());
}

#[test]
fn a_few_hot_keys() {
    run_all(|sequence| (scattered(sequence) % 7).to_le_bytes().to_vec());
}

/// Stale bytes of an earlier table must never be taken for something.
#[test]
fn in_recycled_memory() {
    let factory = BPlusMemtable::default();
    for _ in 0..3 {
        run(&factory, |sequence| scattered(number_of(sequence)).to_be_bytes().to_vec());
        assert!(factory.pooled_bytes() > 0);
    }
}

#[test]
fn a_cursor_outlives_the_table_and_its_factory() {
    for factory in factories() {
        let (mut writer, table) = factory.create();
        writer.insert(b"k", 1, ValueKind::Put, b"v").expect("there is room");
        let mut cursor = table.cursor();
        drop(writer);
        drop(factory);
        let moved = std::thread::spawn(move || {
            cursor.first();
            cursor.entry().map(|entry| entry.value.to_vec())
        });
        assert_eq!(moved.join().expect("no panic"), Some(b"v".to_vec()));
    }
}
