//! Collects the metrics of a database.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use lsm_memtable::MemtableFactory;

use super::Database;
use crate::error::{Error, ErrorKind};
use crate::events::WaitReason;
use crate::health::Health;
use crate::keyspaces::{RateLimit, Tree};
use crate::memory_pool::Pool;
use crate::metrics::{
    BackgroundMetrics, Call, KeyspaceMetrics, LevelMetrics, LevelReads, LevelWork, Metrics, OperationMetrics,
    TransactionMetrics,
};
use crate::pins::Pin;
use crate::reentry::Inside;
use crate::version::LiveBlob;
use crate::waits::{LONG_MICROS, Wait};

impl Database {
    pub(crate) fn metrics(&self) -> Metrics {
        let trees = self.all_trees();
        let waited = |why| self.resources.waits.micros(why);
        let mut metrics = Metrics {
            keyspaces: trees.iter().map(|tree| keyspace_metrics(tree)).collect(),
            cache_capacity_bytes: self.resources.memory.cache.capacity_bytes() as u64,
            cache_hits: self.resources.memory.cache.stats().hits,
            cache_misses: self.resources.memory.cache.stats().misses,
            cache_insertions: self.resources.memory.cache.stats().insertions,
            cache_evictions: self.resources.memory.cache.stats().evictions,
            open_files: self.resources.memory.file_cache.count() as u64,
            open_files_max: self.resources.memory.file_cache.count_max() as u64,
            file_opens: self.resources.memory.file_cache.opened.get(),
            snapshots: self.visibility.snapshot_count() as u64,
            visible_sequence: self.visibility.sequence(),
            purged_sequence: self.visibility.purged(),
            purge_lag_micros: self.status.purge_lag_micros(),
            flushes: self.resources.counters.flushes.get(),
            flush_bytes_in: self.resources.counters.flush_bytes_in.get(),
            flush_bytes_out: self.resources.counters.flush_bytes_out.get(),
            blob_bytes_out: self.resources.counters.blob_bytes_out.get(),
            blob_bytes_rewritten: self.resources.counters.blob_bytes_rewritten.get(),
            compactions: self.resources.counters.compactions.get(),
            moves: self.resources.counters.moves.get(),
            ingests: self.resources.counters.ingests.get(),
            ingested_tables: self.resources.counters.ingested_tables.get(),
            ingested_bytes: self.resources.counters.ingested_bytes.get(),
            covered_tables_dropped: self.resources.counters.covered_tables_dropped.get(),
            compaction_bytes_in: self.resources.counters.compaction_bytes_in.get(),
            compaction_bytes_out: self.resources.counters.compaction_bytes_out.get(),
            compaction_bytes_copied: self.resources.counters.compaction_bytes_copied.get(),
            stall_rate_micros: waited(WaitReason::Level0Runs) + waited(WaitReason::CompactionDebt),
            stall_memory_micros: waited(WaitReason::Memory)
                + waited(WaitReason::MemoryWhilePaused)
                + waited(WaitReason::PoolMemory),
            stall_space_micros: waited(WaitReason::DiskSpace),
            stall_lock_micros: waited(WaitReason::CommitLock),
            stall_sync_micros: waited(WaitReason::LogSync),
            stall_write_micros: waited(WaitReason::LogWrite),
            stall_update_micros: waited(WaitReason::Update),
            merge_operands_folded: self.resources.counters.merge_operands_folded.get(),
            merges_refused: self.resources.counters.merges_refused.get(),
            transactions: self.transaction_metrics(),
            operations: self.operation_metrics(),
            waits: self.resources.waits.metrics(),
            background: self.background_metrics(),
            ..Metrics::default()
        };
        metrics.stall_micros = metrics.stall_rate_micros
            + metrics.stall_memory_micros
            + metrics.stall_space_micros
            + metrics.stall_lock_micros
            + metrics.stall_sync_micros
            + metrics.stall_write_micros
            + metrics.stall_update_micros;
        let Some(side) = &self.writer else {
            self.note_memory(&trees, &mut metrics);
            return metrics;
        };
        // Skip this if user code that was called under the scheduler lock, or a later lock, asks for metrics.
        if !self.resources.is_inside(Inside::Scheduler) && !self.resources.is_inside(Inside::Manifest) {
            metrics.compactions_running = side.compactions.running_count() as u64;
            metrics.compaction_debt_bytes = side.compactions.debt_bytes();
        }
        let start = side.write.log_start(&HashSet::new());
        let committer = side.write.committer.lock();
        // Hold the lock: a memtable that became immutable now would be counted twice or not at all.
        self.note_memory(&trees, &mut metrics);
        metrics.log_bytes = committer.log_end() - start.position;
        metrics.pinned_log_bytes = side.write.log_pins.held_bytes();
        metrics.log_pins_lost = self.resources.counters.log_pins_lost.get();
        metrics.unsynced_log_bytes = committer.log_end().saturating_sub(side.write.log_durable());
        let limits = trees.iter().map(|tree| &tree.limit).chain([side.write.controller.of_all()]);
        metrics.write_rate_limit = limits.filter_map(RateLimit::rate).min();
        metrics.writers_waiting = side.write.queue.len() as u64;
        let background_error = side.write.status.flush_error.current();
        metrics.background_error = background_error.as_ref().map(Error::to_string);
        metrics.waiting_for_space = background_error
            .filter(|error| error.kind() == ErrorKind::NoSpace)
            .map(|error| error.to_string());
        metrics
    }

