mod filter_bits;

use std::fmt;
use std::sync::Arc;

use lsm_compaction::{CompactionPolicy, Leveled};
use lsm_core::env::{Env, ThreadEnv};
use lsm_core::vfs::{PosixFs, Vfs};
use lsm_memtable::{BPlusMemtable, MemtableFactory};
use lsm_sstable::{BloomFilter, Compression, FilterPolicy, PrefixExtractor, TableOpen};
use lsm_wal::RecoveryMode;

use crate::error::{Error, Result};
use filter_bits::bits_per_key;

/// How to open a database.
///
/// One number, [`memory`](Options::memory), sets all sizes; everything else has a default that is right for most.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let db = lsm_engine::Options::new().memory(64 << 20).open(dir.path())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing until `open`"]
pub struct Options {
    pub(crate) memory: usize,
    pub(crate) memtable_bytes: Option<usize>,
    pub(crate) cache_bytes: Option<usize>,
    pub(crate) open_files_max: Option<usize>,
    pub(crate) background_threads: usize,
    pub(crate) create_if_missing: bool,
    pub(crate) error_if_exists: bool,
    pub(crate) read_only: bool,
    pub(crate) recovery: RecoveryMode,
    pub(crate) log_segment_bytes: Option<u64>,
    pub(crate) keyspace: KeyspaceOptions,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) env: Option<Arc<dyn Env>>,
}

/// What [`Options::memory`] is by default, in bytes.
pub const MEMORY_BYTES_DEFAULT: usize = 512 << 20;

/// Smallest [`Options::memory`] in bytes.
pub const MEMORY_BYTES_MIN: usize = 1 << 20;

