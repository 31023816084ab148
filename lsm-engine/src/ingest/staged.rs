//! Files in the directory of the database that no version names yet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Placed, copy_file, link_or_copy};

use super::request::Placing;
use crate::error::{Error, Result};
use crate::resources::Resources;
use crate::version::{VersionSet, files};

/// Files that are removed when this is dropped, unless they are kept.
pub(super) struct StagedFiles {
    resources: Arc<Resources>,
    files: Vec<(u64, PathBuf)>,
}

impl StagedFiles {
    pub(super) fn new(resources: &Arc<Resources>) -> Self {
        Self { resources: Arc::clone(resources), files: Vec::new() }
    }

    /// Takes over a file with this number.
    pub(super) fn push(&mut self, number: u64, path: PathBuf) {
        self.files.push((number, path));
    }

    /// Brings the file of a user into the directory, durably except for its name. Returns its number and path.
    pub(super) fn place(
        &mut self,
        versions: &VersionSet,
        from: &Path,
        placing: Placing,
    ) -> Result<(u64, PathBuf)> {
        let number = versions.numbers.next();
        let path = files::table(&self.resources.directory, number);
        let vfs = Arc::clone(&self.resources.vfs);
        let placed = match placing {
            Placing::Copy => copy_file(&*vfs, from, &path).map(Placed::Copied),
            Placing::Link | Placing::Move => link_or_copy(&*vfs, from, &path),
        };
        let placed = placed.map_err(|error| Error::io("copy to the database", from, error))?;
        self.push(number, path.clone());
        if placed == Placed::Linked {
            // Whoever wrote it may not have synced it.
            let synced = vfs.open_write(&path).and_then(|file| file.sync_data());
            synced.map_err(|error| Error::io("sync", &path, error))?;
        }
        Ok((number, path))
    }

    /// Keeps all files.
    pub(super) fn keep(mut self) {
        self.files.clear();
    }
}

impl Drop for StagedFiles {
    fn drop(&mut self) {
        if self.files.is_empty() {
            return;
        }
        for (_, path) in self.files.drain(..) {
            self.resources.obsolete_files.remove_later(path);
        }
        // On a full disk they take the space that others wait for.
        self.resources.remove_obsolete_files();
    }
}
