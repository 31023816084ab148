//! Accounting of the memory budget: how much each part takes, and which part gives memory to which.
//!
//! ```text
//! memory     = memtables + buffers + tables + transactions + log window
//! memtables    active, immutable, and the pool: memory of flushed memtables kept for new ones
//! buffers      of running flushes and compactions
//! tables       indexes and filters of open tables, keyspaces, and the block cache, which gets the rest
//! transactions what open transactions have written and read; they get theirs from the block cache
//! ```
//!
//! Each part has a share. Buffers and tables that need more take it from the block cache first, then from memtables.
//! Then writers wait, or their writes fail because they do not fit, so the sum is never exceeded.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, Reservation};
use lsm_sstable::BlockCache;
use parking_lot::Mutex;

use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::memory::budget::Budget;
use crate::memory::file_cache::FileCache;
use crate::memory::transactions::TransactionMemory;
use crate::options::{KeyspaceOptions, Options, ResolvedOptions, SharedOptions, StoredOptions};

/// Largest and smallest step by which a memtable grows. A longer value takes what it needs.
const GROWTH_BYTES_MAX: usize = 2 << 20;
const GROWTH_BYTES_MIN: usize = 64 << 10;
/// Estimated size of an empty memtable.
pub(crate) const EMPTY_MEMTABLE_BYTES: usize = 20 << 10;
/// Most writes take less in memtables, without the steps by which these grow.
const SHORT_WRITE_BYTES: usize = 8 << 10;
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
    pub(crate) cache: Arc<BlockCache>,
    /// The open files of tables.
    pub(crate) file_cache: Arc<FileCache>,
    /// The memtable factory of all keyspaces without their own. They share its pool of flushed memory.
    pub(crate) memtable: Arc<dyn MemtableFactory>,
    /// The options given for the default keyspace. Their parts serve other keyspaces, too.
    default_keyspace: KeyspaceOptions,
    /// Memory of active memtables. The committer sets it.
    active_bytes: AtomicUsize,
    /// Memory of immutable memtables.
    immutable: Total,
    buffers: Total,
    tables: Total,
    pub(super) transactions: TransactionMemory,
    /// Memory of obsolete tables that readers still hold.
    held_tables: Total,
    /// Number of open tables whose index and filter stay in their files.
    unpinned_tables: AtomicUsize,
    /// How often the memory of tables has changed.
    table_changes: AtomicU64,
    /// The limit of the pool that was set last.
    pool_bytes_max: AtomicUsize,
    /// Bytes of memtables that only deletes may take, while the disk is full.
    kept_for_deletes: AtomicUsize,
    /// Held while the limits of the pool or the block cache change.
    pub(super) limits_lock: Mutex<()>,
    /// Memtables that the database has released. Readers may still hold them.
    released: Mutex<Vec<Weak<dyn MemtableReader>>>,
}

