//! A merge of any sources, read in any mixture of directions, is one sorted list; and it never hides a failure.

use lsm_core::key::compare;
use lsm_core::{Cursor, Entry, Error, MergingCursor, SEQUENCE_MAX, SequenceNumber, ValueKind};
use proptest::prelude::*;

type Row = (Vec<u8>, SequenceNumber);

/// A cursor over sorted rows. Landing on a row in `poisoned` fails.
struct Rows {
    sorted: Vec<Row>,
    poisoned: Vec<usize>,
    /// 0 is nowhere, `i + 1` is row `i`.
    at: usize,
    error: Option<Error>,
}

impl Rows {
    fn new(rows: &[Row]) -> Self {
        Self { sorted: rows.to_vec(), poisoned: Vec::new(), at: 0, error: None }
    }

    fn land(&mut self, index: Option<usize>) {
        self.at = index.filter(|index| *index < self.sorted.len()).map_or(0, |index| index + 1);
        self.error = None;
        if let Some(index) = self.at.checked_sub(1)
            && self.poisoned.contains(&index)
        {
            self.at = 0;
            self.error = Some(Error::invalid(format!("row {index}")));
        }
    }
}

impl Cursor for Rows {
    fn first(&mut self) {
        self.land(Some(0));
    }
    fn last(&mut self) {
        self.land(self.sorted.len().checked_sub(1));
    }
    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.land(Some(self.sorted.partition_point(|row| compare(&row.0, row.1, key, sequence).is_lt())));
    }
    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.land(
            self.sorted.partition_point(|row| compare(&row.0, row.1, key, sequence).is_le()).checked_sub(1),
        );
    }
    fn next(&mut self) {
        if self.at > 0 {
            self.land(Some(self.at));
        }
    }
    fn prev(&mut self) {
        if self.at > 0 {
            self.land(self.at.checked_sub(2));
        }
    }
    fn entry(&self) -> Option<Entry<'_>> {
        let (key, sequence) = self.sorted.get(self.at.checked_sub(1)?)?;
        Some(Entry { key, sequence: *sequence, kind: ValueKind::Put, value: key })
    }
    fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

#[derive(Clone, Debug)]
enum Op {
    First,
    Last,
    Seek(Vec<u8>, SequenceNumber),
    SeekForPrev(Vec<u8>, SequenceNumber),
    Next,
    Prev,
}

impl Op {
    fn positions(&self) -> bool {
        !matches!(self, Self::Next | Self::Prev)
    }

    fn apply(&self, cursor: &mut impl Cursor) {
        match self {
            Self::First => cursor.first(),
            Self::Last => cursor.last(),
            Self::Seek(key, sequence) => cursor.seek(key, *sequence),
            Self::SeekForPrev(key, sequence) => cursor.seek_for_prev(key, *sequence),
            Self::Next => cursor.next(),
            Self::Prev => cursor.prev(),
        }
    }
}

/// Keys that share heads, stand before, within and after the prefix "pre", and repeat.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0), Just(0xff)], 0..3)
            .prop_map(|tail| [b"pre", &tail[..]].concat()),
        1 => prop::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..3)
            .prop_map(|tail| [b"prefixed and long", &tail[..]].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..3),
        1 => prop::collection::vec(Just(0xff), 0..12),
    ]
}

fn sequence() -> impl Strategy<Value = SequenceNumber> {
    prop_oneof![8 => 0..6_u64, 1 => Just(SEQUENCE_MAX)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::First),
        1 => Just(Op::Last),
        2 => (key(), sequence()).prop_map(|(key, sequence)| Op::Seek(key, sequence)),
        2 => (key(), sequence()).prop_map(|(key, sequence)| Op::SeekForPrev(key, sequence)),
        8 => Just(Op::Next),
        8 => Just(Op::Prev),
    ]
}

fn sort(rows: &mut Vec<Row>) {
    rows.sort_by(|a, b| compare(&a.0, a.1, &b.0, b.1));
    rows.dedup();
}

