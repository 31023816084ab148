#[cfg(feature = "metrics")]
mod facade;
mod families;
mod histogram;
mod prometheus;
mod statistics;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::events::WaitReason;

pub(crate) use histogram::Histogram;
pub use histogram::Latency;
pub(crate) use statistics::{Call, LevelReads, MaybeStatistics, Probe, ReadStatistics};

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: Counter,
    pub(crate) log_pins_lost: Counter,
    pub(crate) flush_bytes_in: Counter,
    pub(crate) flush_bytes_out: Counter,
    pub(crate) compactions: Counter,
    pub(crate) moves: Counter,
    pub(crate) covered_tables_dropped: Counter,
    pub(crate) compaction_bytes_in: Counter,
    pub(crate) compaction_bytes_out: Counter,
    pub(crate) compaction_bytes_copied: Counter,
    pub(crate) merge_operands_folded: Counter,
    pub(crate) merges_refused: Counter,
    pub(crate) ingests: Counter,
    pub(crate) ingested_tables: Counter,
    pub(crate) ingested_bytes: Counter,
    pub(crate) transactions: TransactionCounters,
    /// Bytes of blob files that were written with values, and of those written in place of others.
    pub(crate) blob_bytes_out: Counter,
    pub(crate) blob_bytes_rewritten: Counter,
    pub(crate) open_micros: Counter,
    pub(crate) flush_times: Histogram,
    pub(crate) log_sync_times: Histogram,
    pub(crate) compaction_times: Histogram,
}

/// What became of transactions since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct TransactionCounters {
    pub(crate) commits: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) lock_timeouts: Counter,
    pub(crate) deadlocks: Counter,
}

