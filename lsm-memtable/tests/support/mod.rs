//! What the tests share: the tables under test, and a generator of keys that are hard on a search tree.
#![allow(dead_code, unreachable_pub, reason = "every test uses another part of this")]

use lsm_core::{Cursor, SequenceNumber, ValueKind};
use lsm_memtable::{BPlusMemtable, MemtableFactory, SkipListMemtable};
use proptest::prelude::*;

/// Every table that must behave like the reference.
pub fn factories() -> Vec<Box<dyn MemtableFactory>> {
    vec![Box::new(BPlusMemtable::default()), Box::new(SkipListMemtable::default())]
}

/// An entry that outlives the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub key: Vec<u8>,
    pub sequence: SequenceNumber,
    pub kind: ValueKind,
    pub value: Vec<u8>,
}

impl From<lsm_core::Entry<'_>> for Owned {
    fn from(entry: lsm_core::Entry<'_>) -> Self {
        Self {
            key: entry.key.to_vec(),
            sequence: entry.sequence,
            kind: entry.kind,
            value: entry.value.to_vec(),
        }
    }
}

/// Where the cursor stands.
pub fn here(cursor: &dyn Cursor) -> Option<Owned> {
    assert!(cursor.error().is_none());
    cursor.entry().map(Owned::from)
}

/// Everything from here to the end.
pub fn walk(cursor: &mut dyn Cursor) -> Vec<Owned> {
    let mut entries = Vec::new();
    while let Some(entry) = here(cursor) {
        entries.push(entry);
        cursor.next();
    }
    entries
}

/// Everything from here to the front.
pub fn walk_back(cursor: &mut dyn Cursor) -> Vec<Owned> {
    let mut entries = Vec::new();
    while let Some(entry) = here(cursor) {
        entries.push(entry);
        cursor.prev();
    }
    entries
}

/// Keys of few letters, so that they collide, extend one another and share prefixes: short ones (the empty one
/// among them), ones behind a long common prefix, decimal numbers, some as long as keys can be.
pub fn key() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff_u8)];
    let tail = prop::collection::vec(letter, 0..6);
    prop_oneof![
        4 => tail.clone(),
        4 => (prop_oneof![Just(3_usize), Just(8), Just(9), Just(40)], tail.clone())
            .prop_map(|(bytes, tail)| [vec![b'p'; bytes], tail].concat()),
        4 => (0..2000_u32).prop_map(|number| format!("user{number:012}").into_bytes()),
        4 => (0..200_u32).prop_map(|number| format!("{number}/and a long tail that is the same").into_bytes()),
        4 => any::<u16>().prop_map(|number| number.to_be_bytes().to_vec()),
        1 => tail.prop_map(|tail| [vec![b'x'; 65_535 - tail.len()], tail].concat()),
    ]
}

pub fn kind() -> impl Strategy<Value = ValueKind> {
    prop_oneof![4 => Just(ValueKind::Put), 1 => Just(ValueKind::Delete), 1 => Just(ValueKind::Merge)]
}
