//! The one number of memory, and the parts that it is cut into.

use crate::options::Options;

/// The parts of the memory budget, and limits that follow from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// When a memtable becomes immutable.
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
            log_bytes_max: (memtable_bytes as u64).saturating_mul(4).max(segment_bytes.saturating_mul(2)),
        }
    }
}
