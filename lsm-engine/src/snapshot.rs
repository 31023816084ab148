use std::ops::RangeBounds;
use std::sync::Arc;

use lsm_core::{SequenceNumber, Slice};

use crate::change_position::ChangePosition;
use crate::database::{Closer, Database};
use crate::error::Result;
use crate::feed;
use crate::keyspace::Keyspace;
use crate::keyspaces::{ReadPoint, ReadState, SnapshotPin, Tree};
use crate::pins::PinKind;
use crate::read::Bounds;
use crate::read::DbCursor;
use crate::read::Iter;
use crate::read::part_of;

/// A consistent view of all keyspaces, as they were when the snapshot was taken. Its time stands still, too: what has not
/// expired then does not expire under its reader.
///
/// Taking one costs almost nothing. While it lives, compactions keep the versions that it sees, and tables that a policy
/// such as FIFO drops stay on the disk. Drop it when you are done. [`Options::snapshot_age_max`] ends those that nobody
/// drops: then all reads fail with [`ErrorKind::SnapshotExpired`](crate::ErrorKind::SnapshotExpired).
///
/// [`Options::snapshot_age_max`]: crate::Options::snapshot_age_max
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lsm_engine::Db::open(dir.path())?;
/// db.put("a", "old")?;
/// let snapshot = db.snapshot()?;
/// db.put("a", "new")?;
/// assert_eq!(snapshot.get("a")?.unwrap(), b"old");
/// assert_eq!(db.get("a")?.unwrap(), b"new");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshot {
    database: Arc<Database>,
    default: Arc<Tree>,
    pin: SnapshotPin,
    /// Number of the last event of a keyspace before it.
    keyspace_events: u64,
    closer: Arc<Closer>,
}

impl Snapshot {
    pub(crate) fn new(database: Arc<Database>, default: Arc<Tree>, closer: Arc<Closer>) -> Self {
        let keyspace_events = database.history.event_count();
        let pin = database.visibility.take_snapshot();
        Self { database, default, pin, keyspace_events, closer }
    }

    /// A snapshot of the same database as it is now, for the same transaction.
    pub(crate) fn renewed(&self) -> Self {
        let (database, default) = (Arc::clone(&self.database), Arc::clone(&self.default));
        let renewed = Self::new(database, default, Arc::clone(&self.closer));
        self.database.visibility.change_snapshot(&renewed.pin, |taken| taken.kind = PinKind::Transaction);
        if let Some(label) = self.database.visibility.snapshot_label(&self.pin) {
            renewed.set_label(label);
        }
        renewed
    }

    /// Gives the snapshot a label, which [`Db::pins`](crate::Db::pins) shows.
    #[must_use]
    pub fn labeled(self, label: impl Into<Arc<str>>) -> Self {
        self.set_label(label.into());
        self
    }

    pub(crate) fn set_label(&self, label: Arc<str>) {
        self.database.visibility.change_snapshot(&self.pin, |taken| taken.label = Some(label));
    }

    /// Says that it belongs to a transaction.
    pub(crate) fn set_kind(&self, kind: PinKind) {
        self.database.visibility.change_snapshot(&self.pin, |taken| taken.kind = kind);
    }

