use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
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

/// What background work has done since the database was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: Counter,
    pub(crate) flush_bytes_in: Counter,
    pub(crate) flush_bytes_out: Counter,
    pub(crate) compactions: Counter,
    pub(crate) moves: Counter,
    pub(crate) covered_tables_dropped: Counter,
    pub(crate) compaction_bytes_in: Counter,
    pub(crate) compaction_bytes_out: Counter,
    pub(crate) compaction_bytes_copied: Counter,
    pub(crate) stall_rate_micros: Counter,
    pub(crate) stall_memory_micros: Counter,
    pub(crate) stall_space_micros: Counter,
}

/// The state of a database, in figures. All sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// One entry a keyspace.
    pub keyspaces: Vec<KeyspaceMetrics>,
    /// Memory of the memtables that are being filled.
    pub active_memtable_bytes: u64,
    /// Memory of the memtables that wait for their flush.
    pub immutable_memtable_bytes: u64,
    /// Memory of flushed memtables that is kept for the next ones.
    pub pooled_memtable_bytes: u64,
    /// Memory of memtables that were flushed or cleared while iterators or snapshots read them. It is theirs: what
    /// [`Options::memory`](crate::Options::memory) bounds is beside it.
    pub held_memtable_bytes: u64,
    /// Memory of tables that were merged away or cleared while iterators or snapshots read them. It is theirs, too.
    pub held_table_bytes: u64,
    /// The window of the log.
    pub log_window_bytes: u64,
    /// Buffers of flushes and merges under way.
    pub buffer_bytes: u64,
    /// Blocks in the cache.
    pub cache_bytes: u64,
    /// Bytes that the cache may use.
    pub cache_capacity_bytes: u64,
    /// Blocks found in the cache.
    pub cache_hits: u64,
    /// Blocks read from files.
    pub cache_misses: u64,
    /// Tables that are open: indexes and filters in memory, directories of those that are not, and what else a table
    /// takes; and keyspaces, about a kilobyte each.
    pub pinned_bytes: u64,
    /// Files of tables that are open.
    pub open_files: u64,
    /// How many may be: [`Options::open_files_max`](crate::Options::open_files_max), or less after descriptors ran out.
    pub open_files_max: u64,
    /// How often the file of a table was opened, for the first time or again.
    pub file_opens: u64,
    /// Live snapshots.
    pub snapshots: u64,
    /// The last write that readers see.
    pub visible_sequence: u64,
    /// Log that recovery would replay.
    pub log_bytes: u64,
    /// Log that is not synced yet.
    pub unsynced_log_bytes: u64,
    /// Memtables written to tables.
    pub flushes: u64,
    /// Memory of the flushed memtables.
    pub flush_bytes_in: u64,
    /// Bytes of the tables that they became.
    pub flush_bytes_out: u64,
    /// Merges of tables.
    pub compactions: u64,
    /// Compactions that moved tables without rewriting them.
    pub moves: u64,
    /// Tables that were dropped without a merge, since range deletes covered all that they held.
    pub covered_tables_dropped: u64,
    /// Bytes that merges read.
    pub compaction_bytes_in: u64,
    /// Bytes that merges wrote.
    pub compaction_bytes_out: u64,
    /// How many of those are blocks that were copied as they were, because nothing newer touches them.
    pub compaction_bytes_copied: u64,
    /// Compactions under way.
    pub compactions_running: u64,
    /// Bytes that compactions have yet to rewrite.
    pub compaction_debt_bytes: u64,
    /// Time that writers waited or were slowed down, in microseconds; of those that still wait, up to when they last
    /// looked. The sum of the three that follow.
    pub stall_micros: u64,
    /// Of it, that they were held to a rate; see [`write_rate_limit`](Self::write_rate_limit).
    pub stall_rate_micros: u64,
    /// Of it, that they waited for memory.
    pub stall_memory_micros: u64,
    /// Of it, that they waited for memory while a flush found no room on the disk.
    pub stall_space_micros: u64,
    /// Writers that stand still for want of memory, until a flush frees some.
    pub writers_waiting: u64,
    /// The last flush failed with this error of the operating system. It is tried again twice a second; until it
    /// succeeds, writes that find memory used up wait on a full disk, and fail with any other error.
    pub background_error: Option<String>,
    /// The last flush failed with this error, for want of room on the disk. It is tried again twice a second; until it
    /// succeeds, writers wait once memory is used up.
    pub waiting_for_space: Option<String>,
    /// Bytes a second that writers are held to while compactions catch up: the lowest of any keyspace. Those of a keyspace
    /// that is behind are slowed, and the others only when several are.
    pub write_rate_limit: Option<u64>,
}

impl Metrics {
    /// All that the engine holds: what [`Options::memory`](crate::Options::memory) bounds.
    pub fn memory_bytes(&self) -> u64 {
        self.active_memtable_bytes
            + self.immutable_memtable_bytes
            + self.pooled_memtable_bytes
            + self.log_window_bytes
            + self.buffer_bytes
            + self.cache_bytes
            + self.pinned_bytes
    }

    /// Bytes written to tables for each byte flushed first: the price of keeping the tree in shape.
    pub fn write_amplification(&self) -> f64 {
        if self.flush_bytes_out == 0 {
            return 0.0;
        }
        (self.flush_bytes_out + self.compaction_bytes_out) as f64 / self.flush_bytes_out as f64
    }
}

/// One keyspace in figures.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct KeyspaceMetrics {
    /// Its name.
    pub name: String,
    /// Its compaction policy.
    pub policy: String,
    /// Bytes a second that its writers are held to while its compactions catch up.
    pub write_rate_limit: Option<u64>,
    /// From level 0 down.
    pub levels: Vec<LevelMetrics>,
    /// Why background work stopped, if it did.
    pub failure: Option<String>,
}

/// One level in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelMetrics {
    /// Sorted runs: a read looks at one table of each at most.
    pub runs: u64,
    /// Tables.
    pub tables: u64,
    /// Those of them whose index and filter stay in their files, for want of memory: each lookup reads some more blocks.
    pub unpinned_tables: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Versions of keys, tombstones included.
    pub entries: u64,
    /// Point tombstones.
    pub tombstones: u64,
    /// Range tombstones.
    pub range_tombstones: u64,
    /// Bytes of keys and values before encoding and compression.
    pub raw_bytes: u64,
}
