//! Accounting of the memory of a database: how much each part takes, and which part gives memory to which.
//!
//! ```text
//! memory     = memtables + buffers + tables + transactions + log window
//! memtables    active, immutable, and the memory of flushed memtables that is kept for new ones
//! buffers      of running flushes and compactions
//! tables       indexes and filters of open tables, keyspaces, and the block cache, which gets the rest
//! transactions what open transactions have written and read; they get theirs from the block cache
//! ```
//!
//! Each part has a share. Buffers and tables that need more take it from the block cache first, then from memtables.
//! Then writers wait, or their writes fail because they do not fit, so the sum is never exceeded. Databases that share a
//! [memory pool](crate::memory_pool) share all of this.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lsm_memtable::{MemtableFactory, MemtableReader, Reservation};
use lsm_sstable::BlockCache;
use lsm_wal::WindowMemory;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::memory::budget::Budget;
use crate::memory::file_cache::FileCache;
use crate::memory_pool::{Holding, Pool, Total};
use crate::options::{KeyspaceOptions, Options, ResolvedOptions, SharedOptions, StoredOptions};

/// Largest and smallest step by which a memtable grows. A longer value takes what it needs.
const GROWTH_BYTES_MAX: usize = 2 << 20;
const GROWTH_BYTES_MIN: usize = 64 << 10;
/// Estimated size of an empty memtable.
pub(crate) const EMPTY_MEMTABLE_BYTES: usize = 20 << 10;
/// Small-table compaction merges neighbours up to this size.
const TIDY_BYTES_MAX: u64 = 64 << 20;
/// Upper bound of what an entry takes in a memtable besides its key and value.
const ENTRY_OVERHEAD_BYTES: usize = Reservation::OVERHEAD_BYTES;
/// The ends of memtable chunks waste at most a seventh of what a batch takes: a value that does not fit into the rest
/// of a chunk goes to the next chunk, and a value longer than an eighth of a chunk gets its own memory.
const CHUNK_END_PART: usize = 7;
/// Upper bound of what a range delete takes in a memtable, for as many as a batch can hold; see
/// [`lsm_core::range_tombstone::RangeTombstoneSet`], which doubles when it grows.
const RANGE_DELETE_OVERHEAD_BYTES: usize = 2400;

/// The memory that the database holds now, by parts of the budget.
pub(crate) struct Memory {
    pub(crate) budget: Budget,
    /// What it holds of its pool.
    pub(crate) holding: Holding,
    pub(crate) cache: Arc<BlockCache>,
    /// The open files of tables.
    pub(crate) file_cache: Arc<FileCache>,
    /// The memtable factory of all keyspaces without their own.
    memtable: Arc<dyn MemtableFactory>,
    /// The options given for the default keyspace. Their parts serve other keyspaces, too.
    default_keyspace: KeyspaceOptions,
    pub(super) transactions: TransactionMemory,
    /// Memory of obsolete tables that readers still hold.
    held_tables: Total,
    /// Number of open tables whose index and filter stay in their files.
    unpinned_tables: AtomicUsize,
    /// How often the memory of tables has changed.
    table_changes: AtomicU64,
    /// Bytes of memtables that only deletes may take, while the disk is full.
    kept_for_deletes: AtomicUsize,
    /// Memtables that the database has released. Readers may still hold them.
    released: Mutex<Vec<Weak<dyn MemtableReader>>>,
}

/// The memory of all open transactions.
#[derive(Debug, Default)]
pub(super) struct TransactionMemory {
    pub(super) used: Total,
    /// What the block cache has given up for them, at least `used`. Changes under the lock of the pool.
    pub(super) reserved: AtomicUsize,
    pub(super) live: AtomicUsize,
}

impl TransactionMemory {
    #[inline]
    pub(super) fn reserved_bytes(&self) -> usize {
        self.reserved.load(Ordering::Acquire)
    }
}

