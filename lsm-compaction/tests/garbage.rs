//! Whoever may read sees the same before a merge and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use lsm_compaction::{
    CompactionAt, CompactionFilter, CompactionStream, Decision, GarbageCounts, GarbageRules, LazyValue,
    OlderTables, OlderVersions, RunShape, TableShape,
};
use lsm_core::key::compare;
use lsm_core::merge_operator::{BuiltInMerge, MergeError, MergeOperator};
use lsm_core::range_tombstone::{FragmentedRangeTombstones, RangeTombstone};
use lsm_core::{Block, BlockCursor, Cursor, Entry, Error, MergingCursor, SequenceNumber, ValueKind, expiry};
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
        let mut value = sequence.to_string().into_bytes();
        if kind == ValueKind::PutWithExpiry {
            // Some expire before, some after the last reader.
            value.splice(0..0, expiry::prefix(sequence * 7 % 50));
        }
        Self { key: key.into(), sequence, kind, value }
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

/// What a reader at `visible` gets at the time `now`.
fn read(
    versions: &[Version],
    tombstones: &[RangeTombstone],
    key: &[u8],
    visible: SequenceNumber,
    now: u64,
) -> Answer {
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
        let expired = version.kind == ValueKind::PutWithExpiry
            && expiry::split(&version.value).is_some_and(|(expiry, _)| expiry <= now);
        if version.sequence < covered || version.kind.is_tombstone() || expired {
            break;
        }
        if version.kind != ValueKind::Merge {
            return (operands, Some((version.kind, version.value.clone())));
        }
        operands.push(version.value.clone());
    }
    (operands, None)
}

/// Makes lists of operands. One that holds a 3 does not fit; one that ends with 5 deletes what came before, and itself.
#[derive(Clone, Copy, Debug)]
struct Lists {
    has_partial: bool,
}

impl MergeOperator for Lists {
    fn name(&self) -> &'static str {
        "lists"
    }

    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Option<Vec<u8>>, MergeError> {
        if operands.iter().any(|operand| operand.contains(&b'3')) {
            return Err(MergeError::new("a 3"));
        }
        let mut list = base.map(<[u8]>::to_vec);
        for operand in operands {
            list = match list {
                _ if operand.ends_with(b"5") => None,
                None => Some(operand.to_vec()),
                Some(list) => Some([&list[..], operand].join(&b',')),
            };
        }
        Ok(list)
    }

    fn partial(&self, _: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        let has_one = operands.iter().all(|operand| !operand.contains(&b'3') && !operand.ends_with(b"5"));
        (self.has_partial && has_one).then(|| operands.join(&b','))
    }
}

/// What a user sees of an answer. The value of a base that no merge can read stands for itself.
fn seen(operator: Lists, (operands, base): Answer) -> Result<Option<Vec<u8>>, MergeError> {
    let base = base.map(|(_, value)| value);
    if operands.is_empty() {
        return Ok(base);
    }
    let oldest_first: Vec<&[u8]> = operands.iter().rev().map(Vec::as_slice).collect();
    operator.full(b"", base.as_deref(), &oldest_first)
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
    OlderTables::new(points.chain(ranges).map(|(smallest, largest)| {
        RunShape::new(vec![Arc::new(TableShape {
            smallest: smallest.into(),
            largest: largest.into(),
            ..TableShape::default()
        })])
    }))
}

/// Tables that know their keys, if they are asked precisely.
struct Precise {
    tables: OlderTables,
    keys: Option<BTreeSet<Vec<u8>>>,
}

