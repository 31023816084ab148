use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result of every call to the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. [`Error::kind`] says what to do about it; the message names the file, key or option.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written, is corrupt, or is of a newer format.
    #[error(transparent)]
    Storage(#[from] lsm_core::Error),

    /// Another process, or another handle in this one, has the database open.
    #[error("{} is locked: another process or handle has it open; close that first", .0.display())]
    Locked(Arc<PathBuf>),

    /// The directory holds no database and creating one was not asked for.
    #[error("there is no database in {}", .0.display())]
    NoDatabase(Arc<PathBuf>),

    /// The path exists and is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(Arc<PathBuf>),

    /// A key, value, range, name or option that cannot be.
    #[error("{0}")]
    InvalidArgument(Arc<str>),

    /// A batch over what the memory budget allows, or a key or value over what the formats do.
    #[error("{what} of {bytes} bytes is over the limit of {bytes_max}{}", remedy(what))]
    TooLarge {
        /// "batch", "key" or "value".
        what: &'static str,
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        bytes_max: u64,
    },

    /// Options that contradict what is on disk.
    #[error("{0}")]
    OptionsMismatch(Arc<str>),

    /// A write to a database that was opened for reading only.
    #[error("the database was opened read-only")]
    ReadOnly,

    /// An earlier failure stopped all writing; what was acknowledged before is safe. Reopen to go on.
    #[error("writing has stopped until the database is reopened: {0}")]
    WritingStopped(Arc<Error>),

    /// The keyspace was dropped.
    #[error("keyspace {0:?} was dropped")]
    KeyspaceDropped(Arc<str>),

    /// The database was closed.
    #[error("the database is closed")]
    Closed,

    /// A policy, filter or other callback panicked, or asked for what would lose data.
    #[error("{0}")]
    Callback(Arc<str>),
}

/// What kind of trouble an [`Error`] is, for callers that act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fix the call.
    InvalidArgument,
    /// Open with the options that the database was made with.
    OptionsMismatch,
    /// There is no such database.
    NotFound,
    /// Wait for the other process, or stop it.
    Locked,
    /// Make room on the disk, then repeat.
    NoSpace,
    /// The operating system failed; look at the disk, then reopen.
    Io,
    /// Restore the named file from a backup.
    Corruption,
    /// Use a newer build, or one with the feature that is named.
    Unsupported,
    /// Open for writing, or reopen.
    ReadOnly,
    /// The handle is no longer usable.
    Closed,
    /// A callback given in the options misbehaved, now or before: mend it, then reopen.
    Callback,
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => storage_kind(error),
            Self::Locked(_) => ErrorKind::Locked,
            Self::NoDatabase(_) => ErrorKind::NotFound,
            Self::NotADirectory(_) | Self::InvalidArgument(_) | Self::TooLarge { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::OptionsMismatch(_) => ErrorKind::OptionsMismatch,
            // Opening again helps against other failures, and not against this one.
            Self::WritingStopped(reason) if reason.kind() == ErrorKind::Callback => ErrorKind::Callback,
            Self::ReadOnly | Self::WritingStopped(_) => ErrorKind::ReadOnly,
            Self::KeyspaceDropped(_) | Self::Closed => ErrorKind::Closed,
            Self::Callback(_) => ErrorKind::Callback,
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Storage(lsm_core::Error::io(operation, path, source))
    }

    pub(crate) fn corruption(path: &Path, offset: u64, detail: impl Into<Arc<str>>) -> Self {
        Self::Storage(lsm_core::Error::corruption(path, offset, detail))
    }

    pub(crate) fn invalid(detail: impl Into<Arc<str>>) -> Self {
        Self::InvalidArgument(detail.into())
    }

    /// Whether the operating system failed, so that the same work may succeed later: the disk may have room again, or
    /// the process file descriptors. A file system that takes no writes, or not such ones, will not.
    pub(crate) fn may_pass(&self) -> bool {
        use std::io::ErrorKind as Io;
        let Self::Storage(lsm_core::Error::Io { source, .. }) = self else { return false };
        !matches!(source.kind(), Io::ReadOnlyFilesystem | Io::Unsupported | Io::InvalidInput)
    }
}

/// What helps against [`Error::TooLarge`]: a key has the same limit whatever the budget.
fn remedy(what: &str) -> &'static str {
    if what == "key" { "" } else { "; split it or raise Options::memory" }
}

fn storage_kind(error: &lsm_core::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error {
        lsm_core::Error::Corruption { .. } => ErrorKind::Corruption,
        lsm_core::Error::UnsupportedVersion { .. } | lsm_core::Error::Unsupported { .. } => {
            ErrorKind::Unsupported
        }
        lsm_core::Error::InvalidArgument { .. } => ErrorKind::InvalidArgument,
        lsm_core::Error::Stopped { .. } => ErrorKind::ReadOnly,
        lsm_core::Error::Io { source, .. } => match source.kind() {
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
            Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            Io::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        },
        _ => ErrorKind::Io,
    }
}
