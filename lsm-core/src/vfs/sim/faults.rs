//! Operations, and the ways to make them fail.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a call to the file system does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OperationKind {
    /// [`Vfs::create_new`](crate::vfs::Vfs::create_new).
    Create,
    /// [`Vfs::open_read`](crate::vfs::Vfs::open_read) and [`Vfs::open_write`](crate::vfs::Vfs::open_write).
    Open,
    /// [`VfsFile::read_at`](crate::vfs::VfsFile::read_at).
    Read,
    /// [`VfsFile::write_at`](crate::vfs::VfsFile::write_at).
    Write,
    /// [`VfsFile::set_len`](crate::vfs::VfsFile::set_len).
    SetLen,
    /// [`VfsFile::allocate`](crate::vfs::VfsFile::allocate).
    Allocate,
    /// [`VfsFile::sync_data`](crate::vfs::VfsFile::sync_data).
    Sync,
    /// [`Vfs::sync_dir`](crate::vfs::Vfs::sync_dir).
    SyncDir,
    /// [`Vfs::window`](crate::vfs::Vfs::window).
    CreateWindow,
    /// Both calls that write to a [`Window`](crate::vfs::Window). They cannot fail; faults pass them by.
    WriteWindow,
    /// [`Vfs::create_dir`](crate::vfs::Vfs::create_dir).
    CreateDir,
    /// [`Vfs::rename`](crate::vfs::Vfs::rename).
    Rename,
    /// [`Vfs::remove_file`](crate::vfs::Vfs::remove_file).
    Remove,
    /// [`Vfs::remove_dir`](crate::vfs::Vfs::remove_dir).
    RemoveDir,
    /// [`Vfs::hard_link`](crate::vfs::Vfs::hard_link).
    Link,
    /// [`Vfs::lock`](crate::vfs::Vfs::lock), which may create a file.
    Lock,
    /// [`Vfs::read_dir`](crate::vfs::Vfs::read_dir).
    ReadDir,
    /// [`Vfs::metadata`](crate::vfs::Vfs::metadata), [`VfsFile::len`](crate::vfs::VfsFile::len) and
    /// [`Vfs::free_bytes`](crate::vfs::Vfs::free_bytes).
    Metadata,
}

impl OperationKind {
    /// Whether the call can change what is on the disk or in the page cache.
    pub const fn changes_state(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::ReadDir | Self::Metadata)
    }
}

/// A call to the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// What it does.
    pub kind: OperationKind,
    /// To which path; for an open file, the one it was opened by.
    pub path: std::path::PathBuf,
    /// Where in the file, or the length to be set.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.kind, self.path.display())?;
        match self.kind {
            OperationKind::Read | OperationKind::Write | OperationKind::WriteWindow => {
                write!(f, ", {} bytes at {}", self.bytes, self.offset)
            }
            OperationKind::SetLen | OperationKind::Allocate | OperationKind::CreateWindow => {
                write!(f, ", {} bytes", self.bytes)
            }
            _ => Ok(()),
        }
    }
}

/// A failure to come.
///
/// ```
/// use lsm_core::vfs::{Fault, OperationKind, SimFs, Vfs};
/// use std::{io::ErrorKind, path::Path};
///
/// let fs = SimFs::new();
/// let fault = fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other).skip(1).named(".wal"));
/// let file = fs.create_new(Path::new("1.wal"))?;
/// file.sync_data()?;
/// assert!(file.sync_data().is_err());
/// file.sync_data()?;
/// assert_eq!(fault.fired(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    target: Target,
    error: io::ErrorKind,
    skip: u64,
    sticky: bool,
    prefix: String,
    suffix: String,
    written: u64,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Operation(u64),
    Kind(OperationKind),
}

impl Fault {
    /// Lets the state-changing operation with this number, as [`SimFs::operations`](super::SimFs::operations)
    /// counts them, fail with `error`.
    pub fn at_operation(number: u64, error: io::ErrorKind) -> Self {
        Self::new(Target::Operation(number), error)
    }

    /// Lets the next call of a kind fail with `error`.
    pub fn on(kind: OperationKind, error: io::ErrorKind) -> Self {
        Self::new(Target::Kind(kind), error)
    }

    fn new(target: Target, error: io::ErrorKind) -> Self {
        let (prefix, suffix) = (String::new(), String::new());
        Self { target, error, skip: 0, sticky: false, prefix, suffix, written: 0 }
    }

    /// Lets this many matching calls pass first.
    #[must_use]
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Lets all matching calls from there on fail, not only the first; after
    /// [`at_operation`](Fault::at_operation), all state-changing ones.
    #[must_use]
    pub fn sticky(mut self) -> Self {
        self.sticky = true;
        self
    }

    /// Passes by paths that do not end in `suffix`.
    #[must_use]
    pub fn named(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// Passes by paths whose last part does not start with `prefix`.
    #[must_use]
    pub fn name_starting(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Lets a write that fails write so many bytes before.
    #[must_use]
    pub fn after_writing(mut self, bytes: u64) -> Self {
        self.written = bytes;
        self
    }
}

/// A fault that was injected: it tells whether calls came that it fits. One that never fires tests nothing.
#[derive(Clone, Debug, Default)]
pub struct InjectedFault(Arc<AtomicU64>);

impl InjectedFault {
    /// How many calls it has made fail so far.
    pub fn fired(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn fire(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a call fails.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    /// How many bytes a write wrote all the same.
    pub(super) written: u64,
    /// Whether the process is dead, so that not even the failure has an effect.
    pub(super) dead: bool,
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// The failures to come, and what was called so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// State-changing operations so far.
    pub(super) operations: u64,
    /// From this one on the process is dead; so many bytes of it, if it is a write, take place.
    pub(super) crash_at: Option<(u64, u64)>,
    pub(super) crashed: bool,
    pub(super) last: Option<Operation>,
    pending: Vec<(Fault, InjectedFault)>,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) -> InjectedFault {
        let injected = InjectedFault::default();
        self.pending.push((fault, injected.clone()));
        injected
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Counts a call and decides whether it fails.
    pub(super) fn enter(
        &mut self,
        kind: OperationKind,
        path: &Path,
        offset: u64,
        bytes: u64,
    ) -> Result<(), Failure> {
        if self.crashed {
            return Err(dead(0));
        }
        let number = self.operations;
        if kind.changes_state() {
            self.operations += 1;
            self.last = Some(Operation { kind, path: path.to_owned(), offset, bytes });
            if let Some((_, written)) = self.crash_at.filter(|(at, _)| *at <= number) {
                self.crashed = true;
                return Err(dead(written));
            }
        }
        if kind == OperationKind::WriteWindow {
            return Ok(());
        }
        let matches = |fault: &Fault| {
            let target = match fault.target {
                Target::Operation(at) if fault.sticky => kind.changes_state() && number >= at,
                Target::Operation(at) => kind.changes_state() && number == at,
                Target::Kind(wanted) => kind == wanted,
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            target && name.starts_with(&fault.prefix) && path.to_string_lossy().ends_with(&fault.suffix)
        };
        for index in 0..self.pending.len() {
            let (fault, injected) = &mut self.pending[index];
            if !matches(fault) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            injected.fire();
            let error = io::Error::new(fault.error, format!("injected fault: {:?}", fault.error));
            let failure = Failure { error, written: fault.written, dead: false };
            if !fault.sticky {
                self.pending.remove(index);
            }
            return Err(failure);
        }
        Ok(())
    }
}

fn dead(written: u64) -> Failure {
    Failure { error: io::Error::other("the simulated process has crashed"), written, dead: true }
}
