use std::cell::RefCell;
use std::ops::{Range, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use lsm_core::{Slice, ValueKind};

use super::conflicts;
use super::cursor::TransactionCursor;
use super::iterator::TransactionIter;
use super::options::{Isolation, TransactionOptions};
use super::savepoint::Savepoint;
use super::session::{Reading, Session};
use super::state::{Limits, State};
use super::untracked::Untracked;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::keyspace::Keyspace;
use crate::locks::{LockOwner, Lockable};
use crate::memory::TransactionCharge;
use crate::pins::PinKind;
use crate::read::{Bounds, KeyRange, borrow_range, part_of};
use crate::snapshot::Snapshot;
use crate::ticket::Ticket;
use crate::write::{after_micros, check_key, check_range, check_value, stored_value};

/// Reads and writes that take effect together at the commit, or not at all.
///
/// All reads see the database as it was when the transaction began, and the transaction's own writes. Nobody else sees
/// the writes before the commit. The commit fails with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if another
/// writer changed what the transaction depends on; see [`Isolation`]. Then repeat the transaction, or let
/// [`Db::transact`](crate::Db::transact) do that. Dropping a transaction rolls it back.
///
/// Any number of transactions may be open. One can be sent to another thread, but only one thread at a time uses it. Like
/// a [`Snapshot`], it makes compactions keep what it sees, so do not leave it open.
///
/// The writes of a transaction may take as much memory as a batch, a quarter of [`Options::memory`](crate::Options::memory)
/// and at most 1 GiB, and so may those of all open transactions together; more fails with [`Error::TooLarge`], and nobody
/// waits. What it has read takes a bounded amount of memory: beyond that, ranges between the keys that were read count as
/// read, too.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lsm_engine::Db::open(dir.path())?;
/// use lsm_engine::ErrorKind;
///
/// db.put("stock", "1")?;
/// let (mine, other) = (db.transaction()?, db.transaction()?);
/// for order in [&mine, &other] {
///     assert_eq!(order.get("stock")?.unwrap(), b"1");
///     order.put("stock", "0")?;
/// }
/// mine.commit()?;
/// assert_eq!(other.commit().unwrap_err().kind(), ErrorKind::Conflict);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Transaction {
    session: Session,
    default: Keyspace,
    /// Tells it from other transactions of the database.
    id: u64,
}

impl Transaction {
    pub(crate) fn new(
        database: &Arc<Database>,
        default: &Keyspace,
        snapshot: Snapshot,
        options: TransactionOptions,
    ) -> Self {
        snapshot.set_kind(PinKind::Transaction);
        let id = database.locks.next_transaction();
        let locks = options.locks.map(|timeout| LockOwner::new(&database.locks, id, timeout));
        let batch_bytes_max = database.resources.memory.budget.batch_bytes_max as usize;
        let limits =
            Limits { written_bytes_max: batch_bytes_max, tracked_bytes_max: batch_bytes_max / TRACKED_PART };
        let charge = TransactionCharge::new(&database.resources.memory);
        let state = RefCell::new(State::new(Arc::new(snapshot), limits, charge, locks));
        Self {
            session: Session { database: Arc::clone(database), options, state },
            default: default.clone(),
            id,
        }
    }

    /// Gives the transaction a label, which [`Db::pins`](crate::Db::pins) shows.
    #[must_use]
    pub fn labeled(self, label: impl Into<Arc<str>>) -> Self {
        self.session.state.borrow().snapshot.set_label(label.into());
        self
    }

    /// The number of the transaction, by which messages about locks name it. Numbers start at 1 when the database is
    /// opened.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The sequence number of the last write of others that the transaction sees.
    pub fn sequence(&self) -> lsm_core::SequenceNumber {
        self.session.state.borrow().snapshot.sequence()
    }

