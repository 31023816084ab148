//! The cursor of users: the newest visible version of each key, in both directions.

use std::ops::Bound;
use std::sync::Arc;

use lsm_core::{Cursor, MergingCursor, SEQUENCE_MAX, SequenceNumber, Slice};
use lsm_sstable::CursorAccess;

use crate::Result;
use crate::keyspaces::ReadState;
use crate::keyspaces::{Watch, successor};
use crate::read::bounds::Bounds;
use crate::read::merge_input::MergeInput;
use crate::read::range_deletes::RangeDeletes;
use crate::version::{Run, RunCursor, common_prefix};

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
    merge: MergingCursor<MergeInput>,
    sequence: SequenceNumber,
    bounds: Bounds,
    prefix: Option<Slice>,
    tombstones: RangeDeletes,
    place: Place,
    /// The key here when moving backward; the key last left when moving forward.
    key: Vec<u8>,
    /// The value here when moving backward.
    value: Vec<u8>,
    /// Where the dead keys begin that are being passed: the first of them when moving forward, else the first key behind
    /// them.
    edge: Vec<u8>,
    /// After how many dead entries in a row to remember the span that they leave empty.
    learn_count: u32,
    /// Empty spans of later writes must not be used.
    spans_up_to: SequenceNumber,
    pinned: Arc<ReadState>,
}

/// After so many shadowed versions of a key a seek costs less than further steps.
const RESEEK_COUNT: u32 = 8;
/// After so many dead entries in a row the span that they leave empty is worth remembering: that costs a new merge and
/// a second walk over them. It doubles each time, so that a scan over many such spans pays a fraction of its steps.
const LEARN_COUNT: u32 = 16;
/// Known empty spans are looked for at the first and then every so many dead entries.
const LOOK_COUNT: u32 = 8;

/// Where the merge stands relative to what the user sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    /// On the very entry.
    Forward,
    /// On the entry before all versions of the key, which was copied.
    Backward,
}

/// Where a search for the next live key begins.
#[derive(Clone, Copy)]
enum From<'k> {
    /// Behind the key that the cursor stood on.
    Here,
    /// At this key; going backward, before it.
    Key(&'k [u8]),
    /// At the first key of all, or behind the last.
    End,
}

/// The dead entries that a search has passed since it began, or since one that is newer than its reader.
struct Dead<'k> {
    from: From<'k>,
    /// `edge` of the cursor says where they begin.
    has_edge: bool,
    /// Going backward: they begin behind the last key of all.
    is_last: bool,
    count: u32,
    /// The search has announced where it goes.
    watch: Option<Watch>,
}

impl<'k> Dead<'k> {
    fn new(from: From<'k>) -> Self {
        Self { from, has_edge: false, is_last: false, count: 0, watch: None }
    }
}

impl DbCursor {
    pub(crate) fn new(
        state: Arc<ReadState>,
        sequence: SequenceNumber,
        bounds: Bounds,
        prefix: Option<&[u8]>,
    ) -> Self {
        let pinned = state;
        let state = pinned.at(sequence);
        Self {
            merge: merge(state, &bounds, prefix),
            sequence,
            tombstones: RangeDeletes::new(state),
            bounds,
            prefix: prefix.map(Slice::copy_from),
            place: Place::Nowhere,
            key: Vec::new(),
            value: Vec::new(),
            edge: Vec::new(),
            learn_count: LEARN_COUNT,
            spans_up_to: pinned.empty_spans.readable_up_to(&pinned, sequence),
            pinned,
        }
    }

