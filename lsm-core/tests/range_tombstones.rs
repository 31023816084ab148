//! Fragmented or added one by one, range tombstones cover what each of them covers alone.

use lsm_core::range_tombstone::{
    Fragment, FragmentWalk, FragmentedRangeTombstones, RangeTombstone, RangeTombstoneSet,
};
use lsm_core::{SequenceNumber, Slice};
use proptest::prelude::*;

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(b'a'..b'e', 0..3),
        2 => prop::collection::vec(b'a'..b'c', 0..3).prop_map(|tail| [b"a long common part", &tail[..]].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..3),
    ]
}

fn tombstone() -> impl Strategy<Value = RangeTombstone> {
    (key(), key(), 1..20_u64).prop_map(|(start, end, sequence)| RangeTombstone {
        start: start.into(),
        end: end.into(),
        sequence,
    })
}

fn covers(tombstone: &RangeTombstone, key: &[u8]) -> bool {
    &*tombstone.start <= key && key < &*tombstone.end
}

fn covering(tombstones: &[RangeTombstone], key: &[u8], visible: SequenceNumber) -> SequenceNumber {
    let newest =
        tombstones.iter().filter(|t| covers(t, key) && t.sequence <= visible).map(|t| t.sequence).max();
    newest.unwrap_or(0)
}

/// Every key around which an answer could change.
fn probes(tombstones: &[RangeTombstone], extra: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut probes = extra.to_vec();
    probes.push(Vec::new());
    for boundary in tombstones.iter().flat_map(|t| [&t.start, &t.end]) {
        probes.push(boundary.to_vec());
        probes.push([boundary, &b"\0"[..]].concat());
        probes.push(boundary[..boundary.len().saturating_sub(1)].to_vec());
    }
    probes
}

