use std::cmp::Ordering;

use lsm_core::SequenceNumber;
use lsm_core::key;

/// An internal key that is looked for among separators, of which a prefix is known.
#[derive(Clone, Copy)]
pub(crate) enum Target<'k> {
    /// Below all keys with the prefix.
    BelowAll,
    AboveAll,
    /// What follows the prefix.
    Within(&'k [u8], SequenceNumber),
}

impl<'k> Target<'k> {
    pub(super) fn new(prefix: &[u8], key: &'k [u8], sequence: SequenceNumber) -> Self {
        match key.strip_prefix(prefix) {
            Some(rest) => Self::Within(rest, sequence),
            None if key < prefix => Self::BelowAll,
            None => Self::AboveAll,
        }
    }

    #[inline]
    pub(super) fn is_below(&self, suffix: &[u8], sequence: SequenceNumber) -> bool {
        match self {
            Self::BelowAll => true,
            Self::AboveAll => false,
            Self::Within(rest, target) => key::compare(suffix, sequence, rest, *target) == Ordering::Greater,
        }
    }
}
