//! Half-open key ranges.

use std::fmt;
use std::ops::Bound;

use lsm_core::Slice;

use crate::keyspaces::successor;
use crate::read::bounds::Bounds;

/// The keys from `start` up to, but not including, `end`; without `end`, all keys from `start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Slice,
    pub(crate) end: Option<Slice>,
}

impl KeyRange {
    /// The range of one key.
    pub(crate) fn of_key(key: &[u8]) -> Self {
        Self { start: Slice::copy_from(key), end: Some(successor(key)) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && !self.ends_by(key)
    }

    /// Whether the range ends at or before `key`.
    pub(crate) fn ends_by(&self, key: &[u8]) -> bool {
        self.end.as_deref().is_some_and(|end| end <= key)
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty() && !other.is_empty() && !self.ends_by(&other.start) && !other.ends_by(&self.start)
    }

    /// Also takes in another range, and what is between the two.
    pub(crate) fn widen(&mut self, other: &Self) {
        if other.start < self.start {
            self.start = other.start.clone();
        }
        self.end = self.end.take().zip(other.end.as_ref()).map(|(end, other)| end.max(other.clone()));
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            lower: Bound::Included(self.start.clone()),
            upper: self.end.clone().map_or(Bound::Unbounded, Bound::Excluded),
        }
    }
}

impl From<&Bounds> for KeyRange {
    fn from(bounds: &Bounds) -> Self {
        let end = match &bounds.upper {
            Bound::Included(upper) => Some(successor(upper)),
            Bound::Excluded(upper) => Some(upper.clone()),
            Bound::Unbounded => None,
        };
        Self { start: bounds.start(), end }
    }
}

/// The words for error messages.
impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.start.escape_ascii();
        match &self.end {
            Some(end) if **end == *successor(&self.start) => write!(f, "key \"{start}\""),
            Some(end) => write!(f, "the range from \"{start}\" up to \"{}\"", end.escape_ascii()),
            None => write!(f, "the range from \"{start}\""),
        }
    }
}
