//! The two cursors of a double-ended iterator.

use lsm_core::Slice;

use crate::error::{Error, Result};
use crate::read::bounds::End;

/// What an iterator reads: it makes the cursors.
pub(crate) trait Source {
    type Cursor: Steps;

    fn cursor(&self) -> Self::Cursor;
}

/// A cursor as an iterator uses it.
pub(crate) trait Steps {
    /// Moves to the first key, or the last one.
    fn move_to(&mut self, end: End) -> Result<()>;

    /// Moves to the next key, away from `end`.
    fn step_from(&mut self, end: End) -> Result<()>;

    /// The current entry, whose value may be missing if nobody asks for it.
    fn entry(&self) -> Option<(&[u8], &[u8])>;
}

/// The entries of a source, from both ends. It ends after the first error.
#[derive(Debug)]
pub(crate) struct Ends<S: Source> {
    source: Option<S>,
    /// The error to return first, for example for an inverted range.
    error: Option<Error>,
    /// Each cursor stands on the key that its end returned last. The other end stops before that key.
    front: Option<S::Cursor>,
    back: Option<S::Cursor>,
}

impl<S: Source> Ends<S> {
    pub(crate) fn new(source: Result<S>) -> Self {
        let (source, error) = match source {
            Ok(source) => (Some(source), None),
            Err(error) => (None, Some(error)),
        };
        Self { source, error, front: None, back: None }
    }

    /// Changes the source, and the cursors that it has made.
    pub(crate) fn change(&mut self, source: impl FnOnce(&mut S), cursor: impl Fn(&mut S::Cursor)) {
        self.front.iter_mut().chain(&mut self.back).for_each(cursor);
        self.source.as_mut().map(source);
    }

    /// Makes the next item from that end, of the entry there. At the end or after an error, drops what it reads.
    #[expect(clippy::inline_always, reason = "each end is compiled for itself: scans are hot")]
    #[inline(always)]
    pub(crate) fn next_from<T>(
        &mut self,
        end: End,
        copy: impl FnOnce((&[u8], &[u8])) -> T,
    ) -> Option<Result<T>> {
        match self.step_from(end, copy) {
            Ok(Some(item)) => Some(Ok(item)),
            Ok(None) => self.finish(None).map(Err),
            Err(error) => self.finish(Some(error)).map(Err),
        }
    }

    /// Whether there is no entry left.
    pub(crate) fn has_none(mut self) -> Result<bool> {
        Ok(self.next_from(End::First, |_| ()).transpose()?.is_none())
    }

    /// Counts the entries that are left.
    pub(crate) fn count(mut self) -> Result<u64> {
        let mut count = 0;
        while let Some(()) = self.next_from(End::First, |_| ()).transpose()? {
            count += 1;
        }
        Ok(count)
    }

    /// Drops what it reads. Returns the error to return last.
    #[cold]
    fn finish(&mut self, failed: Option<Error>) -> Option<Error> {
        (self.source, self.front, self.back) = (None, None, None);
        failed.or_else(|| self.error.take())
    }

    #[expect(clippy::inline_always, reason = "as for `next_from`")]
    #[inline(always)]
    fn step_from<T>(&mut self, end: End, copy: impl FnOnce((&[u8], &[u8])) -> T) -> Result<Option<T>> {
        let Some(source) = &self.source else { return Ok(None) };
        let (cursor, other) = match end {
            End::First => (&mut self.front, &self.back),
            End::Last => (&mut self.back, &self.front),
        };
        let cursor = if let Some(cursor) = cursor {
            cursor.step_from(end)?;
            cursor
        } else {
            let cursor = cursor.insert(source.cursor());
            cursor.move_to(end)?;
            cursor
        };
        let Some(entry) = cursor.entry() else { return Ok(None) };
        let have_met = other.as_ref().and_then(Steps::entry).is_some_and(|(stop, _)| match end {
            End::First => entry.0 >= stop,
            End::Last => entry.0 <= stop,
        });
        Ok((!have_met).then(|| copy(entry)))
    }
}

#[inline]
pub(crate) fn copy_entry((key, value): (&[u8], &[u8])) -> (Slice, Slice) {
    (Slice::copy_from(key), Slice::copy_from(value))
}

#[inline]
pub(crate) fn copy_key((key, _): (&[u8], &[u8])) -> Slice {
    Slice::copy_from(key)
}

#[inline]
pub(crate) fn copy_value((_, value): (&[u8], &[u8])) -> Slice {
    Slice::copy_from(value)
}

/// Makes an iterator of a type around [`Ends`], which copies this part of each entry.
macro_rules! iterator {
    ($name:ident $(<$life:lifetime>)?, $item:ty, $copy:ident) => {
        impl $(<$life>)? Iterator for $name $(<$life>)? {
            type Item = Result<$item>;

            fn next(&mut self) -> Option<Self::Item> {
                self.0.next_from(End::First, $copy)
            }
        }

        impl $(<$life>)? DoubleEndedIterator for $name $(<$life>)? {
            fn next_back(&mut self) -> Option<Self::Item> {
                self.0.next_from(End::Last, $copy)
            }
        }

        impl $(<$life>)? std::iter::FusedIterator for $name $(<$life>)? {}
    };
}

pub(crate) use iterator;
