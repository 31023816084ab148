//! The file system of the operating system.
//!
//! What differs between systems is in `platform/`, one file each; here is what the standard library levels.

#![expect(clippy::disallowed_methods, reason = "PosixFs is what everyone else must go through")]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::file::{Access, VfsFile};
use super::file_system::{LockGuard, LockMode, Metadata, Vfs};
use super::mapped_window::MappedWindow;
use super::platform;
use super::window::Window;

/// The file system of the operating system, on any platform.
///
/// Calls interrupted by a signal are repeated; nothing else is. Off Unix some promises are weaker, and the
/// functions that make them say so: [`Vfs::sync_dir`] and [`Vfs::free_bytes`].
///
/// ```
/// use lsm_core::vfs::{PosixFs, Vfs};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("greeting");
/// let file = PosixFs.create_new(&path)?;
/// file.write_at(b"hello", 0)?;
/// file.sync_data()?;
/// PosixFs.sync_dir(directory.path())?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PosixFs;

impl Vfs for PosixFs {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(PosixFile(create_new(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = File::open(path)?;
        // Unix opens directories for reading and fails at the first read; fail here, as for writing.
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(PosixFile(file)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(PosixFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn window(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn Window>> {
        let file = create_new(path)?;
        match MappedWindow::new(&file, bytes) {
            Ok(window) => Ok(Box::new(window)),
            Err(error) => {
                // The caller falls back to a plain file and may want the name for it.
                drop(file);
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = std::fs::metadata(path)?;
        let is_dir = metadata.is_dir();
        Ok(Metadata { len: if is_dir { 0 } else { metadata.len() }, is_dir })
    }

    /// Does nothing but look whether the directory is there on systems that journal names and offer no such
    /// call, Windows among them.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        platform::sync_dir(path)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        let mut held = HELD.lock();
        let file = match mode {
            LockMode::Exclusive => {
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?
            }
            LockMode::Shared => File::open(path)?,
        };
        let name = std::fs::canonicalize(path)?;
        match held.get_mut(&name) {
            Some(lock) if mode == LockMode::Shared && lock.readers > 0 => lock.readers += 1,
            Some(_) => return Err(io::ErrorKind::WouldBlock.into()),
            None => {
                let (locked, readers) = match mode {
                    LockMode::Exclusive => (file.try_lock(), 0),
                    LockMode::Shared => (file.try_lock_shared(), 1),
                };
                locked.map_err(|error| match error {
                    TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
                    TryLockError::Error(error) => error,
                })?;
                held.insert(name.clone(), HeldLock { file, readers });
            }
        }
        Ok(Box::new(PosixLock { name }))
    }

    /// `Unsupported` where the standard ways of the platform do not tell, Windows among them.
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        platform::free_bytes(path)
    }

    /// The soft limit is raised to the hard one, or to 524,288 if that is higher, for the whole process.
    fn raise_open_files_limit(&self) -> Option<u64> {
        platform::raise_open_files_limit()
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

struct PosixFile(File);

impl VfsFile for PosixFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match platform::read_at(&self.0, buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match platform::write_at(&self.0, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if bytes == 0 || platform::allocate(&self.0, bytes)? || self.len()? >= bytes {
            return Ok(());
        }
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self, offset: u64, bytes: u64) {
        platform::start_writeback(&self.0, offset, bytes);
    }

    fn advise(&self, access: Access) {
        platform::advise(&self.0, access);
    }
}

/// Files that this process holds locks on.
/// Some systems and network file systems grant an exclusive lock to the same process twice, or release all locks of
/// a process with the first of them: so one is taken a file.
static HELD: Mutex<BTreeMap<PathBuf, HeldLock>> = Mutex::new(BTreeMap::new());

/// The lock of the operating system ends when the file is closed, so also when the process dies.
struct HeldLock {
    file: File,
    /// Guards that share it; 0 if it is exclusive.
    readers: usize,
}

struct PosixLock {
    name: PathBuf,
}

impl LockGuard for PosixLock {}

impl Drop for PosixLock {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        let Some(lock) = held.get_mut(&self.name) else { return };
        lock.readers = lock.readers.saturating_sub(1);
        if lock.readers == 0 {
            // A handle that a child process inherited must not keep it.
            let _ = lock.file.unlock();
            held.remove(&self.name);
        }
    }
}