impl OlderVersions for Precise {
    fn may_hold(&mut self, key: &[u8]) -> bool {
        self.tables.may_hold(key)
    }
    fn may_hold_precisely(&mut self, key: &[u8]) -> bool {
        self.keys.as_ref().map_or_else(|| self.tables.may_hold(key), |keys| keys.contains(key))
    }
    fn may_overlap(&mut self, start: &[u8], end: &[u8]) -> bool {
        self.tables.may_overlap(start, end)
    }
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
        operator in prop::option::of(any::<bool>().prop_map(|has_partial| Lists { has_partial })),
        times in prop::collection::vec(0..60_u64, 41),
        is_precise in any::<bool>(),
    ) {
        let (inputs, input_tombstones) = split(&history, INPUTS_FROM..SEQUENCES.end);
        let (below, below_tombstones) = if bottommost {
            (Vec::new(), Vec::new())
        } else {
            split(&history, SEQUENCES.start..INPUTS_FROM)
        };
        let snapshots: Vec<_> = snapshots.into_iter().collect();
        // The times of readers ascend with their numbers.
        let mut times = times;
        times.sort_unstable();
        let time = |number: SequenceNumber| times[number as usize];
        let times_micros = match snapshots.len() {
            0 => vec![time(SEQUENCES.end)],
            _ => snapshots.iter().map(|number| time(*number)).collect(),
        };
        let rules = GarbageRules {
            snapshots: snapshots.clone(),
            times_micros,
            bottommost,
            zero_sequences,
            ..GarbageRules::default()
        };
        let fragments = Arc::new(FragmentedRangeTombstones::new(input_tombstones.clone()));

        let merge_operator = || operator.map(|operator| Arc::new(operator) as Arc<dyn MergeOperator>);

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
                let dropped = counts.shadowed
                    + counts.range_deleted
                    + counts.tombstones_dropped
                    + counts.expired_dropped
                    + counts.operands_folded;
                assert_eq!(counts.entries_in, counts.entries_out + dropped);
                entries_in += counts.entries_in;
                kept.extend(kept_here);
                surviving.extend(survivors.tombstones());
            };
            if ask_tables && !bottommost {
                let tables = tables(&below, &below_tombstones);
                let keys = is_precise.then(|| below.iter().map(|v| v.key.clone()).collect());
                let older = Precise { tables, keys };
                let mut stream = CompactionStream::with_older(cursor, fragments.clone(), rules.clone(), older, lower, upper)
                    .with_merge_operator(merge_operator());
                add(drain(&mut stream), *stream.counts(), stream.surviving_range_tombstones());
            } else {
                let mut stream = CompactionStream::with_older(cursor, fragments.clone(), rules.clone(), (), lower, upper)
                    .with_merge_operator(merge_operator());
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
                let now = time(visible);
                let (was, is) =
                    (read(&before.0, &before.1, key, visible, now), read(&after.0, &after.1, key, visible, now));
                match operator {
                    None => prop_assert_eq!(was, is, "key {:?} at {}: kept {:?}", key, visible, kept),
                    Some(operator) => {
                        prop_assert_eq!(
                            was.1.as_ref().filter(|base| base.0 != ValueKind::Put),
                            is.1.as_ref().filter(|base| base.0 != ValueKind::Put),
                            "key {:?} at {}: kept {:?}", key, visible, kept
                        );
                        prop_assert_eq!(
                            seen(operator, was), seen(operator, is), "key {:?} at {}: kept {:?}", key, visible, kept
                        );
                    }
                }
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
            // Operands that fit stand alone in their stripe, or above a base that no merge can read.
            let is_whole = |v: &Version| v.kind != ValueKind::Merge || v.value.contains(&b'3') || v.value.ends_with(b"5");
            for pair in kept.windows(2).filter(|_| operator.is_some_and(|operator| operator.has_partial)) {
                let stripe = |v: &Version| snapshots.partition_point(|snapshot| *snapshot < v.sequence);
                let is_together = pair[0].key == pair[1].key && stripe(&pair[0]) == stripe(&pair[1]);
                if is_together && pair[0].sequence <= last && !pair.iter().any(is_whole) {
                    prop_assert!(kept.iter().any(|v| v.key == pair[0].key && is_whole(v)), "{:?}", kept);
                }
            }
        }
    }
}

use ValueKind::{BlobPointer, Delete, Merge, Put, PutWithExpiry, SingleDelete};

fn keys(expected: &[(&str, SequenceNumber)]) -> Vec<(Vec<u8>, SequenceNumber)> {
    expected.iter().map(|(key, sequence)| (key.as_bytes().to_vec(), *sequence)).collect()
}

#[test]
fn without_snapshots_the_newest_version_of_each_key_stays() {
    let versions =
        || vec![Version::new("a", 5, Put), Version::new("a", 3, Put), Version::new("b", 4, Delete)];
    let rules = |bottommost| GarbageRules {
        snapshots: vec![9],
        bottommost,
        zero_sequences: true,
        ..GarbageRules::default()
    };
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
        merge(versions, GarbageRules { snapshots: vec![10], bottommost: true, ..GarbageRules::default() });
    assert_eq!(kept, keys(&[("a", 12), ("a", 11), ("a", 10)]));
}

#[test]
fn merge_operands_stay_down_to_their_base_and_no_further() {
    let versions = [(9, Merge), (8, Merge), (7, Put), (6, Merge), (5, Put)];
    let versions = versions.map(|(sequence, kind)| Version::new("a", sequence, kind)).to_vec();
    let (kept, _) = merge(versions, GarbageRules { bottommost: true, ..GarbageRules::default() });
    assert_eq!(kept, keys(&[("a", 9), ("a", 8), ("a", 7)]));
}

/// Sequence number, kind and value of what is kept.
type Kept<'k> = Vec<(SequenceNumber, ValueKind, &'k str)>;

