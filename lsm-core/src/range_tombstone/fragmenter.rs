//! Cuts overlapping tombstones into fragments that do not overlap, by a sweep over all boundaries.

use std::collections::BTreeMap;

use super::builder::Builder;
use super::fragmented::FragmentedRangeTombstones;
use crate::SequenceNumber;

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
