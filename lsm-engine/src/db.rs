use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use lsm_core::Slice;
use lsm_wal::Durability;

use crate::batch::WriteBatch;
use crate::callbacks::caught;
use crate::database::{Closer, Database};
use crate::error::{Error, Result};
use crate::keyspace::Keyspace;
use crate::metrics::Metrics;
use crate::options::{KeyspaceOptions, Options};
use crate::read::DbCursor;
use crate::read::Iter;
use crate::recovery::{self, Recovery};
use crate::snapshot::Snapshot;

/// An embedded, ordered, durable map from bytes to bytes.
///
/// A handle is cheap to clone and to send; all may read and write at once. The database closes when the last
/// handle, keyspaces and snapshots included, is dropped; [`close`](Db::close) does it earlier and says what went
/// wrong.
///
/// Plain writes survive a crash of the process and, within a second, a power cut; those with
/// [`Durability::Sync`] survive a power cut when the call returns.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use lsm_engine::{Db, Durability};
///
/// let db = Db::open(dir.path())?;
/// db.put("user/1", "Ada")?;
/// db.put_with("user/2", "Grace", Durability::Sync)?;
/// assert_eq!(db.get("user/1")?.unwrap(), b"Ada");
/// for entry in db.prefix("user/").rev() {
///     let (key, value) = entry?;
///     println!("{key:?} is {value:?}");
/// }
/// db.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Db {
    pub(crate) database: Arc<Database>,
    pub(crate) default: Keyspace,
    pub(crate) closer: Arc<Closer>,
    recovery: Arc<Recovery>,
}

impl Db {
    /// Opens the database in `path` with the default [`Options`], creating it if need be.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    pub(crate) fn open_with(path: &Path, options: Options) -> Result<Self> {
        options.check()?;
        let (database, recovery) = caught("the opening of the database", || recovery::open(path, options))?;
        let tree =
            database.trees.read().get(0).cloned().ok_or_else(|| Error::invalid("no default keyspace"))?;
        let closer = Arc::new(Closer::new(Arc::clone(&database)));
        let default = Keyspace::new(Arc::clone(&database), tree, Arc::clone(&closer));
        database.start();
        Ok(Self { database, default, closer, recovery: Arc::new(recovery) })
    }

    /// Sets `key` to `value`.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.default.put(key, value)
    }

    /// Sets `key` to `value`, durable as asked when this returns.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<()> {
        self.default.put_with(key, value, durability)
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.default.get(key)
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.default.contains_key(key)
    }

    /// The values of several keys, all as of one moment, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        self.default.multi_get(keys)
    }

    /// Deletes `key`; no error if it has no value.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.default.delete(key)
    }

    /// Deletes `key`, durable as asked when this returns.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<()> {
        self.default.delete_with(key, durability)
    }

    /// Deletes all keys from `range.start` up to `range.end`, exclusive. The cost does not depend on how many
    /// there are.
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: std::ops::Range<K>) -> Result<()> {
        self.default.delete_range(range)
    }

    /// Writes a batch: all of it or nothing, visible and durable together, across keyspaces.
    pub fn write(&self, batch: impl Into<WriteBatch>) -> Result<()> {
        self.write_with(batch, Durability::Buffered)
    }

    /// Writes a batch, durable as asked when this returns.
    pub fn write_with(&self, batch: impl Into<WriteBatch>, durability: Durability) -> Result<()> {
        let mut batch = batch.into();
        self.database.write_path()?.write_batch(batch.finish()?, durability)
    }

    /// Keys and values of a range, in order, from both ends.
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

    /// Keys that start with `prefix`, and their values, in order, from both ends.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.default.prefix(prefix)
    }

    /// All keys and values, in order, from both ends.
    pub fn iter(&self) -> Iter {
        self.default.iter()
    }

    /// A cursor that lends keys and values without copying them.
    pub fn cursor(&self) -> Result<DbCursor> {
        self.default.cursor()
    }

    /// The database as it is now, in all keyspaces at once.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.database.check_open()?;
        Ok(Snapshot::new(Arc::clone(&self.database), self.default.tree(), Arc::clone(&self.closer)))
    }

    /// The keyspace of this name, created if there is none. Keyspaces share the log and the memory of the
    /// database, and a batch may write to several; each has its own options.
    ///
    /// A keyspace that is open already keeps the options that it has.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let users = db.keyspace("users", lsm_engine::KeyspaceOptions::new())?;
    /// users.put("1", "Ada")?;
    /// assert_eq!(db.get("1")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let tree = caught("the opening of a keyspace", || self.database.open_keyspace(name, options))?;
        Ok(Keyspace::new(Arc::clone(&self.database), tree, Arc::clone(&self.closer)))
    }

    /// The keyspace of this name, if there is one, with the options that it has.
    pub fn existing_keyspace(&self, name: &str) -> Result<Option<Keyspace>> {
        self.database.check_open()?;
        let tree = self.database.tree_named(name);
        Ok(tree.map(|tree| Keyspace::new(Arc::clone(&self.database), tree, Arc::clone(&self.closer))))
    }

    /// The default keyspace, which [`Db`]'s own calls read and write. Its name is "default".
    pub fn default_keyspace(&self) -> Keyspace {
        self.default.clone()
    }

    /// Names of all keyspaces, sorted, the default one included.
    pub fn keyspaces(&self) -> Vec<String> {
        self.database.trees.read().names().map(str::to_owned).collect()
    }

    /// Deletes a keyspace with everything in it. Handles to it fail from then on; iterators that run go on,
    /// and what they read is kept for them.
    /// The default keyspace cannot be dropped; [clear](Keyspace::clear) it.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.database.drop_keyspace(name)
    }

    /// Writes all memtables, of all keyspaces, to tables, and waits for it.
    pub fn flush(&self) -> Result<()> {
        self.database.flush_all()
    }

    /// Makes all writes so far durable against a power cut.
    pub fn sync(&self) -> Result<()> {
        self.database.sync_log()
    }

    /// Brings a range of the default keyspace down to the last level, and waits for it: what was deleted or
    /// overwritten there, and no snapshot sees, is gone from the disk afterwards.
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.default.compact_range(range)
    }

    /// Waits until nothing is left to flush or compact.
    pub fn wait_for_compactions(&self) -> Result<()> {
        self.database.wait_for_compactions()
    }

    /// The state of the database in figures.
    pub fn metrics(&self) -> Metrics {
        self.database.metrics()
    }

    /// What opening the database found in its log.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.database.resources.directory
    }

    /// Flushes, waits for background work, syncs, and marks the database as cleanly closed. Other handles fail
    /// from then on; iterators stay readable until the database is opened again, which may remove what they read. Whoever
    /// closes again waits for the first call and gets its result.
    pub fn close(self) -> Result<()> {
        self.database.close()
    }
}

impl Options {
    /// Opens the database in `path`, creating it if need be.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(path.as_ref(), self)
    }
}

/// `for entry in &db` walks over everything.
macro_rules! into_iterator {
    ($($source:ty),*) => {$(
        impl IntoIterator for &$source {
            type Item = Result<(Slice, Slice)>;
            type IntoIter = Iter;

            fn into_iter(self) -> Iter {
                self.iter()
            }
        }
    )*};
}

into_iterator!(Db, Keyspace, Snapshot);
