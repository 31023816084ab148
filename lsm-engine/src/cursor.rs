//! The cursor of users: the newest visible version of each key, in both directions.

use std::ops::Bound;
use std::sync::Arc;

use lsm_core::range_tombstone::{Cover, FragmentedRangeTombstones};
use lsm_core::{Cursor, Entry, MergingCursor, SEQUENCE_MAX, SequenceNumber, Slice};
use lsm_sstable::CursorAccess;

use crate::Result;
use crate::tree::{Memtable, State};
use crate::version::{Run, RunCursor, common_prefix};

/// One sorted source of a merge.
#[expect(clippy::large_enum_variant, reason = "most sources are runs, and boxing them costs every step")]
pub(crate) enum Source {
    Memtable(Box<dyn Cursor + Send>),
    Run(RunCursor),
}

macro_rules! each {
    ($source:expr, $cursor:ident => $call:expr) => {
        match $source {
            Source::Memtable($cursor) => $call,
            Source::Run($cursor) => $call,
        }
    };
}

impl Cursor for Source {
    fn first(&mut self) {
        each!(self, cursor => cursor.first());
    }

    fn last(&mut self) {
        each!(self, cursor => cursor.last());
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        each!(self, cursor => cursor.seek(key, sequence));
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        each!(self, cursor => cursor.seek_for_prev(key, sequence));
    }

    #[inline]
    fn next(&mut self) {
        each!(self, cursor => cursor.next());
    }

    #[inline]
    fn prev(&mut self) {
        each!(self, cursor => cursor.prev());
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        each!(self, cursor => cursor.entry())
    }

    fn error(&self) -> Option<&lsm_core::Error> {
        each!(self, cursor => cursor.error())
    }
}

/// Between which keys a cursor moves.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) lower: Bound<Slice>,
    pub(crate) upper: Bound<Slice>,
}

impl Bounds {
    pub(crate) const ALL: Self = Self { lower: Bound::Unbounded, upper: Bound::Unbounded };

    /// All keys that start with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        Self { lower: Bound::Included(Slice::copy_from(prefix)), upper: prefix_end(prefix) }
    }

    fn below_lower(&self, key: &[u8]) -> bool {
        match &self.lower {
            Bound::Included(lower) => key < &**lower,
            Bound::Excluded(lower) => key <= &**lower,
            Bound::Unbounded => false,
        }
    }

    #[inline]
    fn above_upper(&self, key: &[u8]) -> bool {
        match &self.upper {
            Bound::Included(upper) => key > &**upper,
            Bound::Excluded(upper) => key >= &**upper,
            Bound::Unbounded => false,
        }
    }

    fn may_hold(&self, run: &Run) -> bool {
        let (Some(first), Some(last)) = (run.tables().first(), run.tables().last()) else { return false };
        !self.above_upper(first.smallest()) && !self.below_lower(last.largest())
    }

    /// Whether every table that could matter says that it holds no key with the prefix.
    fn prefix_is_absent(&self, run: &Run, prefix: &[u8]) -> bool {
        run.tables()
            .iter()
            .filter(|table| !self.above_upper(table.smallest()) && !self.below_lower(table.largest()))
            .all(|table| !table.has_range_tombstones() && !table.table().may_contain_prefix(prefix))
    }
}

/// The first key after all keys that start with `prefix`.
fn prefix_end(prefix: &[u8]) -> Bound<Slice> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xff).map_or(0, |last| last + 1);
    let mut end = prefix[..kept].to_vec();
    match end.last_mut() {
        Some(last) => {
            *last += 1;
            Bound::Excluded(end.into())
        }
        None => Bound::Unbounded,
    }
}

/// A position among the keys and values of a keyspace, as they were when the cursor was made.
///
/// What it gives is borrowed until it moves; nothing is copied. It holds on to the memtables and tables that it
/// reads, so keep it no longer than needed.
///
/// A new cursor stands nowhere. [`key`](Self::key) and [`value`](Self::value) are `None` there, past either end and
/// after a failure; the calls that move return the failure.
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
    merge: MergingCursor<Source>,
    sequence: SequenceNumber,
    bounds: Bounds,
    tombstones: RangeDeletes,
    place: Place,
    /// The key here when moving backward; the key last left when moving forward.
    key: Vec<u8>,
    /// The value here when moving backward.
    value: Vec<u8>,
    _pinned: Arc<State>,
}

/// After so many shadowed versions of a key a seek costs less than further steps.
const RESEEK_COUNT: u32 = 8;

/// Where the merge stands relative to what the user sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// On the very entry.
    Forward,
    /// On the entry before all versions of the key, which was copied.
    Backward,
}