/// Rows dealt out over sources: all distinct, each in one source.
fn sources() -> impl Strategy<Value = Vec<Vec<Row>>> {
    (0..10_usize, prop::collection::vec((key(), 0..6_u64, any::<prop::sample::Index>()), 0..60)).prop_map(
        |(count, dealt)| {
            let mut all: Vec<Row> = dealt.iter().map(|(key, sequence, _)| (key.clone(), *sequence)).collect();
            sort(&mut all);
            let mut sources = vec![Vec::new(); count];
            for (row, (_, _, index)) in all.into_iter().zip(&dealt) {
                if count > 0 {
                    sources[index.index(count)].push(row);
                }
            }
            sources
        },
    )
}

fn merged(sources: &[Vec<Row>]) -> Vec<Row> {
    let mut all = sources.concat();
    sort(&mut all);
    all
}

fn here(cursor: &impl Cursor) -> Option<Row> {
    cursor.entry().map(|entry| (entry.key.to_vec(), entry.sequence))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_walk_over_a_merge_is_a_walk_over_one_sorted_list(
        sources in sources(),
        prefix in prop_oneof![Just(&b""[..]), Just(&b"pre"[..])],
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut model = Rows::new(&merged(&sources));
        let mut cursor = MergingCursor::with_prefix(sources.iter().map(|rows| Rows::new(rows)).collect(), prefix);
        prop_assert_eq!(here(&cursor), None);
        for op in &ops {
            op.apply(&mut model);
            op.apply(&mut cursor);
            prop_assert_eq!(here(&cursor), here(&model), "after {:?}", op);
            prop_assert!(cursor.error().is_none());
        }
    }

    #[test]
    fn equal_internal_keys_come_in_the_order_of_their_sources(
        sources in prop::collection::vec(prop::collection::vec((key(), 0..3_u64), 0..10), 2..7),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut sources = sources;
        sources.iter_mut().for_each(sort);
        let mut all: Vec<(Row, usize)> = sources.iter().enumerate()
            .flat_map(|(index, rows)| rows.iter().map(move |row| (row.clone(), index)))
            .collect();
        all.sort_by(|a, b| compare(&a.0.0, a.0.1, &b.0.0, b.0.1).then(a.1.cmp(&b.1)));
        let mut model = Rows::new(&all.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
        let mut cursor = MergingCursor::new(sources.iter().map(|rows| Rows::new(rows)).collect());
        for op in &ops {
            op.apply(&mut model);
            op.apply(&mut cursor);
            prop_assert_eq!(here(&cursor), here(&model), "after {:?}", op);
            // Who delivers it shows in where that source stands.
            if let Some(at) = model.at.checked_sub(1) {
                let entry = cursor.entry().unwrap().value.as_ptr();
                let deliverer = cursor.sources().iter().position(|source| {
                    source.entry().is_some_and(|candidate| candidate.value.as_ptr() == entry && !candidate.value.is_empty())
                });
                if let Some(deliverer) = deliverer {
                    prop_assert_eq!(deliverer, all[at].1);
                }
            }
        }
    }

    #[test]
    fn a_failing_source_is_never_skipped(
        sources in sources(),
        poisoned in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut model = Rows::new(&merged(&sources));
        let mut rows: Vec<Rows> = sources.iter().map(|rows| Rows::new(rows)).collect();
        let mut bad = Vec::new();
        for (source, row) in poisoned {
            if let Some(source) = rows.len().checked_sub(1).map(|_| source.index(rows.len()))
                && !rows[source].sorted.is_empty()
            {
                let row = row.index(rows[source].sorted.len());
                rows[source].poisoned.push(row);
                bad.push(rows[source].sorted[row].clone());
            }
        }
        let mut cursor = MergingCursor::new(rows);
        let mut failed = false;
        for op in &ops {
            op.apply(&mut model);
            op.apply(&mut cursor);
            failed &= !op.positions();
            if cursor.error().is_some() {
                failed = true;
            } else {
                prop_assert!(!failed, "the error went away without a positioning call");
                // No error: then nothing was skipped, and no poisoned row was returned.
                prop_assert_eq!(here(&cursor), here(&model), "after {:?}", op);
            }
            if failed {
                prop_assert!(cursor.entry().is_none());
            }
            if let Some(row) = here(&cursor) {
                prop_assert!(!bad.contains(&row));
            }
        }
    }
}

#[test]
fn a_merge_of_nothing_stands_nowhere() {
    let mut cursor = MergingCursor::<Rows>::new(Vec::new());
    for op in [Op::First, Op::Last, Op::Next, Op::Prev, Op::Seek(vec![], 0), Op::SeekForPrev(vec![], 0)] {
        op.apply(&mut cursor);
        assert!(cursor.entry().is_none() && cursor.error().is_none());
    }
}

#[test]
fn sources_of_disjoint_ranges_follow_one_another() {
    let parts: Vec<Vec<Row>> =
        (0..6_u8).map(|part| (0..40).map(|row| (vec![part * 40 + row], 1)).collect()).collect();
    let mut cursor = MergingCursor::new(parts.iter().rev().map(|rows| Rows::new(rows)).collect());
    cursor.first();
    for expected in parts.concat() {
        assert_eq!(here(&cursor), Some(expected));
        cursor.next();
    }
    assert!(cursor.entry().is_none());
    cursor.prev();
    assert!(cursor.entry().is_none(), "a cursor that ran off stays there");
}

/// A memtable's cursor may meet entries that were not there when it was positioned.
#[test]
fn entries_inserted_behind_a_cursor_do_not_upset_a_change_of_direction() {
    struct Live(std::rc::Rc<std::cell::RefCell<Vec<u8>>>, Option<u8>, [u8; 1]);
    impl Live {
        fn stand(&mut self, at: Option<u8>) {
            self.1 = at;
            self.2 = [at.unwrap_or_default()];
        }
        fn find(&self, wanted: impl Fn(u8) -> bool, last: bool) -> Option<u8> {
            let keys = self.0.borrow();
            let found = keys.iter().copied().filter(|key| wanted(*key));
            if last { found.max() } else { found.min() }
        }
    }
    impl Cursor for Live {
        fn first(&mut self) {
            self.stand(self.find(|_| true, false));
        }
        fn last(&mut self) {
            self.stand(self.find(|_| true, true));
        }
        fn seek(&mut self, key: &[u8], _: SequenceNumber) {
            self.stand(self.find(|other| [other].as_slice() >= key, false));
        }
        fn seek_for_prev(&mut self, key: &[u8], _: SequenceNumber) {
            self.stand(self.find(|other| [other].as_slice() <= key, true));
        }
        fn next(&mut self) {
            self.stand(self.1.and_then(|at| self.find(|key| key > at, false)));
        }
        fn prev(&mut self) {
            self.stand(self.1.and_then(|at| self.find(|key| key < at, true)));
        }
        fn entry(&self) -> Option<Entry<'_>> {
            self.1.map(|_| Entry { key: &self.2, sequence: 1, kind: ValueKind::Put, value: b"" })
        }
        fn error(&self) -> Option<&Error> {
            None
        }
    }
    let [left, right] =
        [[10, 20, 30], [11, 25, 31]].map(|keys| std::rc::Rc::new(std::cell::RefCell::new(keys.to_vec())));
    let mut cursor = MergingCursor::new(vec![Live(left.clone(), None, [0]), Live(right.clone(), None, [0])]);
    cursor.seek(b"\x14", 0); // 20; the right source stands at 25
    right.borrow_mut().extend([21, 22, 23]);
    cursor.prev();
    assert_eq!(here(&cursor).unwrap().0, [11]);
    left.borrow_mut().extend([5, 7, 9, 15]); // the left source stands at 10
    cursor.prev();
    cursor.next();
    assert_eq!(here(&cursor).unwrap().0, [11]);
    cursor.last();
    right.borrow_mut().extend([32, 33]);
    left.borrow_mut().extend([34, 35]);
    cursor.next();
    assert_eq!(here(&cursor).unwrap().0, [32]);
    cursor.prev();
    assert_eq!(here(&cursor).unwrap().0, [31]);
}