impl Memory {
    pub(crate) fn new(options: &Options) -> Self {
        let budget = options.budget();
        let default_memtable = || Arc::new(BPlusMemtable::with_pool_bytes(0)) as Arc<dyn MemtableFactory>;
        let memtable = options.keyspace.memtable.clone().unwrap_or_else(default_memtable);
        memtable.set_pool_bytes(budget.pool_bytes_max);
        Self {
            cache: BlockCache::new(budget.cache_bytes),
            file_cache: FileCache::new(Arc::clone(&options.vfs), options.open_files_max),
            memtable,
            default_keyspace: options.keyspace.clone(),
            budget,
            active_bytes: AtomicUsize::new(0),
            immutable: Total::default(),
            buffers: Total::default(),
            tables: Total::default(),
            transactions: TransactionMemory::default(),
            held_tables: Total::default(),
            unpinned_tables: AtomicUsize::new(0),
            table_changes: AtomicU64::new(0),
            pool_bytes_max: AtomicUsize::new(budget.pool_bytes_max),
            kept_for_deletes: AtomicUsize::new(0),
            released: Mutex::default(),
            limits_lock: Mutex::new(()),
        }
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

    pub(crate) fn active_bytes(&self) -> usize {
        self.active_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_active_bytes(&self, bytes: usize) {
        self.active_bytes.store(bytes, Ordering::Release);
    }

    pub(crate) fn immutable_bytes(&self) -> usize {
        self.immutable.bytes()
    }

    pub(crate) fn add_immutable_bytes(&self, bytes: usize) {
        self.immutable.add(bytes);
    }

    pub(crate) fn remove_immutable_bytes(&self, bytes: usize) {
        self.immutable.remove(bytes);
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

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffers.bytes()
    }

    pub(crate) fn table_bytes(&self) -> usize {
        self.tables.bytes()
    }

    pub(crate) fn held_table_bytes(&self) -> usize {
        self.held_tables.bytes()
    }

    /// The memory that all memtables together may take now.
    #[inline]
    fn memtables_bytes_max(&self) -> usize {
        self.memtables_bytes_max_beside(self.buffer_bytes())
    }

    /// The memory that all memtables together may take if buffers take `buffer_bytes`.
    #[inline]
    fn memtables_bytes_max_beside(&self, buffer_bytes: usize) -> usize {
        let shares = self.budget.buffers_bytes + self.budget.cache_bytes;
        let others = buffer_bytes + self.table_bytes() + self.transactions.reserved_bytes();
        let over = others.saturating_sub(shares);
        self.budget.memtables_bytes_max.saturating_sub(over)
    }

    /// While the disk is full, keeps some memory of memtables for deletes, because they may free disk space.
    pub(crate) fn keep_for_deletes(&self, is_disk_full: bool) {
        let bytes = if is_disk_full { self.budget.memtables_bytes_max / 8 } else { 0 };
        self.kept_for_deletes.store(bytes, Ordering::Release);
    }

    /// The part of [`room_bytes`](Self::room_bytes) that only deletes may take.
    #[inline]
    pub(crate) fn kept_for_deletes(&self) -> usize {
        self.kept_for_deletes.load(Ordering::Acquire)
    }

    /// Bytes by which memtables may still grow.
    #[inline]
    pub(crate) fn room_bytes(&self) -> usize {
        self.memtables_bytes_max().saturating_sub(self.active_bytes() + self.immutable_bytes())
    }

    /// Bytes by which a memtable of `memtable_bytes` may grow for an entry, besides the entry itself.
    #[inline]
    pub(crate) fn growth_bytes(&self, memtable_bytes: usize) -> usize {
        let most = GROWTH_BYTES_MAX.min(self.budget.memtable_bytes).max(GROWTH_BYTES_MIN);
        memtable_bytes.clamp(GROWTH_BYTES_MIN, most)
    }

    /// Bytes by which memtables grow for most writes: the largest step, an empty memtable, and a short entry.
    #[inline]
    fn usual_growth_bytes(&self) -> usize {
        self.growth_bytes(usize::MAX) + EMPTY_MEMTABLE_BYTES + SHORT_WRITE_BYTES
    }

    /// The memory that tables may take before further indexes and filters stay in their files. The rest is for blocks.
    pub(crate) fn tables_bytes_max(&self) -> usize {
        self.budget.cache_bytes / 4 * 3
    }

    /// The memory that the index and filter of a table opened now may take.
    pub(crate) fn pinnable_bytes(&self) -> usize {
        let left = self.budget.cache_bytes.saturating_sub(self.transactions.reserved_bytes());
        self.tables_bytes_max().min(left).saturating_sub(self.table_bytes())
    }

    /// A number that changes whenever the memory of tables changes: tables were opened, reopened or dropped.
    pub(crate) fn table_changes(&self) -> u64 {
        self.table_changes.load(Ordering::Acquire)
    }

    /// Whether all indexes and filters are in memory and fit.
    pub(crate) fn all_tables_fit(&self) -> bool {
        self.unpinned_tables.load(Ordering::Acquire) == 0 && self.table_bytes() <= self.tables_bytes_max()
    }

    /// Whether small tables with this many bytes and entries in total should be merged into one.
    pub(crate) fn fits_table(&self, bytes: u64, entries: u64) -> bool {
        // The table writer takes about ten bytes per key: a hash and a part of the filter.
        bytes <= TIDY_BYTES_MAX && entries.saturating_mul(10) <= self.budget.table_writer_bytes_max as u64
    }

    /// The memory that a merge may take for reading, besides its table writer.
    pub(crate) fn merge_bytes_max(&self) -> usize {
        let held = self.table_bytes() + self.buffer_bytes() + self.budget.table_writer_bytes_max;
        let held = held + self.transactions.reserved_bytes();
        (self.budget.buffers_bytes + self.budget.cache_bytes).saturating_sub(held)
    }

    /// Fails if the open tables and keyspaces leave no room for writes.
    pub(crate) fn check_tables(&self) -> Result<()> {
        // Ignore buffers: running merges give them back.
        if self.memtables_bytes_max_beside(0) >= self.budget.memtable_bytes {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "Options::memory is too small for the database: its tables and keyspaces take {} bytes, and their share is {}",
            self.table_bytes(),
            self.budget.cache_bytes
        )))
    }

