//! For tools that inspect files: decoders of the records that the engine writes to logs, manifests and `CURRENT`.

use std::path::Path;

use lsm_core::vfs::Vfs;

pub use crate::options::StoredOptions;
pub use crate::version::current::Current;
pub use crate::version::edit::{AddedTable, KeyspaceRecord, LogStart, VersionEdit};
pub use crate::write::{Operation, Operations};

use crate::error::Result;
use crate::recovery;
use crate::version::files::{self, FileKind};

/// The kind of a database file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A sorted table; see `lsm-sstable`.
    Table,
    /// A log of version edits; see `lsm_wal::RecordFileReader`.
    Manifest,
    /// A file of the write-ahead log; see `lsm-wal`.
    Log,
    /// `CURRENT`: names the manifest.
    Current,
    /// Reserved disk space, released when the disk is full. It has no meaningful content.
    Reserve,
    /// The lock file; it has no content.
    Lock,
}

/// The kind of the file with this name; `None` if it is not a file of a database.
pub fn kind_of(name: &str) -> Option<Kind> {
    Some(match files::parse(name)? {
        FileKind::Table(_) => Kind::Table,
        FileKind::Manifest(_) => Kind::Manifest,
        FileKind::Log(_) => Kind::Log,
        FileKind::Current | FileKind::CurrentNext => Kind::Current,
        FileKind::Reserve => Kind::Reserve,
        FileKind::Lock => Kind::Lock,
    })
}

/// Reads `CURRENT` of a database directory. Fails with [`Error::NoDatabase`](crate::Error::NoDatabase) if there is no
/// database.
pub fn current(vfs: &dyn Vfs, directory: &Path) -> Result<Current> {
    recovery::existing_current(vfs, directory)
}
