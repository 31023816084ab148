mod filter;
mod filter_bits;
mod keyspace;
mod resolved;
mod stored;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lsm_compaction::CompactionPolicy;
use lsm_core::env::{Env, ThreadEnv};
use lsm_core::merge_operator::MergeOperator;
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_memtable::MemtableFactory;
use lsm_sstable::Compression;
use lsm_wal::RecoveryMode;

use crate::error::{Error, Result};
use crate::memory_pool::MemoryPool;

pub use keyspace::KeyspaceOptions;
pub(crate) use resolved::{ResolvedOptions, SharedOptions};
pub use stored::StoredOptions;

/// How to open a database.
///
/// One number, [`memory`](Options::memory), sets all sizes. All other options have defaults that suit most programs.
/// [`open`](Options::open) checks the values and fails with [`Error::InvalidArgument`] if they do not fit together.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let db = lsm_engine::Options::new().memory(64 << 20).open(dir.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until `open`"]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub struct Options {
    pub(crate) memory: usize,
    pub(crate) memory_pool: Option<MemoryPool>,
    pub(crate) memtable_bytes: Option<usize>,
    pub(crate) cache_bytes: Option<usize>,
    pub(crate) open_files_max: Option<usize>,
    pub(crate) background_threads: usize,
    pub(crate) create_if_missing: bool,
    pub(crate) error_if_exists: bool,
    pub(crate) read_only: bool,
    snapshot_age_max: Option<Duration>,
    follower_lease: Option<Duration>,
    pub(crate) recovery: RecoveryMode,
    pub(crate) log_segment_bytes: Option<u64>,
    pub(crate) statistics: bool,
    pub(crate) keyspace: KeyspaceOptions,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) env: Option<Arc<dyn Env>>,
}

/// Default of [`Options::memory`], in bytes.
pub const MEMORY_BYTES_DEFAULT: usize = 512 << 20;

/// Smallest value of [`Options::memory`], in bytes.
pub const MEMORY_BYTES_MIN: usize = 1 << 20;

/// The longest lease of a follower. The owner keeps files no longer for one that is gone, whatever its lease says.
pub(crate) const LEASE_MICROS_MAX: u64 = 10 * 60 * 1_000_000;

