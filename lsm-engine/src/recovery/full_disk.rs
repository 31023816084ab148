//! Opening for writing on a full disk.
//!
//! The replayed data stays in memory, and the old log continues at its end, so that deletes, clears and drops can free
//! space. Opening removes and overwrites nothing that the database needs. If it finds too little space, it fails and
//! the next open can try again.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Vfs, VfsFile};
use lsm_wal::{FirstSegment, Position, RecoveryMode, RecoveryReport, Wal, WalOptions};

use super::replay::Unsettled;
use crate::database::WriteSide;
use crate::error::{Error, ErrorKind, Result};
use crate::resources::Resources;
use crate::version::current::Current;
use crate::version::edit::{LogStart, VersionEdit};
use crate::version::files::{self, FileKind};
use crate::version::manifest::ManifestState;

/// Disk space of the smallest log segment, including blocks for its directory entry and length.
pub(super) const LOG_BYTES: u64 = 16 << 10;

/// A database that is being opened on a disk that may be full.
pub(super) struct FullDisk<'d> {
    pub(super) resources: &'d Arc<Resources>,
    /// The report of reading the old log.
    pub(super) report: &'d RecoveryReport,
    /// Options of the new log.
    pub(super) options: WalOptions,
}

/// Writes the bytes that a file holds to it again.
fn rewrite(vfs: &dyn Vfs, path: &Path, file: &dyn VfsFile) -> io::Result<()> {
    let old = vfs.open_read(path)?;
    let mut bytes = vec![0; old.len()? as usize];
    old.read_exact_at(&mut bytes, 0)?;
    file.write_at(&bytes, 0)
}

