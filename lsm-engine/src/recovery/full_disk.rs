//! Opening for writing on a disk that is full: with what there is, and with the log as it stands.
//!
//! What was replayed stays in memory, and the log goes on from its end, so that deletes, clears and drops can make room.
//! Nothing that the database needs is removed or written over for that, and an opening that finds too little room leaves
//! everything to the next one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_wal::{Position, RecoveryMode, RecoveryReport, Wal, WalOptions};

use super::replay::Unsettled;
use crate::database::WriteSide;
use crate::error::{Error, ErrorKind, Result};
use crate::resources::Resources;
use crate::version::current::Current;
use crate::version::edit::{LogStart, VersionEdit};
use crate::version::files::{self, FileKind};
use crate::version::manifest::ManifestState;

/// The least segment of a log, the blocks of its name and length included.
const LOG_BYTES: u64 = 16 << 10;

/// A database that is being opened, as the disk has it.
pub(super) struct FullDisk<'d> {
    pub(super) resources: &'d Arc<Resources>,
    /// What was found in the log.
    pub(super) report: &'d RecoveryReport,
    /// Of the log to come.
    pub(super) options: WalOptions,
}

impl FullDisk<'_> {
    /// Removes tables that the manifest does not name, where there is no room for another manifest. What was read of it
    /// is made durable first: a power cut must not bring back a state that names them.
    pub(super) fn remove_unnamed_tables(&self, current: &Current, state: &ManifestState) -> Result<()> {
        let Resources { vfs, directory, .. } = &**self.resources;
        let manifest = files::manifest(directory, current.manifest);
        let file = vfs.open_write(&manifest).map_err(|error| Error::io("open", &manifest, error))?;
        file.sync_data().map_err(|error| Error::io("sync", &manifest, error))?;
        let tables = state.table_numbers();
        for name in files::list(&**vfs, directory)? {
            if matches!(files::parse(&name), Some(FileKind::Table(number)) if !tables.contains(&number)) {
                let path = directory.join(name);
                vfs.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
        }
        Ok(())
    }

    /// Gives back to the disk what the log was given and has not used, and what was held back.
    pub(super) fn make_room(&self) -> Result<()> {
        if self.options.recovery != RecoveryMode::Salvage || self.report.dropped.is_empty() {
            lsm_wal::release_unused(&*self.resources.vfs, &self.resources.directory, self.report)?;
        }
        self.resources.disk_reserve.give_all();
        Ok(())
    }

    /// Begins a new log: everything that the old one holds is in tables.
    ///
    /// Only then: a new segment says that what comes before it is there, which until here only the old log, synced or
    /// not, could prove.
    pub(super) fn begin_log(&self, side: &WriteSide, start: Position) -> Result<()> {
        let Resources { vfs, directory, env, .. } = &**self.resources;
        let first_segment = self.report.next_segment.max(1);
        let create = || {
            let (vfs, env, options) = (Arc::clone(vfs), Arc::clone(env), self.options.clone());
            Wal::create(vfs, env, directory, start, first_segment, options)
        };
        let log = match create() {
            Err(error) if error.is_disk_full() => {
                self.make_room()?;
                create().map_err(|error| self.refused(LOG_BYTES, error.into()))?
            }
            created => created?,
        };
        // Before anything is acknowledged: a log that is gone afterwards was lost. Before the old log goes: until here
        // the manifest says that of it.
        let begun = VersionEdit { log_begun: Some(first_segment), ..VersionEdit::default() };
        side.versions.log_edit(&mut side.versions.lock(), begun)?;
        side.write.start_log(Box::new(log));
        Ok(())
    }

    /// Keeps what was replayed in memory, there being no room to flush it, as `cause` says, and goes on with the log
    /// that it came from, which began at `old`. Returns the paths of what was set aside.
    pub(super) fn go_on_with_log(
        &self,
        side: &WriteSide,
        unsettled: &Unsettled,
        old: LogStart,
        cause: &Error,
    ) -> Result<Vec<PathBuf>> {
        let Resources { vfs, directory, env, memory, .. } = &**self.resources;
        if let Some(bytes) = unsettled.bytes_left(self.report.end) {
            let memory_bytes = memory.budget.memtables_bytes_max;
            return Err(self.full(format!(
                "the log holds {bytes} bytes more than fits into the {memory_bytes} that Options::memory leaves to \
                 memtables, and the disk has no room to flush them: make room, or give more memory ({cause})"
            )));
        }
        self.make_room()?;
        let whole = unsettled.read_log(memory)?;
        // Spare segments that were there before count as used.
        let segment = self.report.next_segment.max(1);
        let (vfs, env, options) = (Arc::clone(vfs), Arc::clone(env), self.options.clone());
        let resumed = Wal::resume(vfs, env, directory, &whole.reader, segment, options);
        let (log, set_aside) = resumed.map_err(|error| match Error::from(error) {
            // A log with gaps can only be flushed.
            error if error.kind() == ErrorKind::InvalidArgument => cause.clone(),
            error => self.refused(LOG_BYTES, error),
        })?;
        side.write.committer.lock().set_log_end(self.report.end.0, old.segment);
        side.write.controller.set_log_start(old.position);
        // Clears that were replayed are durable now, so that what they cleared may go.
        let edit = VersionEdit { log_begun: Some(segment), ..unsettled.clears() };
        side.versions.log_edit(&mut side.versions.lock(), edit)?;
        side.write.start_log(Box::new(log));
        tracing::warn!(%cause, "what was replayed stays in memory and the log until the disk has room for it");
        Ok(set_aside)
    }

    /// What to do about a disk that has not even the room that `cause` came to.
    pub(super) fn refused(&self, needed: u64, cause: Error) -> Error {
        if cause.kind() != ErrorKind::NoSpace {
            return cause;
        }
        let free = self.resources.vfs.free_bytes(&self.resources.directory).unwrap_or(0);
        self.full(format!(
            "the disk is full, and opening for writing needs {needed} bytes at least, {free} being free: make room, or \
             open the database read-only ({cause})"
        ))
    }

    fn full(&self, detail: String) -> Error {
        Error::io("open", &self.resources.directory, io::Error::new(io::ErrorKind::StorageFull, detail))
    }
}