/// What compactions have written to one level since the database was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LevelWork {
    pub(crate) compactions: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// Figures about the state of a database. Sizes are in bytes. Counters start when the database is opened.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// One entry per keyspace.
    pub keyspaces: Vec<KeyspaceMetrics>,
    /// Memory of active memtables.
    pub active_memtable_bytes: u64,
    /// Memory of immutable memtables, which wait for their flush.
    pub immutable_memtable_bytes: u64,
    /// Memory of flushed memtables that is kept for new memtables. 0 in a [memory pool](Self::memory_pool), which keeps it
    /// for all databases.
    pub pooled_memtable_bytes: u64,
    /// Memory of flushed or cleared memtables that iterators or snapshots still read. It counts outside
    /// [`Options::memory`](crate::Options::memory).
    pub held_memtable_bytes: u64,
    /// Memory of compacted or cleared tables that iterators or snapshots still read. It counts outside
    /// [`Options::memory`](crate::Options::memory).
    pub held_table_bytes: u64,
    /// Memory of the window of the log, the part of the log that is mapped into memory. It grows with the first writes.
    pub log_window_bytes: u64,
    /// Memory of the buffers of running flushes and compactions.
    pub buffer_bytes: u64,
    /// Memory of blocks in the cache. 0 in a [memory pool](Self::memory_pool), where this and the next figures of the cache
    /// are those of all databases.
    pub cache_bytes: u64,
    /// Memory that the block cache may use at most.
    pub cache_capacity_bytes: u64,
    /// Number of blocks that reads found in the cache.
    pub cache_hits: u64,
    /// Number of blocks that reads took from files.
    pub cache_misses: u64,
    /// Number of missed blocks that entered the cache.
    pub cache_insertions: u64,
    /// Number of blocks that left the cache for others.
    pub cache_evictions: u64,
    /// Memory of open transactions: what they have written, read and locked. The block cache has given it up.
    pub transaction_bytes: u64,
    /// Memory of open tables and keyspaces: indexes and filters, or their directories where they stay in the file, and
    /// about a kilobyte per keyspace.
    pub pinned_bytes: u64,
    /// The pool that the database shares its memory with, if it has [one](crate::Options::memory_pool).
    pub memory_pool: Option<MemoryPoolMetrics>,
    /// Number of open table files.
    pub open_files: u64,
    /// Limit of open table files: [`Options::open_files_max`](crate::Options::open_files_max), or less after file
    /// descriptors ran out.
    pub open_files_max: u64,
    /// Number of times that a table file was opened, for the first time or again.
    pub file_opens: u64,
    /// Number of live snapshots.
    pub snapshots: u64,
    /// Sequence number of the last write that readers see.
    pub visible_sequence: u64,
    /// What writes up to this number deleted or overwrote is in no file any more; see
    /// [`Db::purged_through`](crate::Db::purged_through).
    pub purged_sequence: u64,
    /// How long the oldest write has been visible whose garbage may still be in a file, in microseconds; 0 if no keyspace has
    /// [`KeyspaceOptions::purge_within`](crate::KeyspaceOptions::purge_within). More than that bound: something holds it
    /// back, see [`Db::pins`](crate::Db::pins).
    pub purge_lag_micros: u64,
    /// Bytes of log that recovery would replay.
    pub log_bytes: u64,
    /// Bytes of log that are not synced yet.
    pub unsynced_log_bytes: u64,
    /// Bytes of log that recovery would not replay, and that change slots, followers and the like keep; see
    /// [`Db::pins`](crate::Db::pins).
    pub pinned_log_bytes: u64,
    /// Number of change slots and the like that kept more of the log than they may, and lost it.
    pub log_pins_lost: u64,
    /// Number of runs written to level 0, each from one memtable or from several that waited.
    pub flushes: u64,
    /// Memory of the flushed memtables.
    pub flush_bytes_in: u64,
    /// Bytes of the tables and blob files that flushes wrote.
    pub flush_bytes_out: u64,
    /// Bytes of blob files that were written with large values, by flushes, compactions and writers.
    pub blob_bytes_out: u64,
    /// Bytes of blob files that were written in place of others that had too much garbage.
    pub blob_bytes_rewritten: u64,
    /// Number of compactions that merged tables.
    pub compactions: u64,
    /// Number of trivial moves: compactions that moved tables to another level without rewriting them.
    pub moves: u64,
    /// Number of ingests and bulk loads.
    pub ingests: u64,
    /// Number of tables that they brought.
    pub ingested_tables: u64,
    /// Bytes of those tables.
    pub ingested_bytes: u64,
    /// Number of tables that were dropped without a merge because range deletes covered all their keys.
    pub covered_tables_dropped: u64,
    /// Bytes that compactions read.
    pub compaction_bytes_in: u64,
    /// Bytes that compactions wrote.
    pub compaction_bytes_out: u64,
    /// The part of [`compaction_bytes_out`](Self::compaction_bytes_out) in blocks that were copied unchanged, because no
    /// newer data overlaps them.
    pub compaction_bytes_copied: u64,
    /// Number of merge operands that flushes and compactions have made part of a newer one or of a put.
    pub merge_operands_folded: u64,
    /// Number of times that a flush or compaction kept the operands of a key because the merge operator refused them or
    /// panicked. A read of such a key fails and says why.
    pub merges_refused: u64,
    /// Number of running compactions.
    pub compactions_running: u64,
    /// Compaction debt: bytes that compactions still have to rewrite.
    pub compaction_debt_bytes: u64,
    /// Time that writers waited, in microseconds: the sum of the next fields. The time of a writer that still waits
    /// counts, too. Not counted is the time that a write works itself: it encodes, and copies to the log.
    pub stall_micros: u64,
    /// Time that writers were slowed by a rate limit; see [`write_rate_limit`](Self::write_rate_limit).
    pub stall_rate_micros: u64,
    /// Time that writers waited for memory.
    pub stall_memory_micros: u64,
    /// Time that writers waited for memory while flushes failed on a full disk.
    pub stall_space_micros: u64,
    /// Time that writers waited for the commit lock, while other writers held it.
    pub stall_lock_micros: u64,
    /// Time that writers with [`Durability::Sync`](crate::Durability::Sync), and [`Db::sync`](crate::Db::sync), waited
    /// for the sync of the log.
    pub stall_sync_micros: u64,
    /// Time that writers wrote the log to its file: when its window was full, or for records that are too long for it.
    pub stall_write_micros: u64,
    /// Time that updates, such as [`Db::update`](crate::Db::update), waited for others of the same key.
    pub stall_update_micros: u64,
    /// Number of writers that wait for memory now.
    pub writers_waiting: u64,
    /// The background error of flushes, if the last flush failed with an error of the operating system. The flush is
    /// tried again twice a second. Until it succeeds, writes that find memory used up wait if the disk is full, and fail
    /// for any other error.
    pub background_error: Option<String>,
    /// The background error of flushes, if it says that the disk is full.
    pub waiting_for_space: Option<String>,
    /// Lowest rate limit of any keyspace, in bytes per second, while compactions are behind. A keyspace that is behind
    /// slows its own writers. All writers are slowed only when several keyspaces are behind.
    pub write_rate_limit: Option<u64>,
    /// What transactions do.
    pub transactions: TransactionMetrics,
    /// How long calls took. Empty unless [`Options::statistics`](crate::Options::statistics) is set.
    pub operations: OperationMetrics,
    /// How long callers waited, for each reason. Calls that did not have to wait are not counted.
    pub waits: Vec<WaitMetrics>,
    /// How long background work took.
    pub background: BackgroundMetrics,
}

