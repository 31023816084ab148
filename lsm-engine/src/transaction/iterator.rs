use lsm_core::Slice;

use super::cursor::TransactionCursor;
use super::view::View;
use crate::error::Result;
use crate::read::{Bounds, End, Ends, Source, copy_entry, copy_key, copy_value, iterator};

/// A double-ended iterator over the keys and values of a range, as a transaction sees them: its snapshot, and its own
/// writes up to the moment when the iterator was made.
///
/// In a serializable transaction the range counts as read as far as the iterator went. It ends after the first error.
#[derive(Debug)]
pub struct TransactionIter<'t>(Ends<IterSource<'t>>);

pub(super) struct IterSource<'t> {
    pub(super) view: View<'t>,
    pub(super) bounds: Bounds,
    pub(super) prefix: Option<Slice>,
}

impl std::fmt::Debug for IterSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IterSource").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl<'t> Source for IterSource<'t> {
    type Cursor = TransactionCursor<'t>;

    fn cursor(&self) -> TransactionCursor<'t> {
        self.view.cursor(self.bounds.clone(), self.prefix.as_deref())
    }
}

impl<'t> TransactionIter<'t> {
    pub(super) fn new(source: Result<IterSource<'t>>) -> Self {
        Self(Ends::new(source))
    }

    /// The first entry.
    pub(super) fn first_entry(mut self) -> Result<Option<(Slice, Slice)>> {
        self.next().transpose()
    }

    /// The last entry.
    pub(super) fn last_entry(mut self) -> Result<Option<(Slice, Slice)>> {
        self.next_back().transpose()
    }

    /// Whether there is no entry.
    pub(super) fn has_none(self) -> Result<bool> {
        self.0.has_none()
    }

    /// Counts the entries.
    pub(super) fn count_entries(self) -> Result<u64> {
        self.0.count()
    }

    /// Only the keys. No value is copied.
    pub fn keys(self) -> impl DoubleEndedIterator<Item = Result<Slice>> + use<'t> {
        Keys(self.0)
    }

    /// Only the values, in the order of their keys.
    pub fn values(self) -> impl DoubleEndedIterator<Item = Result<Slice>> + use<'t> {
        Values(self.0)
    }
}

struct Keys<'t>(Ends<IterSource<'t>>);

struct Values<'t>(Ends<IterSource<'t>>);

iterator!(TransactionIter<'t>, (Slice, Slice), copy_entry);
iterator!(Keys<'t>, Slice, copy_key);
iterator!(Values<'t>, Slice, copy_value);
