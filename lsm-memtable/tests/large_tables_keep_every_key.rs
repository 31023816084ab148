//! Tables of several levels, in the orders that grow them differently.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use lsm_core::{Cursor, SEQUENCE_MAX, ValueKind};
use lsm_memtable::MemtableFactory;
use support::factories;

const KEYS: u64 = 40_000;

/// Scatters numbers without collisions.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn check(order: &str, key: impl Fn(u64) -> Vec<u8>) {
    for factory in factories() {
        let (mut writer, table) = factory.create();
        let mut expected = BTreeSet::new();
        for number in 0..KEYS {
            let key = key(number);
            writer.insert(&key, number + 1, ValueKind::Put, &number.to_le_bytes()).expect("there is room");
            expected.insert((key, number));
        }
        let context = format!("{} with {order} keys", factory.name());
        assert_eq!(expected.len(), KEYS as usize, "{context}: keys differ");
        for (key, number) in &expected {
            let entry = table.get(key, SEQUENCE_MAX).unwrap_or_else(|| panic!("{context}: {number} is lost"));
            assert_eq!((entry.key, entry.sequence), (&key[..], number + 1), "{context}");
            assert_eq!(entry.value, number.to_le_bytes(), "{context}");
            assert_eq!(table.get(key, *number), None, "{context}: not yet written");
            let longer = [&key[..], b"\0"].concat();
            assert_eq!(table.get(&longer, SEQUENCE_MAX), None, "{context}: never written");
        }
        let mut cursor = Arc::clone(&table).cursor();
        cursor.first();
        for (key, _) in &expected {
            assert_eq!(cursor.entry().map(|entry| entry.key), Some(&key[..]), "{context}: forwards");
            cursor.next();
        }
        assert_eq!(cursor.entry(), None, "{context}");
        cursor.last();
        for (key, _) in expected.iter().rev() {
            assert_eq!(cursor.entry().map(|entry| entry.key), Some(&key[..]), "{context}: backwards");
            cursor.prev();
        }
        assert_eq!(cursor.entry(), None, "{context}");
    }
}

#[test]
fn ascending() {
    check("ascending", |number| number.to_be_bytes().to_vec());
    check("ascending decimal", |number| format!("a long common prefix/{number:012}").into_bytes());
}

#[test]
fn descending() {
    check("descending", |number| (u64::MAX - number).to_be_bytes().to_vec());
    check("descending decimal", |number| format!("a long common prefix/{:012}", KEYS - number).into_bytes());
}

#[test]
fn random() {
    check("random", |number| scattered(number).to_be_bytes().to_vec());
    check("random decimal", |number| format!("user{:020}", scattered(number)).into_bytes());
}

#[test]
fn random_behind_different_long_prefixes() {
    check("prefixed", |number| {
        let number = scattered(number);
        format!("{:040}/{:020}", number % 7, number).into_bytes()
    });
}

#[test]
fn many_interleaved_ascending_runs() {
    check("interleaved", |number| format!("stream {:03}/{:010}", number % 100, number / 100).into_bytes());
}

#[test]
fn keys_that_extend_one_another() {
    check("nested", |number| {
        let mut key = vec![b'k'; (scattered(number) % 200) as usize];
        key.extend(number.to_le_bytes().into_iter().take_while(|&byte| byte != 0));
        key.extend([0; 3]);
        key.extend(number.to_be_bytes());
        key
    });
}

#[test]
fn an_old_snapshot_of_a_hot_key_is_read_without_a_walk_over_its_versions() {
    const VERSIONS: u64 = 100_000;
    for factory in factories() {
        let (mut writer, table) = factory.create();
        writer.insert(b"cold", 1, ValueKind::Put, b"").expect("there is room");
        for sequence in 2..=VERSIONS {
            writer.insert(b"hot", sequence, ValueKind::Put, &sequence.to_le_bytes()).expect("there is room");
        }
        assert_eq!(table.get(b"hot", 1), None);
        // A walk over the versions for each of these would take minutes.
        for sequence in (2..=VERSIONS).step_by(3) {
            let entry = table.get(b"hot", sequence).expect("this version");
            assert_eq!(entry.value, sequence.to_le_bytes());
        }
        let mut cursor = Arc::clone(&table).cursor();
        cursor.last();
        for sequence in 2..=VERSIONS {
            assert_eq!(cursor.entry().map(|entry| entry.sequence), Some(sequence));
            cursor.prev();
        }
        assert_eq!(cursor.entry().map(|entry| entry.key), Some(&b"cold"[..]));
    }
}

#[test]
fn values_of_all_sizes_come_back() {
    for factory in factories() {
        let (mut writer, table) = factory.create();
        let sizes = [0_usize, 1, 100, 65_536, 262_144, 262_145, 1 << 20, 5 << 20];
        let long_key = vec![b'k'; 65_535];
        for (sequence, bytes) in (1..).zip(sizes) {
            for key in [&bytes.to_be_bytes()[..], &long_key] {
                let value = vec![sequence as u8; bytes];
                writer.insert(key, sequence, ValueKind::Put, &value).expect("there is room");
            }
        }
        for (sequence, bytes) in (1..).zip(sizes) {
            for key in [&bytes.to_be_bytes()[..], &long_key] {
                let entry = table.get(key, sequence).expect("inserted");
                assert_eq!(entry.value.len(), bytes);
                assert!(entry.value.iter().all(|&byte| byte == sequence as u8));
            }
        }
        assert!(table.memory_bytes() >= 2 * sizes.iter().sum::<usize>());
    }
}

#[test]
#[should_panic(expected = "does not follow")]
fn versions_of_a_key_must_ascend() {
    let (mut writer, _) = lsm_memtable::BPlusMemtable::default().create();
    writer.insert(b"k", 2, ValueKind::Put, b"").expect("there is room");
    let _ = writer.insert(b"k", 2, ValueKind::Put, b"");
}