impl Metrics {
    /// Memory that the database holds. [`Options::memory`](crate::Options::memory) bounds it. In a
    /// [memory pool](Self::memory_pool) it is without what the pool holds for all databases.
    pub fn memory_bytes(&self) -> u64 {
        self.active_memtable_bytes
            + self.immutable_memtable_bytes
            + self.pooled_memtable_bytes
            + self.log_window_bytes
            + self.buffer_bytes
            + self.transaction_bytes
            + self.cache_bytes
            + self.pinned_bytes
    }

    /// Write amplification: bytes written to tables by flushes and compactions, per byte written by flushes.
    pub fn write_amplification(&self) -> f64 {
        if self.flush_bytes_out == 0 {
            return 0.0;
        }
        (self.flush_bytes_out + self.compaction_bytes_out) as f64 / self.flush_bytes_out as f64
    }
}

/// Figures about a [memory pool](crate::MemoryPool), for all its databases together. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPoolMetrics {
    /// What its databases may hold at most.
    pub bytes: u64,
    /// What they hold: memory in use, and what is set aside for writes that may come next.
    pub used_bytes: u64,
    /// Number of open databases.
    pub databases: u64,
    /// Memory of blocks in the cache.
    pub cache_bytes: u64,
    /// Memory of flushed memtables that is kept for new memtables.
    pub kept_memtable_bytes: u64,
}

/// Figures about one keyspace.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KeyspaceMetrics {
    /// Name of the keyspace.
    pub name: String,
    /// Name of its compaction policy.
    pub policy: String,
    /// Name of its merge operator, if it has one. It may be one that nobody has given.
    pub merge_operator: Option<String>,
    /// Rate limit of its writers in bytes per second, while its compactions are behind.
    pub write_rate_limit: Option<u64>,
    /// The levels, from level 0 down.
    pub levels: Vec<LevelMetrics>,
    /// Number of blob files, which hold large values.
    pub blob_files: u64,
    /// Bytes of the values in blob files.
    pub blob_bytes: u64,
    /// The part of those to which no table points any more.
    pub blob_garbage_bytes: u64,
    /// The error that stopped its background work, if any.
    pub failure: Option<String>,
}

