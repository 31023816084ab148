use super::tombstone::RangeTombstone;
use crate::key::{SEQUENCE_MAX, SequenceNumber, head};
use crate::slice::Slice;

/// Range tombstones, cut at each other's boundaries: sorted, immutable, searched by bisection.
///
/// A lookup compares the heads of the boundaries (see [`key::head`](crate::key::head)) after their common prefix
/// and touches whole keys only at ties.
///
/// ```
/// use lsm_core::range_tombstone::{FragmentedRangeTombstones, RangeTombstone};
/// let tombstones = FragmentedRangeTombstones::new([
///     RangeTombstone { start: "a".into(), end: "m".into(), sequence: 3 },
///     RangeTombstone { start: "f".into(), end: "z".into(), sequence: 8 },
/// ]);
/// assert_eq!(tombstones.covering_sequence(b"g", 9), 8);
/// assert_eq!(tombstones.covering_sequence(b"g", 7), 3);
/// assert_eq!(tombstones.covering_sequence(b"z", 9), 0);
/// assert_eq!(tombstones.iter().count(), 3);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FragmentedRangeTombstones {
    /// The boundary keys, ascending, one after the other.
    pub(super) keys: Box<[u8]>,
    /// Where in `keys` each boundary ends.
    pub(super) key_ends: Box<[usize]>,
    /// The head of each boundary after the prefix that all share.
    pub(super) heads: Box<[u64]>,
    pub(super) prefix_bytes: usize,
    /// Interval `i` lies between the boundaries `i` and `i + 1`; here its part of `sequences` ends.
    pub(super) sequence_ends: Box<[usize]>,
    /// The numbers that cover each interval, descending; none where nothing is deleted.
    pub(super) sequences: Box<[SequenceNumber]>,
}

/// A key range and the sequence numbers of all tombstones that cover it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The first key covered.
    pub start: &'a [u8],
    /// The first key after `start` that is not covered by all of these.
    pub end: &'a [u8],
    /// Descending, without repetition, never empty.
    pub sequences: &'a [SequenceNumber],
}

impl Fragment<'_> {
    /// The highest of the sequence numbers up to `visible`, 0 if there is none.
    #[inline]
    pub fn covering_sequence(&self, visible: SequenceNumber) -> SequenceNumber {
        newest_visible(self.sequences, visible)
    }
}

fn newest_visible(sequences: &[SequenceNumber], visible: SequenceNumber) -> SequenceNumber {
    match sequences.first() {
        Some(newest) if *newest <= visible => *newest,
        _ => sequences.get(sequences.partition_point(|sequence| *sequence > visible)).copied().unwrap_or(0),
    }
}

impl FragmentedRangeTombstones {
    /// No tombstones.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Whether nothing is deleted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Highest sequence number up to `visible` of a tombstone that covers `key`, 0 if there is none.
    ///
    /// A version of `key` is deleted in the eyes of `visible` if its own sequence number is below this.
    #[inline]
    pub fn covering_sequence(&self, key: &[u8], visible: SequenceNumber) -> SequenceNumber {
        if self.is_empty() {
            return 0;
        }
        match self.boundaries_up_to(key).checked_sub(1) {
            Some(interval) if interval < self.sequence_ends.len() => {
                newest_visible(self.interval_sequences(interval), visible)
            }
            _ => 0,
        }
    }

