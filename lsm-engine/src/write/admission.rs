//! Which writes may go on: the write rate, then memory, in line.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::ValueKind;
use parking_lot::{Mutex, MutexGuard};

use crate::inner::{Inner, WriteSide};
use crate::keyspaces::Tree;
use crate::memory::{batch_bytes, room_for};
use crate::metrics::Counters;
use crate::write::batch::{Operation, Operations};
use crate::write::commit::Committer;
use crate::{Error, ErrorKind, Result};

/// Writers that wait for memory, first come, first served: a large write would wait forever while small ones pass it.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    line: Mutex<VecDeque<u64>>,
    next: AtomicUsize,
    count: AtomicUsize,
}

impl WriteQueue {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Joins the end of the line.
    pub(crate) fn join(&self) -> Waiting<'_> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed) as u64;
        let mut line = self.line.lock();
        line.push_back(ticket);
        self.count.store(line.len(), Ordering::Release);
        Waiting { line: self, ticket }
    }
}

/// A place in the line, until it is dropped.
pub(crate) struct Waiting<'l> {
    line: &'l WriteQueue,
    ticket: u64,
}

impl Waiting<'_> {
    pub(crate) fn is_first(&self) -> bool {
        self.line.line.lock().front() == Some(&self.ticket)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.line.line.lock();
        line.retain(|&ticket| ticket != self.ticket);
        self.line.count.store(line.len(), Ordering::Release);
    }
}

/// A writer that waits for memory, and whether for room on the disk when it last looked.
struct Stall<'i> {
    inner: &'i Inner,
    looked_micros: u64,
    for_space: bool,
}

impl Stall<'_> {
    /// Counts the time since the last look.
    fn look(&mut self, side: &WriteSide) {
        let now_micros = self.inner.env.monotonic_micros();
        let Counters { stall_memory_micros, stall_space_micros, .. } = &self.inner.counters;
        let counter = if self.for_space { stall_space_micros } else { stall_memory_micros };
        counter.add(now_micros - std::mem::replace(&mut self.looked_micros, now_micros));
        let background_error = side.flush_error.current();
        self.for_space = background_error.is_some_and(|error| error.kind() == ErrorKind::NoSpace);
    }
}

impl Inner {
    pub(crate) fn check_batch_bytes(&self, bytes: usize) -> Result<()> {
        let bytes_max = self.memory.budget.batch_bytes_max;
        if bytes as u64 > bytes_max {
            return Err(Error::TooLarge { what: "batch", bytes: bytes as u64, bytes_max });
        }
        Ok(())
    }

    /// Waits, holding no lock, until the write rate allows a write of `bytes` to a keyspace.
    #[inline]
    pub(crate) fn admit(&self, tree: &Tree, bytes: usize) -> Result<&WriteSide> {
        tree.check_writable()?;
        let side = self.write_side()?;
        if side.controller.is_limited() {
            self.wait_for_rates(side, &[(tree, bytes)])?;
        }
        Ok(side)
    }

    /// As above, for a batch.
    #[inline]
    pub(crate) fn admit_batch(&self, payload: &[u8]) -> Result<&WriteSide> {
        let side = self.write_side()?;
        if side.controller.is_limited() {
            self.wait_for_rates_of_batch(side, payload)?;
        }
        Ok(side)
    }

    #[cold]
    fn wait_for_rates_of_batch(&self, side: &WriteSide, payload: &[u8]) -> Result<()> {
        let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
        for operation in Operations::new(payload, 0) {
            let Operation { keyspace, kind, key, value, .. } = operation.map_err(Error::invalid)?;
            let range_deletes = u64::from(kind == ValueKind::RangeDelete);
            *bytes.entry(keyspace).or_default() += batch_bytes(key.len() + value.len(), 1, range_deletes);
        }
        let found: Vec<(Arc<Tree>, usize)> = {
            let trees = self.trees.read();
            // One that is gone is reported under the commit lock.
            bytes.iter().filter_map(|(id, &bytes)| Some((Arc::clone(trees.get(*id)?), bytes))).collect()
        };
        let parts: Vec<_> = found.iter().map(|(tree, bytes)| (&**tree, *bytes)).collect();
        self.wait_for_rates(side, &parts)
    }