/// Merges versions of one key with the operator `Lists`.
fn fold(
    versions: &[(SequenceNumber, ValueKind, &str)],
    tombstone: Option<SequenceNumber>,
    rules: GarbageRules,
) -> Vec<Version> {
    let version = |&(sequence, kind, value): &(SequenceNumber, ValueKind, &str)| Version {
        key: b"a".into(),
        sequence,
        kind,
        value: value.into(),
    };
    let tombstone = tombstone.map(|sequence| RangeTombstone { start: "a".into(), end: "b".into(), sequence });
    let versions = Versions::new(versions.iter().map(version).collect());
    let mut stream =
        CompactionStream::new(versions, Arc::new(FragmentedRangeTombstones::new(tombstone)), rules)
            .with_merge_operator(Some(Arc::new(Lists { has_partial: true })));
    drain(&mut stream)
}

fn shown(kept: &[Version]) -> Kept<'_> {
    kept.iter().map(|v| (v.sequence, v.kind, std::str::from_utf8(&v.value).unwrap())).collect()
}

#[test]
fn operands_fold_into_their_base_within_a_stripe_and_never_across() {
    let rules = |snapshots: &[u64], bottommost| GarbageRules {
        snapshots: snapshots.to_vec(),
        bottommost,
        zero_sequences: true,
        ..GarbageRules::default()
    };
    let versions = [(9, Merge, "d"), (8, Merge, "c"), (6, Put, "b"), (4, Merge, "a")];
    assert_eq!(shown(&fold(&versions, None, rules(&[10], false))), [(9, Put, "b,c,d")]);
    assert_eq!(shown(&fold(&versions, None, rules(&[10], true))), [(0, Put, "b,c,d")]);
    // A snapshot between operands and base, or between two operands, keeps both sides.
    assert_eq!(shown(&fold(&versions, None, rules(&[7, 10], true))), [(9, Merge, "c,d"), (0, Put, "b")]);
    assert_eq!(shown(&fold(&versions, None, rules(&[8, 10], true))), [(9, Merge, "d"), (0, Put, "b,c")]);
    // Above the visible number nothing is folded.
    assert_eq!(shown(&fold(&versions, None, rules(&[8], true)))[..2], [(9, Merge, "d"), (0, Put, "b,c")]);
    // Without a base, only the bottom tells that there is none.
    assert_eq!(shown(&fold(&versions[..2], None, rules(&[10], false))), [(9, Merge, "c,d")]);
    assert_eq!(shown(&fold(&versions[..2], None, rules(&[10], true))), [(0, Put, "c,d")]);
    assert_eq!(shown(&fold(&versions[..2], None, rules(&[5, 10], true))), [(9, Put, "c,d")]);
}

#[test]
fn operands_above_a_delete_or_a_range_tombstone_never_see_the_put_below() {
    let rules = |snapshots: &[u64]| GarbageRules { snapshots: snapshots.to_vec(), ..GarbageRules::default() };
    let deleted = [(9, Merge, "b"), (8, Delete, ""), (6, Put, "a")];
    assert_eq!(shown(&fold(&deleted, None, rules(&[10]))), [(9, Put, "b")]);
    // The tombstone stays for its own stripe only; the operand must not meet the put that it hides.
    assert_eq!(shown(&fold(&deleted, None, rules(&[8, 10]))), [(9, Merge, "b"), (8, Delete, "")]);
    let covered = [(9, Merge, "b"), (6, Put, "a")];
    assert_eq!(shown(&fold(&covered, Some(7), rules(&[10]))), [(9, Put, "b")]);
    assert_eq!(shown(&fold(&covered, Some(7), rules(&[7, 10]))), [(9, Merge, "b")]);
    assert_eq!(shown(&fold(&covered, Some(5), rules(&[10]))), [(9, Put, "a,b")]);
    // An operand that is covered itself is gone, and one above it has nothing below.
    let operands = [(9, Merge, "c"), (6, Merge, "b"), (4, Put, "a")];
    assert_eq!(shown(&fold(&operands, Some(7), rules(&[10]))), [(9, Put, "c")]);
}

#[test]
fn a_merge_that_deletes_leaves_a_tombstone_only_where_it_hides_something() {
    let versions = [(9, Merge, "5"), (8, Put, "a")];
    let bottom = GarbageRules { bottommost: true, ..GarbageRules::default() };
    assert_eq!(shown(&fold(&versions, None, GarbageRules::default())), [(9, Delete, "")]);
    assert_eq!(shown(&fold(&versions, None, bottom.clone())), []);
    let snapshots = GarbageRules { snapshots: vec![7, 10], ..bottom };
    let older = [(9, Merge, "5"), (8, Put, "a"), (3, Put, "old")];
    assert_eq!(shown(&fold(&older, None, snapshots)), [(9, Delete, ""), (3, Put, "old")]);
}