impl DbCursor {
    pub(crate) fn new(
        state: Arc<State>,
        sequence: SequenceNumber,
        bounds: Bounds,
        prefix: Option<&[u8]>,
    ) -> Self {
        let pinned = state;
        let state = pinned.at(sequence);
        let mut sources = Vec::new();
        for memtable in state.memtables() {
            if memtable.reader.entry_count() > 0 {
                sources.push(Source::Memtable(Arc::clone(&memtable.reader).cursor()));
            }
        }
        let is_wanted = |run: &&Arc<Run>| {
            bounds.may_hold(run) && !prefix.is_some_and(|prefix| bounds.prefix_is_absent(run, prefix))
        };
        let runs: Vec<&Arc<Run>> = state.version.runs().filter(is_wanted).collect();
        let prefix = common_prefix(runs.iter().map(|run| &***run));
        sources.extend(
            runs.into_iter().map(|run| Source::Run(RunCursor::new(Arc::clone(run), CursorAccess::Cached))),
        );
        Self {
            merge: MergingCursor::with_prefix(sources, &prefix),
            sequence,
            bounds,
            tombstones: RangeDeletes::new(state),
            place: Place::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            _pinned: pinned,
        }
    }

    /// Moves to the first key.
    pub fn first(&mut self) -> Result<()> {
        match &self.bounds.lower {
            Bound::Unbounded => self.merge.first(),
            Bound::Included(lower) => self.merge.seek(lower, SEQUENCE_MAX),
            Bound::Excluded(lower) => {
                self.merge.seek(lower, 0);
                while self.merge.entry().is_some_and(|entry| entry.key == &**lower) {
                    self.merge.next();
                }
            }
        }
        self.find_forward(false)
    }

    /// Moves to the last key.
    pub fn last(&mut self) -> Result<()> {
        match &self.bounds.upper {
            Bound::Unbounded => self.merge.last(),
            Bound::Included(upper) => self.merge.seek_for_prev(upper, 0),
            Bound::Excluded(upper) => self.merge.seek_for_prev(upper, SEQUENCE_MAX),
        }
        self.find_backward()
    }

    /// Moves to the first key at or after `key`.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        if self.bounds.below_lower(key) {
            return self.first();
        }
        self.merge.seek(key, SEQUENCE_MAX);
        self.find_forward(false)
    }

    /// Moves to the last key at or before `key`.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        if self.bounds.above_upper(key) {
            return self.last();
        }
        self.merge.seek_for_prev(key, 0);
        self.find_backward()
    }

    /// Moves to the next key; does nothing past either end.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not lend what it stands on")]
    pub fn next(&mut self) -> Result<()> {
        match self.place {
            Place::Nowhere => return Ok(()),
            Place::Forward => {
                let Some(entry) = self.merge.entry() else { return Ok(()) };
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                self.merge.next();
            }
            Place::Backward => self.merge.seek(&self.key, 0),
        }
        self.find_forward(true)
    }

    /// Moves to the previous key; does nothing past either end.
    pub fn prev(&mut self) -> Result<()> {
        match self.place {
            Place::Nowhere => return Ok(()),
            Place::Forward => {
                let Some(entry) = self.merge.entry() else { return Ok(()) };
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
            }
            Place::Backward => {}
        }
        self.find_backward()
    }

    /// The key here.
    pub fn key(&self) -> Option<&[u8]> {
        match self.place {
            Place::Nowhere => None,
            Place::Forward => self.merge.entry().map(|entry| entry.key),
            Place::Backward => Some(&self.key),
        }
    }

    /// The value here.
    pub fn value(&self) -> Option<&[u8]> {
        self.entry().map(|(_, value)| value)
    }

    /// Key and value here.
    #[inline]
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        match self.place {
            Place::Nowhere => None,
            Place::Forward => self.merge.entry().map(|entry| (entry.key, entry.value)),
            Place::Backward => Some((&self.key, &self.value)),
        }
    }

    /// From an entry on, finds the first key that the user sees. With `skip`, versions of `self.key` are passed.
    fn find_forward(&mut self, mut skip: bool) -> Result<()> {
        let mut passed_count = 0;
        while let Some(entry) = self.merge.entry() {
            if skip && entry.key == self.key {
                passed_count += 1;
                // Past the oldest versions; one of sequence number 0 would be passed by steps.
                if passed_count == RESEEK_COUNT {
                    self.merge.seek(&self.key, 0);
                } else {
                    self.merge.next();
                }
                continue;
            }
            if self.bounds.above_upper(entry.key) {
                self.place = Place::Nowhere;
                return Ok(());
            }
            if entry.sequence <= self.sequence {
                if !entry.kind.is_tombstone() && !self.tombstones.cover(entry, self.sequence) {
                    self.place = Place::Forward;
                    return Ok(());
                }
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                skip = true;
                passed_count = 0;
            } else if entry.key == self.key {
                passed_count += 1;
                if passed_count == RESEEK_COUNT {
                    self.merge.seek(&self.key, self.sequence);
                    continue;
                }
            } else {
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                passed_count = 0;
                skip = false;
            }
            self.merge.next();
        }
        self.stand_nowhere()
    }

    /// From an entry backward, finds the last key that the user sees, and stops before its versions.
    fn find_backward(&mut self) -> Result<()> {
        // The newest visible version so far of the key being passed, and whether it has a value.
        let mut live = None;
        let mut passed_count = 0;
        while let Some(entry) = self.merge.entry() {
            if live.is_some() {
                if entry.key != self.key {
                    if live == Some(true) {
                        break;
                    }
                    live = None;
                    passed_count = 0;
                } else if passed_count == RESEEK_COUNT {
                    live = self.seek_newest_version();
                    passed_count = 0;
                    continue;
                } else {
                    passed_count += 1;
                }
            }
            if self.bounds.below_lower(entry.key) {
                break;
            }
            if entry.sequence <= self.sequence {
                let value = !entry.kind.is_tombstone() && !self.tombstones.cover(entry, self.sequence);
                if live.is_none() {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                }
                if value {
                    self.value.clear();
                    self.value.extend_from_slice(entry.value);
                }
                live = Some(value);
            }
            self.merge.prev();
        }
        if self.merge.error().is_none() && live == Some(true) {
            self.place = Place::Backward;
            return Ok(());
        }
        self.stand_nowhere()
    }

    /// Copies the newest visible version of `self.key` and stops before all versions of it. Says whether it has a
    /// value; a failed seek leaves the merge without an entry.
    fn seek_newest_version(&mut self) -> Option<bool> {
        self.merge.seek(&self.key, self.sequence);
        let entry = self.merge.entry()?;
        let value = !entry.kind.is_tombstone() && !self.tombstones.cover(entry, self.sequence);
        if value {
            self.value.clear();
            self.value.extend_from_slice(entry.value);
        }
        self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
        Some(value)
    }

    fn stand_nowhere(&mut self) -> Result<()> {
        self.place = Place::Nowhere;
        self.merge.error().map_or(Ok(()), |error| Err(error.clone().into()))
    }
}

