//! Updates: read, let the caller decide, and write if nothing was changed meanwhile.
//!
//! The caller's code runs without a lock. The write is checked under the commit lock: the read state must be the same as
//! in the read, and the memtables must have nothing newer of the key. Otherwise the update is tried again. An attempt fails
//! only because another write succeeded, or a flush or compaction was installed.
//!
//! After some failures the update queues up, and updates that begin then wait behind it, so that many threads that update
//! one key take turns. Such a wait is short in any case: who comes first may itself wait for something.

use lsm_core::hash::key_hash;
use lsm_core::{SequenceNumber, Slice, ValueKind};
use lsm_wal::Durability;

use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::keyspaces::{ReadPoint, ReadState, Tree};
use crate::read::{Bounds, Change, Changes, DbCursor, End, Steps};
use crate::write::path::WritePath;
use crate::write::update_queue::UpdateQueue;

/// Number of attempts before an update queues up, and between two looks at the queue.
const ATTEMPTS: usize = 4;
/// An update fails after so many attempts: its own code changes the key, or the other writers leave no gap.
const ATTEMPTS_MAX: usize = 1000;
/// Dead entries that a pop may pass under the commit lock, unless it has its turn.
const DEAD_MAX: usize = 256;

/// What to do after a look at the present value.
pub(crate) enum Next<V> {
    Keep,
    Put(V),
    Delete,
}

/// What a read saw. If the state of the keyspace is still the same, only its memtables can have changed.
struct Seen {
    generation: u64,
    sequence: SequenceNumber,
}

impl Seen {
    /// The changes since then. `None` if the state is another one. The caller holds the commit lock.
    fn changes<'s>(&self, state: &'s ReadState) -> Option<Changes<'s>> {
        (state.generation == self.generation).then(|| Changes::new(state, self.sequence))
    }
}

impl WritePath {
    /// Reads a key, lets `decide` look at its value, and does what that wants, atomically. `decide` may be called several
    /// times; returns the value and the decision of the last call.
    pub(crate) fn update<V: AsRef<[u8]>>(
        &self,
        tree: &Tree,
        key: &[u8],
        mut decide: impl FnMut(Option<&Slice>) -> Next<V>,
    ) -> Result<(Option<Slice>, Next<V>)> {
        let attempt = |_| {
            let (seen, found) = {
                let state = tree.load();
                self.check_readable(tree)?;
                let point = self.visibility.point_in(&state);
                let seen = Seen { generation: state.generation, sequence: point.sequence };
                (seen, state.get(key, &point)?)
            };
            let next = decide(found.as_ref());
            let (kind, value) = match &next {
                Next::Keep => return Ok(Some((found, next))),
                Next::Put(value) => (ValueKind::Put, Some(value.as_ref())),
                Next::Delete => (ValueKind::Delete, None),
            };
            let is_unchanged = || {
                let changes = |state| Some(seen.changes(state)?.of_key_in_memory(key));
                changes(&tree.load()) == Some(Change::None)
            };
            let is_done = self.write_if(tree, kind, key, value, is_unchanged)?;
            Ok(is_done.then_some((found, next)))
        };
        self.try_until_done(key_hash(key) ^ u64::from(tree.id), attempt)?.ok_or_else(|| {
            let key = key.escape_ascii();
            let keyspace = &tree.name;
            Error::Conflict(
                format!(
                    "key \"{key}\" of keyspace {keyspace:?} was changed during each of {ATTEMPTS_MAX} attempts to \
                     update it; the code of an update must not write the key itself"
                )
                .into(),
            )
        })
    }

