use std::path::Path;
use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WaitForCompactOptions,
    WriteOptions,
};

use super::Engine;
use crate::result::Result;
use crate::settings::{Compression, Settings};

/// RocksDB, leveled, as its tuning guide sets it up.
pub(crate) struct RocksDb {
    db: DB,
    buffered: WriteOptions,
    synced: WriteOptions,
}

/// Its options for these settings.
pub(super) fn options(settings: &Settings) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(4096);
    table.set_bloom_filter(settings.bloom_bits.into(), false);
    // A charge of 0 lets the cache size itself; the guide prefers this cache to the older LRU.
    table.set_block_cache(&Cache::new_hyper_clock_cache(settings.cache_bytes() as usize, 0));
    // Indexes and filters stay outside the cache, always resident: its default, and its fastest.

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(settings.memtable_bytes() as usize);
    options.set_max_write_buffer_number(4);
    options.set_max_background_jobs(settings.background_threads.into());
    options.set_compression_type(DBCompressionType::None);
    options.set_bottommost_compression_type(match settings.compression {
        Compression::None => DBCompressionType::None,
        Compression::Lz4 => DBCompressionType::Lz4,
    });
    if settings.blobs_from > 0 {
        options.set_enable_blob_files(true);
        options.set_min_blob_size(settings.blobs_from.into());
        options.set_enable_blob_gc(true);
    }
    options
}

impl Engine for RocksDb {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Self { db: DB::open(&options(settings), dir)?, buffered: WriteOptions::default(), synced })
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result {
        Ok(self.db.put_opt(key, value, &self.buffered)?)
    }

    fn put_sync(&self, key: &[u8], value: &[u8]) -> Result {
        Ok(self.db.put_opt(key, value, &self.synced)?)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result {
        Ok(self.db.delete_opt(key, &self.buffered)?)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        let value = self.db.get_pinned(key)?;
        Ok(visit(value.as_deref()))
    }

    fn scan(&self, from: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result {
        let mut rows = self.db.raw_iterator_opt(ReadOptions::default());
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }

    fn settle(&self) -> Result<Duration> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        self.db.wait_for_compact(&options)?;
        Ok(Duration::ZERO)
    }

    fn close(self) -> Result {
        self.db.flush()?;
        drop(self.db);
        Ok(())
    }
}