const BLOCK_BYTES_MIN: usize = 256;
const BLOCK_BYTES_MAX: usize = 1 << 20;

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The defaults: 512 MiB of memory, as many background threads as cores (at least two), created if missing.
    pub fn new() -> Self {
        Self {
            memory: MEMORY_BYTES_DEFAULT,
            memtable_bytes: None,
            cache_bytes: None,
            open_files_max: None,
            background_threads: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            create_if_missing: true,
            error_if_exists: false,
            read_only: false,
            recovery: RecoveryMode::TolerateTornTail,
            log_segment_bytes: None,
            keyspace: KeyspaceOptions::default(),
            vfs: Arc::new(PosixFs),
            env: None,
        }
    }

    /// Bytes of memory for everything that the engine holds: memtables, cached blocks, indexes, filters, buffers. It is
    /// a bound: [`Metrics::memory_bytes`](crate::Metrics::memory_bytes) adds it up. Half goes to tables, the other half
    /// to memtables, those kept for reuse included, and to the buffers of log, flushes and merges, unless the parts are
    /// set apart. At least 1 MiB.
    ///
    /// Writers wait while it is used up. What never fits is an error: a write over a quarter of it, or
    /// over less if it is a batch to many keyspaces, since each of their memtables grows by 64 KiB at a time at least
    /// ([`Error::TooLarge`]), opening a database with too many tables or keyspaces for it, and opening one read-only
    /// whose log holds more than fits. Only merges of single values over a sixteenth of it can exceed it, while they
    /// last.
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Bytes at which a memtable becomes immutable and is flushed. By default an eighth of the memory, at most 64 MiB. Two must fit
    /// what [`cache_bytes`](Options::cache_bytes) leaves.
    pub fn memtable_bytes(mut self, bytes: usize) -> Self {
        self.memtable_bytes = Some(bytes);
        self
    }

    /// Bytes for cached blocks, indexes and filters. By default half of the memory, or less if memtables need more.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = Some(bytes);
        self
    }

    /// How many files of tables may be open at once, at least one. Others are closed, and opened again when they are
    /// read: a few microseconds for a read that finds its block neither in the cache nor the file open.
    ///
    /// By default half of what the process may have open, after raising that limit (`RLIMIT_NOFILE`) as far as it is
    /// allowed to: the other half is for the log, for tables that are being written, and for the rest of the process.
    /// Whoever sets it looks after the limit too. A database that runs out of descriptors all the same keeps fewer
    /// open.
    pub fn open_files_max(mut self, count: usize) -> Self {
        self.open_files_max = Some(count);
        self
    }

    /// Threads for flushes and compactions, at least one. Not used when an [`env`](Options::env) is given.
    pub fn background_threads(mut self, count: usize) -> Self {
        self.background_threads = count;
        self
    }

    /// Whether a missing database is created. True by default.
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// Whether an existing database is an error. False by default.
    pub fn error_if_exists(mut self, error: bool) -> Self {
        self.error_if_exists = error;
        self
    }

    /// Opens without changing anything on disk; every write fails with [`Error::ReadOnly`]. What the log holds is
    /// replayed in memory.
    ///
    /// Any number of handles and processes may have a database open read-only at once, but none beside one that
    /// writes: that is [`Locked`](crate::ErrorKind::Locked). The right to read its files is enough.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// What to do about a log that ends in the middle of a record.
    pub fn recovery(mut self, mode: RecoveryMode) -> Self {
        self.recovery = mode;
        self
    }

    /// Bytes of the largest log segments: they begin at 2 MiB, or this, and double. The log's total is kept to a few
    /// times this and the memtables. By default an eighth of the memory, at most 64 MiB.
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.log_segment_bytes = Some(bytes);
        self
    }

    /// Options of the default keyspace, and of keyspaces that [`Db::keyspace`](crate::Db::keyspace) finds on disk when none are given.
    pub fn keyspace(mut self, options: KeyspaceOptions) -> Self {
        self.keyspace = options;
        self
    }

    /// Block compression of the default keyspace; see [`KeyspaceOptions::compression`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.keyspace.compression = compression;
        self
    }

    /// Filter bits per key of the default keyspace; see [`KeyspaceOptions::filter_bits_per_key`].
    pub fn filter_bits_per_key(mut self, bits: f64) -> Self {
        self.keyspace = self.keyspace.filter_bits_per_key(bits);
        self
    }

    /// Compaction policy of the default keyspace; see [`KeyspaceOptions::compaction`].
    pub fn compaction(mut self, policy: Arc<dyn CompactionPolicy>) -> Self {
        self.keyspace.compaction = policy;
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

    /// Clock, randomness and threads; by default a [`ThreadEnv`] of the database's own.
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = Some(env);
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.memory < MEMORY_BYTES_MIN {
            return Err(Error::invalid(format!(
                "Options::memory is {} bytes; the least is {MEMORY_BYTES_MIN}",
                self.memory
            )));
        }
        if self.memtable_bytes == Some(0) {
            return Err(Error::invalid("Options::memtable_bytes is 0; give the bytes at which to flush"));
        }
        if self.open_files_max == Some(0) {
            return Err(Error::invalid(
                "Options::open_files_max is 0; tables cannot be read without an open file",
            ));
        }
        let budget = self.budget();
        if budget.memtables_bytes_max < budget.memtable_bytes.saturating_mul(2) {
            return Err(Error::invalid(format!(
                "Options::memory of {} bytes leaves {} for memtables beside {} of cache_bytes; two of {} must fit",
                self.memory, budget.memtables_bytes_max, budget.cache_bytes, budget.memtable_bytes
            )));
        }
        self.keyspace.check()?;
        if self.read_only && self.error_if_exists {
            return Err(Error::invalid("Options::read_only and Options::error_if_exists exclude each other"));
        }
        Ok(())
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.log_segment_bytes.unwrap_or((self.memory as u64 / 8).min(64 << 20))
    }

    /// Bytes of the disk to hold back for the way out of a full one, beside what a manifest takes.
    pub(crate) fn disk_reserve_bytes(&self) -> u64 {
        (self.segment_bytes() / 2).clamp(128 << 10, 1 << 20)
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

/// How one keyspace stores its data.
///
/// A memtable, filter, prefix extractor or policy of your own that panics in a write or in the background stops writes
/// and background work of its keyspace, which report [`ErrorKind::Callback`](crate::ErrorKind::Callback); other
/// keyspaces go on. One that panics while it is asked for a read unwinds the thread that reads, and nothing else.
///
/// A filter, prefix extractor or policy may call the database that calls it: reads work, and writes for which there is
/// memory. What would wait for itself is an error: flushes, compactions, closing, and changes of keyspaces where one is
/// being opened. A memtable is called under the lock of writes and must not call the database.
#[derive(Clone, Debug)]
#[must_use]
pub struct KeyspaceOptions {
    pub(crate) compression: Compression,
    pub(crate) compression_above: Compression,
    pub(crate) block_bytes: usize,
    filter: Filter,
    pub(crate) prefix_extractor: Option<Arc<dyn PrefixExtractor>>,
    pub(crate) compaction: Arc<dyn CompactionPolicy>,
    pub(crate) change_compaction: bool,
    pub(crate) memtable: Arc<dyn MemtableFactory>,
    /// The memtable was chosen, and is not the one that all keyspaces of the database share.
    pub(crate) memtable_given: bool,
    read_buffer_bytes: u64,
}

/// Which filter tables get.
#[derive(Clone, Debug)]
enum Filter {
    None,
    /// A Bloom filter of so many bits a key, averaged over all tables.
    Bloom(f64),
    Given(Arc<dyn FilterPolicy>),
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Lz4,
            compression_above: Compression::None,
            block_bytes: 4096,
            filter: Filter::Bloom(10.0),
            prefix_extractor: None,
            compaction: Arc::new(Leveled::default()),
            change_compaction: false,
            memtable: Arc::new(BPlusMemtable::with_pool_bytes(0)),
            memtable_given: false,
            read_buffer_bytes: 256 << 10,
        }
    }
}

