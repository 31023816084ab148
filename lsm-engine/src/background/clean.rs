//! The clean-up job: unlinks obsolete files, pins and unpins tables so that they fit their memory, starts compactions
//! that become due by time alone, and writes the flight recorder.

use std::sync::Arc;

use lsm_core::env::{Job, Step};

use super::compaction::Compactions;
use super::context::{JobContext, JobToken};
use super::pinning::{Fit, TableFitter};
use super::purge::Purge;
use crate::events::EventKind;
use crate::reentry::Inside;

/// Interval of looking for compactions that become due by time alone.
const LOOK_MICROS: u64 = 1_000_000;

/// The clean-up job. It runs as long as the database is open.
pub(super) struct CleanJob {
    context: Arc<JobContext>,
    compactions: Arc<Compactions>,
    /// The time at which policies are asked next although nothing changed.
    look_at_micros: u64,
    fitter: TableFitter,
    purge: Purge,
    _token: JobToken,
}

impl CleanJob {
    pub(super) fn new(context: Arc<JobContext>, compactions: Arc<Compactions>) -> Self {
        let look_at_micros = context.resources.env.monotonic_micros() + LOOK_MICROS;
        Self {
            _token: JobToken::new(&context),
            context,
            compactions,
            look_at_micros,
            fitter: TableFitter::default(),
            purge: Purge::default(),
        }
    }
}

impl CleanJob {
    /// Records the time if entries may expire.
    fn record_time(&self) {
        let may_expire = self.context.trees.read().all().any(|tree| tree.load().may_expire());
        if may_expire && let Err(error) = self.context.versions.record_time() {
            tracing::warn!(%error, "failed to record the time");
        }
    }

    /// Records how far the readers of changes are.
    fn store_slots(&self) {
        if let Err(error) = self.context.write.change_slots.store_moved(&self.context.versions) {
            tracing::warn!(%error, "failed to record where change slots are");
        }
    }

    /// Ends the snapshots and iterators that are older than they may be.
    fn expire_readers(&self) {
        let Some(age_max_micros) = self.context.status.snapshot_age_max_micros else { return };
        let expired = self.context.visibility.expire_snapshots(age_max_micros);
        let trees = self.context.all_trees();
        for tree in &trees {
            tree.expire_iterators(age_max_micros);
            if !expired.is_empty() {
                // Policies may now want a compaction that a snapshot made useless.
                self.context.compaction_queue.add(tree);
            }
        }
        for (sequence, age_micros, taken) in expired {
            let label = taken.label;
            tracing::warn!(sequence, age_micros, label = label.as_deref(), "a snapshot expired");
            self.context.resources.events.emit(EventKind::SnapshotExpired { label, sequence, age_micros });
        }
    }
}

impl Job for CleanJob {
    fn step(&mut self) -> Step {
        let resources = &self.context.resources;
        let _inside = resources.enter(Inside::Job);
        let seen = resources.obsolete_files.event().epoch();
        if self.context.status.is_stopping() {
            resources.remove_obsolete_files();
            if self.context.status.check_writing().is_err() {
                // The process may end without a close, and the reason must not be lost.
                self.context.recorder.write();
            }
            return Step::Done;
        }
        let paused = self.context.status.control.pause();
        if paused.is_none() {
            resources.remove_obsolete_files();
        }
        if let Err(error) = self.context.write.truncate_released_log() {
            tracing::warn!(%error, "failed to remove log segments that nobody needs any more");
        }
        let now_micros = resources.env.monotonic_micros();
        let looks = now_micros >= self.look_at_micros;
        if looks {
            self.look_at_micros = now_micros + LOOK_MICROS;
            self.compactions.ask_by_time();
            self.record_time();
            self.store_slots();
            self.context.write.give_back_memory();
            self.expire_readers();
            self.context.recorder.write();
        } else {
            self.context.recorder.write_if_many();
        }
        if let Some(Step::Pending { event, seen, .. }) = paused {
            return Step::Pending { event, seen, deadline_micros: Some(self.look_at_micros) };
        }
        self.compactions.start_due();
        if (looks || self.purge.is_running())
            && self.context.status.check_writing().is_ok()
            && self.purge.step(&self.context, &self.compactions)
        {
            return Step::Again;
        }
        let deadline_micros = match self.fitter.step(&self.context) {
            Fit::More => return Step::Again,
            Fit::At(micros) => Some(self.look_at_micros.min(micros)),
            Fit::Done => Some(self.look_at_micros),
        };
        Step::Pending { event: resources.obsolete_files.event().clone(), seen, deadline_micros }
    }
}
