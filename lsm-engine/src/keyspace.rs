use std::ops::RangeBounds;
use std::sync::Arc;

use lsm_core::{Slice, ValueKind};
use lsm_wal::Durability;

use crate::database::{Closer, Database};
use crate::error::{Error, Result};
use crate::keyspaces::{ReadState, Tree};
use crate::read::Bounds;
use crate::read::DbCursor;
use crate::read::Iter;
use crate::read::borrow_range;
use crate::write::check_range;

/// A named map of its own inside a database: the same calls as [`Db`](crate::Db), own options, shared log.
///
/// Cheap to clone and to send.
#[derive(Clone)]
pub struct Keyspace {
    database: Arc<Database>,
    tree: Arc<Tree>,
    _closer: Arc<Closer>,
}

impl Keyspace {
    pub(crate) fn new(database: Arc<Database>, tree: Arc<Tree>, closer: Arc<Closer>) -> Self {
        Self { database, tree, _closer: closer }
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

    /// The state to read, if it belongs to this database.
    pub(crate) fn state_for(&self, database: &Arc<Database>) -> Result<Arc<ReadState>> {
        if !Arc::ptr_eq(database, &self.database) {
            return Err(Error::invalid("the keyspace belongs to another database"));
        }
        self.state()
    }

    /// The state to read. Checked after it was loaded: a keyspace that is being dropped becomes empty.
    fn state(&self) -> Result<Arc<ReadState>> {
        let state = self.tree.load_full();
        self.check()?;
        Ok(state)
    }

    #[inline]
    fn check(&self) -> Result<()> {
        self.database.check_open()?;
        self.tree.check_usable()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.tree.name
    }

    /// Sets `key` to `value`.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_with(key, value, Durability::Buffered)
    }

    /// Sets `key` to `value`, durable as asked when this returns.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<()> {
        self.database.write_path()?.write_one(
            &self.tree,
            ValueKind::Put,
            key.as_ref(),
            Some(value.as_ref()),
            durability,
        )
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        // The state first, whether it counts and the visible number after it: see docs/ARCHITECTURE.md.
        let state = self.tree.load();
        self.check()?;
        state.get(key.as_ref(), self.database.visibility.sequence_in(&state))
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get(key)?.is_some())
    }

    /// The values of several keys, all as of one moment, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        let state = self.state()?;
        let visible = self.database.visibility.sequence_in(&state);
        keys.into_iter().map(|key| state.get(key.as_ref(), visible)).collect()
    }

    /// Deletes `key`; no error if it has no value.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_with(key, Durability::Buffered)
    }

    /// Deletes `key`, durable as asked when this returns.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<()> {
        self.database.write_path()?.write_one(&self.tree, ValueKind::Delete, key.as_ref(), None, durability)
    }

    /// Deletes all keys from `range.start` up to `range.end`, exclusive. The cost does not depend on how many
    /// there are.
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: std::ops::Range<K>) -> Result<()> {
        let (start, end) = (range.start.as_ref(), range.end.as_ref());
        check_range(start, end)?;
        self.database.write_path()?.write_one(
            &self.tree,
            ValueKind::RangeDelete,
            start,
            Some(end),
            Durability::Buffered,
        )
    }

    /// Keys and values of a range, in order, from both ends.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        match self.state() {
            Ok(state) => {
                let visible = self.database.visibility.sequence_in(&state);
                Iter::range(state, visible, &range)
            }
            Err(error) => Iter::failed(error),
        }
    }

    /// Keys that start with `prefix`, and their values, in order, from both ends.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        match self.state() {
            Ok(state) => {
                let visible = self.database.visibility.sequence_in(&state);
                Iter::prefix(state, visible, prefix.as_ref())
            }
            Err(error) => Iter::failed(error),
        }
    }

    /// All keys and values, in order, from both ends.
    pub fn iter(&self) -> Iter {
        self.range::<&[u8]>(..)
    }

    /// A cursor that lends keys and values without copying them.
    pub fn cursor(&self) -> Result<DbCursor> {
        let state = self.state()?;
        let visible = self.database.visibility.sequence_in(&state);
        Ok(DbCursor::new(state, visible, Bounds::ALL, None))
    }

    /// Deletes everything in the keyspace, durably, and gives the space back at once.
    pub fn clear(&self) -> Result<()> {
        self.check()?;
        self.database.clear_keyspace(&self.tree)
    }

    /// Brings a range down to the last level, and waits for it; see [`Db::compact_range`](crate::Db::compact_range).
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.check()?;
        self.database.compact_range(&self.tree, borrow_range(&range))
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("name", &self.tree.name).finish_non_exhaustive()
    }
}
