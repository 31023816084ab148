//! Cuts overlapping tombstones into fragments that do not overlap, by a sweep over all boundaries.

use std::collections::BTreeMap;

use super::builder::Builder;
use super::fragmented::{Fragment, FragmentedRangeTombstones};
use super::tombstone::RangeTombstone;
use crate::key::SequenceNumber;

/// A tombstone, borrowed.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) start: &'a [u8],
    pub(super) end: &'a [u8],
    pub(super) sequence: SequenceNumber,
}

/// Which of the sequence numbers that cover a fragment are kept.
#[derive(Clone, Copy)]
pub(super) enum Keep<'a> {
    /// All. With `n` tombstones that all overlap, that is `n * n` numbers.
    All,
    /// The newest that each of these snapshots (ascending) sees, and all that none of them sees; the newest of
    /// all if there are no snapshots.
    Snapshots(&'a [SequenceNumber]),
}

pub(super) fn fragment(mut spans: Vec<Span<'_>>, keep: Keep<'_>) -> FragmentedRangeTombstones {
    spans.retain(|span| span.start < span.end);
    let mut by_end = spans.clone();
    spans.sort_unstable_by(|a, b| a.start.cmp(b.start));
    by_end.sort_unstable_by(|a, b| a.end.cmp(b.end));

    let mut builder = Builder::default();
    let mut sequences = Vec::new();
    // How many open spans carry each sequence number: one tombstone may have come in several pieces.
    let mut open: BTreeMap<SequenceNumber, usize> = BTreeMap::new();
    let (mut starts, mut ends) = (spans.iter().peekable(), by_end.iter().peekable());
    let mut here: &[u8] = b"";
    // Every start lies before its end, so the ends run out last.
    while let Some(next_end) = ends.peek() {
        let next = starts.peek().map_or(next_end.end, |span| span.start.min(next_end.end));
        if !open.is_empty() {
            keep.select(&open, &mut sequences);
            builder.push(here, next, &sequences);
        }
        here = next;
        while let Some(span) = ends.next_if(|span| span.end == here) {
            if let Some(count) = open.get_mut(&span.sequence) {
                *count -= 1;
                if *count == 0 {
                    open.remove(&span.sequence);
                }
            }
        }
        while let Some(span) = starts.next_if(|span| span.start == here) {
            *open.entry(span.sequence).or_insert(0) += 1;
        }
    }
    builder.finish()
}

impl Keep<'_> {
    /// Fills `sequences` with what is kept of `open`, descending.
    fn select(self, open: &BTreeMap<SequenceNumber, usize>, sequences: &mut Vec<SequenceNumber>) {
        sequences.clear();
        match self {
            Self::All => sequences.extend(open.keys().rev()),
            Self::Snapshots(mut snapshots) => {
                // Later snapshots may come to stand between the numbers above the last.
                let above = snapshots.last().map_or(SequenceNumber::MAX, |last| last.saturating_add(1));
                sequences.extend(open.range(above..).rev().map(|(sequence, _)| *sequence));
                let mut newest = open.range(..above).next_back().map(|(sequence, _)| *sequence);
                while let Some(sequence) = newest {
                    sequences.push(sequence);
                    // What is older matters only to snapshots that do not see this one.
                    snapshots = &snapshots[..snapshots.partition_point(|snapshot| *snapshot < sequence)];
                    newest = snapshots
                        .last()
                        .and_then(|snapshot| open.range(..=snapshot).next_back())
                        .map(|(sequence, _)| *sequence);
                }
            }
        }
    }
}

impl<'a> From<&'a RangeTombstone> for Span<'a> {
    fn from(tombstone: &'a RangeTombstone) -> Self {
        Self { start: &tombstone.start, end: &tombstone.end, sequence: tombstone.sequence }
    }
}

impl FragmentedRangeTombstones {
    /// Fragments tombstones in any order, keeping every sequence number that covers a fragment.
    ///
    /// Time and space grow with the number of overlapping pairs: `n` tombstones that all overlap make up to
    /// `2 n` fragments of up to `n` numbers. [`for_snapshots`](Self::for_snapshots) has no such cost.
    pub fn new(tombstones: impl IntoIterator<Item = RangeTombstone>) -> Self {
        let tombstones: Vec<_> = tombstones.into_iter().collect();
        fragment(tombstones.iter().map(Span::from).collect(), Keep::All)
    }

    /// Fragments tombstones in any order, keeping for each fragment the newest sequence number that each of
    /// `snapshots` (ascending, the last is the visible number) sees, and all above the last: what a flush has to
    /// write. Without snapshots, only the newest is kept.
    ///
    /// The result answers [`covering_sequence`](Self::covering_sequence) rightly for those snapshots and for all
    /// numbers from the last of them on.
    pub fn for_snapshots(
        tombstones: impl IntoIterator<Item = RangeTombstone>,
        snapshots: &[SequenceNumber],
    ) -> Self {
        let tombstones: Vec<_> = tombstones.into_iter().collect();
        fragment(tombstones.iter().map(Span::from).collect(), Keep::Snapshots(snapshots))
    }

    /// One list of all tombstones of many, keeping every sequence number.
    pub fn merged<'a>(lists: impl IntoIterator<Item = &'a Self>) -> Self {
        fragment(lists.into_iter().flat_map(Self::spans).collect(), Keep::All)
    }

    fn spans(&self) -> impl Iterator<Item = Span<'_>> {
        self.iter().flat_map(|Fragment { start, end, sequences }| {
            sequences.iter().map(move |sequence| Span { start, end, sequence: *sequence })
        })
    }
}