impl FullDisk<'_> {
    /// Removes tables that neither the manifest nor the log names, if there is no space for another manifest. Makes the manifest
    /// durable first: after a power cut an older state of it could still name these tables.
    ///
    /// A sync alone is not enough. If an earlier process failed to sync the manifest, the operating system may consider
    /// its pages clean, although the disk does not have them. Writing the same bytes again needs no space.
    pub(super) fn remove_unnamed_tables(
        &self,
        current: &Current,
        state: &ManifestState,
        ingested: &BTreeSet<u64>,
    ) -> Result<()> {
        let Resources { vfs, directory, .. } = &**self.resources;
        let manifest = files::manifest(directory, current.manifest);
        let file = vfs.open_write(&manifest).map_err(|error| Error::io("open", &manifest, error))?;
        rewrite(&**vfs, &manifest, &*file).map_err(|error| Error::io("rewrite", &manifest, error))?;
        file.sync_data().map_err(|error| Error::io("sync", &manifest, error))?;
        // Blob files stay: the log may point to those that the manifest does not name.
        let mut tables = state.table_numbers();
        tables.extend(ingested);
        // Followers would keep the space for the time of a lease, and cannot be asked to wait.
        self.resources.leases.revoke_all();
        for name in files::list(&**vfs, directory)? {
            if matches!(files::parse(&name), Some(FileKind::Table(number)) if !tables.contains(&number)) {
                let path = directory.join(name);
                vfs.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
        }
        Ok(())
    }

    /// Frees the allocated space that the log does not use, and the disk reserve.
    pub(super) fn make_room(&self) -> Result<()> {
        if self.options.recovery != RecoveryMode::Salvage || self.report.dropped.is_empty() {
            lsm_wal::release_unused(&*self.resources.vfs, &self.resources.directory, self.report)?;
        }
        self.resources.disk_reserve.release_all();
        Ok(())
    }

    /// Starts a new log. Everything in the old log must be in tables.
    ///
    /// A new segment claims that everything before it exists. Before the flush only the old log, synced or not, could
    /// prove that.
    pub(super) fn begin_log(&self, side: &WriteSide, start: Position) -> Result<()> {
        let Resources { vfs, directory, env, .. } = &**self.resources;
        let first_segment = self.report.next_segment.max(1);
        let create = || {
            let (vfs, env, options) = (Arc::clone(vfs), Arc::clone(env), self.options.clone());
            Wal::create(vfs, env, directory, FirstSegment { number: first_segment, start }, options)
        };
        let log = match create() {
            Err(error) if error.is_disk_full() => {
                self.make_room()?;
                create().map_err(|error| self.refused(LOG_BYTES, error.into()))?
            }
            created => created?,
        };
        // Log this before any write is acknowledged, so that a missing log is detected as lost. And before the old log
        // is removed, since until now the manifest requires the old log.
        let begun = VersionEdit { log_begun: Some(first_segment), ..VersionEdit::default() };
        side.versions.log_edit(&mut side.versions.lock(), begun)?;
        side.write.log_pins.begin(start.0, start.0);
        side.write.start_log(Box::new(log));
        Ok(())
    }

    /// Continues the old log, which starts at `old`, and keeps the replayed data in memory, because its flush failed
    /// with `cause` on a full disk. Returns the paths of segments that were set aside.
    pub(super) fn resume_log(
        &self,
        side: &WriteSide,
        unsettled: &Unsettled,
        old: LogStart,
        cause: &Error,
    ) -> Result<Vec<PathBuf>> {
        let Resources { env, memory, .. } = &**self.resources;
        self.check_fits(unsettled, cause)?;
        self.make_room()?;
        let whole = unsettled.read_log(memory)?;
        // The numbers of existing spare segments count as used.
        let segment = self.report.next_segment.max(1);
        // Change slots keep only what recovery needs anyway, since the disk is full.
        let kept = Position(old.position);
        let resumed = Wal::resume(Arc::clone(env), &whole.reader, kept, segment, self.options.clone());
        let (log, set_aside) = resumed.map_err(|error| match Error::from(error) {
            // A log with gaps cannot be continued, only flushed.
            error if error.kind() == ErrorKind::InvalidArgument => cause.clone(),
            error => self.refused(LOG_BYTES, error),
        })?;
        side.write.committer.lock().set_log_end(self.report.end.0, old.segment);
        side.write.controller.set_log_start(old.position);
        // The replayed clears are durable now, so the cleared tables can be removed.
        let edit = VersionEdit { log_begun: Some(segment), ..unsettled.clears() };
        side.versions.log_edit(&mut side.versions.lock(), edit)?;
        side.write.log_pins.begin(old.position, old.position);
        side.write.start_log(Box::new(log));
        tracing::warn!(%cause, "replayed data stays in memory and in the log until there is disk space to flush it");
        Ok(set_aside)
    }

    /// Fails if the log holds more than fits memory: it cannot stay there until the disk has space.
    pub(super) fn check_fits(&self, unsettled: &Unsettled, cause: &Error) -> Result<()> {
        let Some(bytes) = unsettled.bytes_left(self.report.end) else { return Ok(()) };
        let memory_bytes = self.resources.memory.memtables_bytes_max();
        Err(self.full(format!(
            "the log holds {bytes} bytes more than fit the {memory_bytes} bytes that Options::memory leaves for \
             memtables, and the disk has no space to flush them: free disk space or give more memory ({cause})"
        )))
    }

    /// The error of an open that needs `needed` bytes and failed with `cause`: on a full disk it says what to do.
    pub(super) fn refused(&self, needed: u64, cause: Error) -> Error {
        if cause.kind() != ErrorKind::NoSpace {
            return cause;
        }
        let free = self.resources.vfs.free_bytes(&self.resources.directory).unwrap_or(0);
        self.full(format!(
            "the disk is full: opening for writing needs at least {needed} bytes, and {free} are free; free disk space, \
             or open the database read-only ({cause})"
        ))
    }

    fn full(&self, detail: String) -> Error {
        Error::io("open", &self.resources.directory, io::Error::new(io::ErrorKind::StorageFull, detail))
    }
}
