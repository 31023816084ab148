//! The file system of the operating system.
//!
//! What differs between systems is in `platform/`, one file each; here is what the standard library levels.

#![expect(clippy::disallowed_methods, reason = "PosixFs is what everyone else must go through")]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::mapped_window::MappedWindow;
use super::{Access, LockGuard, Metadata, Vfs, VfsFile, Window, platform};

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

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // Some systems and network file systems grant a lock to the same process twice.
        let name = std::fs::canonicalize(path)?;
        if !LOCKED.lock().insert(name.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let guard = PosixLock { file, name };
        match guard.file.try_lock() {
            Ok(()) => Ok(Box::new(guard)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// `Unsupported` where the standard ways of the platform do not tell, Windows among them.
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        platform::free_bytes(path)
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
static LOCKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The lock of the operating system ends when the file is closed, so also when the process dies.
struct PosixLock {
    file: File,
    name: PathBuf,
}

impl LockGuard for PosixLock {}

impl Drop for PosixLock {
    fn drop(&mut self) {
        // The order matters: once the name is free, the lock of the operating system must be too.
        let _ = self.file.unlock();
        LOCKED.lock().remove(&self.name);
    }
}