impl KeyspaceOptions {
    /// The defaults: LZ4 at the last level, 4 KiB blocks, a Bloom filter of 10 bits a key, leveled compaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compression of blocks at the last level that holds data, where almost all data is. LZ4 by default.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Compression of blocks in the levels above. None by default: they are rewritten soon.
    pub fn compression_above(mut self, compression: Compression) -> Self {
        self.compression_above = compression;
        self
    }

    /// Bytes of a block before compression, from 256 bytes to 1 MiB. 4096 by default.
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Bits per key of the Bloom filter, on the average over all tables; 0 for no filter. Ten by default, for about
    /// one false positive in a hundred. Small runs get more bits than large ones, since a lookup asks them all.
    pub fn filter_bits_per_key(mut self, bits: f64) -> Self {
        self.filter = if bits > 0.0 { Filter::Bloom(bits) } else { Filter::None };
        self
    }

    /// A filter of your own, the same for all tables; `None` for no filter.
    pub fn filter(mut self, policy: Option<Arc<dyn FilterPolicy>>) -> Self {
        self.filter = policy.map_or(Filter::None, Filter::Given);
        self
    }

    /// Puts prefixes into the filters too, so that [`Db::prefix`](crate::Db::prefix) skips tables without them.
    pub fn prefix_extractor(mut self, extractor: Arc<dyn PrefixExtractor>) -> Self {
        self.prefix_extractor = Some(extractor);
        self
    }

    /// Which tables are merged when. Fixed when the keyspace is created. Leveled by default.
    pub fn compaction(mut self, policy: Arc<dyn CompactionPolicy>) -> Self {
        self.compaction = policy;
        self
    }

    /// Lets the keyspace be opened with another compaction policy than it was created with; the tree is brought
    /// into its shape over time. Without this a different policy is an error. A policy that drops data by age or
    /// size begins to do so at once.
    pub fn change_compaction(mut self, change: bool) -> Self {
        self.change_compaction = change;
        self
    }

    /// Fails for options that no table could be written with.
    pub(crate) fn check(&self) -> Result<()> {
        if (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&self.block_bytes) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "KeyspaceOptions::block_bytes is {}; it must be from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}",
            self.block_bytes
        )))
    }

    /// How tables of the keyspace are opened.
    pub(crate) fn table_open(&self) -> TableOpen {
        let mut open = TableOpen {
            prefix_extractor: self.prefix_extractor.clone(),
            sequential_read_bytes: self.read_buffer_bytes,
            ..TableOpen::default()
        };
        if let Filter::Given(policy) = &self.filter {
            open.filters.push(Arc::clone(policy));
        }
        open
    }

    /// The filter of new tables in a run of so many `entries` beside `others`.
    pub(crate) fn table_filter(
        &self,
        entries: u64,
        others: impl IntoIterator<Item = u64>,
    ) -> Option<Arc<dyn FilterPolicy>> {
        match &self.filter {
            Filter::None => None,
            Filter::Bloom(average) => {
                Some(Arc::new(BloomFilter::new(bits_per_key(*average, entries, others))))
            }
            Filter::Given(policy) => Some(Arc::clone(policy)),
        }
    }

    /// The structure of the memtable; a B+ tree by default. May change at each open. A factory belongs to one database:
    /// it is told what it may keep for reuse, which is part of [`Options::memory`], and nothing if it is not that of the
    /// default keyspace.
    pub fn memtable(mut self, factory: Arc<dyn MemtableFactory>) -> Self {
        self.memtable = factory;
        self.memtable_given = true;
        self
    }

    /// Takes what all keyspaces of the database share: the memtables, unless it has its own, and how much is read at once.
    pub(crate) fn sharing(mut self, memtable: &Arc<dyn MemtableFactory>, read_buffer_bytes: u64) -> Self {
        if !self.memtable_given {
            self.memtable = Arc::clone(memtable);
        } else if !Arc::ptr_eq(&self.memtable, memtable) {
            // There is one pool that grows and shrinks with the rest.
            self.memtable.set_pool_bytes(0);
        }
        self.read_buffer_bytes = read_buffer_bytes;
        self
    }
}