    /// What keeps old data, the oldest first.
    pub(crate) fn pins(&self) -> Vec<Pin> {
        let mut pins = self.visibility.snapshot_pins();
        pins.extend(self.all_trees().iter().flat_map(|tree| tree.iterator_pins()));
        if let Some(side) = &self.writer {
            pins.extend(side.write.log_pins.list(self.resources.env.monotonic_micros()));
        }
        pins.sort_by_key(|pin| std::cmp::Reverse(pin.age));
        pins
    }

    /// What a write to one of these keyspaces would meet now. It waits for nobody.
    pub(crate) fn health(&self, trees: &[Arc<Tree>]) -> Health {
        let refused = self.write_side().map(|side| &side.write).and_then(|write| {
            trees.iter().try_for_each(|tree| tree.check_usable())?;
            let log_end = write.committer.try_lock().map(|committer| committer.log_end());
            let pinned = log_end.filter(|_| write.controller.is_log_pinned());
            pinned.and_then(|log_end| write.log_is_pinned(log_end)).map_or(Ok(write), Err)
        });
        let write = match refused {
            Ok(write) => write,
            Err(error) => return Health::ReadOnly(error),
        };
        // Other keyspaces take writes.
        if trees.iter().all(|tree| tree.failure().is_some())
            && let Some(error) = trees.iter().find_map(|tree| tree.check_writable().err())
        {
            return Health::ReadOnly(error);
        }
        let is_long = |wait: &Wait| match wait.why {
            WaitReason::Memory
            | WaitReason::DiskSpace
            | WaitReason::MemoryWhilePaused
            | WaitReason::PoolMemory => true,
            WaitReason::CommitLock | WaitReason::LogSync | WaitReason::LogWrite => wait.micros >= LONG_MICROS,
            _ => false,
        };
        if let Some(Wait { why, since, .. }) = self.resources.waits.list().into_iter().find(is_long) {
            return Health::Waiting { why, since };
        }
        let of_keyspaces = trees.iter().map(|tree| (Some(&tree.name), &tree.limit));
        let limits = of_keyspaces.chain([(None, write.controller.of_all())]);
        let lowest = limits
            .filter_map(|(name, limit)| Some((limit.rate()?, name.cloned(), limit.why())))
            .min_by_key(|(rate, ..)| *rate);
        match lowest {
            Some((bytes_per_second, keyspace, why)) => Health::Throttled { why, keyspace, bytes_per_second },
            None => Health::Writing,
        }
    }

    fn operation_metrics(&self) -> OperationMetrics {
        let Some(statistics) = self.resources.statistics.get() else { return OperationMetrics::default() };
        OperationMetrics {
            get: statistics.latency(Call::Get),
            seek: statistics.latency(Call::Seek),
            put: statistics.latency(Call::Put),
            delete: statistics.latency(Call::Delete),
            delete_range: statistics.latency(Call::DeleteRange),
            merge: statistics.latency(Call::Merge),
            batch: statistics.latency(Call::Batch),
        }
    }

    fn transaction_metrics(&self) -> TransactionMetrics {
        let counters = &self.resources.counters.transactions;
        TransactionMetrics {
            open: self.resources.memory.live_transactions() as u64,
            commits: counters.commits.get(),
            conflicts: counters.conflicts.get(),
            lock_waits: self.resources.waits.count_of(WaitReason::TransactionLock),
            lock_timeouts: counters.lock_timeouts.get(),
            deadlocks: counters.deadlocks.get(),
            retries: self.resources.waits.count_of(WaitReason::Conflict),
        }
    }

