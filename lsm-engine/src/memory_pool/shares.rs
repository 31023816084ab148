//! How the bytes of a pool are divided.
//!
//! ```text
//! pool       = memtables + buffers + windows + tables
//! memtables    active, immutable, and memory of flushed memtables kept for new ones
//! buffers      of running flushes and compactions
//! windows      of the logs
//! tables       indexes and filters of open tables, keyspaces, and the block cache, which gets the rest
//! ```

/// The shares of a pool, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    pub(crate) memtables_bytes: usize,
    /// Limit of the memory of flushed memtables that is kept for new ones.
    pub(crate) kept_bytes_max: usize,
    pub(crate) buffers_bytes: usize,
    pub(crate) windows_bytes: usize,
    /// For tables and the block cache.
    pub(crate) cache_bytes: usize,
}

impl Shares {
    /// Divides `bytes`: one half for tables, unless `cache_bytes` is given or two memtables need more, an eighth of the
    /// rest for buffers, and what then is left beside `windows_bytes` for memtables.
    pub(crate) fn of(
        bytes: usize,
        memtable_bytes: usize,
        cache_bytes: Option<usize>,
        windows_bytes: usize,
    ) -> Self {
        // Room for the write buffers of some flushes and compactions, each with read buffers for about eight runs.
        let buffers_beside = |cache_bytes: usize| bytes.saturating_sub(cache_bytes) / 8;
        let cache_bytes = cache_bytes.unwrap_or_else(|| {
            let reserved = buffers_beside(0) + windows_bytes;
            let needed = memtable_bytes.saturating_mul(2).saturating_add(reserved);
            bytes.saturating_sub(needed).min(bytes / 2)
        });
        let buffers_bytes = buffers_beside(cache_bytes);
        Self {
            memtables_bytes: bytes.saturating_sub(cache_bytes).saturating_sub(buffers_bytes + windows_bytes),
            kept_bytes_max: memtable_bytes.min(64 << 20),
            buffers_bytes,
            windows_bytes,
            cache_bytes,
        }
    }
}

/// The size at which a memtable is flushed, where nothing else is given.
pub(crate) fn memtable_bytes_in(bytes: usize) -> usize {
    (bytes / 8).min(64 << 20)
}
