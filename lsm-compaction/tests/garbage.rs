//! Whoever may read sees the same before a merge and after it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lsm_compaction::{
    CompactionStream, GarbageCounts, GarbageRules, OlderTables, OlderVersions, RunShape, TableShape,
};
use lsm_core::key::compare;
use lsm_core::range_tombstone::{FragmentedRangeTombstones, RangeTombstone};
use lsm_core::{Cursor, Entry, Error, SequenceNumber, ValueKind};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    key: Vec<u8>,
    sequence: SequenceNumber,
    kind: ValueKind,
    value: Vec<u8>,
}

impl Version {
    fn new(key: &str, sequence: SequenceNumber, kind: ValueKind) -> Self {
        Self { key: key.into(), sequence, kind, value: sequence.to_string().into_bytes() }
    }
}

/// A cursor over versions; reaching index `fails_at` fails.
struct Versions {
    sorted: Vec<Version>,
    at: Option<usize>,
    fails_at: usize,
    error: Option<Error>,
}

impl Versions {
    fn new(mut versions: Vec<Version>) -> Self {
        versions.sort_by(|a, b| compare(&a.key, a.sequence, &b.key, b.sequence));
        Self { sorted: versions, at: None, fails_at: usize::MAX, error: None }
    }

    fn land(&mut self, index: usize) {
        self.error = (index == self.fails_at).then(|| Error::invalid("cannot read"));
        self.at = (index < self.sorted.len() && self.error.is_none()).then_some(index);
    }
}

impl Cursor for Versions {
    fn first(&mut self) {
        self.land(0);
    }
    fn last(&mut self) {
        self.land(self.sorted.len().saturating_sub(1));
    }
    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.land(self.sorted.partition_point(|v| compare(&v.key, v.sequence, key, sequence).is_lt()));
    }
    fn seek_for_prev(&mut self, _: &[u8], _: SequenceNumber) {
        unreachable!("a merge runs forward");
    }
    fn next(&mut self) {
        if let Some(at) = self.at {
            self.land(at + 1);
        }
    }
    fn prev(&mut self) {
        unreachable!("a merge runs forward");
    }
    fn entry(&self) -> Option<Entry<'_>> {
        let Version { key, sequence, kind, value } = self.sorted.get(self.at?)?;
        Some(Entry { key, sequence: *sequence, kind: *kind, value })
    }
    fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

fn drain<O: OlderVersions>(stream: &mut CompactionStream<Versions, O>) -> Vec<Version> {
    let mut kept = Vec::new();
    while let Some(Entry { key, sequence, kind, value }) = stream.next().expect("no failure was asked for") {
        kept.push(Version { key: key.to_vec(), sequence, kind, value: value.to_vec() });
    }
    kept
}

fn merge(versions: Vec<Version>, rules: GarbageRules) -> (Vec<(Vec<u8>, SequenceNumber)>, GarbageCounts) {
    let mut stream =
        CompactionStream::new(Versions::new(versions), Arc::new(FragmentedRangeTombstones::empty()), rules);
    let kept = drain(&mut stream).into_iter().map(|v| (v.key, v.sequence)).collect();
    (kept, *stream.counts())
}

/// Operands, newest first, and the value that they apply to.
type Answer = (Vec<Vec<u8>>, Option<(ValueKind, Vec<u8>)>);

/// What a reader at `visible` gets.
fn read(versions: &[Version], tombstones: &[RangeTombstone], key: &[u8], visible: SequenceNumber) -> Answer {
    let covered = tombstones
        .iter()
        .filter(|t| &*t.start <= key && key < &*t.end && t.sequence <= visible)
        .map(|t| t.sequence)
        .max()
        .unwrap_or(0);
    let mut mine: Vec<&Version> = versions.iter().filter(|v| v.key == key && v.sequence <= visible).collect();
    mine.sort_by_key(|version| std::cmp::Reverse(version.sequence));
    let mut operands = Vec::new();
    for version in mine {
        if version.sequence < covered || version.kind.is_tombstone() {
            break;
        }
        if version.kind != ValueKind::Merge {
            return (operands, Some((version.kind, version.value.clone())));
        }
        operands.push(version.value.clone());
    }
    (operands, None)
}

fn kind() -> impl Strategy<Value = ValueKind> {
    prop_oneof![
        4 => Just(ValueKind::Put),
        3 => Just(ValueKind::Delete),
        1 => Just(ValueKind::SingleDelete),
        2 => Just(ValueKind::Merge),
        1 => Just(ValueKind::BlobPointer),
        1 => Just(ValueKind::PutWithExpiry),
    ]
}

