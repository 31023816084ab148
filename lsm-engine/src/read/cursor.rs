//! The public cursor: it shows the newest visible version of each key, in both directions.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::{Cursor, Entry, MergingCursor, SEQUENCE_MAX, Slice, ValueKind, expiry};

use crate::error::{Error, Result};
use crate::keyspaces::{ReadPoint, ReadState};
use crate::metrics::Call;
use crate::read::bounds::{Bounds, End};
use crate::read::ends::Steps;
use crate::read::merge_input::{MergeInput, merged};
use crate::read::range_deletes::RangeDeletes;
use crate::read::skip::{From, LEARN_COUNT};

/// A cursor over the keys and values of a keyspace, as they were when the cursor was made.
///
/// It lends keys and values without copying them; they are valid until the cursor moves. It keeps the memtables and
/// tables that it reads, so drop it when you are done.
///
/// A new cursor has no position: call [`first`](Self::first), [`last`](Self::last) or [`seek`](Self::seek) first.
/// [`key`](Self::key) and [`value`](Self::value) are `None` without a position, past either end, and after an error.
/// The call that moved the cursor returns the error.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lsm_engine::Db::open(dir.path())?;
/// db.put("a", "1")?;
/// db.put("c", "3")?;
/// let mut cursor = db.cursor()?;
/// cursor.seek("b")?;
/// assert_eq!(cursor.key(), Some(&b"c"[..]));
/// cursor.prev()?;
/// assert_eq!(cursor.value(), Some(&b"1"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DbCursor {
    pub(super) merge: MergingCursor<MergeInput>,
    pub(super) point: ReadPoint<'static>,
    pub(super) bounds: Bounds,
    pub(super) prefix: Option<Slice>,
    pub(super) tombstones: RangeDeletes,
    pub(super) place: Place,
    /// Backward, and of a merged value: the current key. Forward: the key that the cursor left last.
    pub(super) key: Vec<u8>,
    /// Backward, and of a merged value: the current value.
    pub(super) value: Vec<u8>,
    /// The start of the dead entries that the cursor passes. Forward: their first key. Backward: the key after their
    /// last.
    pub(super) edge: Vec<u8>,
    /// Number of dead entries in a row after which the cursor notes an empty span.
    pub(super) learn_count: u32,
    /// The cursor must not use empty spans that are not empty at this point.
    pub(super) spans_for: ReadPoint<'static>,
    pub(super) pinned: Arc<ReadState>,
    /// There may be something to do before a move: the cursor may expire, or keeps refusals.
    prepares: bool,
    keeps_refusals: bool,
    /// Why the current key has no value, if the cursor keeps refusals.
    refusal: Option<Error>,
    /// The current value, if it was read from a blob file.
    pub(super) blob: Option<Slice>,
    /// Values in blob files are not read by moves.
    is_lazy: bool,
}

/// The position of the merging cursor, relative to the entry that the user sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    /// On that entry.
    Forward,
    /// On the entry before all versions of the key. Key and value were copied.
    Backward,
    /// The same, and the value is in a blob file. The pointer to it was copied.
    BackwardBlob,
    /// After merge operands of the key. Key and value were copied.
    Merged,
}

impl DbCursor {
    pub(crate) fn new(
        state: Arc<ReadState>,
        point: ReadPoint<'_>,
        bounds: Bounds,
        prefix: Option<&[u8]>,
    ) -> Self {
        let pinned = state;
        let point = pinned.fix(point);
        let state = pinned.at(point.sequence);
        let spans_up_to = pinned.empty_spans.readable_up_to(pinned.begun_count, point.sequence);
        Self {
            merge: merged(state, &bounds, prefix),
            point,
            tombstones: RangeDeletes::new(state),
            bounds,
            prefix: prefix.map(Slice::copy_from),
            place: Place::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            edge: Vec::new(),
            learn_count: LEARN_COUNT,
            spans_for: ReadPoint { sequence: spans_up_to, ..point },
            prepares: pinned.expired.is_some(),
            pinned,
            keeps_refusals: false,
            refusal: None,
            blob: None,
            is_lazy: false,
        }
    }

