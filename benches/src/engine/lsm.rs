use std::path::Path;
use std::time::Duration;

use lsm_engine::{Compression, Db, Durability, Options};

use super::{Engine, Put};
use crate::result::Result;
use crate::settings::{self, Settings};

/// This project's engine, with its default memtable, policy and filter.
pub(crate) struct Lsm(Db);

impl Lsm {
    pub(super) fn db(&self) -> &Db {
        &self.0
    }
}

impl Engine for Lsm {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let memtable_bytes = usize::try_from(settings.memtable_bytes())?;
        let db = Options::new()
            // Half of it goes to memtables: four of them, as the peers have.
            .memory(memtable_bytes * 8)
            .memtable_bytes(memtable_bytes)
            .cache_bytes(usize::try_from(settings.cache_bytes())?)
            .background_threads(settings.background_threads.into())
            .filter_bits_per_key(settings.bloom_bits.into())
            .compression(match settings.compression {
                settings::Compression::None => Compression::None,
                settings::Compression::Lz4 => Compression::Lz4,
            })
            .blobs_from((settings.blobs_from > 0).then_some(settings.blobs_from.into()))
            .open(dir)?;
        Ok(Self(db))
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result {
        Ok(self.0.put(key, value)?)
    }

    fn put_sync(&self, key: &[u8], value: &[u8]) -> Result {
        Ok(self.0.put_with(key, value, Durability::Sync)?)
    }

    fn load_sorted(&self, mut next: impl FnMut(&mut Put<'_>) -> Result<bool>) -> Result<bool> {
        let mut load = self.0.bulk_load()?;
        while next(&mut |key, value| Ok(load.put(key, value)?))? {}
        load.finish()?;
        Ok(true)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result {
        Ok(self.0.delete(key)?)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        let value = self.0.get(key)?;
        Ok(visit(value.as_deref()))
    }

    fn scan(&self, from: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result {
        let mut rows = self.0.cursor()?;
        rows.seek(from)?;
        while let Some((key, value)) = rows.entry() {
            if !visit(key, value) {
                break;
            }
            rows.next()?;
        }
        Ok(())
    }

    fn settle(&self) -> Result<Duration> {
        self.0.flush()?;
        self.0.wait_for_compactions()?;
        Ok(Duration::ZERO)
    }

    fn close(self) -> Result {
        Ok(self.0.close()?)
    }
}
