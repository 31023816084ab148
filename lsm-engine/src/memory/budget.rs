//! The memory budget of a database, and the limits that follow from it.

use std::sync::Arc;

use lsm_memtable::BPlusMemtable;

use crate::memory_pool::{Pool, Shares};
use crate::options::Options;

/// The memory budget, and the limits that follow from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// The shares of the pool.
    pub(crate) shares: Shares,
    /// All of it.
    pub(crate) memory_bytes: u64,
    /// A value of this length or more goes to a blob file when it is written, if its keyspace has any.
    pub(crate) direct_blob_bytes: usize,
    /// Size at which a memtable becomes immutable.
    pub(crate) memtable_bytes: usize,
    /// What is flushed of a keyspace at once at most, if several memtables wait: writers fill the rest of the memory
    /// meanwhile.
    pub(crate) flush_bytes_max: usize,
    /// Write buffer of one table that is being written.
    pub(crate) write_buffer_bytes: usize,
    /// Limit of the memory of a table writer (key hashes, index). A table that reaches it is ended early.
    pub(crate) table_writer_bytes_max: usize,
    /// Read buffer of one run in a compaction.
    pub(crate) read_buffer_bytes: u64,
    /// Largest size of a batch in memtables.
    pub(crate) batch_bytes_max: u64,
    pub(crate) log_window_bytes: u64,
    /// Length of the log beyond which the engine flushes the keyspace that pins its oldest segment.
    pub(crate) log_bytes_max: u64,
}

/// A value longer than this part of a memtable does not go through memtable and log.
const DIRECT_BLOB_MEMTABLE_PART: usize = 8;
/// Such a value has a file and a sync of its own, which a shorter one is not worth.
const DIRECT_BLOB_BYTES_MIN: usize = 64 << 10;

impl Options {
    pub(crate) fn budget(&self) -> Budget {
        let memtable_bytes = self.memtable_bytes.unwrap_or((self.memory / 8).min(64 << 20));
        let log_window_bytes = (self.memory as u64 / 64).min(self.segment_bytes() / 2).min(512 << 10) / 8 * 8;
        let shares = match &self.memory_pool {
            Some(pool) => pool.pool().shares,
            None => Shares::of(self.memory, memtable_bytes, self.cache_bytes, log_window_bytes as usize),
        };
        let Shares { memtables_bytes, buffers_bytes, cache_bytes, .. } = shares;
        Budget {
            shares,
            memory_bytes: self.memory as u64,
            direct_blob_bytes: (memtable_bytes / DIRECT_BLOB_MEMTABLE_PART).max(DIRECT_BLOB_BYTES_MIN),
            memtable_bytes,
            flush_bytes_max: (memtables_bytes / 2).min(64 << 20),
            table_writer_bytes_max: (buffers_bytes + cache_bytes) / 8,
            write_buffer_bytes: (buffers_bytes / 16).clamp(4 << 10, 1 << 20),
            read_buffer_bytes: (buffers_bytes / 128).clamp(4 << 10, 256 << 10) as u64,
            batch_bytes_max: (self.memory as u64 / 4).min(1 << 30),
            log_window_bytes,
            log_bytes_max: (memtable_bytes as u64)
                .saturating_mul(4)
                .max(self.log_unit_bytes().saturating_mul(2)),
        }
    }

    /// The memory pool of the database: the one that is given, or one of its own.
    pub(crate) fn pool(&self, budget: &Budget) -> Arc<Pool> {
        if let Some(pool) = &self.memory_pool {
            return Arc::clone(pool.pool());
        }
        let memtable = self.keyspace.memtable.clone();
        let memtable = memtable.unwrap_or_else(|| Arc::new(BPlusMemtable::with_pool_bytes(0)));
        Pool::new(self.memory, false, budget.shares, memtable)
    }
}
