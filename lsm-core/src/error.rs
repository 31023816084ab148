use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result of anything that touches a file.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a file. Cheap to clone, so that one failure can be told to many waiters.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `"read"`, `"sync"`.
        operation: &'static str,
        /// On which file or directory.
        path: Arc<PathBuf>,
        /// What the operating system said.
        source: Arc<io::Error>,
    },

    /// The bytes of a file are not what was written. The file was left as it is.
    #[error("{} is corrupt at offset {offset}: {detail}", path.display())]
    Corruption {
        /// Which file.
        path: Arc<PathBuf>,
        /// Where in the file, in bytes.
        offset: u64,
        /// What was expected and what was found.
        detail: Arc<str>,
    },

    /// The file was written by another version of this software.
    #[error(
        "{} has format version {found}; this build reads version {supported}; use {} build",
        path.display(),
        if found > supported { "a newer" } else { "an older" }
    )]
    UnsupportedVersion {
        /// Which file.
        path: Arc<PathBuf>,
        /// The version in the file.
        found: u32,
        /// The version that this build reads.
        supported: u32,
    },

    /// The file is as it was written, but takes what this build was made without.
    #[error("{} cannot be read by this build: {detail}", path.display())]
    Unsupported {
        /// Which file.
        path: Arc<PathBuf>,
        /// What is missing, and how to have it.
        detail: Arc<str>,
    },

    /// The caller asked for something that cannot be, such as a key out of order or too long.
    #[error("{detail}")]
    InvalidArgument {
        /// What was wrong and what is allowed.
        detail: Arc<str>,
    },

    /// An earlier failure closed this file for writing; the data written before it is safe.
    #[error("writing was stopped by an earlier failure: {cause}")]
    Stopped {
        /// The earlier failure.
        cause: Arc<Error>,
    },
}

/// Why the bytes of a file cannot be decoded. [`at`](Self::at) adds which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They are not what was written. The text says what was expected and what was found.
    Malformed(String),
    /// They hold something that this version does not know and must not pass over. The text names it.
    Unknown(String),
}

impl DecodeError {
    /// The error of the file `path`, in which the bytes begin at `offset`.
    pub fn at(self, path: &Path, offset: u64) -> Error {
        match self {
            Self::Malformed(detail) => Error::corruption(path, offset, detail),
            Self::Unknown(what) => Error::Unsupported {
                path: Arc::new(path.to_owned()),
                detail: format!(
                    "at offset {offset} there is {what}, which it does not know; use a newer build"
                )
                .into(),
            },
        }
    }
}

impl From<String> for DecodeError {
    fn from(detail: String) -> Self {
        Self::Malformed(detail)
    }
}

impl From<&str> for DecodeError {
    fn from(detail: &str) -> Self {
        Self::Malformed(detail.to_owned())
    }
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: Arc::new(path.to_owned()), source: Arc::new(source) }
    }

    /// An [`Error::Corruption`].
    pub fn corruption(path: &Path, offset: u64, detail: impl Into<Arc<str>>) -> Self {
        Self::Corruption { path: Arc::new(path.to_owned()), offset, detail: detail.into() }
    }

    /// An [`Error::InvalidArgument`].
    pub fn invalid(detail: impl Into<Arc<str>>) -> Self {
        Self::InvalidArgument { detail: detail.into() }
    }

    /// Whether there was no room on the disk, or none that this user may take.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}