    /// The fragment that contains `key`, or else the next after it.
    ///
    /// `fragment_at_or_after(fragment.end)` goes on to the fragment after that.
    pub fn fragment_at_or_after(&self, key: &[u8]) -> Option<Fragment<'_>> {
        let first = self.boundaries_up_to(key).saturating_sub(1);
        (first..self.sequence_ends.len()).find_map(|interval| self.fragment(interval))
    }

    /// The fragment that contains `key`, or else the last before it.
    pub fn fragment_at_or_before(&self, key: &[u8]) -> Option<Fragment<'_>> {
        let end = self.boundaries_up_to(key).min(self.sequence_ends.len());
        (0..end).rev().find_map(|interval| self.fragment(interval))
    }

    /// The last fragment that starts before `key`: `fragment_before(fragment.start)` goes on backward.
    pub fn fragment_before(&self, key: &[u8]) -> Option<Fragment<'_>> {
        self.fragment_at_or_before(key).and_then(|fragment| {
            if fragment.start < key {
                return Some(fragment);
            }
            let end = self.boundaries_up_to(key).saturating_sub(1).min(self.sequence_ends.len());
            (0..end).rev().find_map(|interval| self.fragment(interval))
        })
    }

    /// All fragments in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Fragment<'_>> {
        (0..self.sequence_ends.len()).filter_map(|interval| self.fragment(interval))
    }

    /// One tombstone for each fragment and each of its sequence numbers, in order of fragments.
    pub fn tombstones(&self) -> impl Iterator<Item = RangeTombstone> {
        self.iter().flat_map(|Fragment { start, end, sequences }| {
            let (start, end) = (Slice::copy_from(start), Slice::copy_from(end));
            let tombstone =
                move |&sequence| RangeTombstone { start: start.clone(), end: end.clone(), sequence };
            sequences.iter().map(tombstone)
        })
    }

    /// The first key deleted, and the first key after all that are.
    pub fn bounds(&self) -> Option<(&[u8], &[u8])> {
        let last = self.heads.len().checked_sub(1)?;
        Some((self.boundary(0), self.boundary(last)))
    }

    /// The same ranges, with sequence numbers that are higher by `sequences`, up to
    /// [`SEQUENCE_MAX`](crate::SEQUENCE_MAX).
    #[must_use]
    pub fn later_by(mut self, sequences: SequenceNumber) -> Self {
        for sequence in &mut self.sequences {
            *sequence = sequence.saturating_add(sequences).min(SEQUENCE_MAX);
        }
        self
    }

    /// Bytes of memory that this holds, beside itself.
    pub fn memory_bytes(&self) -> usize {
        self.keys.len()
            + size_of_val(&*self.key_ends)
            + size_of_val(&*self.heads)
            + size_of_val(&*self.sequence_ends)
            + size_of_val(&*self.sequences)
    }

    pub(super) fn boundary(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.key_ends[index - 1] };
        &self.keys[start..self.key_ends[index]]
    }

    fn interval_sequences(&self, interval: usize) -> &[SequenceNumber] {
        let start = if interval == 0 { 0 } else { self.sequence_ends[interval - 1] };
        &self.sequences[start..self.sequence_ends[interval]]
    }

    /// Whether a boundary is not above `key`.
    #[inline]
    pub(super) fn boundary_is_up_to(&self, index: usize, key: &[u8]) -> bool {
        if self.prefix_bytes == 0 {
            let (boundary_head, key_head) = (self.heads[index], head(key, 0));
            if boundary_head != key_head {
                return boundary_head < key_head;
            }
        }
        self.boundary(index) <= key
    }

    /// `None` for a gap, and for the interval beyond the last.
    pub(super) fn fragment(&self, interval: usize) -> Option<Fragment<'_>> {
        if interval >= self.sequence_ends.len() {
            return None;
        }
        let sequences = self.interval_sequences(interval);
        if sequences.is_empty() {
            return None;
        }
        Some(Fragment { start: self.boundary(interval), end: self.boundary(interval + 1), sequences })
    }

    /// How many boundaries are not above `key`.
    #[inline]
    pub(super) fn boundaries_up_to(&self, key: &[u8]) -> usize {
        let prefix = &self.keys[..self.prefix_bytes];
        if !key.starts_with(prefix) {
            return if key < prefix { 0 } else { self.heads.len() };
        }
        let key_head = head(key, self.prefix_bytes);
        let below = self.heads.partition_point(|head| *head < key_head);
        let equal = self.heads[below..].partition_point(|head| *head == key_head);
        if equal == 0 {
            return below;
        }
        let (mut low, mut high) = (below, below + equal);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.boundary(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl std::fmt::Debug for FragmentedRangeTombstones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
