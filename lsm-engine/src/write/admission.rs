//! Admission of writes: first the rate limit, then memory, in the order of the write queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use lsm_core::ValueKind;

use crate::error::{Error, ErrorKind, Result};
use crate::events::WaitReason;
use crate::keyspaces::Tree;
use crate::lock_order::{OrderedGuard, assert_none_held};
use crate::memory::{batch_bytes, room_for};
use crate::memory_pool::Relief;
use crate::write::committer::Committer;
use crate::write::path::WritePath;
use crate::write::payload::{Operation, Operations};

impl WritePath {
    pub(crate) fn check_batch_bytes(&self, bytes: usize) -> Result<()> {
        let bytes_max = self.resources.memory.budget.batch_bytes_max;
        if bytes as u64 > bytes_max {
            return Err(Error::TooLarge { what: "batch", bytes: bytes as u64, bytes_max });
        }
        Ok(())
    }

    /// Waits until the rate limits allow a write of `bytes` to a keyspace. The caller holds no lock.
    #[inline]
    pub(crate) fn admit(&self, tree: &Tree, bytes: usize) -> Result<()> {
        tree.check_writable()?;
        self.check()?;
        if self.controller.is_limited() {
            self.wait_for_rates(&[(tree, bytes)])?;
        }
        Ok(())
    }

    /// Like [`admit`](Self::admit), for a batch.
    #[inline]
    pub(crate) fn admit_batch(&self, payload: &[u8]) -> Result<()> {
        self.check()?;
        if self.controller.is_limited() {
            self.wait_for_rates_of_batch(payload)?;
        }
        Ok(())
    }

    #[cold]
    fn wait_for_rates_of_batch(&self, payload: &[u8]) -> Result<()> {
        let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
        for operation in Operations::new(payload, 0) {
            let Operation { keyspace, kind, key, value, .. } = operation.map_err(Error::invalid)?;
            let range_deletes = u64::from(kind == ValueKind::RangeDelete);
            *bytes.entry(keyspace).or_default() += batch_bytes(key.len() + value.len(), 1, range_deletes);
        }
        let found: Vec<(Arc<Tree>, usize)> = {
            let committer = self.committer.lock();
            // A keyspace that was dropped is reported later.
            bytes.iter().filter_map(|(id, &bytes)| Some((Arc::clone(committer.tree(*id)?), bytes))).collect()
        };
        let parts: Vec<_> = found.iter().map(|(tree, bytes)| (&**tree, *bytes)).collect();
        self.wait_for_rates(&parts)
    }

    /// Waits for the limits of the given keyspaces, and for the limit of all writers.
    #[cold]
    fn wait_for_rates(&self, parts: &[(&Tree, usize)]) -> Result<()> {
        if self.controller.is_log_pinned() {
            if let Some(error) = self.log_is_pinned(self.log_end()) {
                return Err(error);
            }
            self.controller.set_log_pinned(false);
        }
        let check = || {
            self.check()?;
            parts.iter().try_for_each(|(tree, _)| tree.check_usable().and_then(|()| tree.check_writable()))
        };
        if self.resources.is_called_back() {
            // It may hold locks, and background work waits for it.
            return check();
        }
        assert_none_held(self.resources.place());
        let given_up = || self.status.is_stopping() || check().is_err();
        let all = (self.controller.of_all(), None, parts.iter().map(|(_, bytes)| bytes).sum());
        let of_keyspaces = parts.iter().map(|&(tree, bytes)| (&tree.limit, Some(&tree.name), bytes));
        for (limit, name, bytes) in of_keyspaces.chain([all]) {
            limit.wait_turn(&self.resources.waits, name, &self.status.progress, bytes, given_up);
        }
        check()
    }

