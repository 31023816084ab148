use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use lsm_core::Slice;

use crate::error::{Error, Result};
use crate::keyspaces::{ReadPoint, ReadState};
use crate::read::bounds::Bounds;
use crate::read::cursor::DbCursor;

/// A double-ended iterator over the keys and values of a range, as they were when the iterator was made.
///
/// It owns what it reads, so it can be sent to another thread and outlives the database handle. It stays readable until
/// the database is opened again, since opening may remove the files that it reads. It keeps the memtables and tables
/// that it reads, so drop it when you are done. It ends after the first error.
#[derive(Debug)]
pub struct Iter {
    source: Option<IterSource>,
    /// The error to return first, for example for an inverted range.
    error: Option<Error>,
    /// Each cursor stands on the key that its end returned last. The other end stops before that key.
    front: Option<DbCursor>,
    back: Option<DbCursor>,
}

struct IterSource {
    state: Arc<ReadState>,
    point: ReadPoint<'static>,
    bounds: Bounds,
    prefix: Option<Slice>,
}

impl std::fmt::Debug for IterSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IterSource").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl IterSource {
    fn cursor(&self) -> DbCursor {
        DbCursor::new(Arc::clone(&self.state), self.point, self.bounds.clone(), self.prefix.as_deref())
    }
}

impl Iter {
    pub(crate) fn range<K: AsRef<[u8]>>(
        state: Arc<ReadState>,
        point: ReadPoint<'_>,
        range: &impl RangeBounds<K>,
    ) -> Self {
        let own = |bound: Bound<&K>| bound.map(|key| Slice::copy_from(key.as_ref()));
        let bounds = Bounds { lower: own(range.start_bound()), upper: own(range.end_bound()) };
        let error = match (&bounds.lower, &bounds.upper) {
            (
                Bound::Included(lower) | Bound::Excluded(lower),
                Bound::Included(upper) | Bound::Excluded(upper),
            ) if lower > upper => Some(Error::inverted(lower, upper)),
            _ => None,
        };
        Self::new(IterSource { point: state.fix(point), state, bounds, prefix: None }, error)
    }

    pub(crate) fn prefix(state: Arc<ReadState>, point: ReadPoint<'_>, prefix: &[u8]) -> Self {
        let bounds = Bounds::prefix(prefix);
        let prefix = Some(Slice::copy_from(prefix));
        Self::new(IterSource { point: state.fix(point), state, bounds, prefix }, None)
    }

    /// An iterator that returns this error and ends.
    pub(crate) fn failed(error: Error) -> Self {
        Self { source: None, error: Some(error), front: None, back: None }
    }

    fn new(source: IterSource, error: Option<Error>) -> Self {
        let source = error.is_none().then_some(source);
        Self { source, error, front: None, back: None }
    }

    /// Only the keys. No value is copied.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// # for key in ["a", "b", "c"] { db.put(key, key)?; }
    /// let keys = db.range("a"..="b").keys().rev().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(keys, ["b", "a"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keys(self) -> Keys {
        Keys(self)
    }

    /// Only the values, in the order of their keys.
    pub fn values(self) -> Values {
        Values(self)
    }

    /// The first entry.
    pub(crate) fn first_entry(mut self) -> Result<Option<(Slice, Slice)>> {
        self.next().transpose()
    }

    /// The last entry.
    pub(crate) fn last_entry(mut self) -> Result<Option<(Slice, Slice)>> {
        self.next_back().transpose()
    }

    /// Whether there is no entry.
    pub(crate) fn has_none(self) -> Result<bool> {
        Ok(self.keys().next().transpose()?.is_none())
    }

    /// Counts the entries.
    pub(crate) fn count_entries(mut self) -> Result<u64> {
        let mut count = 0;
        loop {
            let stepped = self.step_front(|_| ());
            match self.finish(stepped).transpose()? {
                Some(()) => count += 1,
                None => return Ok(count),
            }
        }
    }

    fn step_front<T>(&mut self, copy: impl FnOnce((&[u8], &[u8])) -> T) -> Result<Option<T>> {
        let Some(source) = &self.source else { return Ok(None) };
        let cursor = if let Some(cursor) = &mut self.front {
            cursor.next()?;
            cursor
        } else {
            let cursor = self.front.insert(source.cursor());
            cursor.first()?;
            cursor
        };
        let end = self.back.as_ref().and_then(DbCursor::key);
        Ok(cursor.entry().filter(|(key, _)| end.is_none_or(|end| *key < end)).map(copy))
    }

    fn step_back<T>(&mut self, copy: impl FnOnce((&[u8], &[u8])) -> T) -> Result<Option<T>> {
        let Some(source) = &self.source else { return Ok(None) };
        let cursor = if let Some(cursor) = &mut self.back {
            cursor.prev()?;
            cursor
        } else {
            let cursor = self.back.insert(source.cursor());
            cursor.last()?;
            cursor
        };
        let end = self.front.as_ref().and_then(DbCursor::key);
        Ok(cursor.entry().filter(|(key, _)| end.is_none_or(|end| *key > end)).map(copy))
    }

    /// Returns the entry of a step. At the end or after an error, drops the read state and the cursors.
    fn finish<T>(&mut self, stepped: Result<Option<T>>) -> Option<Result<T>> {
        if let Ok(Some(entry)) = stepped {
            return Some(Ok(entry));
        }
        self.source = None;
        self.front = None;
        self.back = None;
        stepped.err().or_else(|| self.error.take()).map(Err)
    }
}

/// The keys of an [`Iter`], from both ends.
#[derive(Debug)]
pub struct Keys(Iter);

/// The values of an [`Iter`], from both ends.
#[derive(Debug)]
pub struct Values(Iter);

fn copy_entry((key, value): (&[u8], &[u8])) -> (Slice, Slice) {
    (Slice::copy_from(key), Slice::copy_from(value))
}

fn copy_key((key, _): (&[u8], &[u8])) -> Slice {
    Slice::copy_from(key)
}

fn copy_value((_, value): (&[u8], &[u8])) -> Slice {
    Slice::copy_from(value)
}

/// The steps of an iterator that copies this part of each entry.
macro_rules! iterator {
    ($name:ident, $item:ty, |$self:ident| $iter:expr, $copy:ident) => {
        impl Iterator for $name {
            type Item = Result<$item>;

            fn next(&mut self) -> Option<Self::Item> {
                let $self = self;
                let stepped = $iter.step_front($copy);
                $iter.finish(stepped)
            }
        }

        impl DoubleEndedIterator for $name {
            fn next_back(&mut self) -> Option<Self::Item> {
                let $self = self;
                let stepped = $iter.step_back($copy);
                $iter.finish(stepped)
            }
        }

        impl std::iter::FusedIterator for $name {}
    };
}

iterator!(Iter, (Slice, Slice), |iter| iter, copy_entry);
iterator!(Keys, Slice, |keys| keys.0, copy_key);
iterator!(Values, Slice, |values| values.0, copy_value);