#[test]
fn refused_operands_stay_as_they_are_with_their_base_and_are_reported_once() {
    let versions = [(9, Merge, "c"), (8, Merge, "3"), (7, Put, "b"), (2, Put, "a")];
    let rules = GarbageRules { bottommost: true, ..GarbageRules::default() };
    assert_eq!(shown(&fold(&versions, None, rules.clone())), versions[..3]);
    let entries = ["x", "y", "z"].map(|key| Version { value: b"3".into(), ..Version::new(key, 4, Merge) });
    let mut stream = CompactionStream::new(Versions::new(entries.to_vec()), Arc::default(), rules)
        .with_merge_operator(Some(Arc::new(Lists { has_partial: true })));
    assert_eq!(drain(&mut stream), entries);
    let failure = stream.merge_failure().expect("the operator refused");
    assert_eq!((&failure.key[..], failure.count), (&b"x"[..], 3));
    assert_eq!(failure.error.to_string(), "a 3");
}

#[test]
fn a_base_that_no_merge_can_read_stays_below_one_operand() {
    for kind in [PutWithExpiry, BlobPointer] {
        let versions = [(9, Merge, "c"), (8, Merge, "b"), (7, kind, "a"), (6, Put, "x")];
        let rules = GarbageRules { bottommost: true, ..GarbageRules::default() };
        assert_eq!(shown(&fold(&versions, None, rules)), [(9, Merge, "b,c"), (7, kind, "a")]);
    }
}