    /// Memory that the transaction takes for its writes and for what it has read, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.session.state.borrow().memory_bytes()
    }

    /// The value of `key` in the default keyspace.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.session.read(&self.default, key.as_ref(), self.reading())
    }

    /// The value of `key` in `keyspace`.
    pub fn get_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.session.read(keyspace, key.as_ref(), self.reading())
    }

    /// Whether `key` has a value in the default keyspace.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_part(key, 0..0)?.is_some())
    }

    /// Whether `key` has a value in `keyspace`.
    pub fn contains_key_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.get_part_in(keyspace, key, 0..0)?.is_some())
    }

    /// The bytes of the value of `key` in `part`, as far as it has them; `None` if the key has no value. Of a value in a blob
    /// file only that part is read, so a large value can be read piece by piece.
    pub fn get_part(&self, key: impl AsRef<[u8]>, part: impl RangeBounds<u64>) -> Result<Option<Slice>> {
        self.get_part_in(&self.default, key, part)
    }

    /// A part of the value of `key` in `keyspace`; see [`get_part`](Self::get_part).
    pub fn get_part_in(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        part: impl RangeBounds<u64>,
    ) -> Result<Option<Slice>> {
        self.session.read_part(keyspace, key.as_ref(), self.reading(), Some(&part_of(&part)))
    }

    /// The values of several keys of the default keyspace, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        self.multi_get_in(&self.default, keys)
    }

    /// The values of several keys of `keyspace`, in the order of the keys.
    pub fn multi_get_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Slice>>> {
        // Without keys as well, a foreign keyspace fails.
        keyspace.tree_for(&self.session.database)?;
        keys.into_iter().map(|key| self.get_in(keyspace, key)).collect()
    }

    /// The value of `key` in the default keyspace, for a transaction that is going to change it or depends on it: at any
    /// isolation, the commit fails if another writer changed the key meanwhile.
    pub fn get_for_update(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.get_for_update_in(&self.default, key)
    }

    /// The value of `key` in `keyspace`; see [`get_for_update`](Self::get_for_update).
    pub fn get_for_update_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.session.read(keyspace, key.as_ref(), Reading::ForUpdate)
    }

    /// Iterates over the keys and values of a range of the default keyspace, in key order, from both ends. The
    /// transaction may write meanwhile; the iterator does not see that.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> TransactionIter<'_> {
        self.range_in(&self.default, range)
    }

    /// Iterates over the keys and values of a range of `keyspace`.
    pub fn range_in<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> TransactionIter<'_> {
        self.session.iter_within(keyspace, borrow_range(&range), self.reading())
    }

    /// Iterates over the keys of the default keyspace that start with `prefix`, and their values.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> TransactionIter<'_> {
        self.prefix_in(&self.default, prefix)
    }

    /// Iterates over the keys of `keyspace` that start with `prefix`, and their values.
    pub fn prefix_in(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> TransactionIter<'_> {
        self.session.iter_prefix(keyspace, prefix.as_ref(), self.reading())
    }

    /// Iterates over all keys and values of the default keyspace.
    pub fn iter(&self) -> TransactionIter<'_> {
        self.range::<&[u8]>(..)
    }

    /// Iterates over all keys and values of `keyspace`.
    pub fn iter_in(&self, keyspace: &Keyspace) -> TransactionIter<'_> {
        self.range_in::<&[u8]>(keyspace, ..)
    }

    /// The first key of the default keyspace and its value. What lies before the key counts as read, too.
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

    /// Counts the keys of a range of the default keyspace. It passes all of them, but copies nothing.
    pub fn count<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.range(range).count_entries()
    }

    /// Counts the keys of a range of `keyspace`.
    pub fn count_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Result<u64> {
        self.range_in(keyspace, range).count_entries()
    }

    /// A cursor over the default keyspace.
    pub fn cursor(&self) -> Result<TransactionCursor<'_>> {
        self.cursor_in(&self.default)
    }

    /// A cursor over `keyspace`.
    pub fn cursor_in(&self, keyspace: &Keyspace) -> Result<TransactionCursor<'_>> {
        Ok(self.session.view(keyspace, &Bounds::ALL, self.reading())?.cursor(Bounds::ALL, None))
    }

    /// Reads that the commit does not check, whatever the isolation. Use them for what may change without harm, such as
    /// statistics, or for a guess that is checked in another way.
    pub fn untracked(&self) -> Untracked<'_> {
        Untracked::new(&self.session, &self.default)
    }

    /// Sets `key` to `value` in the default keyspace.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_in(&self.default, key, value)
    }

    /// Sets `key` to `value` in `keyspace`.
    pub fn put_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.write(keyspace, ValueKind::Put, key.as_ref(), Slice::copy_from(value.as_ref()))
    }

    /// Sets `key` to `value` in the default keyspace, until `after` from the commit on; see
    /// [`Db::put_expiring`](crate::Db::put_expiring).
    pub fn put_expiring(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> Result<()> {
        self.put_expiring_in(&self.default, key, value, after)
    }

    /// Sets `key` to `value` in `keyspace`, until `after` from the commit on.
    pub fn put_expiring_in(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> Result<()> {
        let micros = after_micros(key.as_ref(), after)?;
        let stored = stored_value(micros, value.as_ref());
        self.write(keyspace, ValueKind::PutWithExpiry, key.as_ref(), stored.into())
    }

    /// Merges `operand` into the value of `key` in the default keyspace; see [`Keyspace::merge`]. Operands add up whatever
    /// others write, so this is no conflict with other writes of the key, unless the transaction reads it.
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<()> {
        self.merge_in(&self.default, key, operand)
    }

    /// Merges `operand` into the value of `key` in `keyspace`.
    pub fn merge_in(
        &self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (key, operand) = (key.as_ref(), operand.as_ref());
        check_key(key)?;
        check_value(operand)?;
        let tree = keyspace.tree_for(&self.session.database)?;
        tree.load().merging.check_writable()?;
        let (key, operand) = (Slice::copy_from(key), Slice::copy_from(operand));
        self.session.change(
            keyspace,
            || Lockable::Key(key.clone()),
            |writes| writes.merge(key.clone(), operand),
        )
    }

    /// Deletes `key`, which was put at most once since it was deleted last, from the default keyspace; see
    /// [`Db::single_delete`](crate::Db::single_delete).
    pub fn single_delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.single_delete_in(&self.default, key)
    }

    /// Deletes `key`, which was put at most once since it was deleted last, from `keyspace`.
    pub fn single_delete_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(keyspace, ValueKind::SingleDelete, key.as_ref(), Slice::new())
    }

    /// Deletes `key` from the default keyspace.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_in(&self.default, key)
    }

    /// Deletes `key` from `keyspace`.
    pub fn delete_in(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(keyspace, ValueKind::Delete, key.as_ref(), Slice::new())
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end` from the default keyspace. The commit
    /// fails if another writer changed any key of the range.
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: Range<K>) -> Result<()> {
        self.delete_range_in(&self.default, range)
    }

    /// Deletes a range from `keyspace`; see [`delete_range`](Self::delete_range).
    pub fn delete_range_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: Range<K>) -> Result<()> {
        let (start, end) = (range.start.as_ref(), range.end.as_ref());
        check_range(start, end)?;
        if start == end {
            keyspace.tree_for(&self.session.database)?;
            return self.session.database.write_path()?.check();
        }
        let range = || KeyRange { start: Slice::copy_from(start), end: Some(Slice::copy_from(end)) };
        self.session.change(keyspace, || Lockable::Range(range()), |writes| writes.delete_range(start, end))
    }

    /// Marks this point. [`rollback_to`](Self::rollback_to) takes back the writes after it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let transaction = db.transaction()?;
    /// transaction.put("a", "1")?;
    /// let before = transaction.savepoint();
    /// transaction.put("a", "2")?;
    /// transaction.rollback_to(&before)?;
    /// assert_eq!(transaction.get("a")?.unwrap(), b"1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn savepoint(&self) -> Savepoint {
        let database = self.session.database.resources.database_id;
        Savepoint { database, transaction: self.id, number: self.session.state.borrow_mut().savepoint() }
    }

    /// Takes back all writes after `savepoint`, and the savepoints after it. The savepoint itself stays. What was read
    /// since counts as read all the same, and locks are kept.
    ///
    /// Fails with [`Error::Foreign`] for a savepoint of another transaction, and with
    /// [`Error::InvalidArgument`] for one that was itself taken back. Nothing changes then.
    pub fn rollback_to(&self, savepoint: &Savepoint) -> Result<()> {
        if (savepoint.database, savepoint.transaction)
            != (self.session.database.resources.database_id, self.id)
        {
            let detail = format!("savepoint {} belongs to another transaction", savepoint.number);
            return Err(Error::foreign(detail));
        }
        if self.session.state.borrow_mut().rollback_to(savepoint.number) {
            return Ok(());
        }
        let number = savepoint.number;
        Err(Error::invalid(format!("savepoint {number} was taken back by a rollback to an earlier one")))
    }

    /// Commits: all writes become visible at once. The ticket tells when they are durable.
    ///
    /// Fails with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if another writer changed what the transaction
    /// depends on. After any error, nothing of the transaction is written.
    ///
    /// A transaction without writes never conflicts: it has seen one consistent state. Its ticket is durable at once. That
    /// does not mean that what it has read is durable; call [`Db::sync`](crate::Db::sync) for that.
    pub fn commit(self) -> Result<Ticket> {
        let committed = self.commit_now().inspect_err(|error| self.session.count_failure(error))?;
        self.session.database.resources.counters.transactions.commits.add(1);
        Ok(committed)
    }

    fn commit_now(&self) -> Result<Ticket> {
        let mut state = self.session.state.borrow_mut();
        if !state.has_writes() {
            self.session.database.check_open()?;
            return Ok(Ticket::of_nothing(state.snapshot.sequence()));
        }
        let path = self.session.database.write_path()?;
        // Whoever closed the database has not written anything that is in the way.
        path.check()?;
        let mut batch = state.batch();
        Ticket::new(path, conflicts::commit(path, &mut state, &mut batch)?)
    }

    /// Ends the transaction without writing anything, as a drop does.
    pub fn rollback(self) {}

    fn reading(&self) -> Reading {
        match self.session.options.isolation {
            Isolation::Serializable => Reading::Checked,
            Isolation::Snapshot => Reading::Unchecked,
        }
    }

    fn write(&self, keyspace: &Keyspace, kind: ValueKind, key: &[u8], stored: Slice) -> Result<()> {
        check_key(key)?;
        check_value(&stored)?;
        let key = Slice::copy_from(key);
        self.session.change(
            keyspace,
            || Lockable::Key(key.clone()),
            |writes| writes.write(key.clone(), kind, stored),
        )
    }
}

/// What is tracked may take this part of what the writes may take.
const TRACKED_PART: usize = 4;

impl<'t> IntoIterator for &'t Transaction {
    type Item = Result<(Slice, Slice)>;
    type IntoIter = TransactionIter<'t>;

    fn into_iter(self) -> TransactionIter<'t> {
        self.iter()
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("sequence", &self.sequence())
            .field("options", &self.session.options)
            .finish_non_exhaustive()
    }
}
