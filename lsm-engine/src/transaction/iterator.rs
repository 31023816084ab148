use lsm_core::Slice;

use super::cursor::TransactionCursor;
use super::view::View;
use crate::error::{Error, Result};
use crate::read::Bounds;

/// A double-ended iterator over the keys and values of a range, as a transaction sees them: its snapshot, and its own
/// writes up to the moment when the iterator was made.
///
/// In a serializable transaction the range counts as read as far as the iterator went. It ends after the first error.
#[derive(Debug)]
pub struct TransactionIter<'t> {
    source: Option<Source<'t>>,
    /// The error to return first, for example for an inverted range.
    error: Option<Error>,
    /// Each cursor stands on the key that its end returned last. The other end stops before that key.
    front: Option<TransactionCursor<'t>>,
    back: Option<TransactionCursor<'t>>,
}

pub(super) struct Source<'t> {
    pub(super) view: View<'t>,
    pub(super) bounds: Bounds,
    pub(super) prefix: Option<Slice>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl<'t> Source<'t> {
    fn cursor(&self) -> TransactionCursor<'t> {
        self.view.cursor(self.bounds.clone(), self.prefix.as_deref())
    }
}

impl<'t> TransactionIter<'t> {
    pub(super) fn new(source: Result<Source<'t>>) -> Self {
        let (source, error) = match source {
            Ok(source) => (Some(source), None),
            Err(error) => (None, Some(error)),
        };
        Self { source, error, front: None, back: None }
    }

    /// Only the keys.
    pub fn keys(self) -> impl DoubleEndedIterator<Item = Result<Slice>> + use<'t> {
        self.map(|entry| entry.map(|(key, _)| key))
    }

    /// Only the values, in the order of their keys.
    pub fn values(self) -> impl DoubleEndedIterator<Item = Result<Slice>> + use<'t> {
        self.map(|entry| entry.map(|(_, value)| value))
    }

    fn step_front(&mut self) -> Result<Option<(Slice, Slice)>> {
        let Some(source) = &self.source else { return Ok(None) };
        let cursor = if let Some(cursor) = &mut self.front {
            cursor.next()?;
            cursor
        } else {
            let cursor = self.front.insert(source.cursor());
            cursor.first()?;
            cursor
        };
        let end = self.back.as_ref().and_then(TransactionCursor::key);
        Ok(cursor.entry().filter(|(key, _)| end.is_none_or(|end| *key < end)).map(copy))
    }

    fn step_back(&mut self) -> Result<Option<(Slice, Slice)>> {
        let Some(source) = &self.source else { return Ok(None) };
        let cursor = if let Some(cursor) = &mut self.back {
            cursor.prev()?;
            cursor
        } else {
            let cursor = self.back.insert(source.cursor());
            cursor.last()?;
            cursor
        };
        let end = self.front.as_ref().and_then(TransactionCursor::key);
        Ok(cursor.entry().filter(|(key, _)| end.is_none_or(|end| *key > end)).map(copy))
    }

    /// Returns the entry of a step. At the end or after an error, drops the cursors.
    fn finish(&mut self, stepped: Result<Option<(Slice, Slice)>>) -> Option<Result<(Slice, Slice)>> {
        if let Ok(Some(entry)) = stepped {
            return Some(Ok(entry));
        }
        self.source = None;
        self.front = None;
        self.back = None;
        stepped.err().or_else(|| self.error.take()).map(Err)
    }
}

fn copy((key, value): (&[u8], &[u8])) -> (Slice, Slice) {
    (Slice::copy_from(key), Slice::copy_from(value))
}

impl Iterator for TransactionIter<'_> {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        let stepped = self.step_front();
        self.finish(stepped)
    }
}

impl DoubleEndedIterator for TransactionIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let stepped = self.step_back();
        self.finish(stepped)
    }
}

impl std::iter::FusedIterator for TransactionIter<'_> {}
