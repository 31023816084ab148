//! Reads a manifest, once or again and again while the owner of the database appends to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lsm_core::vfs::Vfs;
use lsm_wal::{RecordFileReader, RecoveryMode};

use super::current::Current;
use super::edit::VersionEdit;
use super::lease::EditPosition;
use super::manifest::ManifestState;
use crate::error::{Error, Result};
use crate::version::files;

/// A reader of a manifest, and the state that results from the edits up to its position.
pub(crate) struct ManifestReader {
    number: u64,
    path: PathBuf,
    file: RecordFileReader,
    state: ManifestState,
}

impl ManifestReader {
    /// Reads the manifest that `CURRENT` names, to its end.
    pub(crate) fn open(vfs: &dyn Vfs, directory: &Path, current: &Current) -> Result<Self> {
        let path = files::manifest(directory, current.manifest);
        let mode = RecoveryMode::TolerateTornTail;
        let file = RecordFileReader::open(vfs, &path, current.manifest_synced, mode);
        let file = file.map_err(|error| match error {
            lsm_core::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Error::corruption(&path, 0, "the file is missing, but CURRENT names it")
            }
            error => error.into(),
        })?;
        let mut reader = Self { number: current.manifest, path, file, state: ManifestState::default() };
        let mut is_empty = true;
        while reader.next()?.is_some() {
            is_empty = false;
        }
        if is_empty {
            let detail = "the manifest holds no edit, but CURRENT names it";
            return Err(Error::corruption(&reader.path, 0, detail));
        }
        Ok(reader)
    }

    fn next(&mut self) -> Result<Option<VersionEdit>> {
        let Some(record) = self.file.next()? else { return Ok(None) };
        let offset = record.offset;
        let edit = VersionEdit::decode(record.payload).map_err(|error| error.at(&self.path, offset))?;
        let applied = self.state.apply(&edit);
        applied.map_err(|detail| Error::corruption(&self.path, offset, detail))?;
        Ok(Some(edit))
    }

    /// Reads the edits that were appended since, and adds the keyspaces that they change to `changed`. Returns whether
    /// there were any.
    pub(crate) fn read_on(&mut self, changed: &mut BTreeSet<u32>) -> Result<bool> {
        let before = self.file.position();
        self.file.look_again()?;
        while let Some(edit) = self.next()? {
            changed.extend(edit.keyspaces.iter().map(|record| record.id));
            changed.extend(&edit.dropped);
            changed.extend(edit.flushed.iter().map(|(id, _)| id));
            changed.extend(edit.added.iter().map(|table| table.keyspace));
            changed.extend(edit.removed.iter().map(|(id, _)| id));
        }
        Ok(self.file.position() != before)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The place of the last edit that was read.
    pub(crate) fn position(&self) -> EditPosition {
        EditPosition { manifest: self.number, position: self.file.position().0 }
    }

    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    pub(crate) fn into_state(self) -> ManifestState {
        self.state
    }
}
