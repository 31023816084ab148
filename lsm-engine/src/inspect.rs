//! For tools that look into files: decoders of what the engine writes into logs, manifests and `CURRENT`.

use std::path::Path;

use lsm_core::vfs::Vfs;

pub use crate::version::current::Current;
pub use crate::version::edit::{AddedTable, KeyspaceRecord, LogStart, VersionEdit};
pub use crate::write::{Operation, Operations};

use crate::error::Result;
use crate::recovery;
use crate::version::files::{self, FileKind};

/// What a file of a database is, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A sorted table; see `lsm-sstable`.
    Table,
    /// A log of version edits; see `lsm_wal::RecordFileReader`.
    Manifest,
    /// A file of the write-ahead log; see `lsm-wal`.
    Log,
    /// Points at the manifest.
    Current,
    /// Bytes of the disk that are held back for the way out of a full one; its content is nothing.
    Reserve,
    /// The lock file; it has no content.
    Lock,
}

/// What a file name says; `None` if it is none of a database's.
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

/// `CURRENT` of a database directory.
pub fn current(vfs: &dyn Vfs, directory: &Path) -> Result<Current> {
    recovery::existing_current(vfs, directory)
}
