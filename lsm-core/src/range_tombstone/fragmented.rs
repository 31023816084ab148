use super::RangeTombstone;
use super::builder::Builder;
use super::fragmenter::{Keep, Span, fragment};
use crate::key::head;
use crate::{SequenceNumber, Slice};

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

    /// Takes fragments as [`iter`](Self::iter) gave them, in time and space linear in their size.
    ///
    /// `None` if they are not in order, overlap, are empty, or their sequence numbers are not descending: bytes
    /// read from a file may say anything.
    pub fn from_fragments<'a>(fragments: impl IntoIterator<Item = Fragment<'a>>) -> Option<Self> {
        let mut builder = Builder::default();
        for fragment in fragments {
            let in_order = fragment.start < fragment.end
                && builder.last_end().is_none_or(|end| end <= fragment.start)
                && !fragment.sequences.is_empty()
                && fragment.sequences.windows(2).all(|pair| pair[0] > pair[1]);
            if !in_order {
                return None;
            }
            builder.push(fragment.start, fragment.end, fragment.sequences);
        }
        Some(builder.finish())
    }

    /// One list of all tombstones of many, keeping every sequence number.
    pub fn merged<'a>(lists: impl IntoIterator<Item = &'a Self>) -> Self {
        fragment(lists.into_iter().flat_map(Self::spans).collect(), Keep::All)
    }

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
        self.spans().map(|span| RangeTombstone {
            start: Slice::copy_from(span.start),
            end: Slice::copy_from(span.end),
            sequence: span.sequence,
        })
    }

    /// The part of all this that lies in `[lower, upper)`; `None` means no bound.
    #[must_use]
    pub fn truncated(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Self {
        let mut builder = Builder::default();
        let mut next = match lower {
            Some(lower) => self.boundaries_up_to(lower).saturating_sub(1),
            None => 0,
        };
        while next < self.sequence_ends.len() {
            if upper.is_some_and(|upper| upper <= self.boundary(next)) {
                break;
            }
            if let Some(fragment) = self.fragment(next) {
                let start = lower.map_or(fragment.start, |lower| lower.max(fragment.start));
                let end = upper.map_or(fragment.end, |upper| upper.min(fragment.end));
                if start < end {
                    builder.push(start, end, fragment.sequences);
                }
            }
            next += 1;
        }
        builder.finish()
    }

    /// The first key deleted, and the first key after all that are.
    pub fn bounds(&self) -> Option<(&[u8], &[u8])> {
        let last = self.heads.len().checked_sub(1)?;
        Some((self.boundary(0), self.boundary(last)))
    }

    /// Bytes of memory that this holds, beside itself.
    pub fn memory_bytes(&self) -> usize {
        self.keys.len()
            + size_of_val(&*self.key_ends)
            + size_of_val(&*self.heads)
            + size_of_val(&*self.sequence_ends)
            + size_of_val(&*self.sequences)
    }

    fn spans(&self) -> impl Iterator<Item = Span<'_>> {
        self.iter().flat_map(|Fragment { start, end, sequences }| {
            sequences.iter().map(move |sequence| Span { start, end, sequence: *sequence })
        })
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

impl<'a> From<&'a RangeTombstone> for Span<'a> {
    fn from(tombstone: &'a RangeTombstone) -> Self {
        Self { start: &tombstone.start, end: &tombstone.end, sequence: tombstone.sequence }
    }
}
