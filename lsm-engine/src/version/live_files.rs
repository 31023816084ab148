//! The files that a copy of a database needs: those that its manifest names, with what proves them.
//!
//! They never change, and their names are never used again. Whoever copies them holds the versions that they are part
//! of, so that they are not unlinked meanwhile.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Access, Vfs, VfsFile};
use lsm_sstable::{CopyCheck, TableId, TableMeta};

use super::files;
use super::manifest::ManifestState;
use crate::error::{Error, Result};

/// A file that a copy of a database needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveFile {
    /// The number in its name.
    pub(crate) number: u64,
    /// Random, and never used for another file.
    pub(crate) id: TableId,
    pub(crate) bytes: u64,
    /// Of all bytes before the footer, which has a checksum of its own.
    pub(crate) checksum: u64,
}

impl LiveFile {
    pub(crate) fn of(number: u64, meta: &TableMeta) -> Self {
        Self { number, id: meta.id, bytes: meta.file_bytes, checksum: meta.checksum }
    }

    pub(crate) fn path(&self, directory: &Path) -> PathBuf {
        files::table(directory, self.number)
    }

    /// Opens the file for a copy.
    pub(crate) fn open(&self, vfs: &dyn Vfs, directory: &Path) -> Result<ProvedReader> {
        let path = self.path(directory);
        let file = vfs.open_read(&path).map_err(|error| Error::io("open", &path, error))?;
        file.advise(Access::Sequential);
        Ok(ProvedReader { file, path, at: 0, check: Some(self.check()), failure: None })
    }

    /// What proves the bytes of the file.
    pub(crate) fn check(&self) -> CopyCheck {
        CopyCheck::new(self.id, self.bytes, self.checksum)
    }
}

impl ManifestState {
    /// All files that a copy of the database in this state needs, apart from its log.
    pub(crate) fn live_files(&self) -> Vec<LiveFile> {
        let tables = self.keyspaces.values().flat_map(|keyspace| keyspace.tables.values());
        tables.map(|table| LiveFile::of(table.number, &table.meta)).collect()
    }
}

/// Reads a file from front to back. Its end comes only if all bytes were those that they should be: a reader of a damaged
/// file fails instead.
pub(crate) struct ProvedReader {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    at: u64,
    /// `None` after the end was proved.
    check: Option<CopyCheck>,
    failure: Option<Error>,
}

impl ProvedReader {
    /// Why it failed. The error of the [`Read`] says less.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.clone()
    }

    fn fail(&mut self, error: Error) -> io::Error {
        let failed = io::Error::other(error.to_string());
        self.failure = Some(error);
        failed
    }
}

impl Read for ProvedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failure {
            return Err(io::Error::other(error.to_string()));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match self.file.read_at(buffer, self.at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let error = Error::io("read", &self.path, error);
                return Err(self.fail(error));
            }
            Ok(count) => count,
        };
        self.at += count as u64;
        if count > 0 {
            if let Some(check) = &mut self.check {
                check.update(&buffer[..count]);
            }
        } else if let Some(check) = self.check.take()
            && let Err(error) = check.finish(&self.path)
        {
            return Err(self.fail(error.into()));
        }
        Ok(count)
    }
}