    /// Takes the commit lock once there is memory for a write of `bytes` to the keyspaces that `keyspaces` returns. The
    /// memory stays available, because memtables grow only under this lock. While the disk is full, a write that only
    /// deletes (`deletes`) may pass the queue and take the memory that is kept for deletes.
    #[inline]
    pub(crate) fn lock_committer<K: AsRef<[u32]>>(
        &self,
        bytes: usize,
        deletes: impl FnOnce() -> bool,
        keyspaces: impl Fn(&mut Committer) -> Result<K>,
    ) -> Result<(OrderedGuard<'_, Committer>, K)> {
        let mut committer = self.lock_commit();
        let found = keyspaces(&mut committer)?;
        let wanted = room_for(bytes) + committer.growth_bytes(found.as_ref());
        let memory = &self.resources.memory;
        let kept = memory.kept_for_deletes();
        let may_go = if kept > 0 && deletes() {
            memory.holding.has_room(wanted, 0, None)
        } else {
            self.queue.len() == 0 && memory.holding.has_room(wanted, kept, None)
        };
        if may_go {
            return Ok((committer, found));
        }
        committer.check_ever_fits(found.as_ref(), bytes)?;
        drop(committer);
        self.lock_committer_in_turn(bytes, keyspaces)
    }

    /// Takes the commit lock.
    #[inline]
    fn lock_commit(&self) -> OrderedGuard<'_, Committer> {
        self.committer
            .try_lock()
            .unwrap_or_else(|| self.committer.lock_and_count(&self.resources.waits, WaitReason::CommitLock))
    }

    /// What a writer waits for while memory is used up.
    fn memory_wait(&self) -> WaitReason {
        let error = self.status.flush_error.current();
        let is_full = error.is_some_and(|error| error.kind() == ErrorKind::NoSpace);
        match is_full {
            _ if self.status.control.is_paused() => WaitReason::MemoryWhilePaused,
            true => WaitReason::DiskSpace,
            false => WaitReason::Memory,
        }
    }

    #[cold]
    fn lock_committer_in_turn<K: AsRef<[u32]>>(
        &self,
        bytes: usize,
        keyspaces: impl Fn(&mut Committer) -> Result<K>,
    ) -> Result<(OrderedGuard<'_, Committer>, K)> {
        self.resources.check_may_wait()?;
        let memory = &self.resources.memory;
        let mut waiting = self.resources.waits.begin(self.memory_wait(), None);
        let turn = self.queue.join();
        // This makes a flush that failed on a full disk try again now.
        self.flush_wanted.notify();
        let (mut locked, mut asked, mut place) = (None, false, None);
        let waited = self.resources.wait_until(&self.status.progress, || {
            self.status.check_writing()?;
            self.status.check_open()?;
            if !turn.is_first() {
                waiting.change(self.memory_wait());
                return Ok(false);
            }
            let place = &*place.get_or_insert_with(|| memory.holding.wait_in_line(&self.status.progress));
            let mut committer = self.committer.lock();
            let found = keyspaces(&mut committer)?;
            let wanted = room_for(bytes) + committer.growth_bytes(found.as_ref());
            if memory.holding.has_room(wanted, memory.kept_for_deletes(), Some(place)) {
                locked = Some((committer, found));
                return Ok(true);
            }
            let made = if memory.holding.is_behind(place) {
                Ok(Relief::Coming)
            } else {
                self.make_room(&mut committer, wanted)
            };
            drop(committer);
            // Who can only wait for a database that does not flush now lets others pass.
            let is_coming = matches!(made, Ok(Relief::Coming));
            place.let_pass(!is_coming || !memory.holding.waits_for_others(wanted));
            waiting.change(match made {
                Ok(Relief::Nothing) => WaitReason::PoolMemory,
                _ => self.memory_wait(),
            });
            // If tables take too much memory, compactions may free some. Ask once, so that failing ones are not
            // repeated.
            if made.is_err() && memory.tables_exceed_share() {
                let compactor = self.compactor.get().and_then(Weak::upgrade);
                if let Some(compactor) = compactor {
                    if !std::mem::replace(&mut asked, true) {
                        compactor.start_due();
                    }
                    if compactor.is_running() {
                        return Ok(false);
                    }
                }
            }
            made.map(|_| false)
        });
        drop((place, turn, waiting));
        self.status.progress.notify();
        waited?;
        locked.ok_or(Error::Closed)
    }

    /// Makes sure that some flush or merge, of this database or of another one of its pool, is going to free memory. Fails
    /// if nothing can.
    fn make_room(&self, committer: &mut Committer, wanted: usize) -> Result<Relief> {
        let holding = &self.resources.memory.holding;
        let relief = holding.relieve(wanted);
        if relief == Relief::Coming {
            return Ok(relief);
        }
        match self.make_own_room(committer, wanted) {
            Err(_) if relief == Relief::Nothing && holding.others_may_flush_later() => Ok(relief),
            made => made,
        }
    }

    /// Rotates a memtable because the pool is short of memory.
    pub(crate) fn flush_for_pool(&self) {
        let holding = &self.resources.memory.holding;
        let mut committer = self.committer.lock();
        holding.trim();
        let rotated = committer.rotate_largest();
        drop(committer);
        holding.has_answered(!rotated);
    }

    /// Gives memory that was granted for writes and is not used to the other databases of the pool.
    pub(crate) fn give_back_memory(&self) {
        if self.resources.memory.shared_pool().is_some()
            && let Some(_committer) = self.committer.try_lock()
        {
            self.resources.memory.holding.trim();
        }
    }

    fn make_own_room(&self, committer: &mut Committer, wanted: usize) -> Result<Relief> {
        if self.status.control.is_paused() {
            return Ok(Relief::Own);
        }
        // A keyspace that failed does not flush again.
        let trees = self.unflushed.trees();
        let (healthy, failed): (Vec<_>, Vec<_>) = trees.iter().partition(|tree| tree.failure().is_none());
        let (immutable, retried): (Vec<&Arc<Tree>>, Vec<_>) = healthy
            .into_iter()
            .filter(|tree| !tree.load().immutable.is_empty())
            .partition(|tree| tree.flush_retry_micros().is_none());
        if !immutable.is_empty() || committer.rotate_largest() {
            return Ok(Relief::Coming);
        }
        // On a full disk the writer waits, because flushes try again until there is room. After other errors they also
        // try again, but may never succeed, so the writer gets the error.
        if !retried.is_empty() {
            let error = self.status.flush_error.current().filter(|error| error.kind() != ErrorKind::NoSpace);
            return error.map_or(Ok(Relief::Own), Err);
        }
        if let Some(error) = failed.iter().find_map(|tree| tree.failure()) {
            return Err(Error::WritingStopped(Arc::new(error)));
        }
        // A running merge gives its buffers back. A flush releases its memtable shortly after it installed the tables,
        // and notifies. So wait for them.
        if self.resources.memory.has_buffers() || self.resources.memory.holding.immutable_bytes() > 0 {
            return Ok(Relief::Coming);
        }
        Err(self.resources.memory.exhausted(wanted))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use crate::Options;
    use crate::background::Flush;

    /// A flush frees the memory of its memtable a moment after it installed the tables. A write that checked in between
    /// used to fail as too large.
    #[test]
    fn a_write_waits_for_a_memtable_that_is_flushed_but_not_freed_yet() {
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().memory(1 << 20).vfs(Arc::new(SimFs::new()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        db.put("key", "value").unwrap();
        let tree = db.default_keyspace().tree();
        let side = db.database.writer.as_ref().unwrap();
        let (write, context) = (&side.write, &side.background);
        let make_room = || write.make_room(&mut write.committer.lock(), 1 << 20);
        write.committer.lock().rotate(tree.id, db.database.visibility.sequence());
        let memtable = Arc::clone(&tree.load().immutable[0]);
        let mut flush = Flush::new(context, Arc::clone(&tree), memtable.into());
        let placements = flush.write(context).unwrap();
        flush.replace(context, placements);
        make_room().unwrap();
        flush.end(context);
        // Now there is nothing to wait for.
        let refused = make_room().unwrap_err();
        assert!(refused.to_string().contains("over the limit"), "{refused}");
        drop((tree, db));
        env.drop_jobs();
    }
}
