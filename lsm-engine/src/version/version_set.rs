//! The versions of all keyspaces as the disk has them: edits go to the manifest, and only then count.

use std::sync::Arc;

use super::edit::VersionEdit;
use super::manifest::{AppendError, Manifest};
use super::{Clock, Numbers};
use crate::error::{ErrorKind, Result};
use crate::lock_order::{OrderedGuard, OrderedMutex, Rank};
use crate::resources::Resources;
use crate::status::Status;

/// What a manifest that takes the place of another needs on the disk beside what it says.
pub(crate) const MANIFEST_BYTES_BESIDE: u64 = 16 << 10;

/// The manifest, with the numbers and clocks that every edit carries.
pub(crate) struct VersionSet {
    manifest: OrderedMutex<Manifest>,
    pub(crate) numbers: Arc<Numbers>,
    clock: Clock,
    resources: Arc<Resources>,
    status: Arc<Status>,
}

impl VersionSet {
    pub(crate) fn new(
        manifest: Manifest,
        numbers: Arc<Numbers>,
        clock: Clock,
        resources: Arc<Resources>,
        status: Arc<Status>,
    ) -> Self {
        let manifest = OrderedMutex::new(Rank::Manifest, resources.place(), manifest);
        Self { manifest, numbers, clock, resources, status }
    }

    /// Who changes a version holds this from the edit to the change in memory.
    pub(crate) fn lock(&self) -> OrderedGuard<'_, Manifest> {
        self.manifest.lock()
    }

    /// The clock by which tables are dated.
    pub(crate) fn clock_micros(&self) -> u64 {
        self.clock.now_micros()
    }

    /// Logs an edit, durably. A manifest in doubt stops all writing.
    pub(crate) fn log_edit(&self, manifest: &mut Manifest, mut edit: VersionEdit) -> Result<()> {
        // A flush or merge may have been waiting for the manifest while whoever held it failed: memory and disk are
        // apart now, and the log must not be shortened by what memory says.
        self.status.check_writing()?;
        edit.next_number = Some(self.numbers.unused());
        self.clock.mark(&mut edit);
        let mut appended = manifest.append(&edit, || self.numbers.next());
        if let Err(AppendError::Refused(error)) = &appended
            && error.kind() == ErrorKind::NoSpace
            && self.resources.disk_reserve.give(manifest.snapshot_bytes() + MANIFEST_BYTES_BESIDE)
        {
            // Most edits let go of more than they take.
            appended = manifest.append(&edit, || self.numbers.next());
        }
        appended.map_err(|error| match error {
            AppendError::Refused(error) => error,
            AppendError::InDoubt(error) => {
                self.status.stop_writing(error.clone());
                error
            }
        })
    }
}
