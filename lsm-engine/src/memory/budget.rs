//! The memory budget and the parts that it is divided into.

use crate::options::Options;

/// The parts of the memory budget, and the limits that follow from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Size at which a memtable becomes immutable.
    pub(crate) memtable_bytes: usize,
    /// What is flushed of a keyspace at once at most, if several memtables wait: writers fill the rest of the memory
    /// meanwhile.
    pub(crate) flush_bytes_max: usize,
    /// The share of memtables.
    pub(crate) memtables_bytes_max: usize,
    /// Limit of the memory of flushed memtables that is kept for new ones.
    pub(crate) pool_bytes_max: usize,
    /// The share of buffers.
    pub(crate) buffers_bytes: usize,
    /// Write buffer of one table that is being written.
    pub(crate) write_buffer_bytes: usize,
    /// Limit of the memory of a table writer (key hashes, index). A table that reaches it is ended early.
    pub(crate) table_writer_bytes_max: usize,
    /// Read buffer of one run in a compaction.
    pub(crate) read_buffer_bytes: u64,
    /// The share of tables and the block cache.
    pub(crate) cache_bytes: usize,
    /// Largest size of a batch in memtables.
    pub(crate) batch_bytes_max: u64,
    pub(crate) log_window_bytes: u64,
    /// Length of the log beyond which the engine flushes the keyspace that pins its oldest segment.
    pub(crate) log_bytes_max: u64,
}

impl Options {
    pub(crate) fn budget(&self) -> Budget {
        let memtable_bytes = self.memtable_bytes.unwrap_or((self.memory / 8).min(64 << 20));
        let segment_bytes = self.segment_bytes();
        let log_window_bytes = (self.memory as u64 / 64).min(segment_bytes / 2).min(512 << 10);
        // Room for the write buffers of some flushes and compactions, each with read buffers for about eight runs.
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
            flush_bytes_max: (memtables_bytes_max / 2).min(64 << 20),
            memtables_bytes_max,
            pool_bytes_max: memtable_bytes.min(64 << 20),
            buffers_bytes,
            table_writer_bytes_max: (buffers_bytes + cache_bytes) / 8,
            write_buffer_bytes: (buffers_bytes / 16).clamp(4 << 10, 1 << 20),
            read_buffer_bytes: (buffers_bytes / 128).clamp(4 << 10, 256 << 10) as u64,
            cache_bytes,
            batch_bytes_max: (self.memory as u64 / 4).min(1 << 30),
            log_window_bytes,
            log_bytes_max: (memtable_bytes as u64)
                .saturating_mul(4)
                .max(self.log_unit_bytes().saturating_mul(2)),
        }
    }
}
