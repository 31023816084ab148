//! For tools that inspect files: decoders of the records that the engine writes to logs, manifests and `CURRENT`.

use std::path::Path;

use lsm_core::vfs::Vfs;
use lsm_core::{SequenceNumber, Slice, ValueKind};

pub use crate::options::StoredOptions;
pub use crate::recorder::RecordedEvents;
pub use crate::version::current::Current;
pub use crate::version::edit::{
    AddedBlob, AddedTable, KeyspaceRecord, LogStart, VersionEdit, decode_ingested,
};
pub use crate::version::history::{Epoch, KeyspaceEvent, SlotRecord};
pub use crate::version::lease::{EditPosition, Lease};
pub use crate::write::{Operation, Operations};

use crate::error::Result;
use crate::keyspace::Keyspace;
use crate::recovery;
use crate::version::files::{self, FileKind};

/// The kind of a database file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A sorted table; see `lsm-sstable`.
    Table,
    /// A file with large values; see `lsm_sstable::BlobReader`.
    Blob,
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
    /// Marks a directory that a checkpoint or restore is filling, or has just filled. It has no content.
    Staging,
    /// A file of the flight recorder; see [`RecordedEvents`].
    Events,
    /// The lease of a [follower](crate::Follower).
    Lease,
}

/// The kind of the file with this name; `None` if it is not a file of a database.
pub fn kind_of(name: &str) -> Option<Kind> {
    Some(match files::parse(name)? {
        FileKind::Table(_) => Kind::Table,
        FileKind::Blob(_) => Kind::Blob,
        FileKind::Manifest(_) => Kind::Manifest,
        FileKind::Log(_) => Kind::Log,
        FileKind::Current | FileKind::CurrentNext => Kind::Current,
        FileKind::Reserve => Kind::Reserve,
        FileKind::Lock => Kind::Lock,
        FileKind::Staging => Kind::Staging,
        FileKind::Events(_) => Kind::Events,
        FileKind::Lease(_) => Kind::Lease,
    })
}

/// Reads `CURRENT` of a database directory. Fails with [`Error::NoDatabase`](crate::Error::NoDatabase) if there is no
/// database.
pub fn current(vfs: &dyn Vfs, directory: &Path) -> Result<Current> {
    recovery::existing_current(vfs, directory)
}

/// A version of a key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredVersion {
    /// Its sequence number; 0 if nothing older exists.
    pub sequence: SequenceNumber,
    /// What it does.
    pub kind: ValueKind,
    /// The stored value, or the operand of a merge.
    pub value: Slice,
    /// Whether a range delete hides it.
    pub is_range_deleted: bool,
}

/// The stored versions of a key, the newest first. Shows what is there when the merge operator of the keyspace is missing
/// or fails. Versions that no reader needs may be there or not.
pub fn versions(keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Vec<StoredVersion>> {
    let mut versions = Vec::new();
    keyspace.visit_versions(key.as_ref(), |entry, is_range_deleted| {
        let value = Slice::copy_from(entry.value);
        versions.push(StoredVersion { sequence: entry.sequence, kind: entry.kind, value, is_range_deleted });
    })?;
    Ok(versions)
}