impl Memory {
    pub(crate) fn new(options: &Options) -> Self {
        let budget = options.budget();
        let pool = options.pool(&budget);
        let memtable = options.keyspace.memtable.clone().unwrap_or_else(|| Arc::clone(&pool.memtable));
        if !Arc::ptr_eq(&memtable, &pool.memtable) {
            // The pool keeps memory for new memtables in one place, which all databases share.
            memtable.set_pool_bytes(0);
        }
        Self {
            cache: Arc::clone(&pool.cache),
            holding: Holding::new(pool),
            file_cache: FileCache::new(Arc::clone(&options.vfs), options.open_files_max),
            memtable,
            default_keyspace: options.keyspace.clone(),
            budget,
            transactions: TransactionMemory::default(),
            held_tables: Total::default(),
            unpinned_tables: AtomicUsize::new(0),
            table_changes: AtomicU64::new(0),
            kept_for_deletes: AtomicUsize::new(0),
            released: Mutex::default(),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.holding.pool
    }

    /// The memory for memtables that several databases share, unless the database has it alone.
    pub(crate) fn shared_pool(&self) -> Option<&Pool> {
        Some(self.pool()).filter(|pool| pool.is_shared)
    }

    /// The options that a keyspace uses if it stores `stored` and is opened with `given`.
    pub(crate) fn resolve(&self, given: &KeyspaceOptions, stored: &StoredOptions) -> ResolvedOptions {
        let shared = SharedOptions {
            default: &self.default_keyspace,
            memtable: &self.memtable,
            read_buffer_bytes: self.budget.read_buffer_bytes,
        };
        ResolvedOptions::new(given, stored, &shared)
    }

    /// Notes memtables that the database releases. Readers may still hold them.
    pub(crate) fn release_memtables(&self, memtables: impl IntoIterator<Item = Arc<dyn MemtableReader>>) {
        let mut released = self.released.lock();
        released.extend(memtables.into_iter().map(|memtable| Arc::downgrade(&memtable)));
        released.retain(|memtable| memtable.strong_count() > 0);
    }

    /// Memory of memtables that only readers still hold.
    pub(crate) fn held_bytes(&self) -> usize {
        self.released.lock().iter().filter_map(Weak::upgrade).map(|memtable| memtable.memory_bytes()).sum()
    }

    pub(crate) fn held_table_bytes(&self) -> usize {
        self.held_tables.bytes()
    }

    /// While the disk is full, keeps some memory of memtables for deletes, because they may free disk space.
    pub(crate) fn keep_for_deletes(&self, is_disk_full: bool) {
        let bytes = if is_disk_full { self.budget.shares.memtables_bytes / 8 } else { 0 };
        self.kept_for_deletes.store(bytes, Ordering::Release);
    }

    /// The part of the room for memtables that only deletes may take.
    #[inline]
    pub(crate) fn kept_for_deletes(&self) -> usize {
        self.kept_for_deletes.load(Ordering::Acquire)
    }

    /// Bytes by which a memtable of `memtable_bytes` may grow for an entry, besides the entry itself.
    #[inline]
    pub(crate) fn growth_bytes(&self, memtable_bytes: usize) -> usize {
        let most = GROWTH_BYTES_MAX.min(self.budget.memtable_bytes).max(GROWTH_BYTES_MIN);
        memtable_bytes.clamp(GROWTH_BYTES_MIN, most)
    }

    /// The memory that tables may take before further indexes and filters stay in their files. The rest is for blocks.
    pub(crate) fn tables_bytes_max(&self) -> usize {
        self.budget.shares.cache_bytes / 4 * 3
    }

    /// The memory that the tables of this database may take as long as those of others take what they take.
    pub(crate) fn own_tables_bytes_max(&self) -> usize {
        let others = self.pool().tables.bytes().saturating_sub(self.holding.tables.bytes());
        self.tables_bytes_max().saturating_sub(others)
    }

    /// Whether further indexes and filters must leave memory.
    pub(crate) fn must_unpin(&self) -> bool {
        self.pool().tables.bytes() > self.tables_bytes_max()
    }

    /// The memory that the index and filter of a table opened now may take.
    pub(crate) fn pinnable_bytes(&self) -> usize {
        let left = self.budget.shares.cache_bytes.saturating_sub(self.pool().transactions.bytes());
        self.tables_bytes_max().min(left).saturating_sub(self.pool().tables.bytes())
    }

    /// A number that changes whenever the memory of tables changes: tables were opened, reopened or dropped.
    pub(crate) fn table_changes(&self) -> u64 {
        self.table_changes.load(Ordering::Acquire)
    }

    /// Whether all indexes and filters are in memory and fit.
    pub(crate) fn all_tables_fit(&self) -> bool {
        self.unpinned_tables.load(Ordering::Acquire) == 0 && !self.must_unpin()
    }

    /// Whether small tables with this many bytes and entries in total should be merged into one.
    pub(crate) fn fits_table(&self, bytes: u64, entries: u64) -> bool {
        // The table writer takes about ten bytes per key: a hash and a part of the filter.
        bytes <= TIDY_BYTES_MAX && entries.saturating_mul(10) <= self.budget.table_writer_bytes_max as u64
    }

    /// The memory that a merge may take for reading, besides its table writers, and the number of its parts.
    pub(crate) fn merge_limits(&self) -> (usize, usize) {
        let (pool, shares) = (self.pool(), &self.budget.shares);
        let held = pool.tables.bytes() + pool.buffers.bytes() + self.budget.table_writer_bytes_max;
        let held = held + pool.transactions.bytes();
        self.holding.merge_limits((shares.buffers_bytes + shares.cache_bytes).saturating_sub(held))
    }

    /// What memtables may take if nothing else does.
    pub(crate) fn memtables_bytes_max(&self) -> usize {
        self.pool().memtables_bytes_max_of_one()
    }

    /// Fails if the open tables and keyspaces leave no room for writes.
    pub(crate) fn check_tables(&self) -> Result<()> {
        // Ignore buffers: running merges give them back.
        if self.pool().memtables_bytes_max_beside(0) >= self.budget.memtable_bytes {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} is too small for the {}: its tables and keyspaces take {} bytes, and their share is {}",
            self.option(),
            if self.pool().is_shared { "databases" } else { "database" },
            self.pool().tables.bytes(),
            self.budget.shares.cache_bytes
        )))
    }

    /// The option that sets the budget.
    fn option(&self) -> &'static str {
        if self.pool().is_shared { "the memory of Options::memory_pool" } else { "Options::memory" }
    }

    /// Whether open tables take more than their share.
    pub(crate) fn tables_exceed_share(&self) -> bool {
        self.pool().tables.bytes() > self.budget.shares.cache_bytes
    }

    /// Whether running flushes or compactions, of any database of the pool, will give memory back.
    pub(crate) fn has_buffers(&self) -> bool {
        self.pool().buffers.bytes() > 0
    }

    /// The error of a write that finds no room when nothing can free any.
    pub(crate) fn exhausted(&self, wanted: usize) -> Error {
        if self.tables_exceed_share() {
            return Error::invalid(format!(
                "{} is used up: indexes, filters and keyspaces take {} bytes, and their share is {}; reopen with more \
                 memory",
                self.option(),
                self.pool().tables.bytes(),
                self.budget.shares.cache_bytes
            ));
        }
        if self.holding.waits_for_others(wanted) {
            return Error::invalid(format!(
                "{} is used up by other databases, and none of them can flush: close one that failed or that is open \
                 read-only",
                self.option()
            ));
        }
        too_large(wanted, self.holding.possible_room_bytes())
    }

    /// Counts the memory of the window of a log.
    pub(crate) fn for_window(self: &Arc<Self>) -> WindowMemory {
        let charge = Mutex::new(Charge::new(self, Part::Windows, 0));
        WindowMemory(Arc::new(move |bytes| charge.lock().set_window(bytes as usize)))
    }
}

