//! What a log does in the background: it keeps a spare segment ready, syncs what has been buffered for too long,
//! and syncs for those who want to be called back.

use std::sync::Arc;

use lsm_core::env::{Job, Step};

use super::group_commit::GroupCommit;
use super::site::Site;
use crate::files::segment_file::Spare;

pub(crate) struct BackgroundJob {
    log: Arc<GroupCommit>,
    site: Site,
}

impl BackgroundJob {
    pub(crate) fn new(log: Arc<GroupCommit>, site: Site) -> Self {
        Self { log, site }
    }

    /// Prepares a spare segment, without the lock. If that fails, the record that needs the segment will try
    /// again, and its append fails if need be.
    fn prepare_spare(&self) {
        let Some((number, bytes)) = self.log.writer.lock().wants_spare() else { return };
        let Site { vfs, directory, .. } = &self.site;
        let spare = Spare::prepare(&**vfs, directory, number, bytes).ok();
        let late = spare.and_then(|spare| self.log.writer.lock().offer_spare(spare));
        if let Some(late) = late {
            late.discard(&**vfs);
        }
        self.log.end_preparing();
    }
}

impl Job for BackgroundJob {
    fn step(&mut self) -> Step {
        let seen = self.log.work.epoch();
        if self.log.writer.lock().is_finished() {
            return Step::Done;
        }
        self.prepare_spare();
        let due_micros = self.log.sync_in_background(self.site.options.sync_lag_micros);
        let mut writer = self.log.writer.lock();
        let lag_micros = self.site.options.sync_lag_micros;
        let deadline_micros = match (due_micros, lag_micros) {
            (Some(due), _) => Some(due),
            (None, Some(lag)) if writer.background.oldest_unsynced_micros.is_some() => {
                Some(self.log.env.monotonic_micros().saturating_add(lag))
            }
            _ => {
                // Told when the next record comes.
                writer.background.job_sleeps = lag_micros.is_some();
                None
            }
        };
        drop(writer);
        Step::Pending { event: self.log.work.clone(), seen, deadline_micros }
    }
}
