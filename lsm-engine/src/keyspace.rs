use std::ops::{ControlFlow, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_core::{Entry, SequenceNumber, Slice, ValueKind};
use lsm_wal::Durability;

use crate::callbacks::caught;
use crate::database::{Closer, Database, DeletedFiles};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::ingest::{BulkLoad, Ingest, TableBuilder};
use crate::keyspaces::{ReadState, Tree};
use crate::options::KeyspaceOptions;
use crate::read::Bounds;
use crate::read::DbCursor;
use crate::read::Iter;
use crate::read::{borrow_range, part_of};
use crate::ticket::Ticket;
use crate::write::{after_micros, check_range};

/// A named, separate map in a database, with its own options. It shares the log and the memory with the other keyspaces.
///
/// It has the same calls as [`Db`](crate::Db). A handle is cheap to clone and can be sent to other threads.
#[derive(Clone)]
pub struct Keyspace {
    pub(crate) database: Arc<Database>,
    pub(crate) tree: Arc<Tree>,
    closer: Arc<Closer>,
}

impl Keyspace {
    pub(crate) fn new(database: Arc<Database>, tree: Arc<Tree>, closer: Arc<Closer>) -> Self {
        Self { database, tree, closer }
    }

    pub(crate) fn id(&self) -> u32 {
        self.tree.id
    }

    pub(crate) fn tree(&self) -> Arc<Tree> {
        Arc::clone(&self.tree)
    }

    pub(crate) fn database_id(&self) -> u64 {
        self.database.resources.database_id
    }

    /// The read state, if the keyspace belongs to this database.
    pub(crate) fn state_for(&self, database: &Arc<Database>) -> Result<Arc<ReadState>> {
        self.check_owner(database)?;
        self.state()
    }

    /// The tree, if the keyspace belongs to this database and can be used.
    #[inline]
    pub(crate) fn tree_for(&self, database: &Arc<Database>) -> Result<&Arc<Tree>> {
        self.check_owner(database)?;
        self.check()?;
        Ok(&self.tree)
    }

    #[inline]
    fn check_owner(&self, database: &Arc<Database>) -> Result<()> {
        if Arc::ptr_eq(database, &self.database) {
            return Ok(());
        }
        Err(Error::foreign(format!("keyspace {:?} belongs to another database", self.name())))
    }

    /// The read state. The check comes after the load: a drop empties the state, and a read must fail rather than see
    /// that.
    fn state(&self) -> Result<Arc<ReadState>> {
        let state = self.tree.load_full();
        self.check()?;
        Ok(state)
    }

    /// Shows `visit` the visible versions of a key, the newest first, and whether a range delete hides them.
    pub(crate) fn visit_versions(&self, key: &[u8], mut visit: impl FnMut(Entry<'_>, bool)) -> Result<()> {
        let state = self.state()?;
        let sequence = self.database.visibility.sequence_in(&state);
        let visited = state.at(sequence).versions(key, sequence, |entry, is_covered| {
            visit(entry, is_covered);
            Ok(ControlFlow::<()>::Continue(()))
        });
        visited.map(|_| ())
    }

    #[inline]
    fn check(&self) -> Result<()> {
        self.database.check_open()?;
        self.tree.check_usable()
    }

    /// The name of the keyspace.
    pub fn name(&self) -> &str {
        &self.tree.name
    }

    /// Sets `key` to `value`.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, Durability::Buffered)
    }

    /// Sets `key` to `value`. The write has the given durability when this returns.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<()> {
        self.write_one(ValueKind::Put, key.as_ref(), Some(value.as_ref()), durability)
    }

    /// Sets `key` to `value`. The ticket tells when the write is durable; see [`Db::submit`](crate::Db::submit).
    pub fn submit_put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Ticket> {
        self.submit_one(ValueKind::Put, key.as_ref(), Some(value.as_ref()))
    }

    /// Merges `operand` into the value of `key`, without reading it: the merge operator of the keyspace makes one value of
    /// them when it is read. Costs what a put costs.
    ///
    /// Fails with [`ErrorKind::OperatorMissing`](crate::ErrorKind::OperatorMissing) if the keyspace has no merge operator;
    /// see [`KeyspaceOptions::merge_operator`](crate::KeyspaceOptions::merge_operator). The operator does not see the
    /// operand before it is read, so one that does not fit is accepted here. A read of the key then fails with
    /// [`ErrorKind::OperatorFailed`](crate::ErrorKind::OperatorFailed), until a put or delete replaces its operands.
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.merge_with(key, operand, Durability::Buffered)
    }

    /// Merges `operand` into the value of `key`. The write has the given durability when this returns.
    pub fn merge_with(
        &self,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<()> {
        self.tree.load().merging.check_writable()?;
        self.write_one(ValueKind::Merge, key.as_ref(), Some(operand.as_ref()), durability)
    }

    /// Merges `operand` into the value of `key`. The ticket tells when the write is durable; see
    /// [`Db::submit`](crate::Db::submit).
    pub fn submit_merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<Ticket> {
        self.tree.load().merging.check_writable()?;
        self.submit_one(ValueKind::Merge, key.as_ref(), Some(operand.as_ref()))
    }

    /// Sets `key` to `value`, until `after` from now on; see [`Db::put_expiring`](crate::Db::put_expiring).
    pub fn put_expiring(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> Result<()> {
        self.put_expiring_with(key, value, after, Durability::Buffered)
    }

    /// Sets `key` to `value`, until `after` from now on. The write has the given durability when this returns.
    pub fn put_expiring_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
        durability: Durability,
    ) -> Result<()> {
        let key = key.as_ref();
        let stored = self.expiring_value(key, value.as_ref(), after)?;
        self.write_one(ValueKind::PutWithExpiry, key, Some(&stored), durability)
    }

    /// Sets `key` to `value`, until `after` from now on. The ticket tells when the write is durable; see
    /// [`Db::submit`](crate::Db::submit).
    pub fn submit_put_expiring(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> Result<Ticket> {
        let key = key.as_ref();
        let stored = self.expiring_value(key, value.as_ref(), after)?;
        self.submit_one(ValueKind::PutWithExpiry, key, Some(&stored))
    }

    fn expiring_value(&self, key: &[u8], value: &[u8], after: Duration) -> Result<Vec<u8>> {
        Ok(self.database.write_path()?.expiring_value(after_micros(key, after)?, value))
    }

    #[inline]
    fn write_one(
        &self,
        kind: ValueKind,
        key: &[u8],
        value: Option<&[u8]>,
        durability: Durability,
    ) -> Result<()> {
        self.database.write_path()?.write_one(&self.tree, kind, key, value, durability)?;
        Ok(())
    }

    fn submit_one(&self, kind: ValueKind, key: &[u8], value: Option<&[u8]>) -> Result<Ticket> {
        let path = self.database.write_path()?;
        Ticket::new(path, path.write_one(&self.tree, kind, key, value, Durability::Buffered)?)
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        // Load the state first, then check it and load the visible number: see docs/ARCHITECTURE.md.
        let state = self.tree.load();
        self.check()?;
        state.get(key.as_ref(), &self.database.visibility.point_in(&state))
    }

    /// The bytes of the value of `key` in `part`, as far as it has them; `None` if the key has no value. Of a value in a blob
    /// file only that part is read, so a large value can be read piece by piece.
    pub fn get_part(&self, key: impl AsRef<[u8]>, part: impl RangeBounds<u64>) -> Result<Option<Slice>> {
        let state = self.tree.load();
        self.check()?;
        state.get_part(key.as_ref(), &self.database.visibility.point_in(&state), part_of(&part))
    }

    /// Whether `key` has a value. None is read from a blob file.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let state = self.tree.load();
        self.check()?;
        state.contains(key.as_ref(), &self.database.visibility.point_in(&state))
    }

    /// The values of several keys, in the order of the keys. All are read from one consistent state.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        let state = self.state()?;
        let point = state.fix(self.database.visibility.point_in(&state));
        keys.into_iter().map(|key| state.get(key.as_ref(), &point)).collect()
    }

    /// Deletes `key`. It is no error if the key has no value.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, Durability::Buffered)
    }

    /// Deletes `key`. The write has the given durability when this returns.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<()> {
        self.write_one(ValueKind::Delete, key.as_ref(), None, durability)
    }

    /// Deletes `key`. The ticket tells when the write is durable; see [`Db::submit`](crate::Db::submit).
    pub fn submit_delete(&self, key: impl AsRef<[u8]>) -> Result<Ticket> {
        self.submit_one(ValueKind::Delete, key.as_ref(), None)
    }

    /// Deletes `key`, which was put at most once since it was deleted last; see
    /// [`Db::single_delete`](crate::Db::single_delete).
    pub fn single_delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.single_delete_with(key, Durability::Buffered)
    }

    /// Deletes `key`, which was put at most once since it was deleted last. The write has the given durability when this
    /// returns.
    pub fn single_delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<()> {
        self.write_one(ValueKind::SingleDelete, key.as_ref(), None, durability)
    }

    /// Deletes `key`, which was put at most once since it was deleted last. The ticket tells when the write is durable; see
    /// [`Db::submit`](crate::Db::submit).
    pub fn submit_single_delete(&self, key: impl AsRef<[u8]>) -> Result<Ticket> {
        self.submit_one(ValueKind::SingleDelete, key.as_ref(), None)
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end`. It writes one range tombstone, so the
    /// cost does not depend on the number of keys.
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: std::ops::Range<K>) -> Result<()> {
        self.delete_range_with(range, Durability::Buffered)
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end`. The write has the given durability when
    /// this returns.
    pub fn delete_range_with<K: AsRef<[u8]>>(
        &self,
        range: std::ops::Range<K>,
        durability: Durability,
    ) -> Result<()> {
        let (start, end) = (range.start.as_ref(), range.end.as_ref());
        check_range(start, end)?;
        self.write_one(ValueKind::RangeDelete, start, Some(end), durability)
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end`. The ticket tells when the write is
    /// durable; see [`Db::submit`](crate::Db::submit).
    pub fn submit_delete_range<K: AsRef<[u8]>>(&self, range: std::ops::Range<K>) -> Result<Ticket> {
        let (start, end) = (range.start.as_ref(), range.end.as_ref());
        check_range(start, end)?;
        self.submit_one(ValueKind::RangeDelete, start, Some(end))
    }

    /// Iterates over the keys and values of a range, in key order, from both ends.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        match self.state() {
            Ok(state) => {
                let point = self.database.visibility.point_in(&state);
                Iter::range(state, point, &range)
            }
            Err(error) => Iter::failed(error),
        }
    }

    /// Iterates over the keys that start with `prefix`, and their values, in key order, from both ends.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        match self.state() {
            Ok(state) => {
                let point = self.database.visibility.point_in(&state);
                Iter::prefix(state, point, prefix.as_ref())
            }
            Err(error) => Iter::failed(error),
        }
    }

    /// Iterates over all keys and values, in key order, from both ends.
    pub fn iter(&self) -> Iter {
        self.range::<&[u8]>(..)
    }

    /// The first key and its value.
    pub fn first(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().first_entry()
    }

    /// The last key and its value.
    pub fn last(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().last_entry()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> Result<bool> {
        self.iter().has_none()
    }

    /// Counts the keys of a range. It passes all of them, but copies nothing.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// # for key in ["a", "b", "c"] { db.put(key, key)?; }
    /// assert_eq!(db.count("a"..="b")?, 2);
    /// assert_eq!(db.count::<&str>(..)?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn count<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.range(range).count_entries()
    }

    /// An estimate of the number of keys, from the counts that memtables and tables keep. It reads no data.
    ///
    /// It assumes that each tombstone in a table deletes one entry in another. It counts a key twice that was overwritten
    /// or merged and not compacted since, and it does not know of range deletes, expired entries and deletes in memtables. After
    /// [`compact_range`](Self::compact_range) of everything it is exact, except for what expires or a snapshot keeps.
    pub fn len_estimate(&self) -> Result<u64> {
        Ok(self.state()?.len_estimate())
    }

    /// A cursor: it seeks, moves in both directions, and lends keys and values without copying them.
    pub fn cursor(&self) -> Result<DbCursor> {
        let state = self.state()?;
        let point = self.database.visibility.point_in(&state);
        Ok(DbCursor::new(state, point, Bounds::ALL, None))
    }

    /// What a write to this keyspace would meet now; see [`Db::health`](crate::Db::health).
    pub fn health(&self) -> Health {
        self.database.health(std::slice::from_ref(&self.tree))
    }

    /// Changes options while the keyspace is open, and stores them: compression, block size, filter, time to live, compaction
    /// filter, and the compaction policy or its settings. What is not given stays. Tables that exist already keep their form until a
    /// compaction rewrites them.
    ///
    /// Fails with [`ErrorKind::NotLive`](crate::ErrorKind::NotLive), and changes nothing, if an option is given that can
    /// only be given when the keyspace is opened: prefix extractor, merge operator, memtable. A policy of another name
    /// needs [`KeyspaceOptions::change_compaction`].
    #[expect(clippy::needless_pass_by_value, reason = "callers write the options in place")]
    pub fn set_options(&self, options: KeyspaceOptions) -> Result<()> {
        self.check()?;
        caught("a change of options", || self.database.set_options(&self.tree, &options))
    }

    /// Takes tables into the keyspace that were built elsewhere with [`TableBuilder`](crate::TableBuilder), in one step and
    /// durably: their entries pass neither the log nor the memtables. Returns the number of the write that this is: later
    /// writes are newer than all of the tables, earlier ones older, and snapshots taken before do not see them.
    ///
    /// Each table is copied into the database, unless [`Ingest`] says otherwise, and then every byte of the copy is checked.
    /// After any error the keyspace is as it was, and the given files are always left as they are.
    ///
    /// - [`ErrorKind::RefusedTable`](crate::ErrorKind::RefusedTable): a table overlaps another one, is in the database
    ///   already, or was not built to be ingested. The message says which.
    /// - [`ErrorKind::Corruption`](crate::ErrorKind::Corruption), [`Unsupported`](crate::ErrorKind::Unsupported),
    ///   [`NotFound`](crate::ErrorKind::NotFound): a table is damaged, of a newer version, or missing.
    /// - [`ErrorKind::OperatorMissing`](crate::ErrorKind::OperatorMissing): a table has merge operands, and the keyspace has
    ///   no merge operator.
    ///
    /// The memtable of the keyspace is flushed with it, so many small ingests cost more than a few large ones.
    #[expect(clippy::needless_pass_by_value, reason = "callers write the request in place")]
    pub fn ingest(&self, ingest: Ingest) -> Result<SequenceNumber> {
        self.check()?;
        crate::ingest::ingest(&self.database, &self.tree, &ingest)
    }

    /// Begins a bulk load: puts in ascending order of keys go straight to tables, past the log and the memtables. Nothing
    /// is visible before [`BulkLoad::finish`]. Other writes may go on meanwhile; at the finish the load is the newest write.
    ///
    /// Another thread builds the tables. It takes the memory of one table writer and of some chunks, and no part of the tables stays in memory but their indexes and filters.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let mut load = db.bulk_load()?;
    /// for number in 0_u32..10_000 {
    ///     load.put(number.to_be_bytes(), "value")?;
    /// }
    /// load.finish()?;
    /// assert_eq!(db.count::<&[u8]>(..)?, 10_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bulk_load(&self) -> Result<BulkLoad> {
        self.check()?;
        BulkLoad::new(&self.database, &self.tree, &self.closer)
    }

    /// Creates a table at `path`, which must be free, with the options of the keyspace, to
    /// [ingest](Self::ingest) it here or elsewhere.
    pub fn table_builder(&self, path: impl AsRef<Path>) -> Result<TableBuilder> {
        self.check()?;
        TableBuilder::for_keyspace(&self.database, &self.tree, path.as_ref())
    }

    /// Deletes everything in the keyspace, durably. Its tables are removed without a merge, once no iterator or snapshot
    /// reads them.
    pub fn clear(&self) -> Result<()> {
        self.check()?;
        self.database.clear_keyspace(&self.tree)
    }

    /// Compacts a range down to the last level, and waits until that is done; see
    /// [`Db::compact_range`](crate::Db::compact_range).
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.check()?;
        self.database.compact_range(&self.tree, borrow_range(&range))
    }

    /// Deletes a range by removing tables that lie in it completely: it frees their space at once, without a merge. What
    /// else the range holds stays, in other tables and in memory, so delete it as well: with
    /// [`delete_range`](Self::delete_range) first, or what is left is whatever happens to be. Durable when it returns.
    /// Returns what it removed.
    ///
    /// Nothing older comes back: a table stays if it may hide a part of an older one that stays. So does one that a
    /// compaction is reading. Snapshots and iterators from before keep their view, and their files. Transactions from before
    /// that depend on anything in the keyspace are in conflict. Merge operands that stay apply to what is left below them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let log = db.default_keyspace();
    /// for day in 1..=9 {
    ///     log.put(format!("day {day}"), vec![0; 1000])?;
    /// }
    /// db.flush()?;
    /// log.delete_range("day 1".."day 5")?;
    /// log.delete_files_in_range("day 1".."day 5")?;
    /// assert_eq!(log.count::<&str>(..)?, 5);
    /// // The one table there is has later days, too.
    /// assert_eq!(log.delete_files_in_range::<&str>(..)?.tables, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_files_in_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<DeletedFiles> {
        self.check()?;
        self.database.delete_files_in_range(&self.tree, borrow_range(&range))
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.tree.name).finish_non_exhaustive()
    }
}