    /// Moves to the first key.
    pub fn first(&mut self) -> Result<()> {
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

    /// Moves to the last key.
    pub fn last(&mut self) -> Result<()> {
        match self.bounds.upper.clone() {
            Bound::Unbounded => {
                let spans = &self.pinned.empty_spans;
                if let Some(start) = spans.any().then(|| spans.start_of_last(self.spans_up_to)).flatten() {
                    return self.seek_before(&start);
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

    /// Moves to the first key at or after `key`.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        if self.bounds.below_lower(key) {
            return self.first();
        }
        self.seek_from(key)
    }

    fn seek_from(&mut self, key: &[u8]) -> Result<()> {
        let spans = &self.pinned.empty_spans;
        match spans.any().then(|| spans.end_around(key, self.spans_up_to)).flatten() {
            Some(Bound::Included(end) | Bound::Excluded(end)) => {
                self.merge.seek(&end, SEQUENCE_MAX);
                self.find_forward(false, From::Key(&end))
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

    /// Moves to the last key at or before `key`.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        if self.bounds.above_upper(key) {
            return self.last();
        }
        self.merge.seek_for_prev(key, 0);
        self.find_backward(From::Here)
    }

    /// Moves to the last key before `key`.
    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.merge.seek_for_prev(key, SEQUENCE_MAX);
        self.find_backward(From::Key(key))
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
                if self.stands_on_the_next() {
                    return Ok(());
                }
            }
            Place::Backward => self.merge.seek(&self.key, 0),
        }
        self.find_forward(true, From::Here)
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
        self.find_backward(From::Here)
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

    /// Whether the merge stands on what the user sees after `self.key`: so it is for most keys.
    #[inline]
    fn stands_on_the_next(&mut self) -> bool {
        self.merge.entry().is_some_and(|entry| {
            entry.key != self.key
                && entry.sequence <= self.sequence
                && !entry.kind.is_tombstone()
                && !self.bounds.above_upper(entry.key)
                && !self.tombstones.cover(entry, self.sequence)
        })
    }

    /// From an entry on, finds the first key that the user sees. With `skip`, versions of `self.key` are passed.
    fn find_forward(&mut self, mut skip: bool, from: From<'_>) -> Result<()> {
        let mut passed_count = 0;
        let mut dead = Dead::new(from);
        self.place = Place::Nowhere;
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
                break;
            }
            if entry.sequence <= self.sequence {
                if !entry.kind.is_tombstone() && !self.tombstones.cover(entry, self.sequence) {
                    self.place = Place::Forward;
                    break;
                }
                self.key.clear();
                self.key.extend_from_slice(entry.key);
                skip = true;
                passed_count = 0;
                if self.pass_forward(&mut dead) {
                    break;
                }
                continue;
            }
            // For whoever comes later, what is newer may be live.
            self.learn_forward(std::mem::replace(&mut dead, Dead::new(From::Here)));
            if entry.key == self.key {
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
        self.check()?;
        self.learn_forward(dead);
        Ok(())
    }

    /// Passes the dead entry here, whose key is `self.key`, and what is known to be dead behind it. `true` if that is all
    /// that there is.
    fn pass_forward(&mut self, dead: &mut Dead<'_>) -> bool {
        if !std::mem::replace(&mut dead.has_edge, true) {
            self.edge.clear();
            self.edge.extend_from_slice(match dead.from {
                From::Here => &self.key,
                From::Key(key) => key,
                From::End => b"",
            });
        }
        if self.begins_to_learn(dead, true) {
            self.merge.seek(&self.edge, SEQUENCE_MAX);
            return false;
        }
        let spans = &self.pinned.empty_spans;
        if dead.count % LOOK_COUNT == 1 && spans.any() {
            match spans.end_around(&self.key, self.spans_up_to) {
                None => {}
                Some(Bound::Unbounded) => return true,
                Some(Bound::Included(end) | Bound::Excluded(end)) => {
                    self.merge.seek(&end, SEQUENCE_MAX);
                    if dead.watch.is_none() {
                        // What follows will be joined to it.
                        dead.count = 0;
                        self.edge.clear();
                        self.edge.extend_from_slice(&end);
                    }
                    return false;
                }
            }
        }
        let covered = self.merge.entry().is_some_and(|entry| self.tombstones.cover(entry, self.sequence));
        match self.tombstones.covered() {
            (_, Some(end), sequence) if covered => {
                self.merge.advance_with(|source| source.pass_up_to(end, sequence));
            }
            _ => self.merge.next(),
        }
        false
    }

    /// Counts a dead entry. After many it announces the walk, and says that it must begin anew at the edge: of what was
    /// passed nobody knows whether something newer was put there meanwhile.
    fn begins_to_learn(&mut self, dead: &mut Dead<'_>, forward: bool) -> bool {
        dead.count += 1;
        if dead.count < self.learn_count || dead.watch.is_some() {
            return false;
        }
        self.learn_count = self.learn_count.saturating_mul(2);
        if self.sequence < self.pinned.cleared {
            // It reads what was there before the keyspace was cleared: nothing newer is on its way.
            return false;
        }
        let (start, end) =
            if forward { (&*self.edge, None) } else { (&b""[..], (!dead.is_last).then_some(&*self.edge)) };
        dead.watch = self.pinned.empty_spans.watch(&self.pinned, start, end, forward);
        if dead.watch.is_none() {
            return false;
        }
        // Cursors of memtables need not find what was put after they were made.
        self.merge = merge(&self.pinned, &self.bounds, self.prefix.as_deref());
        true
    }

    /// Remembers what a search found empty, up to the entry here.
    #[inline]
    fn learn_forward(&self, dead: Dead<'_>) {
        if let Some(watch) = dead.watch {
            let here = self.merge.entry().map(|entry| entry.key);
            let end = here.into_iter().chain(self.bounds.end()).min();
            watch.found_empty(&self.edge, end, self.sequence);
        }
    }

    /// Remembers what a search found empty, down to `start`.
    fn learn_backward(&self, dead: Dead<'_>, start: &[u8]) {
        if let Some(watch) = dead.watch {
            watch.found_empty(start, (!dead.is_last).then_some(&*self.edge), self.sequence);
        }
    }

    /// From an entry backward, finds the last key that the user sees, and stops before its versions.
    fn find_backward(&mut self, from: From<'_>) -> Result<()> {
        // Whether the newest visible version so far of `self.key`, which is being passed, has a value.
        let mut live = None;
        let mut passed_count = 0;
        let mut dead = Dead::new(from);
        self.place = Place::Nowhere;
        while let Some(entry) = self.merge.entry() {
            if live.is_some() {
                if entry.key != self.key {
                    if live == Some(true) {
                        break;
                    }
                    live = None;
                    passed_count = 0;
                } else if passed_count == RESEEK_COUNT {
                    // What is newer is passed unseen.
                    dead = Dead::new(From::Here);
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
                live = Some(value);
                if value {
                    self.value.clear();
                    self.value.extend_from_slice(entry.value);
                } else {
                    if self.pass_backward(&mut dead) {
                        live = None;
                        passed_count = 0;
                    }
                    continue;
                }
            } else {
                // For whoever comes later, what is newer may be live.
                let passed = std::mem::replace(&mut dead, Dead::new(From::Here));
                if passed.watch.is_some() {
                    self.learn_backward(passed, &successor(entry.key));
                }
                if live.is_none() && entry.key == self.key {
                    passed_count += 1;
                    // The versions of a key come oldest first: the reader sees none of these.
                    if passed_count == RESEEK_COUNT {
                        self.merge.seek_for_prev(&self.key, SEQUENCE_MAX);
                        passed_count = 0;
                        continue;
                    }
                } else if live.is_none() {
                    self.key.clear();
                    self.key.extend_from_slice(entry.key);
                    passed_count = 0;
                }
            }
            self.merge.prev();
        }
        self.check()?;
        if dead.watch.is_some() {
            let start = if live == Some(true) { successor(&self.key) } else { self.bounds.start() };
            self.learn_backward(dead, &start);
        }
        if live == Some(true) {
            self.place = Place::Backward;
        }
        Ok(())
    }

    /// Passes the dead entry here, whose key is `self.key`, and what is known to be dead before it. `true` if the versions
    /// of the key that follow count for nothing.
    fn pass_backward(&mut self, dead: &mut Dead<'_>) -> bool {
        if !std::mem::replace(&mut dead.has_edge, true) {
            self.edge.clear();
            match dead.from {
                From::Here => self.edge.extend_from_slice(&successor(&self.key)),
                From::Key(key) => self.edge.extend_from_slice(key),
                From::End => dead.is_last = true,
            }
        }
        if self.begins_to_learn(dead, false) {
            if dead.is_last {
                self.merge.last();
            } else {
                self.merge.seek_for_prev(&self.edge, SEQUENCE_MAX);
            }
            return true;
        }
        let spans = &self.pinned.empty_spans;
        if dead.count % LOOK_COUNT == 1
            && spans.any()
            && let Some(start) = spans.start_around(&self.key, self.spans_up_to)
        {
            self.merge.seek_for_prev(&start, SEQUENCE_MAX);
            if dead.watch.is_none() {
                // What comes before will be joined to it.
                dead.count = 0;
                dead.is_last = false;
                self.edge.clear();
                self.edge.extend_from_slice(&start);
            }
            return true;
        }
        let covered = self.merge.entry().is_some_and(|entry| self.tombstones.cover(entry, self.sequence));
        match self.tombstones.covered() {
            (start, _, sequence) if covered => {
                self.merge.advance_with(|source| source.pass_down_to(start, sequence));
            }
            _ => self.merge.prev(),
        }
        false
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

    fn check(&self) -> Result<()> {
        self.merge.error().map_or(Ok(()), |error| Err(error.clone().into()))
    }
}

/// One cursor over what a state holds between bounds.
fn merge(state: &ReadState, bounds: &Bounds, prefix: Option<&[u8]>) -> MergingCursor<MergeInput> {
    let mut sources = Vec::new();
    for memtable in state.memtables() {
        if memtable.reader.entry_count() > 0 {
            // One that is not immutable may yet take anything.
            let newest = Some(memtable.last_sequence()).filter(|&immutable| immutable != 0);
            let cursor = Arc::clone(&memtable.reader).cursor();
            sources.push(MergeInput::Memtable(cursor, newest.unwrap_or(SEQUENCE_MAX)));
        }
    }
    let is_wanted = |run: &&Arc<Run>| {
        bounds.may_hold(run) && !prefix.is_some_and(|prefix| bounds.prefix_is_absent(run, prefix))
    };
    let runs: Vec<&Arc<Run>> = state.version.runs().filter(is_wanted).collect();
    let prefix = common_prefix(runs.iter().map(|run| &***run));
    sources.extend(
        runs.into_iter().map(|run| MergeInput::Run(RunCursor::new(Arc::clone(run), CursorAccess::Cached))),
    );
    MergingCursor::with_prefix(sources, &prefix)
}

impl std::fmt::Debug for DbCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DbCursor").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
