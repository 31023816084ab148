//! Memory: the one number, its parts, and who makes way for whom.
//!
//! ```text
//! memory     = memtables + buffers + tables + the window of the log
//! memtables    those being filled, those waiting for their flush, and what is kept of flushed ones
//! buffers      of flushes and merges under way
//! tables       indexes and filters of open tables, and keyspaces; the block cache has what they leave
//! ```
//!
//! Each part has its share. Buffers and tables that need more than theirs take it from the block cache first, then from
//! the room of memtables: writers wait, or are told that their write does not fit, before the sum is exceeded.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, Reservation};
use lsm_sstable::BlockCache;
use parking_lot::Mutex;

use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::memory::budget::Budget;
use crate::memory::file_cache::FileCache;
use crate::options::{KeyspaceOptions, Options};

/// The most that a memtable takes at a time, and the least. Longer values are taken as they are.
const GROWTH_BYTES_MAX: usize = 2 << 20;
const GROWTH_BYTES_MIN: usize = 64 << 10;
/// What a memtable takes while it is empty, about.
pub(crate) const EMPTY_MEMTABLE_BYTES: usize = 20 << 10;
/// Tables are small if several come to no more than this.
const TIDY_BYTES_MAX: u64 = 64 << 20;
/// What an entry takes in a memtable beside its key and value, at most.
const ENTRY_OVERHEAD_BYTES: usize = Reservation::OVERHEAD_BYTES;
/// Of what a batch takes there, the part that ends of chunks may waste beside it: a value that does not fit one stands
/// in the next, and one longer than an eighth of a chunk outside of them.
const CHUNK_END_PART: usize = 7;
/// What a range delete takes there, as far as a batch can hold any: see [`lsm_core::range_tombstone::RangeTombstoneSet`],
/// which grows by as much as it holds at a time.
const RANGE_DELETE_OVERHEAD_BYTES: usize = 2400;

/// What is held of the budget at the moment.
pub(crate) struct Memory {
    pub(crate) budget: Budget,
    pub(crate) cache: Arc<BlockCache>,
    /// The files of tables that are open.
    pub(crate) file_cache: Arc<FileCache>,
    /// The memtables of the default keyspace, and of others that name none: they share what is kept of flushed ones.
    pub(crate) memtable: Arc<dyn MemtableFactory>,
    /// Of memtables that are being filled, as the committer last said.
    active_bytes: AtomicUsize,
    /// Of memtables that wait for their flush.
    immutable: Total,
    buffers: Total,
    tables: Total,
    /// Of tables that only readers still hold.
    held_tables: Total,
    /// Open tables whose index and filter are in their files.
    unpinned_tables: AtomicUsize,
    /// Of the pool, as last set.
    pool_bytes_max: AtomicUsize,
    /// Bytes of memtables that only deletes may take, while the disk is full.
    kept_for_deletes: AtomicUsize,
    sharing_out: Mutex<()>,
    /// Memtables that the database has let go of.
    let_go: Mutex<Vec<Weak<dyn MemtableReader>>>,
}

impl Memory {
    pub(crate) fn new(options: &Options) -> Self {
        let budget = options.budget();
        let memtable: Arc<dyn MemtableFactory> = if options.keyspace.memtable_given {
            Arc::clone(&options.keyspace.memtable)
        } else {
            Arc::new(BPlusMemtable::with_pool_bytes(0))
        };
        memtable.set_pool_bytes(budget.pool_bytes_max);
        Self {
            cache: BlockCache::new(budget.cache_bytes),
            file_cache: FileCache::new(Arc::clone(&options.vfs), options.open_files_max),
            memtable,
            budget,
            active_bytes: AtomicUsize::new(0),
            immutable: Total::default(),
            buffers: Total::default(),
            tables: Total::default(),
            held_tables: Total::default(),
            unpinned_tables: AtomicUsize::new(0),
            pool_bytes_max: AtomicUsize::new(budget.pool_bytes_max),
            kept_for_deletes: AtomicUsize::new(0),
            let_go: Mutex::default(),
            sharing_out: Mutex::new(()),
        }
    }

