use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use lsm_core::Slice;

use crate::error::{Error, Result};
use crate::keyspaces::{ReadPoint, ReadState};
use crate::read::bounds::{Bounds, End};
use crate::read::cursor::DbCursor;
use crate::read::ends::{Ends, Source, copy_entry, copy_key, copy_value, iterator};

/// A double-ended iterator over the keys and values of a range, as they were when the iterator was made.
///
/// It owns what it reads, so it can be sent to another thread and outlives the database handle. It stays readable until
/// the database is opened again, since opening may remove the files that it reads. It keeps the memtables and tables
/// that it reads, so drop it when you are done. It ends after the first error.
#[derive(Debug)]
pub struct Iter(Ends<IterSource>);

struct IterSource {
    state: Arc<ReadState>,
    point: ReadPoint<'static>,
    bounds: Bounds,
    prefix: Option<Slice>,
    /// No value in a blob file is read.
    is_lazy: bool,
}

impl std::fmt::Debug for IterSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IterSource").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Source for IterSource {
    type Cursor = DbCursor;

    fn cursor(&self) -> DbCursor {
        let (state, bounds) = (Arc::clone(&self.state), self.bounds.clone());
        let mut cursor = DbCursor::new(state, self.point, bounds, self.prefix.as_deref());
        if self.is_lazy {
            cursor.read_lazily();
        }
        cursor
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
        match (&bounds.lower, &bounds.upper) {
            (
                Bound::Included(lower) | Bound::Excluded(lower),
                Bound::Included(upper) | Bound::Excluded(upper),
            ) if lower > upper => Self::failed(Error::inverted(lower, upper)),
            _ => {
                Self::new(IterSource { point: state.fix(point), state, bounds, prefix: None, is_lazy: false })
            }
        }
    }

    pub(crate) fn prefix(state: Arc<ReadState>, point: ReadPoint<'_>, prefix: &[u8]) -> Self {
        let bounds = Bounds::prefix(prefix);
        let prefix = Some(Slice::copy_from(prefix));
        Self::new(IterSource { point: state.fix(point), state, bounds, prefix, is_lazy: false })
    }

    /// An iterator that returns this error and ends.
    pub(crate) fn failed(error: Error) -> Self {
        Self(Ends::new(Err(error)))
    }

    fn new(source: IterSource) -> Self {
        Self(Ends::new(Ok(source)))
    }

    /// Only the keys. No value is copied, or read from a blob file.
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
        Keys(self.without_values().0)
    }

    /// Only the values, in the order of their keys.
    pub fn values(self) -> Values {
        Values(self.0)
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
        self.without_values().0.has_none()
    }

    /// From now on, values in blob files are not read.
    fn without_values(mut self) -> Self {
        self.0.change(|source| source.is_lazy = true, DbCursor::read_lazily);
        self
    }

    /// Counts the entries.
    pub(crate) fn count_entries(self) -> Result<u64> {
        self.without_values().0.count()
    }
}

/// The keys of an [`Iter`], from both ends.
#[derive(Debug)]
pub struct Keys(Ends<IterSource>);

/// The values of an [`Iter`], from both ends.
#[derive(Debug)]
pub struct Values(Ends<IterSource>);

iterator!(Iter, (Slice, Slice), copy_entry);
iterator!(Keys, Slice, copy_key);
iterator!(Values, Slice, copy_value);
