use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use lsm_core::{SequenceNumber, Slice};
use parking_lot::{Mutex, RwLock};

use super::catch_up::{Following, Progress};
use crate::callbacks::caught;
use crate::db::Db;
use crate::error::Result;
use crate::keyspace::Keyspace;
use crate::options::Options;
use crate::read::{DbCursor, Iter};
use crate::snapshot::Snapshot;

/// Reads a database that another process has open for writing, its owner. Any number of threads may read and catch up; a
/// database may have 32 followers at a time.
///
/// A follower shows the state of the database at its last [`catch_up`](Self::catch_up): all that the owner had
/// acknowledged before that call, in the owner's order, batches whole. Durable or not: a crash of the owner loses nothing of
/// it, and a power cut ends the follower, too. It never goes back.
///
/// It writes nothing but its lease, a small file `FOLLOWER-NN` in the directory. As long as it lives, the owner removes no
/// file that it reads, so a follower that is not caught up keeps old data on the disk, as an old snapshot does. If its
/// process is stopped for longer than [`Options::follower_lease`], it falls behind: calls fail with
/// [`ErrorKind::FellBehind`](crate::ErrorKind::FellBehind), until [`reopen`](Self::reopen). See "Followers" in docs/GUIDE.md.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use lsm_engine::{Db, Follower};
///
/// let db = Db::open(dir.path())?; // usually in another process
/// db.put("a", "1")?;
/// let follower = Follower::open(dir.path())?;
/// assert_eq!(follower.get("a")?.unwrap(), b"1");
///
/// db.put("a", "2")?;
/// assert_eq!(follower.get("a")?.unwrap(), b"1");
/// let progress = follower.catch_up()?;
/// assert_eq!(progress.position.sequence(), db.snapshot()?.sequence());
/// assert_eq!(follower.get("a")?.unwrap(), b"2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Follower {
    directory: Arc<Path>,
    options: Options,
    following: Mutex<Following>,
    /// What readers see, and how far that is.
    shown: RwLock<(Db, Progress)>,
}

impl Follower {
    /// Follows the database in `path` with the default [`Options`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::new())
    }

    /// Follows the database in `path`. Of the options those count that concern reading: memory and cache, open files, file
    /// system and environment, statistics, [`follower_lease`](Options::follower_lease), and filter policy, prefix extractor
    /// and merge operator of the default keyspace.
    ///
    /// The memory has to hold what the owner has not flushed. Fails with
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no database, and with
    /// [`ErrorKind::NoLease`](crate::ErrorKind::NoLease) if the follower cannot write its lease or there are 32 others.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory: Arc<Path> = path.as_ref().into();
        let following = begin(&directory, &options)?;
        let shown = RwLock::new(following.shown()?);
        Ok(Self { directory, options, following: Mutex::new(following), shown })
    }

    /// Reads what the owner has written since the last call, and shows it. When this returns, reads see all that was
    /// acknowledged before the call, unless [`Progress::lag`] is above 0. Costs little if there is nothing new. After an error
    /// reads see what they saw before.
    ///
    /// Snapshots, iterators and handles that were taken before keep their state.
    pub fn catch_up(&self) -> Result<Progress> {
        let mut following = self.following.lock();
        let progress = caught("catching up", || following.catch_up())?;
        self.take_over(&following)?;
        Ok(progress)
    }

    /// Begins anew with another lease, after [`ErrorKind::FellBehind`](crate::ErrorKind::FellBehind), and catches up.
    /// Snapshots and iterators that were taken before may find that files are gone.
    pub fn reopen(&self) -> Result<Progress> {
        let mut following = self.following.lock();
        *following = begin(&self.directory, &self.options)?;
        self.take_over(&following)?;
        Ok(self.progress())
    }

    fn take_over(&self, following: &Following) -> Result<()> {
        let shown = following.shown()?;
        let before = std::mem::replace(&mut *self.shown.write(), shown);
        drop(before);
        Ok(())
    }

    /// How far it is, without looking for more.
    pub fn progress(&self) -> Progress {
        self.shown.read().1
    }

    /// Fails with [`ErrorKind::FellBehind`](crate::ErrorKind::FellBehind) if the follower has lost its lease, as far as it
    /// can know without looking.
    pub fn check(&self) -> Result<()> {
        self.following.lock().lease().check()
    }

    /// A read-only handle with all calls that read. It shows what the follower shows now, or later for as long as the
    /// owner neither flushes nor compacts: take another one after each [`catch_up`](Self::catch_up), and a
    /// [`snapshot`](Self::snapshot) for a state that stands still. Writes fail with
    /// [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly).
    pub fn db(&self) -> Db {
        self.shown.read().0.clone()
    }

    /// A consistent view of all keyspaces, as of the last [`catch_up`](Self::catch_up). Use it with keyspaces of
    /// [`db`](Self::db) that were taken after the same call.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.db().snapshot()
    }

    /// The sequence number of the last write that it shows.
    pub fn sequence(&self) -> SequenceNumber {
        self.progress().position.sequence()
    }

    /// The keyspace with this name, if it exists. As [`db`](Self::db), it shows one state.
    pub fn keyspace(&self, name: &str) -> Result<Option<Keyspace>> {
        self.db().existing_keyspace(name)
    }

    /// The names of all keyspaces, sorted.
    pub fn keyspaces(&self) -> Vec<String> {
        self.db().keyspaces()
    }

    /// The value of `key` in the default keyspace.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.db().get(key)
    }

    /// The values of several keys, in the order of the keys, from one consistent state.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Slice>>> {
        self.db().multi_get(keys)
    }

    /// Iterates over the keys and values of a range of the default keyspace.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        self.db().range(range)
    }

    /// Iterates over the keys of the default keyspace that start with `prefix`, and their values.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.db().prefix(prefix)
    }

    /// Iterates over all keys and values of the default keyspace.
    pub fn iter(&self) -> Iter {
        self.db().iter()
    }

    /// Counts the keys of a range of the default keyspace.
    pub fn count<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.db().count(range)
    }

    /// A cursor over the default keyspace.
    pub fn cursor(&self) -> Result<DbCursor> {
        self.db().cursor()
    }

    /// The directory of the database.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

/// Claims a lease and catches up for the first time.
fn begin(directory: &Path, options: &Options) -> Result<Following> {
    caught("the opening of a follower", || {
        let mut following = Following::open(directory, options)?;
        following.catch_up()?;
        Ok(following)
    })
}

impl IntoIterator for &Follower {
    type Item = Result<(Slice, Slice)>;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("directory", &self.directory).finish_non_exhaustive()
    }
}
