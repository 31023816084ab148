//! The calls of a database that read and write its default keyspace.

use std::ops::RangeBounds;
use std::time::Duration;

use lsm_core::{SequenceNumber, Slice};
use lsm_wal::Durability;

use super::Db;
use crate::error::Result;
use crate::ingest::{BulkLoad, Ingest};
use crate::read::{DbCursor, Iter};
use crate::read_modify_write::CompareAndSwap;
use crate::ticket::Ticket;

impl Db {
    /// Sets `key` to `value`.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.default.put(key, value)
    }

    /// Sets `key` to `value`. The write has the given durability when this returns.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<()> {
        self.default.put_with(key, value, durability)
    }

    /// Sets `key` to `value`, until `after` from now on. Then the key is absent, as if it had been deleted, and the value
    /// leaves the disk by itself. A put without a time replaces it as usual. A value with a time of zero has expired at once;
    /// a [time to live](crate::KeyspaceOptions::ttl) of zero is none.
    ///
    /// The clock is the wall clock, also while the database is closed, but it never runs back. Fails with
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `after` is longer than 292,000 years. See "Expiry" in
    /// docs/GUIDE.md.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// use std::time::Duration;
    /// db.put_expiring("session/1", "Ada", Duration::from_secs(3600))?;
    /// assert_eq!(db.get("session/1")?.unwrap(), b"Ada");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put_expiring(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> Result<()> {
        self.default.put_expiring(key, value, after)
    }

    /// Sets `key` to `value`, until `after` from now on. The write has the given durability when this returns.
    pub fn put_expiring_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
        durability: Durability,
    ) -> Result<()> {
        self.default.put_expiring_with(key, value, after, durability)
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.default.get(key)
    }

    /// The bytes of the value of `key` in `part`, as far as it has them; `None` if the key has no value. Of a value in a blob
    /// file only that part is read, so a large value can be read piece by piece.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// db.put("key", "a large value")?;
    /// assert_eq!(db.get_part("key", 2..7)?, Some("large".into()));
    /// assert_eq!(db.get_part("key", 8..)?, Some("value".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_part(&self, key: impl AsRef<[u8]>, part: impl RangeBounds<u64>) -> Result<Option<Slice>> {
        self.default.get_part(key, part)
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.default.contains_key(key)
    }

    /// The values of several keys, in the order of the keys. All are read from one consistent state.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        self.default.multi_get(keys)
    }

    /// Deletes `key`. It is no error if the key has no value.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.default.delete(key)
    }

    /// Deletes `key`. The write has the given durability when this returns.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<()> {
        self.default.delete_with(key, durability)
    }

    /// Deletes `key`, which was put at most once since it was deleted last. A put and its single delete leave the disk when
    /// a merge meets both, on any level, while a delete stays until it reaches the last one. It is no error if the key has
    /// no value, or if it was put more often: then a single delete is a delete. See "Single deletes" in docs/GUIDE.md.
    pub fn single_delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.default.single_delete(key)
    }

    /// Deletes `key`, which was put at most once since it was deleted last. The write has the given durability when this
    /// returns.
    pub fn single_delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<()> {
        self.default.single_delete_with(key, durability)
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end`. It writes one range tombstone, so the
    /// cost does not depend on the number of keys.
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: std::ops::Range<K>) -> Result<()> {
        self.default.delete_range(range)
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end`. The write has the given durability when
    /// this returns.
    pub fn delete_range_with<K: AsRef<[u8]>>(
        &self,
        range: std::ops::Range<K>,
        durability: Durability,
    ) -> Result<()> {
        self.default.delete_range_with(range, durability)
    }

    /// Merges `operand` into the value of `key` in the default keyspace; see [`Keyspace::merge`](crate::Keyspace::merge).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use lsm_engine::{BuiltInMerge, Options};
    /// # let dir = tempfile::tempdir()?;
    /// let db = Options::new().merge_operator(Arc::new(BuiltInMerge::add_i64())).open(dir.path())?;
    /// db.merge("visits", 1_i64.to_le_bytes())?;
    /// db.merge("visits", 2_i64.to_le_bytes())?;
    /// assert_eq!(db.get("visits")?.unwrap(), 3_i64.to_le_bytes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.default.merge(key, operand)
    }

    /// Merges `operand` into the value of `key`. The write has the given durability when this returns.
    pub fn merge_with(
        &self,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<()> {
        self.default.merge_with(key, operand, durability)
    }

    /// Merges `operand` into the value of `key`, as [`submit`](Self::submit) does.
    pub fn submit_merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<Ticket> {
        self.default.submit_merge(key, operand)
    }

    /// Replaces the value of `key` by what `change` makes of it; see [`Keyspace::update`](crate::Keyspace::update).
    pub fn update<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<Option<V>> {
        self.default.update(key, change)
    }

    /// Replaces the value of `key` by `new` if it is `expected`; see [`Keyspace::compare_and_swap`](crate::Keyspace::compare_and_swap).
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<CompareAndSwap> {
        self.default.compare_and_swap(key, expected, new)
    }

    /// The value of `key`, or the one that `make` returns; see [`Keyspace::get_or_insert_with`](crate::Keyspace::get_or_insert_with).
    pub fn get_or_insert_with<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> V,
    ) -> Result<Slice> {
        self.default.get_or_insert_with(key, make)
    }

    /// Deletes `key` and returns the value that it had.
    pub fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.default.take(key)
    }

    /// Deletes the first key and returns it with its value; see [`Keyspace::pop_first`](crate::Keyspace::pop_first).
    pub fn pop_first(&self) -> Result<Option<(Slice, Slice)>> {
        self.default.pop_first()
    }

    /// Deletes the last key and returns it with its value; see [`Keyspace::pop_last`](crate::Keyspace::pop_last).
    pub fn pop_last(&self) -> Result<Option<(Slice, Slice)>> {
        self.default.pop_last()
    }

    /// Sets `key` to `value`, as [`submit`](Self::submit) does.
    pub fn submit_put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Ticket> {
        self.default.submit_put(key, value)
    }

    /// Deletes `key`, as [`submit`](Self::submit) does.
    pub fn submit_delete(&self, key: impl AsRef<[u8]>) -> Result<Ticket> {
        self.default.submit_delete(key)
    }

    /// Deletes `key`, which was put at most once since it was deleted last, as [`submit`](Self::submit) does.
    pub fn submit_single_delete(&self, key: impl AsRef<[u8]>) -> Result<Ticket> {
        self.default.submit_single_delete(key)
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end`, as [`submit`](Self::submit) does.
    pub fn submit_delete_range<K: AsRef<[u8]>>(&self, range: std::ops::Range<K>) -> Result<Ticket> {
        self.default.submit_delete_range(range)
    }

    /// Sets `key` to `value`, until `after` from now on, as [`submit`](Self::submit) does.
    pub fn submit_put_expiring(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> Result<Ticket> {
        self.default.submit_put_expiring(key, value, after)
    }

    /// Iterates over the keys and values of a range, in key order, from both ends.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// # for key in ["a", "b", "c"] { db.put(key, key)?; }
    /// let keys: Vec<_> = db.range("a"..="b").map(|entry| entry.map(|(key, _)| key)).collect::<Result<_, _>>()?;
    /// assert_eq!(keys, ["a", "b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.default.range(range)
    }

    /// Iterates over the keys that start with `prefix`, and their values, in key order, from both ends.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.default.prefix(prefix)
    }

    /// Iterates over all keys and values, in key order, from both ends.
    pub fn iter(&self) -> Iter {
        self.default.iter()
    }

    /// The first key and its value.
    pub fn first(&self) -> Result<Option<(Slice, Slice)>> {
        self.default.first()
    }

    /// The last key and its value.
    pub fn last(&self) -> Result<Option<(Slice, Slice)>> {
        self.default.last()
    }

    /// Whether no key has a value. Only the default keyspace counts.
    pub fn is_empty(&self) -> Result<bool> {
        self.default.is_empty()
    }

    /// Counts the keys of a range; see [`Keyspace::count`](crate::Keyspace::count).
    pub fn count<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.default.count(range)
    }

    /// An estimate of the number of keys; see [`Keyspace::len_estimate`](crate::Keyspace::len_estimate).
    pub fn len_estimate(&self) -> Result<u64> {
        self.default.len_estimate()
    }

    /// Takes tables into the default keyspace that were built elsewhere; see [`Keyspace::ingest`](crate::Keyspace::ingest).
    pub fn ingest(&self, ingest: Ingest) -> Result<SequenceNumber> {
        self.default.ingest(ingest)
    }

    /// Begins a bulk load into the default keyspace; see [`Keyspace::bulk_load`](crate::Keyspace::bulk_load).
    pub fn bulk_load(&self) -> Result<BulkLoad> {
        self.default.bulk_load()
    }

    /// A cursor: it seeks, moves in both directions, and lends keys and values without copying them.
    pub fn cursor(&self) -> Result<DbCursor> {
        self.default.cursor()
    }
}
