//! Every table gives the same answers as the one on `BTreeMap`, whatever is written and however it is read.

mod support;

use std::sync::Arc;

use lsm_core::{Cursor, SEQUENCE_MAX, ValueKind};
use lsm_memtable::{MemtableFactory, MemtableReader, MemtableWriter, ReferenceMemtable};
use proptest::prelude::*;
use support::{Owned, factories, here, key, kind, walk, walk_back};

type Table = (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>);

/// One write of a random history. Some keys are written again and again.
fn write() -> impl Strategy<Value = (Vec<u8>, ValueKind, Vec<u8>)> {
    let key = prop_oneof![3 => key(), 1 => prop_oneof![Just(b"hot".to_vec()), Just(Vec::new())]];
    (key, kind(), prop::collection::vec(any::<u8>(), 0..20))
}

fn history() -> impl Strategy<Value = Vec<(Vec<u8>, ValueKind, Vec<u8>)>> {
    let sorted = |order: fn(&Vec<u8>, &Vec<u8>) -> std::cmp::Ordering| {
        prop::collection::vec(write(), 0..600).prop_map(move |mut writes| {
            writes.sort_by(|a, b| order(&a.0, &b.0));
            writes
        })
    };
    prop_oneof![
        3 => prop::collection::vec(write(), 0..600),
        1 => sorted(Ord::cmp),
        1 => sorted(|a, b| b.cmp(a)),
    ]
}

fn fill(factory: &dyn MemtableFactory, history: &[(Vec<u8>, ValueKind, Vec<u8>)]) -> Table {
    let (mut writer, reader) = factory.create();
    for (sequence, (key, kind, value)) in (1..).zip(history) {
        writer.insert(key, sequence, *kind, value).expect("there is room");
    }
    (writer, reader)
}

#[derive(Clone, Debug)]
enum Move {
    First,
    Last,
    Seek(Vec<u8>, u64),
    SeekForPrev(Vec<u8>, u64),
    Next(usize),
    Prev(usize),
}

fn a_move() -> impl Strategy<Value = Move> {
    let sequence = || prop_oneof![3 => 0..700_u64, 1 => Just(SEQUENCE_MAX), 1 => Just(0)];
    let key = || prop_oneof![3 => key(), 1 => Just(b"hot".to_vec())];
    prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        4 => (key(), sequence()).prop_map(|(key, sequence)| Move::Seek(key, sequence)),
        4 => (key(), sequence()).prop_map(|(key, sequence)| Move::SeekForPrev(key, sequence)),
        6 => (1..70_usize).prop_map(Move::Next),
        6 => (1..70_usize).prop_map(Move::Prev),
    ]
}

/// Makes a move and tells all places passed.
fn make(cursor: &mut dyn Cursor, step: &Move) -> Vec<Option<Owned>> {
    match step {
        Move::First => cursor.first(),
        Move::Last => cursor.last(),
        Move::Seek(key, sequence) => cursor.seek(key, *sequence),
        Move::SeekForPrev(key, sequence) => cursor.seek_for_prev(key, *sequence),
        Move::Next(count) => {
            return (0..*count)
                .map(|_| {
                    cursor.next();
                    here(cursor)
                })
                .collect();
        }
        Move::Prev(count) => {
            return (0..*count)
                .map(|_| {
                    cursor.prev();
                    here(cursor)
                })
                .collect();
        }
    }
    vec![here(cursor)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_get_at_every_sequence_number(
        history in history(),
        strangers in prop::collection::vec(key(), 0..50),
    ) {
        let (_, model) = fill(&ReferenceMemtable, &history);
        let mut keys: Vec<_> = history.iter().map(|(key, ..)| key).chain(&strangers).collect();
        keys.sort();
        keys.dedup();
        for factory in factories() {
            let (_, table) = fill(&*factory, &history);
            prop_assert_eq!(table.entry_count(), history.len());
            for key in &keys {
                let ends = [0, 1, history.len() as u64, SEQUENCE_MAX];
                let own = (1..).zip(&history).filter(|(_, write)| write.0 == **key).flat_map(|(s, _)| [s - 1, s]);
                for sequence in ends.into_iter().chain(own) {
                    prop_assert_eq!(table.get(key, sequence), model.get(key, sequence), "{}", factory.name());
                }
            }
        }
    }

    #[test]
    fn every_walk_in_both_directions(history in history(), moves in prop::collection::vec(a_move(), 0..40)) {
        let (_, model) = fill(&ReferenceMemtable, &history);
        for factory in factories() {
            let (_, table) = fill(&*factory, &history);
            let (mut expected, mut found) = (Arc::clone(&model).cursor(), Arc::clone(&table).cursor());
            prop_assert_eq!(here(&*found), None, "a new cursor stands nowhere");
            for step in &moves {
                let (expected, found) = (make(&mut *expected, step), make(&mut *found, step));
                prop_assert_eq!(&expected, &found, "{} after {:?}", factory.name(), step);
            }
            expected.first();
            found.first();
            prop_assert_eq!(walk(&mut *expected), walk(&mut *found));
            expected.last();
            found.last();
            prop_assert_eq!(walk_back(&mut *expected), walk_back(&mut *found));
        }
    }

    /// The cursor was there before the writes that it meets on its way. Those may show or not; what was there
    /// before must.
    #[test]
    fn a_walk_among_writes_keeps_order_and_loses_nothing(
        before in history(),
        during in prop::collection::vec(write(), 1..200),
        is_forward in any::<bool>(),
    ) {
        let snapshot = before.len() as u64;
        for factory in factories() {
            let (mut writer, table) = fill(&*factory, &before);
            let mut cursor = Arc::clone(&table).cursor();
            cursor.first();
            let expected: Vec<_> = walk(&mut *cursor);
            if is_forward { cursor.first() } else { cursor.last() }
            let mut met = Vec::new();
            for (sequence, (key, kind, value)) in (snapshot + 1..).zip(&during) {
                writer.insert(key, sequence, *kind, value).expect("there is room");
                for _ in 0..3 {
                    met.extend(here(&*cursor));
                    if is_forward { cursor.next() } else { cursor.prev() }
                }
            }
            met.extend(if is_forward { walk(&mut *cursor) } else { walk_back(&mut *cursor) });
            if !is_forward {
                met.reverse();
            }
            let in_order = |pair: &[Owned]| {
                lsm_core::key::compare(&pair[0].key, pair[0].sequence, &pair[1].key, pair[1].sequence).is_lt()
            };
            prop_assert!(met.windows(2).all(in_order), "{}", factory.name());
            met.retain(|entry| entry.sequence <= snapshot);
            prop_assert_eq!(&met, &expected, "{}", factory.name());
        }
    }
}
