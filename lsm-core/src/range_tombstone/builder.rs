use super::fragmented::{Fragment, FragmentedRangeTombstones};
use crate::key::{SequenceNumber, common_prefix_bytes, head};

/// Puts fragments, given in order, together.
#[derive(Default)]
pub(super) struct Builder {
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    sequence_ends: Vec<usize>,
    sequences: Vec<SequenceNumber>,
}

impl Builder {
    /// Adds a fragment that does not start before the last one ended.
    ///
    /// One that only continues the last is joined to it, which undoes cuts that no longer matter.
    pub(super) fn push(&mut self, start: &[u8], end: &[u8], sequences: &[SequenceNumber]) {
        debug_assert!(start < end && self.last_end().is_none_or(|last| last <= start));
        if self.last_end() == Some(start) {
            let last_sequences = match self.sequence_ends.as_slice() {
                [.., before, last] => *before..*last,
                [last] => 0..*last,
                [] => 0..0,
            };
            if self.sequences.get(last_sequences) == Some(sequences) {
                self.pop_boundary();
                self.push_boundary(end);
                return;
            }
        } else {
            if !self.key_ends.is_empty() {
                // The gap between the last fragment and this one.
                self.sequence_ends.push(self.sequences.len());
            }
            self.push_boundary(start);
        }
        self.sequences.extend_from_slice(sequences);
        self.sequence_ends.push(self.sequences.len());
        self.push_boundary(end);
    }

    fn push_boundary(&mut self, key: &[u8]) {
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len());
    }

    fn pop_boundary(&mut self) {
        self.key_ends.pop();
        self.keys.truncate(self.key_ends.last().copied().unwrap_or(0));
    }

    pub(super) fn last_end(&self) -> Option<&[u8]> {
        match self.key_ends.as_slice() {
            [.., start, end] => self.keys.get(*start..*end),
            _ => None,
        }
    }

    pub(super) fn finish(self) -> FragmentedRangeTombstones {
        let mut built = FragmentedRangeTombstones {
            keys: self.keys.into(),
            key_ends: self.key_ends.into(),
            sequence_ends: self.sequence_ends.into(),
            sequences: self.sequences.into(),
            ..FragmentedRangeTombstones::default()
        };
        let count = built.key_ends.len();
        if count > 0 {
            built.prefix_bytes = common_prefix_bytes(built.boundary(0), built.boundary(count - 1));
            built.heads = (0..count).map(|index| head(built.boundary(index), built.prefix_bytes)).collect();
        }
        built
    }
}

impl FragmentedRangeTombstones {
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
}
