//! Memory: the one number, its parts, and who makes way for whom.
//!
//! ```text
//! memory     = memtables + buffers + tables + the window of the log
//! memtables    those being filled, those waiting for their flush, and what is kept of flushed ones
//! buffers      of flushes and merges under way
//! tables       indexes and filters of open tables; the block cache has what they leave
//! ```
//!
//! Each part has its share. Buffers and tables that need more than theirs take it from the block cache first, then from
//! the room of memtables: writers wait, or are told that their write does not fit, before the sum is exceeded.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use lsm_memtable::{BPlusMemtable, MemtableFactory};
use lsm_sstable::BlockCache;
use parking_lot::Mutex;

use crate::options::Options;
use crate::tree::Memtable;
use crate::{Error, Result};

/// The most that a memtable takes at a time, and the least. Longer values are taken as they are.
const GROWTH_BYTES_MAX: usize = 2 << 20;
const GROWTH_BYTES_MIN: usize = 64 << 10;
/// What a memtable takes while it is empty, about.
pub(crate) const EMPTY_MEMTABLE_BYTES: usize = 20 << 10;
/// What an entry takes in a memtable beside its key and value, at most.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The parts of the memory budget, and limits that follow from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// When a memtable is sealed.
    pub(crate) memtable_bytes: usize,
    /// The share of memtables.
    pub(crate) memtables_bytes_max: usize,
    /// What is kept of flushed memtables for the next ones at most.
    pub(crate) pool_bytes_max: usize,
    /// The share of buffers.
    pub(crate) buffers_bytes: usize,
    /// Of each table that is being written.
    pub(crate) write_buffer_bytes: usize,
    /// When a table is ended early, because of what its writer holds: hashes of keys, the index.
    pub(crate) table_writer_bytes_max: usize,
    /// Of each run that a merge reads.
    pub(crate) read_buffer_bytes: u64,
    /// The share of tables and the block cache.
    pub(crate) cache_bytes: usize,
    /// The largest batch, as it stands in memory.
    pub(crate) batch_bytes_max: u64,
    pub(crate) log_window_bytes: u64,
    /// When the keyspace that pins the oldest log segment is flushed.
    pub(crate) log_bytes_max: u64,
}

impl Options {
    pub(crate) fn budget(&self) -> Budget {
        let memtable_bytes = self.memtable_bytes.unwrap_or((self.memory / 8).min(64 << 20));
        let segment_bytes = self.segment_bytes();
        let log_window_bytes = (self.memory as u64 / 64).min(segment_bytes / 2).min(512 << 10);
        // A buffer to write each flush and merge, and one to read for each of some eight runs.
        let reserved = |cache_bytes: usize| {
            let buffers_bytes = self.memory.saturating_sub(cache_bytes) / 8;
            (buffers_bytes, buffers_bytes + log_window_bytes as usize)
        };
        let cache_bytes = self.cache_bytes.unwrap_or_else(|| {
            let needed = memtable_bytes.saturating_mul(2).saturating_add(reserved(0).1);
            self.memory.saturating_sub(needed).min(self.memory / 2)
        });
        let (buffers_bytes, reserved) = reserved(cache_bytes);
        let memtables_bytes_max = self.memory.saturating_sub(cache_bytes).saturating_sub(reserved);
        Budget {
            memtable_bytes,
            memtables_bytes_max,
            pool_bytes_max: memtable_bytes.min(64 << 20),
            buffers_bytes,
            table_writer_bytes_max: (buffers_bytes + cache_bytes) / 8,
            write_buffer_bytes: (buffers_bytes / 16).clamp(4 << 10, 1 << 20),
            read_buffer_bytes: (buffers_bytes / 128).clamp(4 << 10, 256 << 10) as u64,
            cache_bytes,
            batch_bytes_max: (self.memory as u64 / 4).min(1 << 30),
            log_window_bytes,
            log_bytes_max: (memtable_bytes as u64 * 4).max(segment_bytes * 2),
        }
    }
}