    /// Whether open tables take more than their share.
    pub(crate) fn tables_exceed_share(&self) -> bool {
        self.table_bytes() > self.budget.cache_bytes
    }

    /// The error of a write that finds no room when nothing can free any.
    pub(crate) fn exhausted(&self, wanted: usize) -> Error {
        if self.tables_exceed_share() {
            return Error::invalid(format!(
                "Options::memory is used up: indexes, filters and keyspaces take {} bytes, and their share is {}; reopen \
                 with more memory",
                self.table_bytes(),
                self.budget.cache_bytes
            ));
        }
        too_large(wanted, self.room_bytes())
    }

    /// Sets the limit of the pool to the room that memtables leave, minus `wanted` bytes that they are about to take.
    /// Memtables take memory from the pool when they grow, so neither waits for the other.
    pub(crate) fn bound_pool(&self, wanted: usize) {
        let bound = || {
            let left = self.room_bytes().saturating_sub(wanted.max(self.usual_growth_bytes()));
            left.min(self.budget.pool_bytes_max)
        };
        // With enough room the limit does not change, so most writes skip the lock.
        if bound() != self.pool_bytes_max.load(Ordering::Acquire) {
            let _one_at_a_time = self.limits_lock.lock();
            let bound = bound();
            let set = || {
                self.memtable.set_pool_bytes(bound);
                Ok(())
            };
            if let Err(error) = caught("a change of what memtables keep for reuse", set) {
                tracing::warn!(%error, "failed to limit the memory that memtables keep for reuse");
            }
            self.pool_bytes_max.store(bound, Ordering::Release);
        }
    }

    /// Shrinks the pool if memtables are about to grow by more than their usual step.
    #[inline]
    pub(crate) fn clear_pool_for(&self, wanted: usize) {
        if wanted > self.usual_growth_bytes() {
            self.bound_pool(wanted);
        }
    }

    /// Sets the capacity of the block cache to what tables and buffers leave.
    pub(super) fn set_cache_capacity(&self) {
        let _one_at_a_time = self.limits_lock.lock();
        let over = self.buffer_bytes().saturating_sub(self.budget.buffers_bytes);
        let others = self.table_bytes() + self.transactions.reserved_bytes() + over;
        let left = self.budget.cache_bytes.saturating_sub(others);
        if left != self.cache.capacity_bytes() {
            self.cache.set_capacity(left);
        }
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

/// A sum that never goes below zero.
#[derive(Debug, Default)]
pub(super) struct Total(AtomicUsize);

impl Total {
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Returns the new sum.
    pub(super) fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    /// Adds `bytes` if the sum stays within `bytes_max`. Returns whether it did.
    fn add_within(&self, bytes: usize, bytes_max: usize) -> bool {
        let grown = |sum: usize| sum.checked_add(bytes).filter(|&sum| sum <= bytes_max);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).is_ok()
    }

    /// Returns the new sum.
    pub(super) fn remove(&self, bytes: usize) -> usize {
        let less = |sum: usize| Some(sum.saturating_sub(bytes));
        let (Ok(before) | Err(before)) = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        debug_assert!(before >= bytes, "more bytes removed than added");
        before.saturating_sub(bytes)
    }
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

    /// Adds `bytes` if the total of the part stays within `total_bytes_max`. Returns whether it did.
    pub(crate) fn grow_within(&mut self, bytes: usize, total_bytes_max: usize) -> bool {
        if !self.total().add_within(bytes, total_bytes_max) {
            return false;
        }
        self.bytes += bytes;
        self.memory.set_cache_capacity();
        true
    }

    /// The total of the part.
    fn total(&self) -> &Total {
        match self.part {
            Part::Buffers => &self.memory.buffers,
            Part::Tables => &self.memory.tables,
            Part::Readers => &self.memory.held_tables,
        }
    }

    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let total = self.total();
        if bytes > self.bytes {
            total.add(bytes - self.bytes);
        } else {
            total.remove(self.bytes - bytes);
        }
        self.bytes = bytes;
        if matches!(self.part, Part::Tables) {
            self.memory.table_changes.fetch_add(1, Ordering::AcqRel);
        }
        self.memory.set_cache_capacity();
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
