use std::io::{self, ErrorKind as Io, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{LockGuard, LockMode, PosixFs, Vfs, VfsFile, try_link};

use super::store::{BackupStore, Put, StoredObject};
use crate::error::{Error, Result};

/// The lock file of a store. A directory without it is no store.
const LOCK: &str = "STORE";
/// Locked while an object gets its name, where the file system has no hard links.
const NAMING: &str = "NAMING";
/// What the names of files begin with that are no objects yet.
const UNFINISHED: &str = "unfinished-";
/// How many puts may run at once, those included that were interrupted since the last prune.
const UNFINISHED_MAX: u32 = 10_000;
/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// A store of backups in a directory, one file for each object. The directory may be on any file system, a network one
/// included, that several machines see as long as its locks work between them.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use lsm_engine::{Backup, DirectoryStore};
/// let store = DirectoryStore::create(dir.path().join("backups"))?;
/// assert!(Backup::open(store)?.list()?.generations.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DirectoryStore {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
}

impl DirectoryStore {
    /// Opens a store that exists. Fails with [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is none.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(Arc::new(PosixFs), directory)
    }

    /// Opens a store, and creates it first in a new or empty directory. The parent of the directory must exist.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self> {
        Self::create_on(Arc::new(PosixFs), directory)
    }

    /// Like [`open`](Self::open), in another file system.
    pub fn open_on(vfs: Arc<dyn Vfs>, directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        match vfs.metadata(&directory.join(LOCK)) {
            Ok(_) => Ok(Self { vfs, directory }),
            Err(error) if matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {
                let error = io::Error::new(Io::NotFound, "there is no store of backups");
                Err(Error::io("open", &directory, error))
            }
            Err(error) => Err(Error::io("open", &directory, error)),
        }
    }

    /// Like [`create`](Self::create), in another file system.
    pub fn create_on(vfs: Arc<dyn Vfs>, directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        match vfs.create_dir(&directory) {
            Err(error) if error.kind() != Io::AlreadyExists => {
                return Err(Error::io("create", &directory, error));
            }
            _ => {}
        }
        let names = vfs.read_dir(&directory).map_err(|error| Error::io("list", &directory, error))?;
        if !names.iter().any(|name| name == LOCK) {
            if let Some(name) = names.first() {
                return Err(Error::invalid(format!(
                    "{} holds no store of backups, but other files, such as {name:?}: give a new or an empty directory",
                    directory.display()
                )));
            }
            let lock = directory.join(LOCK);
            match vfs.create_new(&lock) {
                Err(error) if error.kind() != Io::AlreadyExists => {
                    return Err(Error::io("create", &lock, error));
                }
                _ => {}
            }
        }
        // Also of one that was there: whoever made it may have died before this.
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        for directory in [&*directory, parent.unwrap_or(Path::new("."))] {
            vfs.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))?;
        }
        Ok(Self { vfs, directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A new file that has no name of an object yet.
    fn create_unfinished(&self) -> io::Result<(PathBuf, Arc<dyn VfsFile>)> {
        for number in 0..UNFINISHED_MAX {
            let path = self.path(&format!("{UNFINISHED}{number}"));
            match self.vfs.create_new(&path) {
                Err(error) if error.kind() == Io::AlreadyExists => {}
                created => return created.map(|file| (path, file)),
            }
        }
        Err(io::Error::other("too many backups were interrupted: prune the store"))
    }

    /// Gives a whole and durable file the name of an object, durably.
    fn name(&self, unfinished: &Path, name: &str) -> io::Result<Put> {
        let path = self.path(name);
        match try_link(&*self.vfs, unfinished, &path) {
            Ok(true) => {}
            Err(error) if error.kind() == Io::AlreadyExists => return Ok(Put::AlreadyThere),
            Err(error) => return Err(error),
            Ok(false) => {
                // A rename would replace what another process has stored meanwhile.
                let _naming = self.vfs.lock(&self.path(NAMING), LockMode::Exclusive)?;
                match self.vfs.metadata(&path) {
                    Ok(_) => return Ok(Put::AlreadyThere),
                    Err(error) if error.kind() != Io::NotFound => return Err(error),
                    Err(_) => self.vfs.rename(unfinished, &path)?,
                }
            }
        }
        self.vfs.sync_dir(&self.directory)?;
        Ok(Put::Stored)
    }
}

/// Writes exactly `bytes` bytes, durably.
fn write(file: &dyn VfsFile, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
    let (mut buffer, mut at) = (vec![0; COPY_BYTES], 0);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                file.write_at(&buffer[..count], at)?;
                at += count as u64;
            }
            Err(error) if error.kind() == Io::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if at != bytes {
        return Err(io::Error::new(Io::InvalidInput, format!("the content has {at} bytes, not {bytes}")));
    }
    file.sync_data()
}

impl BackupStore for DirectoryStore {
    fn location(&self) -> String {
        self.directory.display().to_string()
    }

    fn put_if_absent(&self, name: &str, bytes: u64, content: &mut dyn Read) -> io::Result<Put> {
        let (path, file) = self.create_unfinished()?;
        let put = write(&*file, bytes, content).and_then(|()| self.name(&path, name));
        // What stays is removed by the next prune.
        let _ = self.vfs.remove_file(&path);
        put
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        let file = self.vfs.open_read(&self.path(name))?;
        let wanted = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; wanted.min(super::objects::GET_BYTES)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], range.start + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn list(&self) -> io::Result<Vec<StoredObject>> {
        let mut objects = Vec::new();
        for name in self.vfs.read_dir(&self.directory)? {
            if name == LOCK || name == NAMING || name.starts_with(UNFINISHED) {
                continue;
            }
            match self.vfs.metadata(&self.path(&name)) {
                Ok(found) if !found.is_dir => objects.push(StoredObject { name, bytes: found.len }),
                Ok(_) => {}
                Err(error) if error.kind() == Io::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(objects)
    }

    fn delete(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            match self.vfs.remove_file(&self.path(name)) {
                Err(error) if error.kind() != Io::NotFound => return Err(error),
                _ => {}
            }
        }
        self.vfs.sync_dir(&self.directory)
    }

    fn lock(&self, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        match self.vfs.lock(&self.path(LOCK), mode) {
            Err(error)
                if mode == LockMode::Shared
                    && matches!(error.kind(), Io::ReadOnlyFilesystem | Io::Unsupported) =>
            {
                Ok(Box::new(Unlocked))
            }
            locked => locked,
        }
    }

    fn clean_up(&self) -> io::Result<()> {
        for name in self.vfs.read_dir(&self.directory)? {
            if name.starts_with(UNFINISHED) {
                self.vfs.remove_file(&self.path(&name))?;
            }
        }
        Ok(())
    }
}

/// On a medium that nobody can write to.
struct Unlocked;

impl LockGuard for Unlocked {}
