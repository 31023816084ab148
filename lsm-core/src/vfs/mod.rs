//! The seam to the file system.
//!
//! A database touches files only through [`Vfs`], so that tests can lose power at every operation, fill the disk
//! and damage bytes. [`PosixFs`] is the real one; `SimFs`, behind the feature `sim`, models what a disk keeps.
//!
//! # Contract
//!
//! - A file's bytes are durable after [`VfsFile::sync_data`]; its name after [`Vfs::sync_dir`] on its directory.
//!   Until then a power cut may keep or lose each write and each directory change independently.
//! - Everything that was written survives a crash of the process, durable or not, [`Window`]s included.
//! - Failures leave the file as it was, except that a failed write may have written a part, and a failed
//!   [`allocate`](VfsFile::allocate) may have extended the file by zeros.
//! - No call retries, except when a signal interrupted it: what a failure means is for the caller to decide.

mod mapped_window;
mod platform;
mod posix;
#[cfg(feature = "sim")]
mod sim;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use posix::PosixFs;
#[cfg(feature = "sim")]
pub use sim::{
    AllKept, AllLost, Choice, CrashImage, CrashImages, EntryChange, Fate, Fault, InjectedFault, Operation,
    OperationKind, Piece, PieceKind, Seeded, SimFs,
};

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
    /// where mapping is not to be had, or the file system does not promise that those blocks are the ones written
    /// to later; the caller then writes by [`VfsFile::write_at`].
    fn window(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn Window>>;

    /// Creates one directory; its parent must exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file. Open handles go on working.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Gives a file a second name in the same file system. Fails with `AlreadyExists` if it is taken.
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

/// Whether a call failed because too many files are open, in this process or in all: when some are closed, it may
/// succeed.
pub fn is_too_many_open_files(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| platform::TOO_MANY_OPEN_FILES.contains(&code))
}

/// What [`Vfs::metadata`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// An open file. All calls may come from several threads at once.
pub trait VfsFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 means the file ends there.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, extending the file as needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Reserves blocks for the first `bytes` bytes and extends the file to that length, so that writing there
    /// cannot run out of space. Where the file system cannot reserve, extends only.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the bytes, and the length needed to read them, durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Starts writing out a range of the file without waiting, so that a later sync has less to do. A hint.
    fn start_writeback(&self, offset: u64, bytes: u64);

    /// Says how the file will be read. A hint.
    fn advise(&self, access: Access);
}

/// How a file will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Here and there: read-ahead would waste the disk.
    Random,
    /// From front to end.
    Sequential,
}

/// A small file in memory that outlives the process: writing is a copy, and what was copied survives a crash of
/// the process, but not of the machine, until its bytes were also written elsewhere and synced.
///
/// One thread writes. Never a slice is given out, so that a simulator can model the file.
pub trait Window: Send {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether the window has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// If the range is out of bounds.
    fn write_at(&mut self, offset: usize, bytes: &[u8]);

    /// Stores `value`, little-endian, at `offset`, a multiple of 8, after everything written before: who finds
    /// the value after a crash of the process finds those bytes too.
    ///
    /// # Panics
    /// If the range is out of bounds or `offset` is not a multiple of 8.
    fn publish(&mut self, offset: usize, value: u64);

    /// Writes a range of the window to a file, as [`VfsFile::write_at`] does.
    ///
    /// # Panics
    /// If the range is out of bounds.
    fn write_to(&self, range: Range<usize>, file: &dyn VfsFile, offset: u64) -> io::Result<()>;
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