    /// Waits for the limits of some keyspaces, and for that of all.
    #[cold]
    fn wait_for_rates(&self, side: &WriteSide, parts: &[(&Tree, usize)]) -> Result<()> {
        if side.controller.is_log_pinned() {
            let log_end = side.committer.lock().log_end();
            if let Some(error) = self.log_is_pinned(side, log_end) {
                return Err(error);
            }
            side.controller.set_log_pinned(false);
        }
        let check = || {
            self.write_side()?;
            parts.iter().try_for_each(|(tree, _)| tree.check_usable().and_then(|()| tree.check_writable()))
        };
        let given_up = || side.is_stopping() || check().is_err();
        let all = (side.controller.of_all(), parts.iter().map(|(_, bytes)| bytes).sum());
        for (limit, bytes) in parts.iter().map(|&(tree, bytes)| (&tree.limit, bytes)).chain([all]) {
            let waited = limit.wait_turn(&*self.env, &side.progress, bytes, given_up);
            self.counters.stall_rate_micros.add(waited);
        }
        check()
    }

    /// The commit lock, once there is memory for a write of `bytes` to the keyspaces that `keyspaces` finds: memtables
    /// grow under this lock alone.
    #[inline]
    pub(crate) fn lock_committer<'a, K: AsRef<[u32]>>(
        self: &'a Arc<Self>,
        side: &'a WriteSide,
        bytes: usize,
        keyspaces: impl Fn(&mut Committer) -> Result<K>,
    ) -> Result<(MutexGuard<'a, Committer>, K)> {
        let mut committer = side.committer.lock();
        let found = keyspaces(&mut committer)?;
        let wanted = room_for(bytes) + committer.growth_bytes(found.as_ref());
        if side.write_queue.len() == 0 && self.memory.room_bytes() >= wanted {
            self.memory.clear_pool_for(wanted);
            return Ok((committer, found));
        }
        committer.check_ever_fits(found.as_ref(), bytes)?;
        drop(committer);
        self.lock_committer_in_turn(side, bytes, keyspaces)
    }

    #[cold]
    fn lock_committer_in_turn<'a, K: AsRef<[u32]>>(
        self: &'a Arc<Self>,
        side: &'a WriteSide,
        bytes: usize,
        keyspaces: impl Fn(&mut Committer) -> Result<K>,
    ) -> Result<(MutexGuard<'a, Committer>, K)> {
        let mut stall = Stall { inner: self, looked_micros: self.env.monotonic_micros(), for_space: false };
        let turn = side.write_queue.join();
        // A flush that waits for room on the disk tries again now.
        side.flush_wanted.notify();
        let (mut locked, mut asked) = (None, false);
        let waited = self.wait_until(&side.progress, || {
            stall.look(side);
            side.check_going()?;
            self.check_open()?;
            if !turn.is_first() {
                return Ok(false);
            }
            let mut committer = side.committer.lock();
            let found = keyspaces(&mut committer)?;
            let wanted = room_for(bytes) + committer.growth_bytes(found.as_ref());
            if self.memory.room_bytes() >= wanted {
                self.memory.clear_pool_for(wanted);
                locked = Some((committer, found));
                return Ok(true);
            }
            let made = self.make_room(side, &mut committer, wanted);
            drop(committer);
            // Where tables hold too much, merges may leave fewer. Those that fail are not asked for again and again.
            if made.is_err() && self.memory.tables_exceed_share() {
                if !std::mem::replace(&mut asked, true) {
                    self.schedule_compactions();
                }
                if side.scheduler.lock().running_count() > 0 {
                    return Ok(false);
                }
            }
            made.map(|()| false)
        });
        drop(turn);
        side.progress.notify();
        waited?;
        locked.ok_or(Error::Closed)
    }

    /// Sees to it that memory is being freed; fails if there is nothing that could be.
    fn make_room(&self, side: &WriteSide, committer: &mut Committer, wanted: usize) -> Result<()> {
        // Those of a keyspace that failed do not try again.
        let trees = side.unflushed.trees();
        let (healthy, failed): (Vec<_>, Vec<_>) = trees.iter().partition(|tree| tree.failure().is_none());
        let (immutable, retried): (Vec<&Arc<Tree>>, Vec<_>) = healthy
            .into_iter()
            .filter(|tree| !tree.load().immutable.is_empty())
            .partition(|tree| tree.flush_retry_micros().is_none());
        if !immutable.is_empty() || committer.rotate_largest() {
            return Ok(());
        }
        // A full disk is no reason to give up: flushes try again until there is room. After other errors they try again
        // too, but nothing says that this ends: the writer hears of it.
        if !retried.is_empty() {
            let error = side.flush_error.current().filter(|error| error.kind() != ErrorKind::NoSpace);
            return error.map_or(Ok(()), Err);
        }
        if let Some(error) = failed.iter().find_map(|tree| tree.failure()) {
            return Err(Error::WritingStopped(Arc::new(error)));
        }
        // Merges give back what they hold beyond their share; a flush lets go of a memtable a while after its tables have
        // taken its place, and tells.
        if self.memory.buffer_bytes() > 0 || self.memory.immutable_bytes() > 0 {
            return Ok(());
        }
        Err(self.memory.exhausted(wanted))
    }
}