    /// Options of a keyspace with what all keyspaces share.
    pub(crate) fn shared_with(&self, options: KeyspaceOptions) -> KeyspaceOptions {
        options.sharing(&self.memtable, self.budget.read_buffer_bytes)
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

    /// The database has no use for these any more; readers may.
    pub(crate) fn let_go(&self, memtables: impl IntoIterator<Item = Arc<dyn MemtableReader>>) {
        let mut let_go = self.let_go.lock();
        let_go.extend(memtables.into_iter().map(|memtable| Arc::downgrade(&memtable)));
        let_go.retain(|memtable| memtable.strong_count() > 0);
    }

    /// Of memtables that only readers still hold.
    pub(crate) fn held_bytes(&self) -> usize {
        self.let_go.lock().iter().filter_map(Weak::upgrade).map(|memtable| memtable.memory_bytes()).sum()
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

    /// What memtables may hold now, all together.
    #[inline]
    fn memtables_bytes_max(&self) -> usize {
        self.memtables_bytes_max_beside(self.buffer_bytes())
    }

    /// What they may hold where buffers take so many bytes.
    #[inline]
    fn memtables_bytes_max_beside(&self, buffer_bytes: usize) -> usize {
        let shares = self.budget.buffers_bytes + self.budget.cache_bytes;
        let over = (buffer_bytes + self.table_bytes()).saturating_sub(shares);
        self.budget.memtables_bytes_max.saturating_sub(over)
    }

    /// While the disk is full, some of the memory of memtables is for deletes alone: they may make room.
    pub(crate) fn keep_for_deletes(&self, is_disk_full: bool) {
        let bytes = if is_disk_full { self.budget.memtables_bytes_max / 8 } else { 0 };
        self.kept_for_deletes.store(bytes, Ordering::Release);
    }

    /// What of [`room_bytes`](Self::room_bytes) is for deletes alone.
    #[inline]
    pub(crate) fn kept_for_deletes(&self) -> usize {
        self.kept_for_deletes.load(Ordering::Acquire)
    }

    /// By how much memtables may still grow.
    #[inline]
    pub(crate) fn room_bytes(&self) -> usize {
        self.memtables_bytes_max().saturating_sub(self.active_bytes() + self.immutable_bytes())
    }

    /// By how much a memtable of so many bytes may grow for an entry, beside the entry.
    #[inline]
    pub(crate) fn growth_bytes(&self, memtable_bytes: usize) -> usize {
        let most = GROWTH_BYTES_MAX.min(self.budget.memtable_bytes).max(GROWTH_BYTES_MIN);
        memtable_bytes.clamp(GROWTH_BYTES_MIN, most)
    }

    /// What tables may hold before indexes and filters stay in their files: some room is left for blocks.
    pub(crate) fn tables_bytes_max(&self) -> usize {
        self.budget.cache_bytes / 4 * 3
    }

    /// What a table that is opened now may hold of index and filter.
    pub(crate) fn pinnable_bytes(&self) -> usize {
        self.tables_bytes_max().saturating_sub(self.table_bytes())
    }

    /// Whether all indexes and filters are in memory, and fit there.
    pub(crate) fn all_tables_fit(&self) -> bool {
        self.unpinned_tables.load(Ordering::Acquire) == 0 && self.table_bytes() <= self.tables_bytes_max()
    }

    /// Whether so many bytes and entries are to be one table rather than several.
    pub(crate) fn fits_table(&self, bytes: u64, entries: u64) -> bool {
        // A hash and a share of the filter for each key.
        bytes <= TIDY_BYTES_MAX && entries.saturating_mul(10) <= self.budget.table_writer_bytes_max as u64
    }

    /// What a merge may take to read, beside what it takes to write.
    pub(crate) fn merge_bytes_max(&self) -> usize {
        let held = self.table_bytes() + self.buffer_bytes() + self.budget.table_writer_bytes_max;
        (self.budget.buffers_bytes + self.budget.cache_bytes).saturating_sub(held)
    }

    /// Fails if the tables and keyspaces that are open leave no room for writes.
    pub(crate) fn check_tables(&self) -> Result<()> {
        // Merges give back what they hold.
        if self.memtables_bytes_max_beside(0) >= self.budget.memtable_bytes {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "Options::memory is too small for the database: its tables and keyspaces take {} bytes, their share is {}",
            self.table_bytes(),
            self.budget.cache_bytes
        )))
    }

    /// Whether indexes, filters and the rest of open tables take more than their share.
    pub(crate) fn tables_exceed_share(&self) -> bool {
        self.table_bytes() > self.budget.cache_bytes
    }