#[test]
fn a_million_operands_of_a_key_fold_in_bounded_memory_or_stay_whole() {
    let operands = |value: &str| {
        let operand = |sequence| Version { value: value.into(), ..Version::new("a", sequence, Merge) };
        Versions::new((1..=1_000_000).map(operand).collect())
    };
    let one = std::str::from_utf8(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    for (operator, left) in [
        (Arc::new(BuiltInMerge::add_u64()) as Arc<dyn MergeOperator>, 1),
        (Arc::new(Lists { has_partial: false }) as Arc<dyn MergeOperator>, 1_000_000),
    ] {
        let mut stream = CompactionStream::new(operands(one), Arc::default(), GarbageRules::default())
            .with_merge_operator(Some(operator));
        let (mut count, mut last, mut value, mut memory_bytes_max) = (0, SequenceNumber::MAX, Vec::new(), 0);
        while let Some(entry) = stream.next().unwrap() {
            assert!(entry.kind == Merge && entry.sequence < last);
            (count, last, value) = (count + 1, entry.sequence, entry.value.to_vec());
            memory_bytes_max = memory_bytes_max.max(stream.memory_bytes());
        }
        assert_eq!(count, left);
        assert!(memory_bytes_max < 1 << 20, "{memory_bytes_max}");
        assert_eq!(stream.counts().operands_folded, 1_000_000 - left);
        assert_eq!(
            value,
            if left == 1 { 1_000_000_u64.to_le_bytes().to_vec() } else { one.as_bytes().to_vec() }
        );
    }
}

#[test]
fn a_single_delete_does_not_uncover_what_an_earlier_merge_had_replaced() {
    // Below lies an older put; the tombstone between was replaced by the put at 3 when the memtable was flushed.
    let versions = vec![Version::new("a", 4, SingleDelete), Version::new("a", 3, Put)];
    let (kept, _) = merge(versions, GarbageRules::default());
    assert_eq!(kept, keys(&[("a", 4)]));
}

/// Nothing is known about older versions, except precisely.
struct NothingOlder;

impl OlderVersions for NothingOlder {
    fn may_hold(&mut self, _: &[u8]) -> bool {
        true
    }
    fn may_hold_precisely(&mut self, _: &[u8]) -> bool {
        false
    }
    fn may_overlap(&mut self, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

#[test]
fn a_single_delete_and_its_put_go_together_on_any_level() {
    let kept = |versions: &[(&str, SequenceNumber, ValueKind)], snapshots: &[SequenceNumber]| {
        let versions = versions.iter().map(|(key, sequence, kind)| Version::new(key, *sequence, *kind));
        let rules = GarbageRules { snapshots: snapshots.to_vec(), ..GarbageRules::default() };
        let tombstones = Arc::new(FragmentedRangeTombstones::empty());
        let mut stream = CompactionStream::with_older(
            Versions::new(versions.collect()),
            tombstones,
            rules,
            NothingOlder,
            None,
            None,
        );
        drain(&mut stream).into_iter().map(|v| (v.key, v.sequence)).collect::<Vec<_>>()
    };
    let pair = [("a", 8, SingleDelete), ("a", 6, Put), ("b", 3, Put)];
    assert_eq!(kept(&pair, &[9]), keys(&[("b", 3)]));
    assert_eq!(kept(&pair[..2], &[9]), keys(&[]));
    // A snapshot from before either of them changes nothing; one between them needs both.
    assert_eq!(kept(&pair, &[2, 9]), keys(&[("b", 3)]));
    assert_eq!(kept(&pair, &[7, 9]), keys(&[("a", 8), ("a", 6), ("b", 3)]));
    // An older version for an older snapshot would come back.
    let deeper = [("a", 8, SingleDelete), ("a", 6, Put), ("a", 1, Put)];
    assert_eq!(kept(&deeper, &[2, 9]), keys(&[("a", 8), ("a", 1)]));
    // A plain delete is not looked into.
    assert_eq!(kept(&[("a", 8, Delete), ("a", 6, Put)], &[9]), keys(&[("a", 8)]));
}

#[test]
fn a_put_that_has_expired_for_all_readers_becomes_a_tombstone_and_then_nothing() {
    let put = |sequence, expiry| {
        let mut version = Version::new("a", sequence, PutWithExpiry);
        version.value = [&expiry::prefix(expiry)[..], b"value"].concat();
        version
    };
    let stream = |versions, snapshots: &[SequenceNumber], times: &[u64], bottommost| {
        let (snapshots, times_micros) = (snapshots.to_vec(), times.to_vec());
        let rules = GarbageRules { snapshots, times_micros, bottommost, ..GarbageRules::default() };
        let tombstones = Arc::new(FragmentedRangeTombstones::empty());
        let mut stream = CompactionStream::new(Versions::new(versions), tombstones, rules);
        let kept: Vec<_> = drain(&mut stream).into_iter().map(|v| (v.sequence, v.kind, v.value)).collect();
        (kept, *stream.counts())
    };
    let alive = |sequence, expiry| (sequence, PutWithExpiry, put(sequence, expiry).value);
    let tombstone = |sequence| (sequence, Delete, Vec::new());
    let (kept, _) = stream(vec![put(5, 100)], &[9], &[99], true);
    assert_eq!(kept, [alive(5, 100)]);
    let (kept, counts) = stream(vec![put(5, 100), Version::new("a", 4, Put)], &[9], &[100], false);
    assert_eq!((kept, counts.expired_to_tombstones), (vec![tombstone(5)], 1), "it hides what is below");
    let (kept, counts) = stream(vec![put(5, 100), Version::new("a", 4, Put)], &[9], &[100], true);
    assert_eq!((kept.len(), counts.expired_dropped), (0, 1));
    // A snapshot at 6 was taken before the time.
    let (kept, _) = stream(vec![put(8, 100), put(5, 100)], &[6, 9], &[99, 100], true);
    assert_eq!(kept, [tombstone(8), alive(5, 100)]);
    // Without a time nothing expires, and some values never do.
    let (kept, _) = stream(vec![put(5, 100)], &[9], &[], true);
    assert_eq!(kept, [alive(5, 100)]);
    let (kept, _) = stream(vec![put(5, expiry::NEVER)], &[9], &[u64::MAX], true);
    assert_eq!(kept, [alive(5, expiry::NEVER)]);
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
    let older = OlderTables::new([RunShape::new(vec![Arc::new(TableShape {
        smallest: "x".into(),
        largest: "y".into(),
        ..TableShape::default()
    })])]);
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
    let rules = GarbageRules { snapshots: vec![9], zero_sequences: true, ..GarbageRules::default() };
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
    let run = |tables: &[(&str, &str)]| -> RunShape {
        let tables = tables.iter().map(|(smallest, largest)| {
            let (smallest, largest) = ((*smallest).into(), (*largest).into());
            Arc::new(TableShape { smallest, largest, ..TableShape::default() })
        });
        tables.collect()
    };
    let runs = [run(&[("b", "c"), ("e", "e"), ("g", "k"), ("m", "n")]), run(&[]), run(&[("i", "l")])];
    let probes = ["a", "b", "bb", "c", "cc", "e", "f", "h", "k", "kk", "l", "ll", "m", "o"];
    for from in 0..probes.len() {
        let mut older = OlderTables::new(runs.clone());
        for key in &probes[from..] {
            let expected = runs
                .iter()
                .flat_map(RunShape::tables)
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

/// Versions that stand together up to each of some positions.
struct Blocks {
    versions: Versions,
    ends: Vec<usize>,
}

impl Blocks {
    /// The positions of the block that begins here.
    fn here(&self) -> Option<std::ops::Range<usize>> {
        let at = self.versions.at?;
        let begins = at == 0 || self.ends.contains(&at);
        let end = *self.ends.iter().find(|end| **end > at).filter(|_| begins)?;
        let block = self.versions.sorted.get(at..end)?;
        block.iter().all(|v| (v.sequence, v.kind) == (0, ValueKind::Put)).then_some(at..end)
    }
}

impl Cursor for Blocks {
    fn first(&mut self) {
        self.versions.first();
    }
    fn last(&mut self) {
        self.versions.last();
    }
    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.versions.seek(key, sequence);
    }
    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.versions.seek_for_prev(key, sequence);
    }
    fn next(&mut self) {
        self.versions.next();
    }
    fn prev(&mut self) {
        self.versions.prev();
    }
    fn entry(&self) -> Option<Entry<'_>> {
        self.versions.entry()
    }
    fn error(&self) -> Option<&Error> {
        self.versions.error()
    }
}

impl BlockCursor for Blocks {
    fn block(&self) -> Option<Block<'_>> {
        let block = self.here()?;
        Some(Block { last_key: &self.versions.sorted[block.end - 1].key, entries: block.len() as u64 })
    }
    fn skip_block(&mut self) -> u64 {
        let Some(block) = self.here() else { return 0 };
        self.versions.land(block.end);
        self.versions.sorted[block].iter().map(|v| (v.key.len() + v.value.len()) as u64).sum()
    }
}

/// All that is kept, blocks taken whole where `takes` says so; and how many entries came in such.
fn drain_blocks(
    sources: Vec<Blocks>,
    tombstones: Vec<RangeTombstone>,
    rules: GarbageRules,
    (lower, upper): (Option<&[u8]>, Option<&[u8]>),
    operator: Option<Lists>,
    mut takes: impl FnMut() -> bool,
) -> (Vec<Version>, GarbageCounts, usize) {
    let all: Vec<Version> = sources.iter().flat_map(|source| source.versions.sorted.clone()).collect();
    let tombstones = Arc::new(FragmentedRangeTombstones::new(tombstones));
    let cursor = MergingCursor::new(sources);
    let mut stream = CompactionStream::with_older(cursor, tombstones, rules, (), lower, upper)
        .with_merge_operator(operator.map(|operator| Arc::new(operator) as Arc<dyn MergeOperator>));
    let (mut kept, mut in_blocks) = (Vec::new(), 0);
    loop {
        let first = stream.block().map(|block| (block.last_key.to_vec(), block.entries as usize));
        if let Some((last_key, entries)) = first.filter(|_| takes()) {
            let first_key = stream.cursor().entry().expect("a block has entries").key.to_vec();
            let mut block: Vec<_> =
                all.iter().filter(|v| first_key <= v.key && v.key <= last_key).cloned().collect();
            block.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(block.len(), entries);
            kept.extend(block);
            in_blocks += entries;
            stream.pass_block();
            continue;
        }
        let Some(Entry { key, sequence, kind, value }) = stream.next().expect("no failure") else { break };
        kept.push(Version { key: key.to_vec(), sequence, kind, value: value.to_vec() });
    }
    (kept, *stream.counts(), in_blocks)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn blocks_taken_whole_leave_what_their_entries_would(
        newer in prop::collection::btree_map((0..40_u8, 1..60_u64), kind(), 0..12),
        settled in prop::collection::btree_set(0..40_u8, 0..40),
        ends in prop::collection::btree_set(1..40_usize, 0..20),
        snapshots in prop::collection::btree_set(0..60_u64, 0..3),
        range in prop::option::weighted(0.2, (0..40_u8, 0..40_u8)),
        lower in prop::option::weighted(0.3, 0..40_u8),
        upper in prop::option::weighted(0.3, 0..40_u8),
        refusals in any::<u64>(),
        operator in prop::option::of(any::<bool>().prop_map(|has_partial| Lists { has_partial })),
    ) {
        let key = |number: u8| format!("{number:02}");
        let newer: Vec<_> =
            newer.iter().map(|(&(number, sequence), &kind)| Version::new(&key(number), sequence, kind)).collect();
        let settled: Vec<_> = settled.iter().map(|&number| Version::new(&key(number), 0, ValueKind::Put)).collect();
        let ends: Vec<_> = ends.into_iter().filter(|&end| end < settled.len()).chain([settled.len()]).collect();
        let sources = || {
            // Split in two, so that an entry of either may stand before the other's.
            let (one, two) = newer.iter().cloned().partition::<Vec<_>, _>(|v| v.sequence % 2 == 0);
            let loose = |versions| Blocks { versions: Versions::new(versions), ends: Vec::new() };
            vec![loose(one), loose(two), Blocks { versions: Versions::new(settled.clone()), ends: ends.clone() }]
        };
        let tombstones = || {
            let range = range.filter(|(start, end)| start < end);
            let tombstone = |(start, end)| RangeTombstone {
                start: key(start).as_bytes().into(),
                end: key(end).as_bytes().into(),
                sequence: 30,
            };
            range.map(tombstone).into_iter().collect::<Vec<_>>()
        };
        let rules = || GarbageRules {
            snapshots: snapshots.iter().copied().collect(),
            bottommost: true,
            zero_sequences: true,
            ..GarbageRules::default()
        };
        let (lower, upper) = (lower.map(key), upper.map(key));
        let bounds = (lower.as_ref().map(String::as_bytes), upper.as_ref().map(String::as_bytes));
        let (expected, counts, _) = drain_blocks(sources(), tombstones(), rules(), bounds, operator, || false);
        let mut turn = 0;
        let takes = || {
            turn += 1;
            refusals >> (turn % 64) & 1 == 0
        };
        let (kept, counts_of_blocks, in_blocks) =
            drain_blocks(sources(), tombstones(), rules(), bounds, operator, takes);
        prop_assert_eq!(kept, expected);
        prop_assert_eq!(counts_of_blocks, counts);
        if newer.is_empty() && bounds == (None, None) && tombstones().is_empty() && refusals == 0 {
            prop_assert_eq!(in_blocks, settled.len());
        }
    }
}

#[test]
fn blocks_that_nothing_newer_touches_are_taken_whole() {
    let settled: Vec<_> =
        (0..30).map(|number| Version::new(&format!("{number:02}"), 0, ValueKind::Put)).collect();
    let newer = vec![Version::new("07", 9, ValueKind::Put), Version::new("12x", 8, ValueKind::Delete)];
    let sources = vec![
        Blocks { versions: Versions::new(newer), ends: Vec::new() },
        Blocks { versions: Versions::new(settled), ends: vec![5, 10, 15, 20, 25, 30] },
    ];
    let rules = GarbageRules { bottommost: true, ..GarbageRules::default() };
    let (kept, counts, in_blocks) = drain_blocks(sources, Vec::new(), rules, (None, None), None, || true);
    assert_eq!((kept.len(), counts.shadowed, counts.tombstones_dropped), (30, 1, 1));
    // Of six, one holds the key that was written anew, and another would hold the one that was deleted.
    assert_eq!(in_blocks, 20);
}

#[test]
fn a_block_waits_for_operands_that_were_gathered_before_it() {
    let settled: Vec<_> = (0..10).map(|number| Version::new(&format!("{number:02}"), 0, Put)).collect();
    let operands = [33, 32, 31].map(|sequence| Version::new("04x", sequence, Merge)).to_vec();
    let sources = vec![
        Blocks { versions: Versions::new(operands), ends: Vec::new() },
        Blocks { versions: Versions::new(settled), ends: vec![5, 10] },
    ];
    let rules = GarbageRules { bottommost: true, ..GarbageRules::default() };
    let operator = Some(Lists { has_partial: true });
    let (kept, _, in_blocks) = drain_blocks(sources, Vec::new(), rules, (None, None), operator, || true);
    assert_eq!((kept.len(), in_blocks), (13, 10));
    assert!(kept.is_sorted_by(|a, b| compare(&a.key, a.sequence, &b.key, b.sequence).is_lt()));
}

/// Deletes and replaces by the last digit of the sequence number, which is the value.
#[derive(Debug)]
struct ByDigit(Arc<Mutex<Vec<Vec<u8>>>>);

impl CompactionFilter for ByDigit {
    fn decide(&self, _: &[u8], value: LazyValue<'_>, _: CompactionAt) -> Decision {
        self.0.lock().unwrap().push(value.get().to_vec());
        match value.get().last() {
            Some(b'3') => Decision::Delete,
            Some(b'5') => Decision::Replace(b"new".to_vec()),
            _ => Decision::Keep,
        }
    }
}

/// The entries that are kept, the values that the filter was asked about, and the counts.
fn filter(
    versions: &[(&str, SequenceNumber, ValueKind)],
    rules: GarbageRules,
) -> (Vec<Version>, Vec<Vec<u8>>, GarbageCounts) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let versions = versions.iter().map(|(key, sequence, kind)| Version::new(key, *sequence, *kind)).collect();
    let tombstones = Arc::new(FragmentedRangeTombstones::empty());
    let mut stream = CompactionStream::new(Versions::new(versions), tombstones, rules)
        .with_filter(Some(Arc::new(ByDigit(Arc::clone(&asked)))), CompactionAt::new(1, true, 0));
    let kept = drain(&mut stream);
    let asked = asked.lock().unwrap().clone();
    (kept, asked, *stream.counts())
}

#[test]
fn a_filter_is_asked_about_the_newest_puts_that_no_snapshot_sees() {
    let versions = [
        ("a", 13, Put),
        ("a", 12, Put),
        ("b", 14, Delete),
        ("b", 11, Put),
        ("c", 15, Put),
        ("d", 3, Put),
        ("e", 25, Put),
        ("f", 16, Merge),
        ("f", 10, Put),
        ("g", 17, PutWithExpiry),
    ];
    // A snapshot at 4; 20 is the visible number.
    let rules = |bottommost| GarbageRules {
        snapshots: vec![4, 20],
        newest_snapshot: 4,
        bottommost,
        ..GarbageRules::default()
    };
    let (kept, asked, counts) = filter(&versions, rules(false));
    assert_eq!(asked, [b"13", b"15", b"17"], "not what a snapshot sees, or may be seen by a later one");
    let shown: Vec<_> = kept.iter().map(|v| (v.key[0], v.sequence, v.kind)).collect();
    let expected = [
        (b'a', 13, Delete),
        (b'b', 14, Delete),
        (b'c', 15, Put),
        (b'd', 3, Put),
        (b'e', 25, Put),
        (b'f', 16, Merge),
        (b'f', 10, Put),
        (b'g', 17, PutWithExpiry),
    ];
    assert_eq!(shown, expected);
    assert_eq!((&*kept[0].value, &*kept[2].value), (&b""[..], &b"new"[..]));
    assert_eq!((counts.filter_deleted, counts.filter_replaced), (1, 1));
    // Without snapshots and with nothing below, what is deleted is gone.
    let rules = GarbageRules { snapshots: vec![20], bottommost: true, zero_sequences: true, ..rules(true) };
    let (kept, asked, _) = filter(&versions, GarbageRules { newest_snapshot: 0, ..rules });
    assert_eq!(asked, [&b"13"[..], b"15", b"3", b"17"]);
    let shown: Vec<_> = kept.iter().map(|v| (v.key[0], v.sequence, v.kind)).collect();
    let expected =
        [(b'c', 0, Put), (b'e', 25, Put), (b'f', 16, Merge), (b'f', 10, Put), (b'g', 17, PutWithExpiry)];
    assert_eq!(shown[..2], expected[..2]);
    assert_eq!(shown.last(), expected.last());
    assert_eq!(kept[0].value, b"new");
}

#[test]
fn a_filter_is_asked_about_the_value_that_operands_make() {
    let versions = |key: &str, base: SequenceNumber, operand: SequenceNumber| {
        [Version::new(key, operand, Merge), Version::new(key, base, Put)]
    };
    // The values end with the digits 3, 5 and 7.
    let versions = [versions("a", 12, 1003), versions("b", 14, 25), versions("c", 16, 27)].concat();
    let run = |bottommost: bool, newest_snapshot: SequenceNumber| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let filter = ByDigit(Arc::clone(&asked));
        let rules =
            GarbageRules { snapshots: vec![2000], newest_snapshot, bottommost, ..GarbageRules::default() };
        let mut stream = CompactionStream::new(Versions::new(versions.clone()), Arc::default(), rules)
            .with_merge_operator(Some(Arc::new(BuiltInMerge::append("+"))))
            .with_filter(Some(Arc::new(filter)), CompactionAt::new(1, true, 0));
        let kept = drain(&mut stream);
        let counts = stream.counts();
        let dropped =
            counts.shadowed + counts.operands_folded + if bottommost { counts.filter_deleted } else { 0 };
        assert_eq!(counts.entries_in, counts.entries_out + dropped);
        let shown: Vec<_> =
            kept.iter().map(|v| (v.sequence, v.kind, String::from_utf8(v.value.clone()).unwrap())).collect();
        (shown, asked.lock().unwrap().len())
    };
    let entry = |sequence, kind, value: &str| (sequence, kind, value.to_owned());
    let (replaced, kept) = (entry(25, Put, "new"), entry(27, Put, "16+27"));
    assert_eq!(run(false, 0), (vec![entry(1003, Delete, ""), replaced.clone(), kept.clone()], 3));
    assert_eq!(run(true, 0), (vec![replaced, kept.clone()], 3));
    let values = vec![entry(1003, Put, "12+1003"), entry(25, Put, "14+25"), kept];
    assert_eq!(run(true, 1500), (values, 0), "a snapshot sees them");
}