    /// From now on, moves do not read values in blob files. For such a key [`value`](Self::value) and
    /// [`entry`](Self::entry) are `None` until [`read_value`](Self::read_value) was called.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// db.put("photo", vec![0; 100_000])?;
    /// let mut cursor = db.cursor()?;
    /// cursor.read_lazily();
    /// cursor.first()?;
    /// assert_eq!(cursor.key(), Some(&b"photo"[..]));
    /// assert_eq!(cursor.read_value()?.map(|value| value.len()), Some(100_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_lazily(&mut self) {
        self.is_lazy = true;
    }

    /// The current value, read from its blob file if that was not done yet.
    pub fn read_value(&mut self) -> Result<Option<&[u8]>> {
        if self.is_lazy && self.blob.is_none() && self.entry().is_none() {
            self.load_blob()?;
        }
        Ok(self.value())
    }

    /// Reads the current value, which is in a blob file.
    #[cold]
    fn load_blob(&mut self) -> Result<()> {
        let state = self.pinned.at(self.point.sequence);
        let resolved = match self.place {
            Place::Forward => {
                let Some(entry) = self.merge.entry() else { return Ok(()) };
                state.resolve(entry.key, entry.value)
            }
            Place::BackwardBlob => state.resolve(&self.key, &self.value),
            Place::Nowhere | Place::Backward | Place::Merged => return Ok(()),
        };
        self.blob = Some(resolved?);
        Ok(())
    }

    /// The cursor stands on a key whose value is in a blob file.
    #[cold]
    pub(super) fn arrive_at_blob(&mut self) -> Result<()> {
        if self.is_lazy {
            return Ok(());
        }
        self.load_blob()
            .or_else(|error| self.keep_refusal(error).inspect_err(|_| self.place = Place::Nowhere))
    }

    /// From now on, a move to a key whose operands cannot be folded succeeds, for a caller that may not want its value.
    /// A caller that does must ask for the [`refusal`](Self::refusal) first.
    pub(crate) fn keep_refusals(&mut self) {
        (self.keeps_refusals, self.prepares) = (true, true);
    }

    /// Why the current key has no value.
    pub(crate) fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// Keeps the error of a fold, unless a read has failed. Then the cursor stands on the key, without a value.
    pub(super) fn keep_refusal(&mut self, error: Error) -> Result<()> {
        if !self.keeps_refusals || self.merge.error().is_some() {
            return Err(error);
        }
        self.value.clear();
        self.refusal = Some(error);
        Ok(())
    }

    /// Fails if the cursor has expired. Then it releases what it reads.
    #[cold]
    fn prepare(&mut self) -> Result<()> {
        self.refusal = None;
        if !self.pinned.expired.as_ref().is_some_and(|expired| expired.load(Ordering::Relaxed)) {
            return Ok(());
        }
        self.place = Place::Nowhere;
        self.pinned = self.pinned.expired();
        self.merge = merged(&self.pinned, &self.bounds, None);
        self.tombstones = RangeDeletes::new(&self.pinned);
        Err(Error::SnapshotExpired(
            "what the iterator reads has been out of date for longer than Options::snapshot_age_max: make a new one"
                .into(),
        ))
    }

    /// Moves to the first key.
    pub fn first(&mut self) -> Result<()> {
        self.measured(Self::seek_first)
    }

    /// Moves to the last key.
    pub fn last(&mut self) -> Result<()> {
        self.measured(Self::seek_last)
    }

    /// Moves to the first key at or after `key`.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        self.measured(|cursor| {
            if cursor.bounds.below_lower(key) { cursor.seek_first() } else { cursor.seek_from(key) }
        })
    }

    /// Moves to the last key at or before `key`.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        self.measured(|cursor| {
            if cursor.bounds.above_upper(key) {
                return cursor.seek_last();
            }
            cursor.merge.seek_for_prev(key, 0);
            cursor.find_backward(From::Here)
        })
    }

    /// Measures a seek, if the database keeps statistics.
    #[inline]
    fn measured(&mut self, seek: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.prepares {
            self.prepare()?;
        }
        match self.pinned.statistics.clone() {
            None => seek(self),
            Some(statistics) => statistics.time(Call::Seek, || seek(self)),
        }
    }

    fn seek_first(&mut self) -> Result<()> {
        match self.bounds.lower.clone() {
            Bound::Unbounded if self.pinned.empty_spans.any() => self.seek_from(b""),
            Bound::Unbounded => {
                self.merge.first();
                self.find_forward(false, From::End)
            }
            Bound::Included(lower) => self.seek_from(&lower),
            Bound::Excluded(lower) => {
                self.merge.seek(&lower, 0);
                while self.merge.entry().is_some_and(|entry| entry.key == &*lower) {
                    self.merge.next();
                }
                self.find_forward(false, From::Here)
            }
        }
    }

    fn seek_last(&mut self) -> Result<()> {
        match self.bounds.upper.clone() {
            Bound::Unbounded => {
                let spans = &self.pinned.empty_spans;
                if let Some(start) = spans.any().then(|| spans.start_of_last(&self.spans_for)).flatten() {
                    self.merge.seek_for_prev(&start, SEQUENCE_MAX);
                    return self.find_backward(From::Span(&start));
                }
                self.merge.last();
                self.find_backward(From::End)
            }
            Bound::Included(upper) => {
                self.merge.seek_for_prev(&upper, 0);
                self.find_backward(From::Here)
            }
            Bound::Excluded(upper) => self.seek_before(&upper),
        }
    }

    fn seek_from(&mut self, key: &[u8]) -> Result<()> {
        let spans = &self.pinned.empty_spans;
        match spans.any().then(|| spans.end_around(key, &self.spans_for)).flatten() {
            Some(Bound::Included(end) | Bound::Excluded(end)) => {
                self.merge.seek(&end, SEQUENCE_MAX);
                self.find_forward(false, From::Span(&end))
            }
            Some(Bound::Unbounded) => {
                self.place = Place::Nowhere;
                Ok(())
            }
            None => {
                self.merge.seek(key, SEQUENCE_MAX);
                self.find_forward(false, From::Key(key))
            }
        }
    }

    /// Moves to the last key before `key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.merge.seek_for_prev(key, SEQUENCE_MAX);
        self.find_backward(From::Key(key))
    }

    /// Moves to the next key. Does nothing if the cursor has no position.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its entries")]
    pub fn next(&mut self) -> Result<()> {
        if self.prepares {
            self.prepare()?;
        }
        match self.place {
            Place::Nowhere => return Ok(()),
            Place::Forward => {
                let Some(entry) = self.merge.entry() else { return Ok(()) };
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                self.merge.next();
                if self.stands_on_the_next() {
                    return Ok(());
                }
            }
            Place::Backward | Place::BackwardBlob => self.merge.seek(&self.key, 0),
            Place::Merged => {}
        }
        self.find_forward(true, From::Here)
    }

    /// Moves to the previous key. Does nothing if the cursor has no position.
    pub fn prev(&mut self) -> Result<()> {
        if self.prepares {
            self.prepare()?;
        }
        match self.place {
            Place::Nowhere => return Ok(()),
            Place::Forward => {
                let Some(entry) = self.merge.entry() else { return Ok(()) };
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
            }
            Place::Backward | Place::BackwardBlob => {}
            Place::Merged => self.merge.seek_for_prev(&self.key, SEQUENCE_MAX),
        }
        self.find_backward(From::Here)
    }

    /// The current key.
    pub fn key(&self) -> Option<&[u8]> {
        match self.place {
            Place::Nowhere => None,
            Place::Forward => self.merge.entry().map(|entry| entry.key),
            Place::Backward | Place::BackwardBlob | Place::Merged => Some(&self.key),
        }
    }

    /// The current value.
    pub fn value(&self) -> Option<&[u8]> {
        self.entry().map(|(_, value)| value)
    }

    /// The current key and value.
    #[inline]
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        match self.place {
            Place::Nowhere => None,
            Place::Forward => {
                let entry = self.merge.entry()?;
                match entry.kind {
                    ValueKind::BlobPointer => Some((entry.key, self.blob.as_deref()?)),
                    _ => Some((entry.key, value_of(entry))),
                }
            }
            Place::Backward | Place::Merged => Some((&self.key, &self.value)),
            Place::BackwardBlob => Some((&self.key, self.blob.as_deref()?)),
        }
    }

    /// The current key and value; no value if it was not read.
    #[inline]
    pub(crate) fn shown(&self) -> Option<(&[u8], &[u8])> {
        self.entry().or_else(|| Some((self.key()?, b"")))
    }

    pub(super) fn check(&self) -> Result<()> {
        self.merge.error().map_or(Ok(()), |error| Err(error.clone().into()))
    }
}

impl Steps for DbCursor {
    fn move_to(&mut self, end: End) -> Result<()> {
        match end {
            End::First => self.first(),
            End::Last => self.last(),
        }
    }

    #[inline]
    fn step_from(&mut self, end: End) -> Result<()> {
        match end {
            End::First => self.next(),
            End::Last => self.prev(),
        }
    }

    #[inline]
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.shown()
    }
}

/// The value that the user gave.
#[inline]
fn value_of(entry: Entry<'_>) -> &[u8] {
    match entry.kind {
        ValueKind::PutWithExpiry => expiry::split(entry.value).map_or(entry.value, |(_, value)| value),
        _ => entry.value,
    }
}

impl std::fmt::Debug for DbCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbCursor").field("sequence", &self.point.sequence).finish_non_exhaustive()
    }
}
