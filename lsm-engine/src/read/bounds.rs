//! Key ranges and prefixes, and the test whether a run may hold keys of them.

use std::ops::{Bound, Range, RangeBounds};

use lsm_core::Slice;

use crate::keyspaces::{EmptySpans, ReadPoint, successor};
use crate::version::Run;

/// The range of keys in which a cursor moves.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) lower: Bound<Slice>,
    pub(crate) upper: Bound<Slice>,
}

/// One end of all keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    First,
    Last,
}

impl Bounds {
    pub(crate) const ALL: Self = Self { lower: Bound::Unbounded, upper: Bound::Unbounded };

    /// All keys that start with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        Self { lower: Bound::Included(Slice::copy_from(prefix)), upper: prefix_end(prefix) }
    }

    /// The keys before the first live key, or behind the last one, without the empty span at that end. `None` if the
    /// span holds `key` itself.
    pub(crate) fn beyond(key: &Slice, end: End, spans: &EmptySpans, point: &ReadPoint<'_>) -> Option<Self> {
        let key_end = Bound::Excluded(key.clone());
        if end == End::First {
            let lower = match spans.any().then(|| spans.end_around(b"", point)).flatten() {
                None => Bound::Unbounded,
                Some(Bound::Excluded(end)) if end <= *key => Bound::Included(end),
                Some(_) => return None,
            };
            return Some(Self { lower, upper: key_end });
        }
        match spans.any().then(|| spans.start_of_last(point)).flatten() {
            None => Some(Self { lower: key_end, upper: Bound::Unbounded }),
            Some(start) if start > *key => Some(Self { lower: key_end, upper: Bound::Excluded(start) }),
            Some(_) => None,
        }
    }

    pub(crate) fn below_lower(&self, key: &[u8]) -> bool {
        match &self.lower {
            Bound::Included(lower) => key < &**lower,
            Bound::Excluded(lower) => key <= &**lower,
            Bound::Unbounded => false,
        }
    }

    #[inline]
    pub(crate) fn above_upper(&self, key: &[u8]) -> bool {
        match &self.upper {
            Bound::Included(upper) => key > &**upper,
            Bound::Excluded(upper) => key >= &**upper,
            Bound::Unbounded => false,
        }
    }

    /// The smallest key that the bounds allow.
    pub(crate) fn start(&self) -> Slice {
        match &self.lower {
            Bound::Included(lower) => lower.clone(),
            Bound::Excluded(lower) => successor(lower),
            Bound::Unbounded => Slice::default(),
        }
    }

    /// The upper bound, inclusive or not: no key within the bounds is above it.
    pub(crate) fn end(&self) -> Option<&[u8]> {
        match &self.upper {
            Bound::Included(upper) | Bound::Excluded(upper) => Some(upper),
            Bound::Unbounded => None,
        }
    }

    pub(crate) fn may_hold(&self, run: &Run) -> bool {
        let (Some(first), Some(last)) = (run.tables().first(), run.tables().last()) else { return false };
        !self.above_upper(first.smallest()) && !self.below_lower(last.largest())
    }

    /// Whether the filters of all tables within the bounds exclude the prefix. A table with range tombstones matters in
    /// any case, since those may delete keys of other sources.
    pub(crate) fn prefix_is_absent(&self, run: &Run, prefix: &[u8]) -> bool {
        run.tables_within(|key| self.below_lower(key), |key| self.above_upper(key))
            .all(|table| !table.has_range_tombstones() && !table.table().may_contain_prefix(prefix))
    }
}

/// The first key after all keys that start with `prefix`.
fn prefix_end(prefix: &[u8]) -> Bound<Slice> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xff).map_or(0, |last| last + 1);
    let mut end = prefix[..kept].to_vec();
    match end.last_mut() {
        Some(last) => {
            *last += 1;
            Bound::Excluded(end.into())
        }
        None => Bound::Unbounded,
    }
}

/// Turns a range of any key type into a range of byte slices.
pub(crate) fn borrow_range<'r, K: AsRef<[u8]> + 'r>(
    range: &'r impl RangeBounds<K>,
) -> (Bound<&'r [u8]>, Bound<&'r [u8]>) {
    let start: Bound<&'r K> = range.start_bound();
    let end: Bound<&'r K> = range.end_bound();
    (start.map(AsRef::as_ref), end.map(AsRef::as_ref))
}

/// The part of a value that a user names.
pub(crate) fn part_of(part: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match part.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match part.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_without_it() {
        assert_eq!(prefix_end(b"ab"), Bound::Excluded(Slice::from("ac")));
        assert_eq!(prefix_end(b"a\xff"), Bound::Excluded(Slice::from("b")));
        assert_eq!(prefix_end(b"\xff\xff"), Bound::Unbounded);
        assert_eq!(prefix_end(b""), Bound::Unbounded);
    }
}