const KEYS: [&str; 6] = ["", "a", "aa", "b", "c", "d"];
const BOUNDS: [&str; 6] = ["", "a", "ab", "b", "c", "z"];
/// Sequence numbers below this lie under the merge.
const INPUTS_FROM: SequenceNumber = 10;
const SEQUENCES: std::ops::Range<SequenceNumber> = 1..40;

#[derive(Clone, Debug)]
enum Write {
    Point(&'static str, ValueKind),
    Range(&'static str, &'static str),
}

/// At most one write for each sequence number.
fn history() -> impl Strategy<Value = BTreeMap<SequenceNumber, Write>> {
    let write = prop_oneof![
        5 => (prop::sample::select(&KEYS[..]), kind()).prop_map(|(key, kind)| Write::Point(key, kind)),
        1 => (prop::sample::select(&BOUNDS[..]), prop::sample::select(&BOUNDS[..]))
            .prop_map(|(a, b)| Write::Range(a.min(b), a.max(b))),
    ];
    prop::collection::btree_map(SEQUENCES, write, 0..35)
}

fn split(
    history: &BTreeMap<SequenceNumber, Write>,
    range: std::ops::Range<SequenceNumber>,
) -> (Vec<Version>, Vec<RangeTombstone>) {
    let (mut versions, mut tombstones) = (Vec::new(), Vec::new());
    for (sequence, write) in history.range(range) {
        match write {
            Write::Point(key, kind) => versions.push(Version::new(key, *sequence, *kind)),
            Write::Range(start, end) => {
                let (start, end) = ((*start).into(), (*end).into());
                tombstones.push(RangeTombstone { start, end, sequence: *sequence });
            }
        }
    }
    (versions, tombstones)
}

/// One table for each thing below the merge, each a run of its own.
fn tables(versions: &[Version], tombstones: &[RangeTombstone]) -> OlderTables {
    let points = versions.iter().map(|v| (&v.key[..], &v.key[..]));
    let ranges = tombstones.iter().map(|t| (&*t.start, &*t.end));
    OlderTables::new(points.chain(ranges).map(|(smallest, largest)| RunShape {
        tables: vec![Arc::new(TableShape {
            smallest: smallest.into(),
            largest: largest.into(),
            ..TableShape::default()
        })],
    }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_reader_sees_the_same_before_and_after(
        history in history(),
        snapshots in prop::collection::btree_set(0..40_u64, 0..4),
        bottommost in any::<bool>(),
        zero_sequences in any::<bool>(),
        ask_tables in any::<bool>(),
        parts in prop::collection::btree_set(prop::sample::select(&BOUNDS[1..]), 0..3),
    ) {
        let (inputs, input_tombstones) = split(&history, INPUTS_FROM..SEQUENCES.end);
        let (below, below_tombstones) = if bottommost {
            (Vec::new(), Vec::new())
        } else {
            split(&history, SEQUENCES.start..INPUTS_FROM)
        };
        let snapshots: Vec<_> = snapshots.into_iter().collect();
        let rules = GarbageRules { snapshots: snapshots.clone(), bottommost, zero_sequences };
        let fragments = Arc::new(FragmentedRangeTombstones::new(input_tombstones.clone()));

        // The merge, in as many parts as there are bounds.
        let (mut kept, mut surviving) = (Vec::new(), Vec::new());
        let bounds: Vec<Option<&[u8]>> =
            [None].into_iter().chain(parts.iter().map(|bound| Some(bound.as_bytes()))).chain([None]).collect();
        let mut entries_in = 0;
        for part in bounds.windows(2) {
            let cursor = Versions::new(inputs.clone());
            let (lower, upper) = (part[0], part[1]);
            let mut add = |kept_here: Vec<Version>, counts: GarbageCounts, survivors: Arc<FragmentedRangeTombstones>| {
                assert_eq!(counts.entries_out, kept_here.len() as u64);
                let dropped = counts.shadowed + counts.range_deleted + counts.tombstones_dropped;
                assert_eq!(counts.entries_in, counts.entries_out + dropped);
                entries_in += counts.entries_in;
                kept.extend(kept_here);
                surviving.extend(survivors.tombstones());
            };
            if ask_tables && !bottommost {
                let older = tables(&below, &below_tombstones);
                let mut stream = CompactionStream::with_older(cursor, fragments.clone(), rules.clone(), older, lower, upper);
                add(drain(&mut stream), *stream.counts(), stream.surviving_range_tombstones());
            } else {
                let mut stream = CompactionStream::with_older(cursor, fragments.clone(), rules.clone(), (), lower, upper);
                add(drain(&mut stream), *stream.counts(), stream.surviving_range_tombstones());
            }
        }
        prop_assert_eq!(entries_in, inputs.len() as u64);
        for pair in kept.windows(2) {
            prop_assert!(compare(&pair[0].key, pair[0].sequence, &pair[1].key, pair[1].sequence).is_lt());
        }

        let before = ([inputs.clone(), below.clone()].concat(), [input_tombstones, below_tombstones.clone()].concat());
        let after = ([kept.clone(), below].concat(), [surviving, below_tombstones].concat());
        // Snapshots, and all numbers that later readers may get.
        let from = snapshots.last().copied().unwrap_or(SEQUENCES.end);
        for visible in snapshots.iter().copied().chain(from..=SEQUENCES.end) {
            for key in KEYS {
                // A number below the inputs sees zeroed versions only if they were there.
                let key = key.as_bytes();
                prop_assert_eq!(
                    read(&before.0, &before.1, key, visible),
                    read(&after.0, &after.1, key, visible),
                    "key {:?} at {}: kept {:?}", key, visible, kept
                );
            }
        }

        // Nothing is kept without a reason: a key has at most one put or delete for each stripe.
        if let Some(last) = snapshots.last().copied() {
            for key in KEYS {
                let mut stripes: Vec<usize> = kept.iter()
                    .filter(|v| v.key == key.as_bytes() && v.sequence <= last && v.kind != ValueKind::Merge)
                    .map(|v| snapshots.partition_point(|snapshot| *snapshot < v.sequence))
                    .collect();
                let all = stripes.len();
                stripes.dedup();
                prop_assert_eq!(all, stripes.len());
            }
        }
    }
}

use ValueKind::{BlobPointer, Delete, Merge, Put, SingleDelete};

fn keys(expected: &[(&str, SequenceNumber)]) -> Vec<(Vec<u8>, SequenceNumber)> {
    expected.iter().map(|(key, sequence)| (key.as_bytes().to_vec(), *sequence)).collect()
}

#[test]
fn without_snapshots_the_newest_version_of_each_key_stays() {
    let versions =
        || vec![Version::new("a", 5, Put), Version::new("a", 3, Put), Version::new("b", 4, Delete)];
    let rules = |bottommost| GarbageRules { snapshots: vec![9], bottommost, zero_sequences: true };
    let (kept, counts) = merge(versions(), rules(false));
    assert_eq!(kept, keys(&[("a", 5), ("b", 4)]));
    assert_eq!((counts.shadowed, counts.tombstones_dropped, counts.sequences_zeroed), (1, 0, 0));

    let (kept, counts) = merge(versions(), rules(true));
    assert_eq!(kept, keys(&[("a", 0)]));
    assert_eq!((counts.shadowed, counts.tombstones_dropped, counts.sequences_zeroed), (1, 1, 1));
    assert_eq!((counts.entries_in, counts.entries_out, counts.bytes_in, counts.bytes_out), (3, 1, 6, 2));
}

#[test]
fn versions_above_the_visible_number_all_stay() {
    let versions =
        vec![Version::new("a", 12, Delete), Version::new("a", 11, Put), Version::new("a", 10, Put)];
    let (kept, _) =
        merge(versions, GarbageRules { snapshots: vec![10], bottommost: true, zero_sequences: false });
    assert_eq!(kept, keys(&[("a", 12), ("a", 11), ("a", 10)]));
}

#[test]
fn merge_operands_stay_down_to_their_base_and_no_further() {
    let versions = [(9, Merge), (8, Merge), (7, Put), (6, Merge), (5, Put)];
    let versions = versions.map(|(sequence, kind)| Version::new("a", sequence, kind)).to_vec();
    let (kept, _) = merge(versions, GarbageRules { bottommost: true, ..GarbageRules::default() });
    assert_eq!(kept, keys(&[("a", 9), ("a", 8), ("a", 7)]));
}

#[test]
fn a_single_delete_does_not_uncover_what_an_earlier_merge_had_replaced() {
    // Below lies an older put; the tombstone between was replaced by the put at 3 when the memtable was flushed.
    let versions = vec![Version::new("a", 4, SingleDelete), Version::new("a", 3, Put)];
    let (kept, _) = merge(versions, GarbageRules::default());
    assert_eq!(kept, keys(&[("a", 4)]));
}

#[test]
fn range_tombstones_go_when_they_have_nothing_left_to_hide() {
    let tombstones = || {
        Arc::new(FragmentedRangeTombstones::new([
            RangeTombstone { start: "a".into(), end: "c".into(), sequence: 5 },
            RangeTombstone { start: "b".into(), end: "d".into(), sequence: 8 },
            RangeTombstone { start: "x".into(), end: "z".into(), sequence: 6 },
        ]))
    };
    let survivors = |rules: GarbageRules| {
        CompactionStream::new(Versions::new(vec![]), tombstones(), rules).surviving_range_tombstones()
    };
    assert!(survivors(GarbageRules { bottommost: true, ..GarbageRules::default() }).is_empty());
    let kept = survivors(GarbageRules { bottommost: true, snapshots: vec![5, 9], ..GarbageRules::default() });
    let kept: Vec<_> = kept.tombstones().map(|t| (t.start, t.end, t.sequence)).collect();
    assert_eq!(kept, [("b".into(), "d".into(), 8), ("x".into(), "z".into(), 6)]);

    // Older data below x to y only.
    let older = OlderTables::new([RunShape {
        tables: vec![Arc::new(TableShape {
            smallest: "x".into(),
            largest: "y".into(),
            ..TableShape::default()
        })],
    }]);
    let rules = GarbageRules { snapshots: vec![9], ..GarbageRules::default() };
    let stream = CompactionStream::with_older(Versions::new(vec![]), tombstones(), rules, older, None, None);
    let kept: Vec<_> = stream.surviving_range_tombstones().tombstones().map(|t| t.sequence).collect();
    assert_eq!(kept, [6]);
}

/// The range overlaps older data, the key itself does not.
struct Elsewhere;
impl OlderVersions for Elsewhere {
    fn may_hold(&mut self, _: &[u8]) -> bool {
        false
    }
    fn may_overlap(&mut self, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

#[test]
fn a_put_keeps_its_sequence_number_above_a_range_tombstone_that_survives() {
    let tombstones =
        FragmentedRangeTombstones::new([RangeTombstone { start: "a".into(), end: "m".into(), sequence: 5 }]);
    let rules = GarbageRules { snapshots: vec![9], bottommost: false, zero_sequences: true };
    let versions = Versions::new(vec![Version::new("b", 7, Put), Version::new("x", 7, Put)]);
    let mut stream =
        CompactionStream::with_older(versions, Arc::new(tombstones), rules, Elsewhere, None, None);
    let kept: Vec<_> = drain(&mut stream).into_iter().map(|v| (v.key, v.sequence)).collect();
    assert_eq!(kept, keys(&[("b", 7), ("x", 0)]));
}

#[test]
fn dropped_blob_pointers_are_reported_once_each() {
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&dropped);
    let versions = [(9, BlobPointer), (8, BlobPointer), (7, Put), (6, BlobPointer)];
    let versions = versions.map(|(sequence, kind)| Version::new("a", sequence, kind)).to_vec();
    let mut stream = CompactionStream::new(Versions::new(versions), Arc::default(), GarbageRules::default())
        .on_dropped_blob_pointer(move |entry| sink.lock().unwrap().push(entry.value.to_vec()));
    assert_eq!(drain(&mut stream).len(), 1);
    assert_eq!(*dropped.lock().unwrap(), [b"8", b"6"]);
    assert_eq!(stream.counts().blob_pointers_dropped, 2);
}

#[test]
fn a_failing_input_fails_the_merge_for_good() {
    for fails_at in 0..4 {
        let versions =
            [(9, Put), (8, Put), (7, Put)].map(|(sequence, kind)| Version::new("a", sequence, kind));
        let mut versions = Versions::new(versions.to_vec());
        versions.fails_at = fails_at;
        let mut stream = CompactionStream::new(versions, Arc::default(), GarbageRules::default());
        if fails_at > 0 {
            assert!(stream.next().is_ok_and(|entry| entry.is_some()));
        }
        assert!(stream.next().is_err());
        assert!(stream.next().is_err());
    }
}

#[test]
fn older_tables_are_found_along_ascending_keys_and_from_anywhere() {
    let run = |tables: &[(&str, &str)]| RunShape {
        tables: tables
            .iter()
            .map(|(smallest, largest)| {
                let (smallest, largest) = ((*smallest).into(), (*largest).into());
                Arc::new(TableShape { smallest, largest, ..TableShape::default() })
            })
            .collect(),
    };
    let runs = [run(&[("b", "c"), ("e", "e"), ("g", "k"), ("m", "n")]), run(&[]), run(&[("i", "l")])];
    let probes = ["a", "b", "bb", "c", "cc", "e", "f", "h", "k", "kk", "l", "ll", "m", "o"];
    for from in 0..probes.len() {
        let mut older = OlderTables::new(runs.clone());
        for key in &probes[from..] {
            let expected = runs
                .iter()
                .flat_map(|run| &run.tables)
                .any(|table| *table.smallest <= *key.as_bytes() && *key.as_bytes() <= *table.largest);
            assert_eq!(older.may_hold(key.as_bytes()), expected, "{key}");
        }
    }
    let mut older = OlderTables::new(runs);
    assert!(!older.may_overlap(b"a", b"b"), "the end is exclusive");
    assert!(older.may_overlap(b"c", b"d"), "largest keys are inclusive");
    assert!(!older.may_overlap(b"cc", b"e"));
    assert!(older.may_overlap(b"a", b"z"));
}
