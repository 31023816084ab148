mod default_keyspace;

use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use lsm_core::Slice;
use lsm_wal::Durability;

use crate::batch::WriteBatch;
use crate::callbacks::caught;
use crate::change_position::ChangePosition;
use crate::checkpoint::{self, Checkpoint, CheckpointOptions};
use crate::database::{Closer, Database, DeletedFiles, Events};
use crate::error::{Error, Result};
use crate::feed::{self, ChangeSlot, Changes};
use crate::health::Health;
use crate::keyspace::Keyspace;
use crate::metrics::Metrics;
use crate::options::{KeyspaceOptions, Options};
use crate::pins::Pin;
use crate::read::Iter;
use crate::recovery::{self, Recovery};
use crate::snapshot::Snapshot;
use crate::ticket::Ticket;
use crate::transaction::{Transaction, TransactionOptions, transact};
use crate::waits::Wait;

/// An embedded, ordered, durable map from bytes to bytes.
///
/// A handle is cheap to clone and can be sent to other threads. All handles may read and write at the same time. The
/// database closes when the last [`Db`], [`Keyspace`] and [`Snapshot`] is dropped; [`close`](Db::close) closes it
/// earlier and returns errors.
///
/// A write is buffered by default: it survives a crash of the process, and a power cut about a second later. With
/// [`Durability::Sync`] it survives a power cut once the call returns.
///
/// A key has at most 65,535 bytes. A write or batch takes at most a quarter of [`Options::memory`], and at most 1 GiB;
/// a larger one fails with [`Error::TooLarge`]. A write waits while compactions are far behind or memory is used up
/// (a write stall).
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
    /// Opens the database in `path` with the default [`Options`]. Creates it if it does not exist.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    pub(crate) fn open_with(path: &Path, options: Options) -> Result<Self> {
        options.check()?;
        let (database, recovery) = caught("the opening of the database", || recovery::open(path, options))?;
        let db = Self::of(database, recovery)?;
        db.database.start();
        Ok(db)
    }

    /// The handle of a database whose background work has not started.
    pub(crate) fn of(database: Arc<Database>, recovery: Recovery) -> Result<Self> {
        let tree =
            database.trees.read().get(0).cloned().ok_or_else(|| Error::invalid("no default keyspace"))?;
        let closer = Arc::new(Closer::new(Arc::clone(&database)));
        let default = Keyspace::new(Arc::clone(&database), tree, Arc::clone(&closer));
        Ok(Self { database, default, closer, recovery: Arc::new(recovery) })
    }

    /// Writes a batch atomically, across keyspaces: its operations become visible and durable together.
    pub fn write(&self, batch: impl Into<WriteBatch>) -> Result<()> {
        self.write_with(batch, Durability::Buffered)
    }

    /// Writes a batch. It has the given durability when this returns.
    pub fn write_with(&self, batch: impl Into<WriteBatch>, durability: Durability) -> Result<()> {
        let mut batch = batch.into();
        self.database.write_path()?.write_batch(batch.finish()?, durability)?;
        Ok(())
    }

    /// Writes a batch and does not wait for the disk: readers see it at once, and the ticket tells when it is durable.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let mut batch = lsm_engine::WriteBatch::new();
    /// batch.put("a", "1").put("b", "2");
    /// let ticket = db.submit(batch)?;
    /// assert_eq!(db.get("a")?.unwrap(), b"1");
    /// ticket.wait()?;
    /// assert!(ticket.is_durable());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit(&self, batch: impl Into<WriteBatch>) -> Result<Ticket> {
        let (mut batch, path) = (batch.into(), self.database.write_path()?);
        Ticket::new(path, path.write_batch(batch.finish()?, Durability::Buffered)?)
    }

    /// A consistent view of all keyspaces as they are now.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.database.check_open()?;
        Ok(Snapshot::new(Arc::clone(&self.database), self.default.tree(), Arc::clone(&self.closer)))
    }

    /// Begins a serializable transaction without locks.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// db.put("a", "1")?;
    /// let transaction = db.transaction()?;
    /// if let Some(value) = transaction.get("a")? {
    ///     transaction.put("b", value)?;
    ///     transaction.delete("a")?;
    /// }
    /// transaction.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn transaction(&self) -> Result<Transaction> {
        self.transaction_with(TransactionOptions::default())
    }

    /// Begins a transaction with these options.
    pub fn transaction_with(&self, options: TransactionOptions) -> Result<Transaction> {
        Ok(Transaction::new(&self.database, &self.default, self.snapshot()?, options))
    }

    /// Runs `work` in a serializable transaction and commits it. After a conflict it does so again, after a short random
    /// pause, up to 64 times; then it returns the error. So `work` may run several times, and should do nothing that a
    /// rollback does not take back.
    ///
    /// An error of `work` rolls the transaction back and is returned, unless it is a conflict. To give up without an
    /// error, take back the writes with [`Transaction::rollback_to`]. A panic of `work` rolls it back, too, releases its
    /// locks and its snapshot, and unwinds to the caller. The commit is not durable yet when this returns:
    /// call [`sync`](Self::sync), or use [`transaction`](Self::transaction), whose commit returns a [`Ticket`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// db.put("tickets left", "3")?;
    /// let left = db.transact(|transaction| {
    ///     let left = transaction.get("tickets left")?.and_then(|left| String::from_utf8_lossy(&left).parse().ok());
    ///     let left = left.unwrap_or(0_u32).saturating_sub(1);
    ///     transaction.put("tickets left", left.to_string())?;
    ///     Ok(left)
    /// })?;
    /// assert_eq!(left, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn transact<T>(&self, work: impl FnMut(&Transaction) -> Result<T>) -> Result<T> {
        self.transact_with(TransactionOptions::default(), work)
    }

    /// Like [`transact`](Self::transact), with these options.
    pub fn transact_with<T>(
        &self,
        options: TransactionOptions,
        work: impl FnMut(&Transaction) -> Result<T>,
    ) -> Result<T> {
        transact(&self.database.resources, || self.transaction_with(options), work)
    }

    /// Opens the keyspace with this name, and creates it if it does not exist. Each keyspace has its own options; all
    /// share the log and the memory of the database, and a batch may write to several.
    ///
    /// The database keeps the options; what is not given is as stored. `options` are ignored if the keyspace was opened
    /// before in this process. A name has 1 to 255 bytes. Fails with [`Error::OptionsMismatch`] if the options give another
    /// compaction policy or prefix extractor than is stored; see [`KeyspaceOptions::change_compaction`] and
    /// [`KeyspaceOptions::change_prefix_extractor`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let users = db.keyspace("users", lsm_engine::KeyspaceOptions::new())?;
    /// users.put("1", "Ada")?;
    /// assert_eq!(db.get("1")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "callers write the options in place")]
    pub fn keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let tree = caught("the opening of a keyspace", || self.database.open_keyspace(name, &options))?;
        Ok(Keyspace::new(Arc::clone(&self.database), tree, Arc::clone(&self.closer)))
    }

    /// The keyspace with this name, if it exists, with its current options.
    pub fn existing_keyspace(&self, name: &str) -> Result<Option<Keyspace>> {
        self.database.check_open()?;
        let tree = self.database.tree_named(name);
        Ok(tree.map(|tree| Keyspace::new(Arc::clone(&self.database), tree, Arc::clone(&self.closer))))
    }

    /// The default keyspace. The calls of [`Db`] read and write it. Its name is "default".
    pub fn default_keyspace(&self) -> Keyspace {
        self.default.clone()
    }

    /// The names of all keyspaces, sorted. The default one is included.
    pub fn keyspaces(&self) -> Vec<String> {
        self.database.trees.read().names().map(str::to_owned).collect()
    }

    /// Deletes a keyspace and all its data, durably. Its handles fail from then on; open iterators keep the data that
    /// they read. The default keyspace cannot be dropped, only [cleared](Keyspace::clear).
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.database.drop_keyspace(name)
    }

    /// Flushes the memtables of all keyspaces to tables, and waits until that is done.
    pub fn flush(&self) -> Result<()> {
        self.database.flush_all()
    }

    /// Makes a checkpoint: a second database in the new directory `target`, with all writes that have returned by now, of
    /// all keyspaces. Writes go on meanwhile.
    ///
    /// Tables are shared by hard links, so it takes milliseconds and hardly any space. It is durable when this returns; a
    /// crash or an error leaves nothing, or all of it. The checkpoint can be opened for writing: it is a branch, and what
    /// is written to one database does not show in the other.
    ///
    /// Works on a database that was opened read-only, too. Fails with
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) if there is something of the name `target`, and if
    /// its parent does not exist. See "Checkpoints" in docs/GUIDE.md.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, target) = (dir.path().join("db"), dir.path().join("copy"));
    /// # let db = lsm_engine::Db::open(path)?;
    /// db.put("key", "then")?;
    /// db.checkpoint(&target)?;
    /// db.put("key", "now")?;
    /// let copy = lsm_engine::Db::open(&target)?;
    /// assert_eq!(copy.get("key")?.unwrap(), "then");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint(&self, target: impl AsRef<Path>) -> Result<Checkpoint> {
        self.checkpoint_with(target, &CheckpointOptions::default())
    }

    /// Like [`checkpoint`](Self::checkpoint), with these options.
    pub fn checkpoint_with(
        &self,
        target: impl AsRef<Path>,
        options: &CheckpointOptions,
    ) -> Result<Checkpoint> {
        checkpoint::make(&self.database, target.as_ref(), options)
    }

    /// Syncs the log: all earlier writes survive a power cut once this returns.
    pub fn sync(&self) -> Result<()> {
        self.database.sync_log()
    }

    /// Compacts a range of the default keyspace down to the last level, and waits until that is done (a manual
    /// compaction). Afterwards the disk holds no deleted or overwritten data of the range, except what a snapshot sees, and
    /// what only a snapshot held that ended before: tables of the last level without tombstones are left alone, unless
    /// values in them have expired or the keyspace has a compaction filter.
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.default.compact_range(range)
    }

    /// Deletes a range of the default keyspace by removing tables that lie in it completely; see
    /// [`Keyspace::delete_files_in_range`].
    pub fn delete_files_in_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<DeletedFiles> {
        self.default.delete_files_in_range(range)
    }

    /// Waits until there is nothing to flush or compact.
    pub fn wait_for_compactions(&self) -> Result<()> {
        self.database.wait_for_compactions()
    }

    /// Changes options of the default keyspace while it is open; see
    /// [`Keyspace::set_options`](crate::Keyspace::set_options). The rate of background work has
    /// [its own call](Self::set_background_bytes_per_second).
    pub fn set_options(&self, options: KeyspaceOptions) -> Result<()> {
        self.default.set_options(options)
    }

    /// Pauses background work, for example while something else needs the disk: no flush or compaction begins, those that
    /// run stop within milliseconds, and no file is deleted. Reads, writes and syncs of the log go on. A second call
    /// changes nothing; one [`resume_background_work`](Self::resume_background_work) ends the pause.
    ///
    /// When memory for memtables is used up, writers wait until the pause ends; [`health`](Self::health) and
    /// [`waits`](Self::waits) then name [`WaitReason::MemoryWhilePaused`](crate::WaitReason). Calls that wait for flushes
    /// or compactions wait, too. [`close`](Self::close) and dropping the last handle end the pause.
    pub fn pause_background_work(&self) -> Result<()> {
        self.database.pause_background_work()
    }

    /// Resumes background work after [`pause_background_work`](Self::pause_background_work). Does nothing if it is not
    /// paused.
    pub fn resume_background_work(&self) -> Result<()> {
        self.database.resume_background_work()
    }

    /// Limits what deep merges write, in bytes per second of all of them together; `None`, as after opening, for no limit.
    /// Deep merges are those that take no table of level 0. Flushes and merges of level 0 are never limited.
    ///
    /// The limit does not count while a keyspace has more than half of the debt or of the runs in level 0 at which its
    /// writers are slowed. So it smooths the use of the disk, but does not make writers wait. A limit of 0 is refused.
    pub fn set_background_bytes_per_second(&self, rate: Option<u64>) -> Result<()> {
        self.database.write_side()?.write.status.control.set_bytes_per_second(rate)
    }

    /// Cancels all manual compactions that run now, in all keyspaces: [`compact_range`](Self::compact_range) returns
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) within milliseconds. No data is lost: what a cancelled step has
    /// written is discarded, and tables that earlier steps compacted stay.
    pub fn cancel_manual_compactions(&self) -> Result<()> {
        self.database.cancel_manual_compactions()
    }

    /// Figures about the current state of the database.
    pub fn metrics(&self) -> Metrics {
        self.database.metrics()
    }

    /// The events of the database: flushes, compactions, stalls of writers, files, log segments and errors. The reader
    /// begins with the oldest of the last 512 events, and then waits for new ones. Any number of readers may read.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// use lsm_engine::EventKind;
    ///
    /// let mut events = db.events();
    /// db.put("key", "value")?;
    /// db.flush()?;
    /// let is_end = |kind: &EventKind| matches!(kind, EventKind::FlushEnd { .. });
    /// let ended = events.find(|event| is_end(&event.kind)).unwrap();
    /// println!("{:?}: {}", ended.time(), ended.kind);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn events(&self) -> Events {
        self.database.events()
    }

    /// What a write would meet now: whether it goes through, is slowed, waits, or fails, and why. It concerns the
    /// database as a whole; [`Keyspace::health`] tells it for one keyspace.
    ///
    /// A write that waits for a sync or for the commit lock makes the answer [`Health::Waiting`] only after a tenth of a
    /// second. This takes no lock that a write may hold for long, so it answers while writes wait.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// use lsm_engine::Health;
    ///
    /// match db.health() {
    ///     Health::Writing => {}
    ///     Health::Throttled { why, bytes_per_second, .. } => println!("{bytes_per_second} bytes/s: {why}"),
    ///     Health::Waiting { why, since } => println!("{why} since {since:?}; ended by: {}", why.ended_by()),
    ///     Health::ReadOnly(error) => println!("no writes: {error}"),
    ///     other => println!("{other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn health(&self) -> Health {
        self.database.health(&self.database.all_trees())
    }

    /// The changes of the database from a position on: every durable batch, in order, each once.
    ///
    /// The log must still have them. It goes back as far as recovery needs it, and as far as a
    /// [slot](Self::change_slot) keeps it; after a reopen without a slot only what comes from then on is there. Otherwise
    /// this, or a later read, fails with [`ErrorKind::HistoryGone`](crate::ErrorKind::HistoryGone). It fails with
    /// [`ErrorKind::HistoryDiverged`](crate::ErrorKind::HistoryDiverged) if a power cut took writes before `from` from the
    /// database, and with [`ErrorKind::ForeignPosition`](crate::ErrorKind::ForeignPosition) if the position is one of another
    /// database or lies in the future.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// use lsm_engine::ChangeKind;
    ///
    /// db.put("before", "1")?;
    /// let snapshot = db.snapshot()?;
    /// db.put("after", "2")?;
    /// db.sync()?; // only what is durable is told
    ///
    /// let mut changes = db.changes(&snapshot.change_position()?)?;
    /// let batch = changes.try_next()?.expect("a batch");
    /// assert_eq!(batch.changes[0].kind, ChangeKind::Put { key: "after".into(), value: "2".into() });
    /// assert!(changes.try_next()?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn changes(&self, from: &ChangePosition) -> Result<Changes> {
        Changes::new(&self.database, from)
    }

    /// The place in the change feed after all writes that are visible now.
    pub fn change_position(&self) -> Result<ChangePosition> {
        feed::current(&self.database)
    }

    /// The earliest place in the change feed from which on the log has all changes.
    pub fn oldest_change_position(&self) -> Result<ChangePosition> {
        feed::oldest(&self.database)
    }

    /// Opens a change slot, or makes one that keeps the history from now on.
    ///
    /// It keeps the log for a reader of [changes](Self::changes) that may be away, also while the database is closed, up to
    /// `bytes_max` bytes that the database itself does not need. What is over that is not kept: the slot
    /// [is lost](ChangeSlot::is_lost), reads fail with [`ErrorKind::HistoryGone`](crate::ErrorKind::HistoryGone), and an event
    /// and [`Metrics::log_pins_lost`](crate::Metrics::log_pins_lost) tell. The limit of an existing slot is changed to
    /// `bytes_max`. While there are slots, opening the database keeps the log, and each flush syncs it.
    pub fn change_slot(&self, name: &str, bytes_max: u64) -> Result<ChangeSlot> {
        feed::change_slot(&self.database, name, bytes_max)
    }

    /// Drops a change slot: its history is not kept any more.
    pub fn drop_change_slot(&self, name: &str) -> Result<()> {
        feed::drop_change_slot(&self.database, name)
    }

    /// The change slots, by name. A database that is open read-only tells of none.
    pub fn change_slots(&self) -> Vec<ChangeSlot> {
        feed::change_slots(&self.database)
    }

    /// Everything that a write up to this sequence number deleted or overwrote, in keyspaces with
    /// [`KeyspaceOptions::purge_within`], is in no file of the database any more: no table, no blob file, no part of the log, no manifest.
    /// 0 if nothing was purged yet. [`Metrics::visible_sequence`] is the number of the last write.
    ///
    /// It does not grow while something holds old data: a snapshot, an iterator that was made before, a checkpoint that is
    /// being made, or who keeps the log ([`pins`](Self::pins) lists them); a disk or background work that fails
    /// ([`metrics`](Self::metrics) tells). Copies of the database and what the disk itself keeps of removed files are not
    /// covered.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::time::Duration;
    /// use lsm_engine::{Db, KeyspaceOptions};
    ///
    /// let db = Db::open(dir.path())?;
    /// let users = db.keyspace("users", KeyspaceOptions::new().purge_within(Duration::from_secs(3600)))?;
    /// users.put("ada", "secret")?;
    /// users.delete("ada")?;
    /// let deleted = db.metrics().visible_sequence;
    /// // Within an hour this is true, whether anything is written or not.
    /// let is_gone = db.purged_through() >= deleted;
    /// # assert!(!is_gone || deleted > 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn purged_through(&self) -> u64 {
        self.database.visibility.purged()
    }

    /// What keeps old data in memory and on the disk, the oldest first: snapshots, transactions, and iterators over a
    /// state of their keyspace that is out of date. An iterator over the present state keeps nothing and is not listed.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let db = lsm_engine::Db::open(dir.path())?;
    /// let report = db.snapshot()?.labeled("nightly report");
    /// for pin in db.pins() {
    ///     println!("{:?} {:?}: {:?} old", pin.kind, pin.label, pin.age);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pins(&self) -> Vec<Pin> {
        self.database.pins()
    }

    /// The calls that wait now, on any thread, the longest waiting one first: what each waits for, since when, and, by
    /// [`WaitReason::ended_by`](crate::WaitReason::ended_by), what ends the wait. Waits of less than a millisecond for
    /// the commit lock are left out.
    pub fn waits(&self) -> Vec<Wait> {
        self.database.resources.waits.list()
    }

    /// What recovery found in the log when this database was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The directory of the database.
    pub fn path(&self) -> &Path {
        &self.database.resources.directory
    }

    /// Flushes, waits for background work, syncs, and marks the database as cleanly closed. Other handles fail from then
    /// on. Open iterators stay readable until the database is opened again, since opening may remove the files that they
    /// read. A second call waits for the first and returns its result.
    pub fn close(self) -> Result<()> {
        self.database.close()
    }
}

impl Options {
    /// Opens the database in `path`. Creates it if it does not exist, unless
    /// [`create_if_missing`](Self::create_if_missing) is false.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(path.as_ref(), self)
    }
}

/// `for entry in &db` iterates over all entries.
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