    /// Fails if the snapshot has expired. Call it after the read state was loaded, or after what depends on the snapshot
    /// was found.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        self.pin.check()
    }

    /// The sequence number of the last write that the snapshot sees.
    pub fn sequence(&self) -> SequenceNumber {
        self.pin.point.sequence
    }

    /// The place in the change feed of what the snapshot sees: what it has and the [changes](crate::Db::changes) from there
    /// on are everything, without a gap and without a write twice. Call it soon after the snapshot was taken, and let a
    /// [`ChangeSlot`](crate::ChangeSlot) made before keep the history.
    ///
    /// A keyspace that is created while the snapshot is taken may be among the changes although the snapshot has it, empty.
    /// Fails with [`ErrorKind::HistoryGone`](crate::ErrorKind::HistoryGone) if the log does not go back that far.
    pub fn change_position(&self) -> Result<ChangePosition> {
        feed::of_snapshot(&self.database, self.sequence(), self.keyspace_events)
    }

    /// The point that it reads at.
    pub(crate) fn point(&self) -> ReadPoint<'static> {
        self.pin.point
    }

    /// The value of `key` in the default keyspace.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let state = self.default.load();
        self.check()?;
        state.get(key.as_ref(), &self.pin.point)
    }

    /// The value of `key` in `keyspace`.
    pub fn get_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.state_of(keyspace)?.get(key.as_ref(), &self.pin.point)
    }

    /// Whether `key` has a value in the default keyspace.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let state = self.state()?;
        state.contains(key.as_ref(), &self.pin.point)
    }

    /// Whether `key` has a value in `keyspace`.
    pub fn contains_key_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        self.state_of(keyspace)?.contains(key.as_ref(), &self.pin.point)
    }

    /// The values of several keys of the default keyspace, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        let state = self.state()?;
        keys.into_iter().map(|key| state.get(key.as_ref(), &self.pin.point)).collect()
    }

    /// The values of several keys of `keyspace`, in the order of the keys.
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        let state = self.state_of(keyspace)?;
        keys.into_iter().map(|key| state.get(key.as_ref(), &self.pin.point)).collect()
    }

    /// The bytes of the value of `key` in `part`, as far as it has them; `None` if the key has no value. Of a value in a blob
    /// file only that part is read, so a large value can be read piece by piece.
    pub fn get_part(&self, key: impl AsRef<[u8]>, part: impl RangeBounds<u64>) -> Result<Option<Slice>> {
        self.state()?.get_part(key.as_ref(), &self.pin.point, part_of(&part))
    }

    /// A part of the value of `key` in `keyspace`; see [`get_part`](Self::get_part).
    pub fn get_part_in(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        part: impl RangeBounds<u64>,
    ) -> Result<Option<Slice>> {
        self.state_of(keyspace)?.get_part(key.as_ref(), &self.pin.point, part_of(&part))
    }

    /// Iterates over the keys and values of a range of the default keyspace.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        match self.state() {
            Ok(state) => Iter::range(state, self.pin.point, &range),
            Err(error) => Iter::failed(error),
        }
    }

    /// Iterates over the keys and values of a range of `keyspace`.
    pub fn range_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Iter {
        match self.state_of(keyspace) {
            Ok(state) => Iter::range(state, self.pin.point, &range),
            Err(error) => Iter::failed(error),
        }
    }

    /// Iterates over all keys and values of the default keyspace.
    pub fn iter(&self) -> Iter {
        self.range::<&[u8]>(..)
    }

    /// Iterates over all keys and values of `keyspace`.
    pub fn iter_in(&self, keyspace: &Keyspace) -> Iter {
        self.range_in::<&[u8]>(keyspace, ..)
    }

    /// Iterates over the keys of the default keyspace that start with `prefix`, and their values.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        match self.state() {
            Ok(state) => Iter::prefix(state, self.pin.point, prefix.as_ref()),
            Err(error) => Iter::failed(error),
        }
    }

    /// Iterates over the keys of `keyspace` that start with `prefix`, and their values.
    pub fn prefix_in(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Iter {
        match self.state_of(keyspace) {
            Ok(state) => Iter::prefix(state, self.pin.point, prefix.as_ref()),
            Err(error) => Iter::failed(error),
        }
    }

    /// The first key of the default keyspace and its value.
    pub fn first(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().first_entry()
    }

    /// The first key of `keyspace` and its value.
    pub fn first_in(&self, keyspace: &Keyspace) -> Result<Option<(Slice, Slice)>> {
        self.iter_in(keyspace).first_entry()
    }

    /// The last key of the default keyspace and its value.
    pub fn last(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().last_entry()
    }

    /// The last key of `keyspace` and its value.
    pub fn last_in(&self, keyspace: &Keyspace) -> Result<Option<(Slice, Slice)>> {
        self.iter_in(keyspace).last_entry()
    }

    /// Whether no key of the default keyspace has a value.
    pub fn is_empty(&self) -> Result<bool> {
        self.iter().has_none()
    }

    /// Whether no key of `keyspace` has a value.
    pub fn is_empty_in(&self, keyspace: &Keyspace) -> Result<bool> {
        self.iter_in(keyspace).has_none()
    }

    /// Counts the keys of a range of the default keyspace; see [`Keyspace::count`].
    pub fn count<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.range(range).count_entries()
    }

    /// Counts the keys of a range of `keyspace`; see [`Keyspace::count`].
    pub fn count_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Result<u64> {
        self.range_in(keyspace, range).count_entries()
    }

    /// A cursor over the default keyspace. If the snapshot has expired, the first call that moves the cursor says so.
    pub fn cursor(&self) -> DbCursor {
        let state = self.state().unwrap_or_else(|_| self.default.load().expired());
        DbCursor::new(state, self.pin.point, Bounds::ALL, None)
    }

    /// A cursor over `keyspace`.
    pub fn cursor_in(&self, keyspace: &Keyspace) -> Result<DbCursor> {
        Ok(DbCursor::new(self.state_of(keyspace)?, self.pin.point, Bounds::ALL, None))
    }

    /// The read state of the default keyspace.
    fn state(&self) -> Result<Arc<ReadState>> {
        let state = self.default.load_full();
        self.check()?;
        Ok(state)
    }

    fn state_of(&self, keyspace: &Keyspace) -> Result<Arc<ReadState>> {
        let state = keyspace.state_for(&self.database)?;
        self.check()?;
        Ok(state)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.database.resources.check_process().is_err() {
            return;
        }
        self.database.visibility.release_snapshot(&self.pin);
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("sequence", &self.pin.point.sequence).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_compaction::{Fifo, FifoOptions};
    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use crate::read::Bounds;
    use crate::{DbCursor, Options};

    /// A read loads the state, then the visible number. Here the policy drops tables between the two, and other readers
    /// then note an empty span where this cursor still sees a key.
    #[test]
    fn a_cursor_keeps_its_view_when_tables_are_dropped_after_it_loaded_its_state() {
        const DAY: u64 = 24 * 3_600_000_000;
        let env = Arc::new(SimEnv::new(1));
        let fifo = FifoOptions { time_to_live_micros: DAY, ..FifoOptions::default() };
        let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
        let options = options.memory(8 << 20).compaction(Arc::new(Fifo::new(fifo)));
        let db = options.open("/db").unwrap();
        db.put("key5000", "dropped").unwrap();
        db.flush().unwrap();
        for number in 0..10_000 {
            if number != 5_000 {
                db.delete(format!("key{number:04}")).unwrap();
            }
        }
        let tree = db.default.tree();
        let state = tree.load_full();
        env.advance(DAY);
        db.wait_for_compactions().unwrap();
        let mut cursor =
            DbCursor::new(Arc::clone(&state), db.database.visibility.point_in(&state), Bounds::ALL, None);
        for _ in 0..2 {
            cursor.first().unwrap();
            assert_eq!(cursor.key(), Some(&b"key5000"[..]));
            // A scan over deleted keys notes empty spans.
            for _ in 0..4 {
                assert_eq!(db.iter().count(), 0);
            }
        }
        cursor.last().unwrap();
        assert_eq!(cursor.key(), Some(&b"key5000"[..]));
        drop((cursor, state, tree, db));
        env.drop_jobs();
    }
}