    /// Why a write finds no room although nothing holds any that it could give back.
    pub(crate) fn exhausted(&self, wanted: usize) -> Error {
        if self.tables_exceed_share() {
            return Error::invalid(format!(
                "Options::memory is used up: indexes, filters and keyspaces take {} bytes, their share is {}; reopen with more",
                self.table_bytes(),
                self.budget.cache_bytes
            ));
        }
        too_large(wanted, self.room_bytes())
    }

    /// Lets the pool of flushed memory have what memtables leave, except for `wanted` bytes that they are about to take:
    /// they grow out of it, so neither waits for the other.
    pub(crate) fn bound_pool(&self, wanted: usize) {
        let bound = || {
            let left = self.room_bytes().saturating_sub(wanted.max(self.growth_bytes(usize::MAX)));
            left.min(self.budget.pool_bytes_max)
        };
        // With room enough it stays the same, write after write.
        if bound() != self.pool_bytes_max.load(Ordering::Acquire) {
            let _one_at_a_time = self.sharing_out.lock();
            let bound = bound();
            let set = || {
                self.memtable.set_pool_bytes(bound);
                Ok(())
            };
            if let Err(error) = caught("a change of what memtables keep for reuse", set) {
                tracing::warn!(%error, "memtables may keep more than they should");
            }
            self.pool_bytes_max.store(bound, Ordering::Release);
        }
    }

    /// Frees what is kept in the pool where memtables are about to take more than they usually do at a time.
    #[inline]
    pub(crate) fn clear_pool_for(&self, wanted: usize) {
        if wanted > self.growth_bytes(usize::MAX) {
            self.bound_pool(wanted);
        }
    }

    /// Gives the cache what tables and buffers leave.
    fn share_out(&self) {
        let _one_at_a_time = self.sharing_out.lock();
        let over = self.buffer_bytes().saturating_sub(self.budget.buffers_bytes);
        let left = self.budget.cache_bytes.saturating_sub(self.table_bytes() + over);
        if left != self.cache.capacity_bytes() {
            self.cache.set_capacity(left);
        }
    }
}

/// What a batch takes in memtables, at most, beside what they grow by at a time.
#[inline]
pub(crate) fn batch_bytes(payload_bytes: usize, operations: u64, range_deletes: u64) -> usize {
    let overhead = |count: u64, bytes| (count as usize).saturating_mul(bytes);
    payload_bytes
        .saturating_add(overhead(operations, ENTRY_OVERHEAD_BYTES))
        .saturating_add(overhead(range_deletes, RANGE_DELETE_OVERHEAD_BYTES))
}

/// The room that memtables must have for a batch of so many bytes, beside what they grow by at a time.
#[inline]
pub(crate) fn room_for(batch_bytes: usize) -> usize {
    batch_bytes.saturating_add(batch_bytes / CHUNK_END_PART)
}

/// A write that memtables have no room for.
pub(crate) fn too_large(wanted: usize, bytes_max: usize) -> Error {
    let what = "write, with what memtables grow by,";
    Error::TooLarge { what, bytes: wanted as u64, bytes_max: bytes_max as u64 }
}

/// A sum that never goes below zero, whatever is taken away.
#[derive(Debug, Default)]
struct Total(AtomicUsize);

impl Total {
    #[inline]
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Adds so much if there is no more than `bytes_max` then; whether it is.
    fn add_within(&self, bytes: usize, bytes_max: usize) -> bool {
        let grown = |sum: usize| sum.checked_add(bytes).filter(|&sum| sum <= bytes_max);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).is_ok()
    }

    fn remove(&self, bytes: usize) {
        let before =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sum| Some(sum.saturating_sub(bytes)));
        debug_assert!(before.is_ok_and(|before| before >= bytes), "more is taken away than there is");
    }
}

/// Counts a table whose index and filter are in its file, for as long as it is open.
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

/// Which part of the budget something belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Buffers,
    Tables,
    /// No part: readers hold it, and the database would let it go.
    Readers,
}

/// What something holds of the budget, for as long as it holds it.
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

    /// From now on it belongs to another part.
    pub(crate) fn move_to(&mut self, part: Part) {
        let bytes = self.bytes;
        self.set(0);
        self.part = part;
        self.set(bytes);
    }

    /// Holds so many bytes more if all that its part holds is no more than `total_bytes_max` then; whether it does.
    pub(crate) fn grow_within(&mut self, bytes: usize, total_bytes_max: usize) -> bool {
        if !self.total().add_within(bytes, total_bytes_max) {
            return false;
        }
        self.bytes += bytes;
        self.memory.share_out();
        true
    }

    /// What its part holds.
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
        self.memory.share_out();
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
