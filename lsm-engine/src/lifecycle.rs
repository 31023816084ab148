//! Waiting for background work, and closing.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::env::Event;

use crate::background::Manual;
use crate::inner::{Inner, WriteSide};
use crate::keyspaces::{Memtable, Tree};
use crate::metrics::{KeyspaceMetrics, LevelMetrics, Metrics};
use crate::version::edit::VersionEdit;
use crate::write::Limit;
use crate::write::inverted;
use crate::{Error, ErrorKind, Result};

/// Closes the database when the last handle goes.
#[derive(Debug)]
pub(crate) struct Closer(Arc<Inner>);

impl Closer {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self(inner)
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        if self.0.check_process().is_err() {
            // The threads to wait for are not here, and log, files and locks are the parent's: they stay as they are.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        if !self.0.mark_closed() {
            return;
        }
        if let Err(error) = self.0.shut_down(false) {
            tracing::warn!(%error, "the database was dropped, not closed, and failed to sync");
        }
    }
}

impl Inner {
    /// Closes for good: flushes, waits, syncs and leaves the marker of a clean close. Whoever closes a second time gets
    /// what the first call came to, once it ended.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_process()?;
        if !self.mark_closed() {
            self.wait_until(&self.close_ended, || Ok(self.close_result.get().is_some()))?;
            return self.close_result.get().cloned().unwrap_or(Ok(()));
        }
        let result = self.close_first();
        self.close_result.get_or_init(|| result.clone());
        self.close_ended.notify();
        result
    }

    fn close_first(&self) -> Result<()> {
        if let Some(side) = &self.writer {
            side.progress.notify();
        }
        let flushed = self.writer.as_ref().map_or(Ok(()), |side| self.flush_rotating(side));
        // Whatever happened: jobs end and the lock is released.
        let shut_down = self.shut_down(flushed.is_ok());
        flushed.and(shut_down).inspect_err(|_| {
            let _ = self.shut_down(false);
        })
    }

    /// Ends background work and syncs the log. With `clean`, everything is in tables and the files are marked so.
    fn shut_down(&self, clean: bool) -> Result<()> {
        let Some(side) = &self.writer else {
            self.lock.lock().take();
            return Ok(());
        };
        side.ask_to_stop();
        self.obsolete_files.event().notify();
        self.wait_until(&side.progress, || Ok(side.jobs.load(Ordering::Acquire) == 0))?;
        self.remove_obsolete_files();
        if clean {
            // So that the time since the last change counts. It may fail: then that does not count.
            if let Err(error) = side.log_edit(&mut side.manifest.lock(), VersionEdit::default()) {
                tracing::warn!(%error, "the time was not noted");
            }
        }
        let going = side.check_going();
        let closed = side.committer.lock().close_log();
        let result = match (going, closed) {
            (Ok(()), Ok(Some(log))) if clean => side.manifest.lock().close(log),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Ok(()),
        };
        self.lock.lock().take();
        result
    }

    /// Blocks until `done` says yes, looking again after each notification.
    pub(crate) fn wait_until(&self, event: &Event, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        loop {
            let seen = event.epoch();
            if done()? {
                return Ok(());
            }
            self.env.wait(event, seen, None);
        }
    }

    pub(crate) fn flush_all(&self) -> Result<()> {
        self.flush_rotating(self.write_side()?)
    }

    /// Seals all memtables and waits until they are in tables.
    fn flush_rotating(&self, side: &WriteSide) -> Result<()> {
        side.check_going()?;
        // A flush that failed and waits tries again now.
        let trouble = side.flush_error.count();
        side.flush_wanted.notify();
        let (mut waiting, mut stopped): (Vec<_>, _) = {
            side.committer.lock().rotate_all();
            let with_immutable = |tree: Arc<Tree>| {
                let immutable = tree.load().immutable.clone();
                (tree, immutable)
            };
            let trees = side.unflushed.trees();
            // A memtable that panicked while it became immutable still takes its place.
            let mut not_rotated = trees.iter().filter(|tree| tree.load().memtable.is_some());
            let stopped = not_rotated.try_for_each(|tree| tree.check_writable());
            (trees.into_iter().map(with_immutable).collect(), stopped)
        };
        // What fails for one is told once the others are in tables.
        let mut retried = Vec::new();
        self.wait_until(&side.progress, || {
            side.check_going()?;
            while let Some((tree, immutable)) = waiting.pop() {
                if !has_left(&tree, &immutable) {
                    continue;
                }
                if let Err(error) = tree.check_writable() {
                    stopped = Err(error);
                } else if tree.flush_retry_micros().is_some() {
                    retried.push((tree, immutable));
                } else {
                    waiting.push((tree, immutable));
                    return Ok(false);
                }
            }
            retried.retain(|(tree, immutable)| {
                let left = has_left(tree, immutable);
                if left && let Err(error) = tree.check_writable() {
                    stopped = Err(error);
                }
                left && tree.is_healthy()
            });
            if !retried.is_empty() {
                side.flush_error.check(trouble)?;
            }
            Ok(retried.is_empty())
        })?;
        stopped
    }

    pub(crate) fn sync_log(&self) -> Result<()> {
        let side = self.write_side()?;
        let end = side.committer.lock().log_end();
        side.wait_durable(end)
    }

    pub(crate) fn wait_for_compactions(self: &Arc<Self>) -> Result<()> {
        let side = self.write_side()?;
        let trouble = (side.flush_error.count(), side.compaction_error.count());
        side.flush_wanted.notify();
        self.all_trees().iter().for_each(|tree| side.compaction_queue.add(tree));
        self.wait_until(&side.progress, || {
            self.check_open()?;
            side.check_going()?;
            side.flush_error.check(trouble.0)?;
            side.compaction_error.check(trouble.1)?;
            self.schedule_compactions();
            let settled = side.unflushed.trees().iter().all(|tree| tree.load().immutable.is_empty())
                && self.compactions_settled();
            // A policy that was asked just now may have stopped its keyspace.
            self.all_trees().iter().try_for_each(|tree| tree.check_writable())?;
            Ok(settled)
        })
    }

    pub(crate) fn compact_range(
        self: &Arc<Self>,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<()> {
        use Bound::{Excluded, Included};
        if let (Included(start) | Excluded(start), Included(end) | Excluded(end)) = range
            && start > end
        {
            return Err(Error::InvalidArgument(inverted(start, end)));
        }
        let side = self.write_side()?;
        side.scheduler.lock().hold(tree.id);
        let done = self.compact_held(side, tree, range);
        side.scheduler.lock().release(tree.id);
        side.compaction_queue.add(tree);
        self.schedule_compactions();
        // Whoever waits for compactions saw the policy held back, and moves alone tell nobody.
        side.progress.notify();
        done
    }

    /// Brings a range down while the policy is held back: what it merges from here on could be missed.
    fn compact_held(
        self: &Arc<Self>,
        side: &WriteSide,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<()> {
        self.flush_rotating(side)?;
        let since = side.new_number();
        let trouble = side.compaction_error.count();
        self.wait_until(&side.progress, || {
            loop {
                self.check_open()?;
                side.check_going()?;
                side.compaction_error.check(trouble)?;
                match self.start_manual(tree, range, since)? {
                    Manual::Started => {}
                    Manual::Wait => return Ok(false),
                    Manual::Done => return Ok(true),
                }
            }
        })
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let trees = self.all_trees();
        let mut metrics = Metrics {
            keyspaces: trees.iter().map(|tree| keyspace_metrics(tree)).collect(),
            cache_capacity_bytes: self.memory.cache.capacity_bytes() as u64,
            cache_hits: self.memory.cache.stats().hits,
            cache_misses: self.memory.cache.stats().misses,
            open_files: self.memory.file_cache.count() as u64,
            open_files_max: self.memory.file_cache.count_max() as u64,
            file_opens: self.memory.file_cache.opened.get(),
            snapshots: self.snapshots.count() as u64,
            visible_sequence: self.visible(),
            flushes: self.counters.flushes.get(),
            flush_bytes_in: self.counters.flush_bytes_in.get(),
            flush_bytes_out: self.counters.flush_bytes_out.get(),
            compactions: self.counters.compactions.get(),
            moves: self.counters.moves.get(),
            covered_tables_dropped: self.counters.covered_tables_dropped.get(),
            compaction_bytes_in: self.counters.compaction_bytes_in.get(),
            compaction_bytes_out: self.counters.compaction_bytes_out.get(),
            compaction_bytes_copied: self.counters.compaction_bytes_copied.get(),
            stall_rate_micros: self.counters.stall_rate_micros.get(),
            stall_memory_micros: self.counters.stall_memory_micros.get(),
            stall_space_micros: self.counters.stall_space_micros.get(),
            ..Metrics::default()
        };
        metrics.stall_micros =
            metrics.stall_rate_micros + metrics.stall_memory_micros + metrics.stall_space_micros;
        let Some(side) = &self.writer else {
            self.note_memory(&trees, &mut metrics);
            return metrics;
        };
        metrics.log_window_bytes = self.memory.budget.log_window_bytes;
        {
            let mut scheduler = side.scheduler.lock();
            metrics.compactions_running = scheduler.running_count() as u64;
            metrics.compaction_debt_bytes = self.compaction_debt(side, &mut scheduler);
        }
        let start = Self::log_start(side, &HashSet::new());
        let committer = side.committer.lock();
        // Under the lock: what becomes immutable now would be counted twice or not at all.
        self.note_memory(&trees, &mut metrics);
        metrics.log_bytes = committer.log_end() - start.position;
        metrics.unsynced_log_bytes = committer.log_end().saturating_sub(side.log_durable());
        let limits = trees.iter().map(|tree| &tree.limit).chain([side.controller.of_all()]);
        metrics.write_rate_limit = limits.filter_map(Limit::rate).min();
        metrics.writers_waiting = side.write_queue.len() as u64;
        let background_error = side.flush_error.current();
        metrics.background_error = background_error.as_ref().map(Error::to_string);
        metrics.waiting_for_space = background_error
            .filter(|error| error.kind() == ErrorKind::NoSpace)
            .map(|error| error.to_string());
        metrics
    }
}

/// Whether any of the memtables still waits for its flush.
fn has_left(tree: &Tree, memtables: &[Arc<Memtable>]) -> bool {
    let state = tree.load();
    let waits = |memtable: &Arc<Memtable>| state.immutable.iter().any(|left| Arc::ptr_eq(memtable, left));
    !tree.is_dropped() && memtables.iter().any(waits)
}

impl Inner {
    fn note_memory(&self, trees: &[Arc<Tree>], metrics: &mut Metrics) {
        metrics.active_memtable_bytes = self.memory.active_bytes() as u64;
        metrics.immutable_memtable_bytes = self.memory.immutable_bytes() as u64;
        metrics.pooled_memtable_bytes = pooled_bytes(trees);
        metrics.held_memtable_bytes = self.memory.held_bytes() as u64;
        metrics.held_table_bytes = self.memory.held_table_bytes() as u64;
        metrics.buffer_bytes = self.memory.buffer_bytes() as u64;
        metrics.pinned_bytes = self.memory.table_bytes() as u64;
        metrics.cache_bytes = self.memory.cache.used_bytes() as u64;
    }
}

/// Keyspaces may share a factory.
fn pooled_bytes(trees: &[Arc<Tree>]) -> u64 {
    let mut factories: Vec<_> = trees.iter().map(|tree| Arc::clone(&tree.options().memtable)).collect();
    factories.sort_by_key(|factory| Arc::as_ptr(factory).cast::<()>());
    factories.dedup_by(|a, b| Arc::ptr_eq(a, b));
    factories.iter().map(|factory| factory.pooled_bytes() as u64).sum()
}

fn keyspace_metrics(tree: &Tree) -> KeyspaceMetrics {
    let version = Arc::clone(&tree.load().version);
    let level = |runs: &Vec<Arc<crate::version::Run>>| {
        let mut level = LevelMetrics { runs: runs.len() as u64, ..LevelMetrics::default() };
        for table in runs.iter().flat_map(|run| run.tables()) {
            let meta = table.meta();
            level.tables += 1;
            level.unpinned_tables += u64::from(!table.table().is_pinned());
            level.bytes += meta.file_bytes;
            level.entries += meta.entries;
            level.tombstones += meta.tombstones;
            level.range_tombstones += meta.range_tombstones;
            level.raw_bytes += meta.raw_key_bytes + meta.raw_value_bytes;
        }
        level
    };
    KeyspaceMetrics {
        name: tree.name.to_string(),
        policy: tree.options().compaction.name().to_owned(),
        levels: version.levels().iter().map(level).collect(),
        write_rate_limit: tree.limit.rate(),
        failure: tree.failure().map(|error| error.to_string()),
    }
}
