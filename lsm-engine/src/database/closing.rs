//! Closing: flush, wait for background work, sync, and write the marker of a clean close.

use std::sync::Arc;

use super::Database;
use crate::error::Result;
use crate::events::{EventKind, WaitReason};
use crate::version::edit::VersionEdit;

/// Closes the database when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Closer(Arc<Database>);

impl Closer {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        Self(database)
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        if self.0.resources.check_process().is_err() {
            // A forked child has no background threads to wait for, and the parent uses the log, files and locks: leak
            // them.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        if !self.0.status.mark_closed() {
            return;
        }
        if self.0.resources.is_called_back() {
            // Background work dropped the last handle. It cannot wait for its own end, so do not close the log.
            self.0.ask_to_stop();
            self.0.resources.events.end();
            return;
        }
        if let Err(error) = self.0.shut_down(false) {
            tracing::warn!(%error, "failed to sync a database that was dropped without close");
        }
        self.0.resources.events.end();
    }
}

impl Database {
    /// Flushes, waits for background work, syncs and writes the marker of a clean close. A second call waits for the
    /// first and returns its result.
    pub(crate) fn close(&self) -> Result<()> {
        self.resources.check_process()?;
        self.resources.check_may_wait()?;
        if !self.status.mark_closed() {
            self.resources
                .wait_for(WaitReason::Close, &self.close_ended, || Ok(self.close_result.get().is_some()))?;
            return self.close_result.get().cloned().unwrap_or(Ok(()));
        }
        let result = self.close_first();
        self.resources.events.end();
        self.close_result.get_or_init(|| result.clone());
        self.close_ended.notify();
        result
    }

    fn close_first(&self) -> Result<()> {
        if let Some(side) = &self.writer {
            side.write.status.control.set_paused(false);
            side.write.status.progress.notify();
        }
        self.locks.wake_all();
        let flushed = self.writer.as_ref().map_or(Ok(()), |side| self.rotate_and_flush(side, || Ok(())));
        // End the jobs and release the lock in any case.
        let shut_down = self.shut_down(flushed.is_ok());
        flushed.and(shut_down).inspect_err(|_| {
            let _ = self.shut_down(false);
        })
    }

    /// Asks background work to end.
    fn ask_to_stop(&self) {
        self.status.ask_to_stop();
        if let Some(side) = &self.writer {
            side.write.flush_wanted.notify();
        }
        self.resources.obsolete_files.event().notify();
    }

    /// Ends background work and syncs the log. With `clean`, all data is in tables, and the marker of a clean close is
    /// written.
    fn shut_down(&self, clean: bool) -> Result<()> {
        let Some(side) = &self.writer else {
            self.lock.lock().take();
            return Ok(());
        };
        self.ask_to_stop();
        self.resources.wait_for(WaitReason::BackgroundWork, &side.write.status.progress, || {
            Ok(!side.background.has_jobs())
        })?;
        self.resources.remove_obsolete_files();
        if clean {
            // Every edit records the time, which the ages of tables need. A failure only loses the time since the last
            // edit.
            if let Err(error) = side.versions.log_edit(&mut side.versions.lock(), VersionEdit::default()) {
                tracing::warn!(%error, "failed to record the time");
            }
            if let Err(error) = side.write.change_slots.store_moved(&side.versions) {
                tracing::warn!(%error, "failed to record where change slots are");
            }
        }
        let going = side.write.status.check_writing();
        let closed = side.write.close_log();
        let result = match (going, closed) {
            (Ok(()), Ok(Some(log))) if clean => side.versions.lock().close(log),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Ok(()),
        };
        if clean && result.is_ok() {
            self.resources.events.emit(EventKind::Closed);
        }
        side.background.recorder.close();
        self.resources.memory.holding.leave();
        self.lock.lock().take();
        result
    }
}