/// Figures about one level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelMetrics {
    /// Number of sorted runs. A lookup asks at most one table of each.
    pub runs: u64,
    /// Number of tables.
    pub tables: u64,
    /// Number of tables whose index and filter stay in the file because memory is short. A lookup in one reads a few
    /// more blocks.
    pub unpinned_tables: u64,
    /// Bytes of the table files.
    pub bytes: u64,
    /// Number of entries: versions of keys, tombstones included.
    pub entries: u64,
    /// Number of point tombstones.
    pub tombstones: u64,
    /// Number of range tombstones.
    pub range_tombstones: u64,
    /// Number of merge operands that are not folded into a value yet.
    pub merge_operands: u64,
    /// Bytes of keys and values before encoding and compression.
    pub raw_bytes: u64,
    /// Number of compactions that wrote to the level since the database was opened, without trivial moves.
    pub compactions: u64,
    /// Bytes that these compactions read, from this level and others.
    pub compaction_bytes_in: u64,
    /// Bytes that these compactions wrote.
    pub compaction_bytes_out: u64,
    /// Number of lookups that found their key in the level. This and the next two are 0 unless
    /// [`Options::statistics`](crate::Options::statistics) is set.
    pub reads: u64,
    /// Number of tables that a filter spared a lookup.
    pub filter_negatives: u64,
    /// Number of tables that a lookup searched in vain although they have a filter.
    pub filter_false_positives: u64,
}

/// Figures about transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionMetrics {
    /// Number of open transactions.
    pub open: u64,
    /// Number of commits that succeeded, those without writes included.
    pub commits: u64,
    /// Number of commits, and of locks taken, that failed because another writer had changed something.
    pub conflicts: u64,
    /// Number of waits for locks of other transactions that have ended, in whatever way. How long they took is in
    /// [`Metrics::waits`].
    pub lock_waits: u64,
    /// Number of waits for locks that took too long.
    pub lock_timeouts: u64,
    /// Number of deadlocks that were found.
    pub deadlocks: u64,
    /// Number of times that [`Db::transact`](crate::Db::transact) ran a transaction again.
    pub retries: u64,
}

/// How long calls took, by kind: each call that succeeded, with all its waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationMetrics {
    /// Reads of single keys, those of [`Db::multi_get`](crate::Db::multi_get) included.
    pub get: Latency,
    /// Seeks of iterators and cursors: the way to their first entry. Steps are not measured.
    pub seek: Latency,
    /// Writes that set one key.
    pub put: Latency,
    /// Deletes of one key.
    pub delete: Latency,
    /// Range deletes.
    pub delete_range: Latency,
    /// Writes of one merge operand.
    pub merge: Latency,
    /// Batches, and commits of transactions.
    pub batch: Latency,
}

impl OperationMetrics {
    /// Each kind, with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Latency)> + Clone {
        [
            ("get", &self.get),
            ("seek", &self.seek),
            ("put", &self.put),
            ("delete", &self.delete),
            ("delete_range", &self.delete_range),
            ("merge", &self.merge),
            ("batch", &self.batch),
        ]
        .into_iter()
    }
}

/// How long callers waited for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitMetrics {
    /// What they waited for.
    pub why: WaitReason,
    /// The waits that have ended.
    pub latency: Latency,
}

/// How long background work took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackgroundMetrics {
    /// Flushes of one keyspace, from the first byte until the tables are in use. Those of a group overlap.
    pub flush: Latency,
    /// Compactions that merged tables.
    pub compaction: Latency,
    /// Syncs of the log, by writers and in the background. Several writers may wait for one.
    pub log_sync: Latency,
    /// Changes of the manifest, with their sync.
    pub manifest_edit: Latency,
    /// How long opening the database took, recovery included.
    pub open: Duration,
}

impl BackgroundMetrics {
    /// Each kind, with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Latency)> + Clone {
        [
            ("flush", &self.flush),
            ("compaction", &self.compaction),
            ("manifest_edit", &self.manifest_edit),
            ("log_sync", &self.log_sync),
        ]
        .into_iter()
    }
}
