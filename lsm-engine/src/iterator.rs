use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use lsm_core::{SequenceNumber, Slice};

use crate::batch::inverted;
use crate::cursor::{Bounds, DbCursor};
use crate::tree::State;
use crate::{Error, Result};

/// Keys and values of a range in order, from both ends, as they were when the iterator was made.
///
/// It owns all it needs: it may be kept, sent to another thread, and outlives the database handle. It holds on to
/// the memtables and tables that it reads, so drop it when done. After an error it ends.
#[derive(Debug)]
pub struct Iter {
    source: Option<IterSource>,
    /// An error to hand out first: the range was inverted.
    error: Option<Error>,
    front: Option<DbCursor>,
    back: Option<DbCursor>,
    /// The keys last handed out at either end; the other end stops there.
    front_key: Option<Slice>,
    back_key: Option<Slice>,
}

struct IterSource {
    state: Arc<State>,
    sequence: SequenceNumber,
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
        DbCursor::new(Arc::clone(&self.state), self.sequence, self.bounds.clone(), self.prefix.as_deref())
    }
}

impl Iter {
    pub(crate) fn range<K: AsRef<[u8]>>(
        state: Arc<State>,
        sequence: SequenceNumber,
        range: &impl RangeBounds<K>,
    ) -> Self {
        let own = |bound: Bound<&K>| bound.map(|key| Slice::copy_from(key.as_ref()));
        let bounds = Bounds { lower: own(range.start_bound()), upper: own(range.end_bound()) };
        let error = match (&bounds.lower, &bounds.upper) {
            (
                Bound::Included(lower) | Bound::Excluded(lower),
                Bound::Included(upper) | Bound::Excluded(upper),
            ) if lower > upper => Some(Error::InvalidArgument(inverted(lower, upper))),
            _ => None,
        };
        Self::new(IterSource { state, sequence, bounds, prefix: None }, error)
    }

    pub(crate) fn prefix(state: Arc<State>, sequence: SequenceNumber, prefix: &[u8]) -> Self {
        let bounds = Bounds::prefix(prefix);
        Self::new(IterSource { state, sequence, bounds, prefix: Some(Slice::copy_from(prefix)) }, None)
    }

    /// An iterator that gives this error and ends.
    pub(crate) fn failed(error: Error) -> Self {
        Self { source: None, error: Some(error), front: None, back: None, front_key: None, back_key: None }
    }

    fn new(source: IterSource, error: Option<Error>) -> Self {
        let source = error.is_none().then_some(source);
        Self { source, error, front: None, back: None, front_key: None, back_key: None }
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
        let Some((key, value)) = cursor.entry() else { return Ok(None) };
        if self.back_key.as_ref().is_some_and(|back| key >= &**back) {
            return Ok(None);
        }
        let key = Slice::copy_from(key);
        // Only the other end asks for it; most iterators have no other end in use.
        self.front_key = Some(key.clone());
        Ok(Some((key, Slice::copy_from(value))))
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
        let Some((key, value)) = cursor.entry() else { return Ok(None) };
        if self.front_key.as_ref().is_some_and(|front| key <= &**front) {
            return Ok(None);
        }
        let key = Slice::copy_from(key);
        self.back_key = Some(key.clone());
        Ok(Some((key, Slice::copy_from(value))))
    }

    /// Hands out what a step gave, and lets go of everything at the end.
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

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        let stepped = self.step_front();
        self.finish(stepped)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        let stepped = self.step_back();
        self.finish(stepped)
    }
}

impl std::iter::FusedIterator for Iter {}

/// `for entry in &db` walks over everything.
macro_rules! into_iterator {
    ($($source:ty),*) => {$(
        impl IntoIterator for &$source {
            type Item = Result<(Slice, Slice)>;
            type IntoIter = Iter;

            fn into_iter(self) -> Iter {
                self.iter()
            }
        }
    )*};
}

into_iterator!(crate::Db, crate::Keyspace, crate::Snapshot);