    fn background_metrics(&self) -> BackgroundMetrics {
        let counters = &self.resources.counters;
        BackgroundMetrics {
            flush: counters.flush_times.snapshot(),
            log_sync: counters.log_sync_times.snapshot(),
            compaction: counters.compaction_times.snapshot(),
            manifest_edit: self.writer.as_ref().map(|side| side.versions.edit_times()).unwrap_or_default(),
            open: Duration::from_micros(counters.open_micros.get()),
        }
    }

    fn note_memory(&self, trees: &[Arc<Tree>], metrics: &mut Metrics) {
        let holding = &self.resources.memory.holding;
        metrics.active_memtable_bytes = holding.active_bytes() as u64;
        metrics.immutable_memtable_bytes = holding.immutable_bytes() as u64;
        metrics.log_window_bytes = holding.windows.bytes() as u64;
        let pool = self.resources.memory.shared_pool();
        metrics.pooled_memtable_bytes = pooled_bytes(trees, pool.map(|pool| &pool.memtable));
        metrics.memory_pool = pool.map(Pool::metrics);
        metrics.held_memtable_bytes = self.resources.memory.held_bytes() as u64;
        metrics.held_table_bytes = self.resources.memory.held_table_bytes() as u64;
        metrics.transaction_bytes = self.resources.memory.transaction_bytes() as u64;
        metrics.buffer_bytes = holding.buffers.bytes() as u64;
        metrics.pinned_bytes = holding.tables.bytes() as u64;
        if pool.is_none() {
            metrics.cache_bytes = self.resources.memory.cache.used_bytes() as u64;
        }
    }
}

/// Memory in the pools of memtable factories other than `shared`. Keyspaces may share a factory, so count each once.
fn pooled_bytes(trees: &[Arc<Tree>], shared: Option<&Arc<dyn MemtableFactory>>) -> u64 {
    let mut factories: Vec<_> = trees.iter().map(|tree| Arc::clone(&tree.options().memtable)).collect();
    factories.retain(|factory| shared.is_none_or(|shared| !Arc::ptr_eq(factory, shared)));
    factories.sort_by_key(|factory| Arc::as_ptr(factory).cast::<()>());
    factories.dedup_by(|a, b| Arc::ptr_eq(a, b));
    factories.iter().map(|factory| factory.pooled_bytes() as u64).sum()
}

fn keyspace_metrics(tree: &Tree) -> KeyspaceMetrics {
    let state = tree.load_full();
    let (version, work) = (&state.version, tree.level_work());
    let read = |level| state.statistics.as_ref().map(|reads| reads.level(level)).unwrap_or_default();
    let level = |(level, runs): (usize, &Vec<Arc<crate::version::Run>>)| {
        let LevelWork { compactions, bytes_in, bytes_out } = work.get(level).copied().unwrap_or_default();
        let LevelReads { found, filter_negatives, filter_false_positives } = read(level);
        let mut level = LevelMetrics {
            runs: runs.len() as u64,
            reads: found,
            filter_negatives,
            filter_false_positives,
            compactions,
            compaction_bytes_in: bytes_in,
            compaction_bytes_out: bytes_out,
            ..LevelMetrics::default()
        };
        for table in runs.iter().flat_map(|run| run.tables()) {
            let meta = table.meta();
            level.tables += 1;
            level.unpinned_tables += u64::from(!table.table().is_pinned());
            level.bytes += meta.file_bytes;
            level.entries += meta.entries;
            level.tombstones += meta.tombstones;
            level.range_tombstones += meta.range_tombstones;
            level.merge_operands += table.table().properties().merge_operands;
            level.raw_bytes += meta.raw_key_bytes + meta.raw_value_bytes;
        }
        level
    };
    KeyspaceMetrics {
        name: tree.name.to_string(),
        policy: tree.stored().policy().to_owned(),
        merge_operator: tree.stored().merge_operator().map(str::to_owned),
        levels: version.levels().iter().enumerate().map(level).collect(),
        write_rate_limit: tree.limit.rate(),
        blob_files: version.blobs().iter().len() as u64,
        blob_bytes: version.blobs().iter().map(|live| live.file.meta().value_bytes).sum(),
        blob_garbage_bytes: version.blobs().iter().map(LiveBlob::garbage_bytes).sum(),
        failure: tree.failure().map(|error| error.to_string()),
    }
}
