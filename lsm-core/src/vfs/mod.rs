//! The file system, as a trait: all file access goes through it.
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

mod copy;
mod file;
mod file_system;
mod mapped_window;
mod platform;
mod posix;
#[cfg(feature = "sim")]
mod sim;
mod window;

pub use copy::{Placed, copy_file, link_or_copy, try_link};
pub use file::{Access, VfsFile};
pub use file_system::{LockGuard, LockMode, Metadata, Vfs};
pub use posix::PosixFs;
#[cfg(feature = "sim")]
pub use sim::{
    AllKept, AllLost, Choice, CrashImage, CrashImages, EntryChange, Fate, Fault, InjectedFault, Operation,
    OperationKind, Piece, PieceKind, Seeded, SimFs,
};
pub use window::Window;

/// Whether a call failed because too many files are open, in this process or in all: when some are closed, it may
/// succeed.
pub fn is_too_many_open_files(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| platform::TOO_MANY_OPEN_FILES.contains(&code))
}
