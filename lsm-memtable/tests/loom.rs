//! All interleavings of one writer and one reader on small nodes, with the orderings that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p lsm-memtable --release --test loom`
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use lsm_core::{Cursor, SEQUENCE_MAX, ValueKind};
use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, MemtableWriter, SkipListMemtable};

fn factories() -> Vec<Box<dyn MemtableFactory>> {
    vec![Box::new(BPlusMemtable::with_pool_bytes(0)), Box::new(SkipListMemtable::with_pool_bytes(0))]
}

fn put(writer: &mut dyn MemtableWriter, key: &[u8], sequence: u64) {
    writer.insert(key, sequence, ValueKind::Put, &sequence.to_le_bytes()).expect("there is room");
}

/// Runs `write` beside `read` in every order. `before` are keys that are there from the start, with sequence
/// numbers from 1; `write` are those that come meanwhile, with the numbers after; each is published.
fn model(before: &'static [&[u8]], during: &'static [&[u8]], read: fn(&Arc<dyn MemtableReader>, u64)) {
    for number in 0..factories().len() {
        let mut builder = loom::model::Builder::new();
        // Two are enough to see each ordering in the node code broken on purpose; more take minutes.
        builder.preemption_bound = builder.preemption_bound.or(Some(2));
        builder.max_branches = 100_000;
        builder.check(move || {
            let (mut writer, table) = factories()[number].create();
            let first = before.len() as u64 + 1;
            for (sequence, key) in (1..).zip(before) {
                put(&mut *writer, key, sequence);
            }
            let published = loom::sync::Arc::new(AtomicU64::new(first - 1));
            let publish = published.clone();
            let thread = loom::thread::spawn(move || {
                for (sequence, key) in (first..).zip(during) {
                    put(&mut *writer, key, sequence);
                    publish.store(sequence, Ordering::Release);
                }
            });
            let visible = published.load(Ordering::Acquire);
            read(&table, visible);
            thread.join().expect("no panic");
        });
    }
}

/// Gets `key`, which the write with this number wrote.
fn check_get(table: &Arc<dyn MemtableReader>, visible: u64, key: &[u8], sequence: u64) {
    match table.get(key, SEQUENCE_MAX) {
        Some(entry) => {
            assert_eq!(entry.key, key);
            assert_eq!(entry.value, entry.sequence.to_le_bytes());
            assert!(entry.sequence >= sequence);
        }
        None => assert!(visible < sequence, "{sequence} of {visible} is lost"),
    }
}

#[test]
fn the_first_keys_are_found_once_published() {
    model(&[], &[b"b", b"a"], |table, visible| {
        check_get(table, visible, b"a", 2);
        check_get(table, visible, b"b", 1);
    });
}

#[test]
fn a_newer_version_replaces_an_older_one_whole() {
    model(&[b"a"], &[b"a", b"a"], |table, visible| {
        let newest = table.get(b"a", SEQUENCE_MAX).expect("there from the start");
        assert!(newest.sequence >= visible);
        assert_eq!(newest.value, newest.sequence.to_le_bytes());
        let oldest = table.get(b"a", 1).expect("there from the start");
        assert_eq!((oldest.sequence, oldest.value), (1, &1_u64.to_le_bytes()[..]));
    });
}

#[test]
fn keys_are_found_while_their_leaf_is_split() {
    model(&[b"a", b"c", b"e"], &[b"b"], |table, visible| {
        check_get(table, visible, b"a", 1);
        check_get(table, visible, b"e", 3);
        check_get(table, visible, b"b", 4);
    });
}

#[test]
fn keys_are_found_while_a_leaf_below_an_inner_node_is_split() {
    model(&[b"a", b"c", b"e", b"b"], &[b"f", b"d"], |table, visible| {
        check_get(table, visible, b"e", 3);
        check_get(table, visible, b"d", 6);
    });
}

#[test]
fn keys_are_found_while_the_root_is_split() {
    // Leaves of three: (a) (c) .. ascending runs fill a root of three children; the next one splits it.
    model(&[b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i"], &[b"bb"], |table, visible| {
        check_get(table, visible, b"c", 3);
        check_get(table, visible, b"g", 7);
        check_get(table, visible, b"bb", 10);
    });
}

#[test]
fn keys_are_found_while_a_node_below_the_root_is_split() {
    let before: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i", b"j"];
    model(before, &[b"bb"], |table, visible| {
        check_get(table, visible, b"g", 7);
        check_get(table, visible, b"bb", 11);
    });
}

#[test]
fn a_walk_meets_every_key_while_a_leaf_is_split() {
    model(&[b"a", b"c", b"e", b"b"], &[b"f", b"d"], |table, visible| {
        let mut cursor = Arc::clone(table).cursor();
        let mut met = Vec::new();
        cursor.first();
        while let Some(entry) = cursor.entry() {
            met.push((entry.key.to_vec(), entry.sequence));
            cursor.next();
        }
        assert!(met.windows(2).all(|pair| pair[0].0 < pair[1].0), "{met:?}");
        assert_eq!(met.iter().filter(|(_, sequence)| *sequence <= visible).count() as u64, visible);
    });
}

#[test]
fn a_walk_backwards_meets_every_key_while_the_root_is_split() {
    model(&[b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i"], &[b"bb"], |table, visible| {
        let mut cursor = Arc::clone(table).cursor();
        let mut met = Vec::new();
        cursor.last();
        while let Some(entry) = cursor.entry() {
            met.push((entry.key.to_vec(), entry.sequence));
            cursor.prev();
        }
        assert!(met.windows(2).all(|pair| pair[0].0 > pair[1].0), "{met:?}");
        assert_eq!(met.iter().filter(|(_, sequence)| *sequence <= visible).count() as u64, visible);
    });
}
