use std::io;
use std::path::Path;
use std::sync::Arc;

use super::file::VfsFile;
use super::window::Window;

/// A file system.
pub trait Vfs: Send + Sync {
    /// Creates a file for reading and writing. Fails with `AlreadyExists` if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Opens a file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Maps a new file of exactly `bytes` zero bytes for writing, resident, its blocks written on disk so that a
    /// full disk cannot show up later. Fails with `AlreadyExists` if the name is taken and with `Unsupported`
    /// where mapping is not possible, or the file system does not promise that those blocks are the ones written
    /// to later; the caller then writes by [`VfsFile::write_at`].
    fn window(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn Window>>;

    /// Creates one directory; its parent must exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing what has the new name, or a directory, for which the new name must be free.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file. Open handles go on working.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory, which must be empty: `DirectoryNotEmpty` otherwise.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Gives a file a second name in the same file system; the name is durable after [`sync_dir`](Self::sync_dir) on
    /// its directory. Fails with `AlreadyExists` if it is taken, with `CrossesDevices` in another file system, and
    /// with several kinds where the file system has no such names; see [`link_or_copy`](super::link_or_copy).
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Names in a directory, sorted, without `.` and `..`. Names that are not UTF-8 are left out.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What a path is; `NotFound` if nothing.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes a lock on a file and never waits: `WouldBlock` if this or another process holds one that excludes it.
    /// Dropping the guard, or the end of the process, releases it. The file stays.
    ///
    /// An exclusive lock creates the file if need be. A shared one changes nothing and needs no right to write:
    /// `NotFound` if there is no file.
    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn LockGuard>>;

    /// Bytes that can still be written below `path`; `Unsupported` where the system does not tell.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Raises the limit on files that this process may have open at once as far as it is allowed to, and returns it.
    /// `None` where there is no limit, or the system does not tell.
    fn raise_open_files_limit(&self) -> Option<u64> {
        None
    }
}

/// What [`Vfs::metadata`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Whom a lock keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Everybody else.
    Exclusive,
    /// Those who want it for themselves.
    Shared,
}

/// Holds a lock until dropped; see [`Vfs::lock`].
pub trait LockGuard: Send + Sync {}