impl std::fmt::Debug for DbCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbCursor").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// The range tombstones of all sources, with what they say about the stretch of keys last asked for.
struct RangeDeletes {
    /// Those that hold any. Asked key by key: one list of tombstones that overlap grows with their square.
    memtables: Vec<Arc<Memtable>>,
    tables: Option<Arc<FragmentedRangeTombstones>>,
    /// `covering` holds for keys from `start` up to `end`, exclusive; no `end` means all that follow.
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    covering: SequenceNumber,
    known: bool,
}

impl RangeDeletes {
    fn new(state: &State) -> Self {
        let memtables = state.memtables().filter(|memtable| !memtable.range_tombstones.is_empty());
        Self {
            memtables: memtables.cloned().collect(),
            tables: state.version.range_tombstones().cloned(),
            start: Vec::new(),
            end: None,
            covering: 0,
            known: false,
        }
    }

    /// Whether a range tombstone that a reader at `visible` sees deletes the entry.
    #[inline]
    fn cover(&mut self, entry: Entry<'_>, visible: SequenceNumber) -> bool {
        if self.memtables.is_empty() && self.tables.is_none() {
            return false;
        }
        let inside =
            self.known && *self.start <= *entry.key && self.end.as_deref().is_none_or(|end| entry.key < end);
        if !inside {
            self.look_up(entry.key, visible);
        }
        entry.sequence < self.covering
    }

    fn look_up(&mut self, key: &[u8], visible: SequenceNumber) {
        let covers = self.memtables.iter().map(|memtable| memtable.range_tombstones.cover(key, visible));
        let covers = covers.chain(self.tables.iter().map(|tables| cover_in(tables, key, visible)));
        let nowhere = Cover { start: None, end: None, sequence: 0 };
        let common = covers.fold(nowhere, |common, cover| Cover {
            // No start is below all others, no end above.
            start: common.start.max(cover.start),
            end: common.end.into_iter().chain(cover.end).min(),
            sequence: common.sequence.max(cover.sequence),
        });
        self.start.clear();
        self.start.extend_from_slice(common.start.unwrap_or_default());
        self.end = common.end.map(<[u8]>::to_vec);
        self.covering = common.sequence;
        self.known = true;
    }
}

/// The fragment or the gap around a key.
fn cover_in<'t>(tables: &'t FragmentedRangeTombstones, key: &[u8], visible: SequenceNumber) -> Cover<'t> {
    match tables.fragment_at_or_after(key) {
        Some(fragment) if fragment.start <= key => {
            let newest = fragment.sequences.iter().copied().find(|&sequence| sequence <= visible);
            Cover { start: Some(fragment.start), end: Some(fragment.end), sequence: newest.unwrap_or(0) }
        }
        next => Cover {
            start: tables.fragment_at_or_before(key).map(|before| before.end),
            end: next.map(|next| next.start),
            sequence: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_does_not_have_it() {
        assert_eq!(prefix_end(b"ab"), Bound::Excluded(Slice::from("ac")));
        assert_eq!(prefix_end(b"a\xff"), Bound::Excluded(Slice::from("b")));
        assert_eq!(prefix_end(b"\xff\xff"), Bound::Unbounded);
        assert_eq!(prefix_end(b""), Bound::Unbounded);
    }
}
