use std::path::Path;
use std::thread;
use std::time::Duration;

use fjall::config::{
    BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy,
    PinningPolicy,
};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::Engine;
use crate::result::Result;
use crate::settings::{Compression, Settings};

/// How often fjall is asked whether it still compacts; it has no call that waits.
const POLL: Duration = Duration::from_millis(10);

/// So many idle answers in a row count as settled: workers look for the next compaction within milliseconds.
const POLLS_IDLE: u32 = 25;

/// fjall with one keyspace.
pub(crate) struct Fjall {
    keyspace: Keyspace,
    db: Database,
}

/// The options of its keyspace for these settings.
pub(super) fn keyspace_options(settings: &Settings) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(settings.memtable_bytes())
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(
            settings.bloom_bits as f32,
        ))))
        // Whole and resident on all levels, as in RocksDB: the fastest that it offers.
        .index_block_pinning_policy(PinningPolicy::all(true))
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(false))
        .filter_block_partitioning_policy(PartitioningPolicy::all(false))
        .data_block_compression_policy(match settings.compression {
            Compression::None => CompressionPolicy::disabled(),
            // Its last level is the seventh, and the only one below level 0 while the store is small.
            Compression::Lz4 => {
                CompressionPolicy::new([CompressionType::None, CompressionType::None, CompressionType::Lz4])
            }
        })
}

impl Engine for Fjall {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        let db = Database::builder(dir)
            .cache_size(settings.cache_bytes())
            .worker_threads(settings.background_threads.into())
            .open()?;
        let keyspace = db.keyspace("default", || keyspace_options(settings))?;
        Ok(Self { keyspace, db })
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result {
        Ok(self.keyspace.insert(key, value)?)
    }

    fn put_sync(&self, key: &[u8], value: &[u8]) -> Result {
        self.keyspace.insert(key, value)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    #[inline]
    fn delete(&self, key: &[u8]) -> Result {
        Ok(self.keyspace.remove(key)?)
    }

    #[inline]
    fn get<R>(&self, key: &[u8], visit: impl FnOnce(Option<&[u8]>) -> R) -> Result<R> {
        let value = self.keyspace.get(key)?;
        Ok(visit(value.as_deref()))
    }

    fn scan(&self, from: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result {
        for row in self.keyspace.range(from..) {
            let (key, value) = row.into_inner()?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn settle(&self) -> Result<Duration> {
        self.keyspace.rotate_memtable_and_wait()?;
        let mut completed = self.db.compactions_completed();
        let mut idle = 0;
        while idle < POLLS_IDLE {
            thread::sleep(POLL);
            let busy = self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0;
            let now = self.db.compactions_completed();
            idle = if busy || now != completed { 0 } else { idle + 1 };
            completed = now;
        }
        Ok(POLL * POLLS_IDLE)
    }

    fn close(self) -> Result {
        self.keyspace.rotate_memtable_and_wait()?;
        drop(self.keyspace);
        drop(self.db);
        Ok(())
    }
}
