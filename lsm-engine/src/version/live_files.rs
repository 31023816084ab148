//! The files that a copy of a database needs: those that its manifest names, with what proves them.
//!
//! They never change, and their names are never used again. Whoever copies them holds the versions that they are part
//! of, so that they are not unlinked meanwhile.

use std::path::{Path, PathBuf};

use lsm_sstable::{BlobMeta, CopyCheck, TableId, TableMeta};

use super::files;
use super::manifest::ManifestState;

/// A file that a copy of a database needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveFile {
    pub(crate) kind: LiveKind,
    /// The number in its name.
    pub(crate) number: u64,
    /// Random, and never used for another file.
    pub(crate) id: TableId,
    pub(crate) bytes: u64,
    /// Of all bytes before the footer, which has a checksum of its own.
    pub(crate) checksum: u64,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveKind {
    Table,
    Blobs,
}

impl LiveFile {
    pub(crate) fn of(number: u64, meta: &TableMeta) -> Self {
        Self { kind: LiveKind::Table, number, id: meta.id, bytes: meta.file_bytes, checksum: meta.checksum }
    }

    pub(crate) fn of_blobs(number: u64, meta: &BlobMeta) -> Self {
        let (id, bytes, checksum) = (meta.id, meta.file_bytes, meta.checksum);
        Self { kind: LiveKind::Blobs, number, id, bytes, checksum }
    }

    pub(crate) fn path(&self, directory: &Path) -> PathBuf {
        match self.kind {
            LiveKind::Table => files::table(directory, self.number),
            LiveKind::Blobs => files::blob(directory, self.number),
        }
    }

    /// What proves the bytes of the file.
    pub(crate) fn check(&self) -> CopyCheck {
        match self.kind {
            LiveKind::Table => CopyCheck::new(self.id, self.bytes, self.checksum),
            LiveKind::Blobs => CopyCheck::of_blobs(self.id, self.bytes, self.checksum),
        }
    }
}

impl ManifestState {
    /// All files that a copy of the database in this state needs, apart from its log.
    pub(crate) fn live_files(&self) -> Vec<LiveFile> {
        let tables = self.keyspaces.values().flat_map(|keyspace| keyspace.tables.values());
        let blobs = self.blobs().map(|blobs| LiveFile::of_blobs(blobs.number, &blobs.meta));
        tables.map(|table| LiveFile::of(table.number, &table.meta)).chain(blobs).collect()
    }
}