/// What is held of the budget at the moment.
pub(crate) struct Memory {
    pub(crate) budget: Budget,
    pub(crate) cache: Arc<BlockCache>,
    /// The memtables of the default keyspace, and of others that name none: they share what is kept of flushed ones.
    pub(crate) memtable: Arc<dyn MemtableFactory>,
    /// Of memtables that are being filled, as the committer last said.
    active_bytes: AtomicUsize,
    /// Of memtables that wait for their flush.
    sealed_bytes: AtomicUsize,
    buffer_bytes: AtomicUsize,
    table_bytes: AtomicUsize,
    sharing_out: Mutex<()>,
    /// Memtables that the database has let go of.
    let_go: Mutex<Vec<Weak<Memtable>>>,
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
            memtable,
            budget,
            active_bytes: AtomicUsize::new(0),
            sealed_bytes: AtomicUsize::new(0),
            buffer_bytes: AtomicUsize::new(0),
            table_bytes: AtomicUsize::new(0),
            let_go: Mutex::default(),
            sharing_out: Mutex::new(()),
        }
    }

    pub(crate) fn active_bytes(&self) -> usize {
        self.active_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn set_active_bytes(&self, bytes: usize) {
        self.active_bytes.store(bytes, Ordering::Release);
    }

    pub(crate) fn sealed_bytes(&self) -> usize {
        self.sealed_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn add_sealed_bytes(&self, bytes: usize) {
        self.sealed_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn remove_sealed_bytes(&self, bytes: usize) {
        self.sealed_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// The database has no use for these any more; readers may.
    pub(crate) fn let_go(&self, memtables: impl IntoIterator<Item = Arc<Memtable>>) {
        let mut let_go = self.let_go.lock();
        let_go.extend(memtables.into_iter().map(|memtable| Arc::downgrade(&memtable)));
        let_go.retain(|memtable| memtable.strong_count() > 0);
    }

    /// Of memtables that only readers still hold.
    pub(crate) fn held_bytes(&self) -> usize {
        self.let_go.lock().iter().filter_map(Weak::upgrade).map(|memtable| memtable.memory_bytes()).sum()
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn table_bytes(&self) -> usize {
        self.table_bytes.load(Ordering::Acquire)
    }

    /// What memtables may hold now, all together.
    #[inline]
    fn memtables_bytes_max(&self) -> usize {
        let shares = self.budget.buffers_bytes + self.budget.cache_bytes;
        let over = (self.buffer_bytes() + self.table_bytes()).saturating_sub(shares);
        self.budget.memtables_bytes_max.saturating_sub(over)
    }

    /// By how much memtables may still grow.
    #[inline]
    pub(crate) fn room_bytes(&self) -> usize {
        self.memtables_bytes_max().saturating_sub(self.active_bytes() + self.sealed_bytes())
    }

    /// By how much a memtable of so many bytes may grow for an entry, beside the entry.
    #[inline]
    pub(crate) fn growth_bytes(&self, memtable_bytes: usize) -> usize {
        let most = GROWTH_BYTES_MAX.min(self.budget.memtable_bytes).max(GROWTH_BYTES_MIN);
        memtable_bytes.clamp(GROWTH_BYTES_MIN, most)
    }

    /// Fails if the memtables of so many keyspaces leave no room for writes.
    pub(crate) fn check_memtables(&self, keyspaces: usize) -> Result<()> {
        let needed = keyspaces.saturating_mul(EMPTY_MEMTABLE_BYTES + GROWTH_BYTES_MIN);
        if needed <= self.budget.memtables_bytes_max {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "Options::memory is too small for {keyspaces} keyspaces: their memtables take {needed} bytes at least, the share of memtables is {}",
            self.budget.memtables_bytes_max
        )))
    }

    /// What tables may hold before indexes and filters stay in their files: some room is left for blocks.
    pub(crate) fn tables_bytes_max(&self) -> usize {
        self.budget.cache_bytes / 4 * 3
    }

    /// What a table that is opened now may hold of index and filter.
    pub(crate) fn pinnable_bytes(&self) -> usize {
        self.tables_bytes_max().saturating_sub(self.table_bytes())
    }

    /// What a merge may take to read, beside what it takes to write.
    pub(crate) fn merge_bytes_max(&self) -> usize {
        let held = self.table_bytes() + self.buffer_bytes() + self.budget.table_writer_bytes_max;
        (self.budget.buffers_bytes + self.budget.cache_bytes).saturating_sub(held)
    }

    /// Fails if the tables that are open leave no room for writes.
    pub(crate) fn check_tables(&self) -> Result<()> {
        if self.memtables_bytes_max() >= self.budget.memtable_bytes {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "Options::memory is too small for the database: its tables take {} bytes, their share is {}",
            self.table_bytes(),
            self.budget.cache_bytes
        )))
    }

    /// Why a write finds no room although nothing holds any that it could give back.
    pub(crate) fn exhausted(&self, wanted: usize) -> Error {
        let tables = self.table_bytes();
        if tables > self.budget.cache_bytes {
            return Error::invalid(format!(
                "Options::memory is used up: indexes and filters take {tables} bytes, the share of tables is {}; reopen with more",
                self.budget.cache_bytes
            ));
        }
        let bytes_max = self.room_bytes() as u64;
        Error::TooLarge { what: "write, with what memtables grow by,", bytes: wanted as u64, bytes_max }
    }

    /// Lets the pool of flushed memory have what memtables leave, except for `wanted` bytes that they are about to take:
    /// they grow out of it, so neither waits for the other.
    pub(crate) fn bound_pool(&self, wanted: usize) {
        let left = self.room_bytes().saturating_sub(wanted.max(self.growth_bytes(usize::MAX)));
        self.memtable.set_pool_bytes(left.min(self.budget.pool_bytes_max));
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
pub(crate) fn batch_bytes(payload_bytes: usize, operations: u64) -> usize {
    payload_bytes.saturating_add((operations as usize).saturating_mul(ENTRY_OVERHEAD_BYTES))
}

/// Which part of the budget something belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Buffers,
    Tables,
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

    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let total = match self.part {
            Part::Buffers => &self.memory.buffer_bytes,
            Part::Tables => &self.memory.table_bytes,
        };
        if bytes > self.bytes {
            total.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            total.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
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

/// Writers that wait for memory, first come, first served: a large write would wait forever while small ones pass it.
#[derive(Debug, Default)]
pub(crate) struct WaitingLine {
    line: Mutex<VecDeque<u64>>,
    next: AtomicUsize,
    count: AtomicUsize,
}

impl WaitingLine {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Joins the end of the line.
    pub(crate) fn join(&self) -> Waiting<'_> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed) as u64;
        let mut line = self.line.lock();
        line.push_back(ticket);
        self.count.store(line.len(), Ordering::Release);
        Waiting { line: self, ticket }
    }
}

/// A place in the line, until it is dropped.
pub(crate) struct Waiting<'l> {
    line: &'l WaitingLine,
    ticket: u64,
}

impl Waiting<'_> {
    pub(crate) fn is_first(&self) -> bool {
        self.line.line.lock().front() == Some(&self.ticket)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.line.line.lock();
        line.retain(|&ticket| ticket != self.ticket);
        self.line.count.store(line.len(), Ordering::Release);
    }
}