/// Segments of the log that hold several memtables are no larger.
const SHARED_SEGMENT_BYTES_MAX: u64 = 8 << 20;

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The defaults: 512 MiB of memory, one background thread per core (at least two), and a missing database is created.
    pub fn new() -> Self {
        Self {
            memory: MEMORY_BYTES_DEFAULT,
            memory_pool: None,
            memtable_bytes: None,
            cache_bytes: None,
            open_files_max: None,
            background_threads: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            create_if_missing: true,
            error_if_exists: false,
            read_only: false,
            snapshot_age_max: None,
            follower_lease: Some(Duration::from_secs(30)),
            recovery: RecoveryMode::TolerateTornTail,
            log_segment_bytes: None,
            statistics: false,
            keyspace: KeyspaceOptions::default(),
            vfs: Arc::new(PosixFs),
            env: None,
        }
    }

    /// The defaults for a program that leaves `cores` processor cores to the database: so many background threads, at
    /// least two, so that a flush need not wait for a compaction. [`new`](Self::new) takes all cores of the machine.
    pub fn for_cores(cores: usize) -> Self {
        Self::new().background_threads(cores.max(2))
    }

    /// The memory budget in bytes: 512 MiB by default, at least 1 MiB. It bounds everything that the engine holds:
    /// memtables, block cache, indexes, filters and buffers; [`Metrics::memory_bytes`](crate::Metrics::memory_bytes) is
    /// the sum. By default one half is for cached blocks, indexes and filters. The other half is for memtables and for
    /// the buffers of log, flushes and compactions.
    ///
    /// Writers wait while memtables use up their share. These fail, because they can never fit:
    /// - a write or batch over a quarter of the budget ([`Error::TooLarge`]). A batch to many keyspaces may fail earlier,
    ///   since each memtable grows by at least 64 KiB at a time;
    /// - opening a database with too many tables or keyspaces for the budget;
    /// - opening a database read-only if its log holds more than fits.
    ///
    /// Only a compaction of single values larger than a sixteenth of the budget can exceed it, while it runs.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self.memory_pool = None;
        self
    }

    /// Shares memory with the other databases of a [pool](MemoryPool), in place of [`memory`](Self::memory): of the two
    /// calls the last one counts. The budget then bounds what all of them hold together, and the limits that
    /// [`memory`](Self::memory) names follow from the bytes of the pool. The databases share one block cache, so
    /// [`cache_bytes`](Self::cache_bytes) cannot be set. Give them one [`env`](Self::env), too, with
    /// worker threads for all of them; in a simulator they must have the same.
    ///
    /// A write waits for memory that another database holds until that one has flushed. A database that cannot flush,
    /// because it is paused, its disk is full or a keyspace has failed, keeps its unflushed data in memory, as does one
    /// that is read-only. None may take more than four times what is then left, so there is always some for the others.
    pub fn memory_pool(mut self, pool: &MemoryPool) -> Self {
        self.memory = pool.bytes();
        self.memory_pool = Some(pool.clone());
        self
    }

    /// Size in bytes at which a memtable becomes immutable and is flushed. By default an eighth of the memory, at most
    /// 64 MiB. Two memtables must fit the memory that [`cache_bytes`](Options::cache_bytes) leaves.
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.memtable_bytes = Some(bytes);
        self
    }

    /// Bytes for cached blocks, indexes and filters. By default half of the memory, or less if two memtables need more.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = Some(bytes);
        self
    }

    /// Number of table files that may be open at the same time, at least one (RocksDB: `max_open_files`). The engine
    /// closes the files that were not read lately and opens them again for a read. That costs a few microseconds if the
    /// block is not in the cache.
    ///
    /// By default half of the limit of the process (`RLIMIT_NOFILE`), which the engine first raises as far as it is
    /// allowed to. The other half is for the log, for new tables, and for the rest of the process. If you set this
    /// option, the engine does not raise the limit. If descriptors run out anyway, the engine keeps fewer files open.
    pub fn open_files_max(mut self, count: usize) -> Self {
        self.open_files_max = Some(count);
        self
    }

    /// Number of threads for flushes and compactions, at least one. Ignored if an [`env`](Options::env) is given.
    pub fn background_threads(mut self, count: usize) -> Self {
        self.background_threads = count;
        self
    }

    /// Whether to create a missing database. True by default; otherwise opening fails with [`Error::NoDatabase`].
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// Whether opening an existing database is an error. False by default.
    pub fn error_if_exists(mut self, error: bool) -> Self {
        self.error_if_exists = error;
        self
    }

    /// Opens the database without changing anything on disk. The log is replayed into memory. Every write fails with
    /// [`Error::ReadOnly`].
    ///
    /// Any number of handles and processes may have a database open read-only at the same time. While one has it open for
    /// writing, all others fail with [`Error::Locked`]. Read permission for the files is enough.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// How old a snapshot may become. Older ones expire, about a second later: they no longer keep old data in memory and
    /// on the disk, and every read of them fails with [`Error::SnapshotExpired`]. So does a commit of a transaction that
    /// began so long ago and has to look for conflicts. By default none expires.
    ///
    /// Iterators and cursors expire when what they read has been out of date for so long, because they keep the files of
    /// that state. They notice when they are moved, return the error, and release the files; an iterator that nobody moves
    /// or drops keeps its files. What an iterator has returned is right, whether it expires or not.
    ///
    /// At least one second. A database that is opened read-only ignores this, since it removes nothing.
    pub fn snapshot_age_max(mut self, age: Duration) -> Self {
        self.snapshot_age_max = Some(age);
        self
    }

    pub(crate) fn snapshot_age_max_micros(&self) -> Option<u64> {
        self.snapshot_age_max.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
    }

    /// How long the owner of the database keeps files for a [`Follower`](crate::Follower) that does not renew its lease;
    /// 30 seconds by default. A follower renews it by itself, so this is about one whose process is stopped, or gone. One
    /// second to ten minutes.
    ///
    /// `None` for no lease, where the follower has no right to write one: then files may vanish while it reads them, and
    /// reads may fail with [`ErrorKind::NotFound`](crate::ErrorKind::NotFound). Only followers have this option.
    pub fn follower_lease(mut self, lease: Option<Duration>) -> Self {
        self.follower_lease = lease;
        self
    }

    pub(crate) fn follower_lease_micros(&self) -> Result<Option<u64>> {
        let Some(lease) = self.follower_lease else { return Ok(None) };
        let micros = u64::try_from(lease.as_micros()).unwrap_or(u64::MAX);
        if (1_000_000..=LEASE_MICROS_MAX).contains(&micros) {
            return Ok(Some(micros));
        }
        Err(Error::invalid(format!(
            "Options::follower_lease is {lease:?}; it must be one second to ten minutes"
        )))
    }

    /// How recovery treats a damaged end of the log. [`RecoveryMode::TolerateTornTail`] by default.
    pub fn recovery(mut self, mode: RecoveryMode) -> Self {
        self.recovery = mode;
        self
    }

    /// Size of the largest log segments in bytes. Segments start at 2 MiB, or at this size if it is smaller, and double.
    /// By default an eighth of the memory, at most 64 MiB, or half of a small memory, at most 8 MiB. When the log is longer
    /// than two segments of an eighth of the memory and four memtables, the engine flushes the keyspace that keeps its
    /// oldest part.
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.log_segment_bytes = Some(bytes);
        self
    }

    /// Whether to measure each read and write: [`Metrics::operations`](crate::Metrics::operations), and the reads of each
    /// level in [`LevelMetrics`](crate::LevelMetrics). Off by default, because it takes two looks at the clock for each
    /// call, 50 to 150 ns in all. All other metrics are always there.
    pub fn statistics(mut self, on: bool) -> Self {
        self.statistics = on;
        self
    }

    /// Options of the default keyspace. Where they give nothing, the stored ones are used. Other keyspaces use their own
    /// stored options. If one of them stores the name of a policy, filter or prefix extractor that is not built in, it
    /// uses the one with this name that is given here, until [`Db::keyspace`](crate::Db::keyspace) gives its own.
    pub fn keyspace(mut self, options: KeyspaceOptions) -> Self {
        self.keyspace = options;
        self
    }

    /// Block compression of the default keyspace; see [`KeyspaceOptions::compression`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.keyspace = self.keyspace.compression(compression);
        self
    }

    /// From which length on values of the default keyspace go to blob files; see [`KeyspaceOptions::blobs_from`].
    pub fn blobs_from(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.keyspace = self.keyspace.blobs_from(bytes);
        self
    }

    /// Filter bits per key of the default keyspace; see [`KeyspaceOptions::filter_bits_per_key`].
    pub fn filter_bits_per_key(mut self, bits: f64) -> Self {
        self.keyspace = self.keyspace.filter_bits_per_key(bits);
        self
    }

    /// Merge operator of the default keyspace; see [`KeyspaceOptions::merge_operator`].
    pub fn merge_operator(mut self, operator: Arc<dyn MergeOperator>) -> Self {
        self.keyspace = self.keyspace.merge_operator(operator);
        self
    }

    /// Compaction policy of the default keyspace; see [`KeyspaceOptions::compaction`].
    pub fn compaction(mut self, policy: Arc<dyn CompactionPolicy>) -> Self {
        self.keyspace = self.keyspace.compaction(policy);
        self
    }

    /// Memtable of the default keyspace; see [`KeyspaceOptions::memtable`].
    pub fn memtable(mut self, factory: Arc<dyn MemtableFactory>) -> Self {
        self.keyspace = self.keyspace.memtable(factory);
        self
    }

    /// The file system; the operating system's by default.
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// The clock, randomness and threads. By default each database has its own [`ThreadEnv`].
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = Some(env);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.memory < MEMORY_BYTES_MIN {
            return Err(Error::invalid(format!(
                "Options::memory is {} bytes; the minimum is {MEMORY_BYTES_MIN}",
                self.memory
            )));
        }
        if self.memtable_bytes == Some(0) {
            return Err(Error::invalid("Options::memtable_bytes is 0; it must be at least 1"));
        }
        if self.open_files_max == Some(0) {
            return Err(Error::invalid(
                "Options::open_files_max is 0; reading a table needs at least one open file",
            ));
        }
        if let Some(age) = self.snapshot_age_max.filter(|age| *age < Duration::from_secs(1)) {
            return Err(Error::invalid(format!(
                "Options::snapshot_age_max is {age:?}; it must be at least one second"
            )));
        }
        if self.memory_pool.is_some() && self.cache_bytes.is_some() {
            return Err(Error::invalid(
                "Options::cache_bytes cannot be set together with Options::memory_pool: its databases share one cache",
            ));
        }
        let budget = self.budget();
        let memtables_bytes = budget.shares.memtables_bytes;
        if memtables_bytes < budget.memtable_bytes.saturating_mul(2) {
            return Err(Error::invalid(format!(
                "Options::memory of {} bytes with cache_bytes of {} leaves {memtables_bytes} bytes for memtables; two \
                 memtables of {} bytes must fit",
                self.memory, budget.shares.cache_bytes, budget.memtable_bytes
            )));
        }
        self.keyspace.check()?;
        if self.read_only && self.error_if_exists {
            return Err(Error::invalid(
                "Options::read_only and Options::error_if_exists cannot be set together",
            ));
        }
        Ok(())
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        // Each takes some syncs, so small memtables share one.
        let shared_bytes = (self.memory as u64 / 2).min(SHARED_SEGMENT_BYTES_MAX);
        self.log_segment_bytes.unwrap_or_else(|| self.log_unit_bytes().max(shared_bytes))
    }

    /// What the length of the log and what is kept in reserve for it are measured by.
    pub(crate) fn log_unit_bytes(&self) -> u64 {
        self.log_segment_bytes.unwrap_or((self.memory as u64 / 8).min(64 << 20))
    }

    /// Size of the disk reserve without its part for a manifest: disk space to release when the disk is full.
    pub(crate) fn disk_reserve_bytes(&self) -> u64 {
        (self.log_unit_bytes() / 2).clamp(128 << 10, 1 << 20)
    }

    pub(crate) fn make_env(&self) -> Arc<dyn Env> {
        self.env.clone().unwrap_or_else(|| Arc::new(ThreadEnv::new(self.background_threads.max(1))))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("memory", &self.memory)
            .field("read_only", &self.read_only)
            .field("keyspace", &self.keyspace)
            .finish_non_exhaustive()
    }
}