/// Upper bound of what a batch takes in memtables, without the steps by which they grow.
#[inline]
pub(crate) fn batch_bytes(payload_bytes: usize, operations: u64, range_deletes: u64) -> usize {
    let overhead = |count: u64, bytes| (count as usize).saturating_mul(bytes);
    payload_bytes
        .saturating_add(overhead(operations, ENTRY_OVERHEAD_BYTES))
        .saturating_add(overhead(range_deletes, RANGE_DELETE_OVERHEAD_BYTES))
}

/// The room that memtables need for a batch of `batch_bytes`, without the steps by which they grow.
#[inline]
pub(crate) fn room_for(batch_bytes: usize) -> usize {
    batch_bytes.saturating_add(batch_bytes / CHUNK_END_PART)
}

/// The error of a write that memtables have no room for.
pub(crate) fn too_large(wanted: usize, bytes_max: usize) -> Error {
    let what = "write (with memtable growth)";
    Error::TooLarge { what, bytes: wanted as u64, bytes_max: bytes_max as u64 }
}

/// Counts a table whose index and filter stay in its file, while the table is open.
pub(crate) struct Unpinned(Arc<Memory>);

impl Unpinned {
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        memory.unpinned_tables.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(memory))
    }
}

impl Drop for Unpinned {
    fn drop(&mut self) {
        self.0.unpinned_tables.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unpinned")
    }
}