    /// Removes the first or the last entry and returns it.
    pub(crate) fn pop(&self, tree: &Tree, end: End) -> Result<Option<(Slice, Slice)>> {
        let attempt = |has_turn| {
            let state = tree.load_full();
            self.check_readable(tree)?;
            let point = state.fix(self.visibility.point_in(&state));
            let seen = Seen { generation: state.generation, sequence: point.sequence };
            let mut cursor = DbCursor::new(state, point, Bounds::ALL, None);
            cursor.move_to(end)?;
            let Some((key, value)) = cursor.entry() else { return Ok(Some(None)) };
            let (key, value) = (Slice::copy_from(key), Slice::copy_from(value));
            let dead_max = if has_turn { usize::MAX } else { DEAD_MAX };
            let is_unchanged = || {
                let state = tree.load();
                seen.changes(&state).is_some_and(|changes| {
                    changes.of_key_in_memory(&key) == Change::None
                        && self.nothing_is_beyond(&state, changes, &key, &point, end, dead_max)
                })
            };
            let is_done = self.write_if(tree, ValueKind::Delete, &key, None, is_unchanged)?;
            Ok(is_done.then_some(Some((key, value))))
        };
        self.try_until_done(u64::from(tree.id), attempt)?.ok_or_else(|| {
            let keyspace = &tree.name;
            let which = if end == End::First { "first" } else { "last" };
            Error::Conflict(
                format!(
                    "the {which} key of keyspace {keyspace:?} was changed during each of {ATTEMPTS_MAX} attempts to \
                     take it; try again"
                )
                .into(),
            )
        })
    }

    /// Whether no key was put before the first key, or behind the last one. The caller holds the commit lock.
    fn nothing_is_beyond(
        &self,
        state: &ReadState,
        changes: Changes<'_>,
        key: &Slice,
        point: &ReadPoint<'static>,
        end: End,
        dead_max: usize,
    ) -> bool {
        // An empty span that was learned meanwhile, or that a writer has not cut, holds no live key now.
        let spans = &state.empty_spans;
        let sequence = spans.readable_up_to(state.begun_count, self.visibility.sequence());
        let bounds = Bounds::beyond(key, end, spans, &ReadPoint { sequence, ..*point });
        bounds.is_some_and(|bounds| changes.of_puts_in_memory(&bounds, dead_max) == Change::None)
    }

    /// Writes one key if `is_unchanged` says so under the commit lock. Returns whether it was written.
    fn write_if(
        &self,
        tree: &Tree,
        kind: ValueKind,
        key: &[u8],
        value: Option<&[u8]>,
        is_unchanged: impl FnOnce() -> bool,
    ) -> Result<bool> {
        let mut was_changed = false;
        let check = || {
            was_changed = !is_unchanged();
            if was_changed { Err(Error::Closed) } else { Ok(()) }
        };
        let written = self.write_one_checked(tree, kind, key, value, Durability::Buffered, check);
        if was_changed { Ok(false) } else { written.map(|_| true) }
    }

    /// Fails if the database is closed or the keyspace dropped. The caller has loaded the state, which a drop empties.
    fn check_readable(&self, tree: &Tree) -> Result<()> {
        self.status.check_open()?;
        tree.check_usable()
    }

    /// Calls `attempt` until it returns something; gives up after [`ATTEMPTS_MAX`] calls. Tells it whether it has its turn.
    fn try_until_done<T>(
        &self,
        hash: u64,
        mut attempt: impl FnMut(bool) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let queue = self.updates.of(hash);
        if queue.is_empty() {
            for _ in 0..ATTEMPTS {
                if let Some(done) = caught("an update", || attempt(false))? {
                    return Ok(Some(done));
                }
            }
        }
        self.try_in_turn(queue, attempt)
    }

    #[cold]
    fn try_in_turn<T>(
        &self,
        queue: &UpdateQueue,
        mut attempt: impl FnMut(bool) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let turn = queue.join();
        for _ in 0..ATTEMPTS_MAX / ATTEMPTS {
            turn.wait(&self.resources);
            for _ in 0..ATTEMPTS {
                if let Some(done) = caught("an update", || attempt(true))? {
                    return Ok(Some(done));
                }
            }
        }
        Ok(None)
    }
}
