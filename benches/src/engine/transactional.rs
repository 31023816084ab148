//! Optimistic transactions of the engines that are compared.

use std::path::Path;
use std::time::{Duration, Instant};

use super::lsm::Lsm;
use crate::dataset::Key;
use crate::result::Result;
use crate::settings::Settings;

/// A store with optimistic transactions that find every conflict on the keys that they read.
pub(crate) trait Transactional: Sized + Sync {
    /// Opens the store in `dir`, creating it if there is none.
    fn open(dir: &Path, settings: &Settings) -> Result<Self>;

    /// Adds one to the number of each key, in a transaction that first reads all of them. Returns the time that the
    /// commit took, or `None` after a conflict.
    fn add_one(&self, keys: &[Key]) -> Result<Option<Duration>>;

    /// Sets all keys to `value`, in a plain batch.
    fn put_batch(&self, keys: &[Key], value: &[u8]) -> Result;

    /// The number of a key, 0 if it has none.
    fn number(&self, key: &Key) -> Result<u64>;
}

/// The number in a value.
fn decode(value: Option<&[u8]>) -> Result<u64> {
    Ok(value
        .map(|value| Ok::<_, std::array::TryFromSliceError>(u64::from_le_bytes(value.try_into()?)))
        .transpose()?
        .unwrap_or(0))
}

impl Transactional for Lsm {
    fn open(dir: &Path, settings: &Settings) -> Result<Self> {
        <Self as super::Engine>::open(dir, settings)
    }

    fn add_one(&self, keys: &[Key]) -> Result<Option<Duration>> {
        let transaction = self.db().transaction()?;
        let mut numbers = Vec::with_capacity(keys.len());
        for key in keys {
            numbers.push(decode(transaction.get(key)?.as_deref())?);
        }
        for (key, number) in keys.iter().zip(numbers) {
            transaction.put(key, (number + 1).to_le_bytes())?;
        }
        let started = Instant::now();
        match transaction.commit() {
            Ok(_) => Ok(Some(started.elapsed())),
            Err(error) if error.kind() == lsm_engine::ErrorKind::Conflict => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn put_batch(&self, keys: &[Key], value: &[u8]) -> Result {
        let mut batch = lsm_engine::WriteBatch::new();
        for key in keys {
            batch.put(key, value);
        }
        Ok(self.db().write(batch)?)
    }

    fn number(&self, key: &Key) -> Result<u64> {
        decode(self.db().get(key)?.as_deref())
    }
}

#[cfg(feature = "rocksdb")]
pub(crate) mod rocksdb {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use rocksdb::{
        ErrorKind, OptimisticTransactionDB, OptimisticTransactionOptions, WriteBatchWithTransaction,
        WriteOptions,
    };

    use super::{Transactional, decode};
    use crate::dataset::Key;
    use crate::engine::rocksdb::options;
    use crate::result::Result;
    use crate::settings::Settings;

    /// RocksDB with optimistic transactions, each with a snapshot, so that it finds every change since its begin.
    pub(crate) struct OptimisticRocksDb(OptimisticTransactionDB);

    impl Transactional for OptimisticRocksDb {
        fn open(dir: &Path, settings: &Settings) -> Result<Self> {
            Ok(Self(OptimisticTransactionDB::open(&options(settings), dir)?))
        }

        fn add_one(&self, keys: &[Key]) -> Result<Option<Duration>> {
            let mut options = OptimisticTransactionOptions::default();
            options.set_snapshot(true);
            let transaction = self.0.transaction_opt(&WriteOptions::default(), &options);
            let mut numbers = Vec::with_capacity(keys.len());
            for key in keys {
                numbers.push(decode(transaction.get_pinned_for_update(key, true)?.as_deref())?);
            }
            for (key, number) in keys.iter().zip(numbers) {
                transaction.put(key, (number + 1).to_le_bytes())?;
            }
            let started = Instant::now();
            match transaction.commit() {
                Ok(()) => Ok(Some(started.elapsed())),
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }

        fn put_batch(&self, keys: &[Key], value: &[u8]) -> Result {
            let mut batch = WriteBatchWithTransaction::<true>::default();
            for key in keys {
                batch.put(key, value);
            }
            Ok(self.0.write(batch)?)
        }

        fn number(&self, key: &Key) -> Result<u64> {
            decode(self.0.get(key)?.as_deref())
        }
    }
}

#[cfg(feature = "fjall")]
pub(crate) mod fjall {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use fjall::{OptimisticTxDatabase, OptimisticTxKeyspace, Readable};

    use super::{Transactional, decode};
    use crate::dataset::Key;
    use crate::engine::fjall::keyspace_options;
    use crate::result::Result;
    use crate::settings::Settings;

    /// fjall with serializable optimistic transactions.
    pub(crate) struct OptimisticFjall {
        keyspace: OptimisticTxKeyspace,
        db: OptimisticTxDatabase,
    }

    impl Transactional for OptimisticFjall {
        fn open(dir: &Path, settings: &Settings) -> Result<Self> {
            let db = OptimisticTxDatabase::builder(dir)
                .cache_size(settings.cache_bytes())
                .worker_threads(settings.background_threads.into())
                .open()?;
            let keyspace = db.keyspace("default", || keyspace_options(settings))?;
            Ok(Self { keyspace, db })
        }

        fn add_one(&self, keys: &[Key]) -> Result<Option<Duration>> {
            let mut transaction = self.db.write_tx()?;
            let mut numbers = Vec::with_capacity(keys.len());
            for key in keys {
                numbers.push(decode(transaction.get(&self.keyspace, key)?.as_deref())?);
            }
            for (key, number) in keys.iter().zip(numbers) {
                transaction.insert(&self.keyspace, *key, (number + 1).to_le_bytes());
            }
            let started = Instant::now();
            Ok(transaction.commit()?.ok().map(|()| started.elapsed()))
        }

        fn put_batch(&self, keys: &[Key], value: &[u8]) -> Result {
            let mut batch = self.db.inner().batch();
            for key in keys {
                batch.insert(self.keyspace.inner(), *key, value);
            }
            Ok(batch.commit()?)
        }

        fn number(&self, key: &Key) -> Result<u64> {
            decode(self.keyspace.get(key)?.as_deref())
        }
    }
}