fn check_shape(fragments: &FragmentedRangeTombstones) -> Result<(), TestCaseError> {
    let all: Vec<_> = fragments.iter().collect();
    for fragment in &all {
        prop_assert!(fragment.start < fragment.end && !fragment.sequences.is_empty());
        prop_assert!(fragment.sequences.windows(2).all(|pair| pair[0] > pair[1]));
    }
    for pair in all.windows(2) {
        prop_assert!(pair[0].end <= pair[1].start);
        prop_assert!(pair[0].end < pair[1].start || pair[0].sequences != pair[1].sequences, "a needless cut");
    }
    prop_assert_eq!(fragments.is_empty(), all.is_empty());
    let bounds = all.first().zip(all.last()).map(|(first, last)| (first.start, last.end));
    prop_assert_eq!(fragments.bounds(), bounds);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn fragments_cover_what_their_tombstones_cover(
        tombstones in prop::collection::vec(tombstone(), 0..12),
        extra in prop::collection::vec(key(), 0..5),
    ) {
        let fragments = FragmentedRangeTombstones::new(tombstones.clone());
        check_shape(&fragments)?;
        for key in probes(&tombstones, &extra) {
            for visible in 0..21 {
                prop_assert_eq!(fragments.covering_sequence(&key, visible), covering(&tombstones, &key, visible));
            }
            // Finding fragments by key agrees with looking at all of them.
            let all: Vec<Fragment> = fragments.iter().collect();
            prop_assert_eq!(fragments.fragment_at_or_after(&key), all.iter().find(|f| f.end > &key[..]).copied());
            prop_assert_eq!(fragments.fragment_at_or_before(&key), all.iter().rfind(|f| f.start <= &key[..]).copied());
            prop_assert_eq!(fragments.fragment_before(&key), all.iter().rfind(|f| f.start < &key[..]).copied());
        }
        let mut ascending = probes(&tombstones, &extra);
        ascending.sort();
        for step in [1, 3] {
            let mut walk = FragmentWalk::default();
            for key in ascending.iter().step_by(step) {
                let expected = fragments.iter().find(|f| f.start <= &key[..] && &key[..] < f.end);
                prop_assert_eq!(walk.advance(&fragments, key), expected);
            }
        }
        let again = FragmentedRangeTombstones::from_fragments(fragments.iter());
        prop_assert_eq!(again.as_ref(), Some(&fragments));
        prop_assert_eq!(&FragmentedRangeTombstones::new(fragments.tombstones()), &fragments);
    }

    #[test]
    fn clipping_keeps_exactly_what_lies_between_the_bounds(
        tombstones in prop::collection::vec(tombstone(), 0..12),
        lower in prop::option::of(key()),
        upper in prop::option::of(key()),
    ) {
        let clipped = FragmentedRangeTombstones::new(tombstones.clone()).truncated(lower.as_deref(), upper.as_deref());
        check_shape(&clipped)?;
        let bounds: Vec<_> = lower.iter().chain(&upper).cloned().collect();
        for key in probes(&tombstones, &bounds) {
            let within = lower.as_ref().is_none_or(|lower| *lower <= key) && upper.as_ref().is_none_or(|upper| key < *upper);
            for visible in [3, 7, 20] {
                let expected = if within { covering(&tombstones, &key, visible) } else { 0 };
                prop_assert_eq!(clipped.covering_sequence(&key, visible), expected);
            }
        }
    }

    #[test]
    fn what_is_kept_for_snapshots_answers_for_them(
        tombstones in prop::collection::vec(tombstone(), 0..12),
        snapshots in prop::collection::btree_set(0..20_u64, 0..4),
    ) {
        let snapshots: Vec<_> = snapshots.into_iter().collect();
        let kept = FragmentedRangeTombstones::for_snapshots(tombstones.clone(), &snapshots);
        check_shape(&kept)?;
        for fragment in kept.iter() {
            let judged = fragment.sequences.iter().filter(|sequence| snapshots.last().is_none_or(|last| *sequence <= last));
            prop_assert!(judged.count() <= snapshots.len().max(1));
        }
        for key in probes(&tombstones, &[]) {
            for visible in snapshots.iter().copied().chain(snapshots.last().copied().unwrap_or(20)..=20) {
                prop_assert_eq!(kept.covering_sequence(&key, visible), covering(&tombstones, &key, visible));
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_set_answers_for_every_number_that_it_ever_had(
        tombstones in prop::collection::vec(tombstone(), 0..25),
        extra in prop::collection::vec(key(), 0..5),
        snapshots in prop::collection::btree_set(0..20_u64, 0..3),
    ) {
        let mut tombstones = tombstones;
        tombstones.sort_by_key(|tombstone| tombstone.sequence);
        let set = RangeTombstoneSet::new();
        for tombstone in &tombstones {
            set.insert(tombstone.clone()).unwrap();
        }
        let lists = [set.snapshot(), FragmentedRangeTombstones::new(tombstones.clone())];
        prop_assert_eq!(&lists[0], &lists[1]);
        let snapshots: Vec<_> = snapshots.into_iter().collect();
        prop_assert_eq!(set.for_snapshots(&snapshots), FragmentedRangeTombstones::for_snapshots(tombstones.clone(), &snapshots));
        for visible in 0..21 {
            let seen = set.visible_at(visible);
            for key in probes(&tombstones, &extra) {
                let expected = covering(&tombstones, &key, visible);
                prop_assert_eq!(set.covering_sequence(&key, visible), expected);
                prop_assert_eq!(seen.covering_sequence(&key, SequenceNumber::MAX), expected);
                let cover = set.cover(&key, visible);
                prop_assert_eq!(cover.sequence, expected);
                let within = cover.start.is_none_or(|start| start <= &key[..]) && cover.end.is_none_or(|end| &key[..] < end);
                prop_assert!(within);
                for other in probes(&tombstones, &extra) {
                    if cover.start.is_none_or(|start| start <= &other[..]) && cover.end.is_none_or(|end| &other[..] < end) {
                        prop_assert_eq!(covering(&tombstones, &other, visible), expected);
                    }
                }
            }
        }
    }
}

fn numbered(start: u32, end: u32, sequence: u64) -> RangeTombstone {
    RangeTombstone {
        start: Slice::from(&start.to_be_bytes()),
        end: Slice::from(&end.to_be_bytes()),
        sequence,
    }
}

#[test]
fn an_empty_set_holds_no_memory_and_refuses_a_step_back_in_time() {
    let set = RangeTombstoneSet::new();
    assert!(set.is_empty() && set.memory_bytes() == 0);
    set.insert(numbered(5, 5, 1)).unwrap();
    set.insert(numbered(9, 3, 1)).unwrap();
    assert!(set.is_empty(), "empty and inverted ranges delete nothing");
    set.insert(numbered(1, 5, 7)).unwrap();
    assert!(set.insert(numbered(1, 9, 6)).is_err());
    assert_eq!((set.len(), set.covering_sequence(&6_u32.to_be_bytes(), 100)), (1, 0));
}

#[test]
fn a_log_truncated_ten_thousand_times_stays_small() {
    // Every tombstone contains all before it: fragments with every sequence number would be 50 million.
    let set = RangeTombstoneSet::new();
    for sequence in 1..=10_000_u32 {
        set.insert(numbered(0, sequence * 10, sequence.into())).unwrap();
    }
    assert!(set.memory_bytes() < 10_000 * 1000, "{} bytes", set.memory_bytes());
    assert_eq!(set.covering_sequence(&55_u32.to_be_bytes(), 10_000), 10_000);
    assert_eq!(set.covering_sequence(&55_u32.to_be_bytes(), 4000), 4000);
    assert_eq!(set.covering_sequence(&55_u32.to_be_bytes(), 5), 0);
    let flushed = set.for_snapshots(&[500, 10_000]);
    assert_eq!(flushed.iter().count(), 2);
    assert_eq!(flushed.covering_sequence(&55_u32.to_be_bytes(), 500), 500);
}

#[test]
fn hostile_fragments_are_refused() {
    let good = Fragment { start: b"b", end: b"d", sequences: &[5, 3] };
    let refused = |fragments: &[Fragment]| {
        FragmentedRangeTombstones::from_fragments(fragments.iter().copied()).is_none()
    };
    assert!(!refused(&[good, Fragment { start: b"d", end: b"e", sequences: &[1] }]));
    assert!(refused(&[good, Fragment { start: b"c", end: b"e", sequences: &[1] }]), "overlapping");
    assert!(refused(&[good, Fragment { start: b"a", end: b"b", sequences: &[1] }]), "out of order");
    assert!(refused(&[Fragment { start: b"d", end: b"d", sequences: &[1] }]), "empty range");
    assert!(refused(&[Fragment { sequences: &[], ..good }]), "no sequence number");
    assert!(refused(&[Fragment { sequences: &[3, 5], ..good }]), "ascending sequence numbers");
    assert!(refused(&[Fragment { sequences: &[3, 3], ..good }]), "a number twice");
}

#[test]
fn readers_see_every_tombstone_published_before_their_number() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let (set, visible) = (RangeTombstoneSet::new(), AtomicU64::new(0));
    let count = 3000_u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1..=count {
                let start = (sequence as u32 * 7919) % 1000;
                set.insert(numbered(start, start + 100, sequence)).unwrap();
                visible.store(sequence, Ordering::Release);
            }
        });
        scope.spawn(|| {
            let covers = |sequence: u64, key: u32| {
                let start = (sequence as u32 * 7919) % 1000;
                (start..start + 100).contains(&key)
            };
            let mut seen = 0;
            while seen < count {
                seen = visible.load(Ordering::Acquire);
                let key = (seen as u32 * 31) % 1100;
                let newest = (1..=seen).rev().find(|sequence| covers(*sequence, key)).unwrap_or(0);
                assert_eq!(set.covering_sequence(&key.to_be_bytes(), seen), newest);
                assert!(seen == 0 || !set.is_empty());
            }
        });
    });
}
