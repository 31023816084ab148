use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lsm_core::vfs::{LockMode, PosixFs, Vfs};

use super::format::Contents;
use super::objects::{Objects, numbers};
use super::store::BackupStore;
use crate::callbacks::caught;
use crate::error::{Error, Result};

/// Backups of one database in a store.
///
/// Each backup is a *generation*: a whole copy of the database as it was at one moment. It shares the files that did not
/// change with those before it, so a backup takes the time and space of what is new.
///
/// All that is copied, in either direction, is compared with its checksums. Whatever fails, the generations that were
/// there stay as they were; what an interrupted backup has stored is used by the next, or deleted by
/// [`prune`](Self::prune). See "Backups" in docs/GUIDE.md.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use lsm_engine::{Backup, Db, DirectoryStore};
///
/// let db = Db::open(dir.path().join("db"))?;
/// let backup = Backup::open(DirectoryStore::create(dir.path().join("backups"))?)?;
/// db.put("key", "of the first day")?;
/// let first = backup.create(&db)?;
/// db.put("key", "of the second day")?;
/// backup.create(&db)?;
/// assert_eq!(backup.list()?.generations.len(), 2);
/// assert!(backup.verify()?.damage.is_empty());
///
/// backup.restore(first.number, dir.path().join("restored"))?;
/// let restored = Db::open(dir.path().join("restored"))?;
/// assert_eq!(restored.get("key")?.unwrap(), "of the first day");
///
/// backup.prune(1)?; // keep the newest only
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Backup {
    pub(super) objects: Objects,
    pub(super) vfs: Arc<dyn Vfs>,
    on_progress: Option<Arc<OnProgress>>,
}

type OnProgress = dyn Fn(BackupProgress) + Send + Sync;

/// How far a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProgress {
    /// Bytes that were copied or read so far.
    pub bytes: u64,
    /// Bytes that will be, those included.
    pub bytes_total: u64,
}

/// A backup: a whole copy of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generation {
    /// Its number. Later backups have higher ones.
    pub number: u64,
    /// When it was made.
    pub created: SystemTime,
    /// The sequence number of the last write in it.
    pub sequence: u64,
    /// Number of its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were stored for it. It shares the rest with earlier backups.
    pub new_bytes: u64,
}

/// The generations of a store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Generations {
    /// Those that can be read, the oldest first.
    pub generations: Vec<Generation>,
    /// The numbers of the others, and what is wrong with them.
    pub damaged: Vec<(u64, Error)>,
}

impl Backup {
    /// Opens a store. Fails if it is damaged, or of a newer version.
    pub fn open(store: impl BackupStore + 'static) -> Result<Self> {
        let objects = Objects { store: Arc::new(store) };
        objects.database()?;
        Ok(Self { objects, vfs: Arc::new(PosixFs), on_progress: None })
    }

    /// Restores into this file system, instead of that of the operating system.
    #[must_use]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// Calls `on_progress` while backups are made, verified and restored, about once for each megabyte. A panic in it ends
    /// the call with an error.
    #[must_use]
    pub fn on_progress(mut self, on_progress: impl Fn(BackupProgress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(on_progress));
        self
    }

    /// The backups in the store.
    pub fn list(&self) -> Result<Generations> {
        let _lock = self.objects.lock(LockMode::Shared)?;
        let mut found = Generations::default();
        for number in numbers(&self.objects.list()?) {
            match self.objects.generation(number) {
                Ok(contents) => found.generations.push(Generation::of(&contents)),
                Err(error) => found.damaged.push((number, error)),
            }
        }
        Ok(found)
    }

    /// Counts up to `bytes_total`.
    pub(super) fn meter(&self, bytes_total: u64) -> Meter<'_> {
        let mut meter =
            Meter { on_progress: self.on_progress.as_deref(), progress: BackupProgress::default() };
        meter.progress.bytes_total = bytes_total;
        meter
    }
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").field("store", &self.objects.store.location()).finish_non_exhaustive()
    }
}

/// Tells how far a call is.
pub(super) struct Meter<'b> {
    on_progress: Option<&'b OnProgress>,
    progress: BackupProgress,
}

impl Meter<'_> {
    pub(super) fn add(&mut self, bytes: u64) -> Result<()> {
        self.progress.bytes += bytes;
        let Some(on_progress) = self.on_progress else { return Ok(()) };
        let progress = self.progress;
        caught("a callback of a backup", || {
            on_progress(progress);
            Ok(())
        })
    }
}

impl Generation {
    pub(super) fn of(contents: &Contents) -> Self {
        let objects = contents.objects();
        Self {
            number: contents.number,
            created: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_micros(contents.created_micros))
                .unwrap_or(SystemTime::UNIX_EPOCH),
            sequence: contents.sequence,
            files: objects.len() as u64,
            bytes: objects.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add),
            new_bytes: contents.new_bytes,
        }
    }
}