/// The part of the budget that a charge belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Buffers,
    Tables,
    Windows,
    /// Outside the budget: the database has released it, but readers hold it.
    Readers,
}

/// A charge on a part of the budget. Dropping it gives the bytes back.
pub(crate) struct Charge {
    memory: Arc<Memory>,
    part: Part,
    bytes: usize,
}

impl Charge {
    pub(crate) fn new(memory: &Arc<Memory>, part: Part, bytes: usize) -> Self {
        let mut charge = Self { memory: Arc::clone(memory), part, bytes: 0 };
        charge.set(bytes);
        charge
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves the charge to another part.
    pub(crate) fn move_to(&mut self, part: Part) {
        let bytes = self.bytes;
        self.set(0);
        self.part = part;
        self.set(bytes);
    }

    /// Adds `bytes` if the total of the part, over all databases of the pool, stays within `total_bytes_max`. Returns
    /// whether it did.
    pub(crate) fn grow_within(&mut self, bytes: usize, total_bytes_max: usize) -> bool {
        let Some((own, all)) = self.totals() else { return false };
        if !all.add_within(bytes, total_bytes_max) {
            return false;
        }
        own.add(bytes);
        self.bytes += bytes;
        self.memory.pool().adjust(false);
        true
    }

    /// Sets the memory of a window, if there is enough.
    fn set_window(&mut self, bytes: usize) -> bool {
        let share = self.memory.budget.shares.windows_bytes;
        // Leave the smallest windows to databases that begin to write.
        let bytes_max = if self.memory.pool().is_shared && self.bytes > 0 { share / 2 } else { share };
        if bytes > self.bytes {
            return self.grow_within(bytes - self.bytes, bytes_max);
        }
        self.set(bytes);
        true
    }

    /// The totals of the part: of the database, and of its pool. `None` outside the budget.
    fn totals(&self) -> Option<(&Total, &Total)> {
        let (own, all) = (&self.memory.holding, self.memory.pool());
        match self.part {
            Part::Buffers => Some((&own.buffers, &all.buffers)),
            Part::Tables => Some((&own.tables, &all.tables)),
            Part::Windows => Some((&own.windows, &all.windows)),
            Part::Readers => None,
        }
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let has_shrunk = bytes < self.bytes;
        let change = |total: &Total| match bytes.checked_sub(self.bytes) {
            Some(more) => total.add(more),
            None => total.remove(self.bytes - bytes),
        };
        let is_budgeted = self.totals().map(|(own, all)| {
            change(own);
            change(all);
        });
        if is_budgeted.is_none() {
            change(&self.memory.held_tables);
        }
        self.bytes = bytes;
        if matches!(self.part, Part::Tables) {
            self.memory.table_changes.fetch_add(1, Ordering::AcqRel);
        }
        if is_budgeted.is_some() {
            self.memory.pool().adjust(has_shrunk);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}
