//! What a transaction has read in one keyspace, as far as others must not change it.

use lsm_core::Slice;

use crate::keyspaces::successor;
use crate::read::KeyRange;

/// Estimate of what a key or a range takes besides its bytes.
const KEY_BYTES: usize = size_of::<Slice>();
const RANGE_BYTES: usize = size_of::<KeyRange>();
/// Keys are not sorted before there are this many new ones.
const UNSORTED_MIN: usize = 32;

/// Keys and ranges that a transaction has read. Their memory is bounded: when they take too much, neighbours are merged
/// into one range, which also contains what is between them. So nothing is forgotten, but the commit may then fail for a
/// key that was not read.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    keys: Vec<Slice>,
    /// This many keys at the front are sorted and distinct.
    sorted: usize,
    ranges: Vec<KeyRange>,
    /// This many ranges at the front are sorted and do not touch.
    merged: usize,
    bytes: usize,
}

impl Tracked {
    /// Memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Memory of a key that is tracked.
    #[inline]
    pub(super) fn bytes_of_key(key: &[u8]) -> usize {
        KEY_BYTES + key.len()
    }

    /// Memory of a range that is tracked.
    pub(super) fn bytes_of_range(range: &KeyRange) -> usize {
        RANGE_BYTES + range.start.len() + range.end.as_ref().map_or(0, |end| end.len())
    }

    #[inline]
    pub(super) fn add_key(&mut self, key: &[u8], bytes_max: usize) {
        self.keys.push(Slice::copy_from(key));
        self.bytes += Self::bytes_of_key(key);
        if self.keys.len() >= 2 * self.sorted + UNSORTED_MIN || self.bytes > bytes_max {
            self.shrink(bytes_max);
        }
    }

    pub(super) fn add_range(&mut self, range: KeyRange, bytes_max: usize) {
        if range.is_empty() {
            return;
        }
        self.bytes += Self::bytes_of_range(&range);
        self.ranges.push(range);
        if self.ranges.len() >= 2 * self.merged + UNSORTED_MIN || self.bytes > bytes_max {
            self.shrink(bytes_max);
        }
    }

    /// The keys and ranges, sorted, each once.
    pub(super) fn settled(&mut self) -> (&[Slice], &[KeyRange]) {
        self.settle();
        (&self.keys, &self.ranges)
    }

    fn settle(&mut self) {
        if self.sorted == self.keys.len() && self.merged == self.ranges.len() {
            return;
        }
        if self.merged < self.ranges.len() {
            self.ranges.sort_by(|a, b| a.start.cmp(&b.start));
            self.ranges.dedup_by(|next, last| {
                let joins = last.end.as_ref().is_none_or(|end| *end >= next.start);
                if joins
                    && (next.end.is_none()
                        || last.end.as_ref().is_some_and(|end| next.end.as_ref() > Some(end)))
                {
                    last.end = next.end.take();
                }
                joins
            });
            self.merged = self.ranges.len();
        }
        self.keys.sort_unstable();
        self.keys.dedup();
        let ranges = &self.ranges;
        self.keys.retain(|key| {
            let after = ranges.partition_point(|range| range.start <= *key);
            after.checked_sub(1).and_then(|index| ranges.get(index)).is_none_or(|range| range.ends_by(key))
        });
        self.sorted = self.keys.len();
        self.bytes = self.keys.iter().map(|key| Self::bytes_of_key(key)).sum::<usize>()
            + self.ranges.iter().map(Self::bytes_of_range).sum::<usize>();
    }

    #[cold]
    fn shrink(&mut self, bytes_max: usize) {
        self.settle();
        while self.bytes > bytes_max / 2 && self.keys.len() + self.ranges.len() > 1 {
            self.merge_neighbours();
        }
    }

    /// Merges each two neighbours into one range.
    fn merge_neighbours(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        let mut all: Vec<KeyRange> =
            keys.into_iter().map(|key| KeyRange { end: Some(successor(&key)), start: key }).collect();
        all.append(&mut self.ranges);
        all.sort_by(|a, b| a.start.cmp(&b.start));
        let mut pairs = all.into_iter();
        while let Some(first) = pairs.next() {
            let end = pairs.next().map_or(first.end, |second| second.end);
            self.ranges.push(KeyRange { start: first.start, end });
        }
        self.merged = 0;
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_was_read_stays_tracked_in_bounded_memory(
            reads in prop::collection::vec((0_u16..1000, prop::option::of(0_u16..40)), 1..400),
            bytes_max in 200_usize..4000,
        ) {
            for bytes_max in [bytes_max, usize::MAX] {
                let mut tracked = Tracked::default();
                for (start, length) in &reads {
                    match length {
                        None => tracked.add_key(&start.to_be_bytes(), bytes_max),
                        Some(length) => {
                            let end = Some(Slice::from(&(start + length).to_be_bytes()));
                            tracked.add_range(KeyRange { start: Slice::from(&start.to_be_bytes()), end }, bytes_max);
                        }
                    }
                    prop_assert!(tracked.memory_bytes() <= bytes_max);
                }
                let (keys, ranges) = tracked.settled();
                prop_assert!(keys.is_sorted() && ranges.is_sorted_by(|a, b| a.ends_by(&b.start)));
                for key in 0..1100_u16 {
                    let read = reads.iter().any(|(start, length)| match length {
                        None => key == *start,
                        Some(length) => (*start..start + length).contains(&key),
                    });
                    let key = key.to_be_bytes();
                    let is_tracked = keys.binary_search_by(|other| (**other).cmp(&key)).is_ok()
                        || ranges.iter().any(|range| range.contains(&key));
                    prop_assert!(is_tracked || !read, "{key:?} was forgotten");
                    prop_assert!(!is_tracked || read || bytes_max != usize::MAX, "{key:?} was added without need");
                }
            }
        }
    }
}
