//! The flush job. It runs as long as the database is open.

use std::sync::Arc;

use lsm_core::env::{Job, Step};

use super::compaction::Compactions;
use super::context::{JobContext, JobToken};
use super::flush::{FlushGroup, retried};
use crate::callbacks::caught;
use crate::error::{Error, ErrorKind, Result};
use crate::memory_pool::{Flushing, Turn, Work};
use crate::reentry::Inside;

/// Flushes one group of memtables after another.
pub(crate) struct FlushJob {
    context: Arc<JobContext>,
    compactions: Arc<Compactions>,
    group: Option<FlushGroup>,
    /// Only failed flushes were left to do.
    paused: bool,
    /// The turn to flush, among the databases of the pool.
    turn: Option<Turn>,
    _token: JobToken,
}

impl FlushJob {
    pub(crate) fn new(context: Arc<JobContext>, compactions: Arc<Compactions>) -> Self {
        context.resources.memory.holding.set_flushing(Flushing::Able);
        Self { _token: JobToken::new(&context), context, compactions, group: None, paused: false, turn: None }
    }

    /// Works for a while. Returns the progress.
    fn step_group(&mut self) -> Result<Progressed> {
        if self.group.is_none() {
            let Some(group) = FlushGroup::next(&self.context) else { return Ok(Progressed::Idle) };
            let Some(turn) = self.context.resources.memory.holding.begin(Work::Flush) else {
                return Ok(Progressed::NotItsTurn);
            };
            (self.group, self.turn) = (Some(group), Some(turn));
        }
        let Some(group) = &mut self.group else { return Ok(Progressed::Idle) };
        if !group.step(&self.context)? {
            return Ok(Progressed::Some);
        }
        (self.group, self.turn) = (None, None);
        Ok(Progressed::Flushed)
    }

    fn give_up(&mut self, error: Option<&Error>) {
        if let Some(group) = self.group.take() {
            group.give_up(&self.context, error);
        }
        self.turn = None;
    }

    /// Background work is paused: what the flush has written so far is discarded, so that the other databases of the pool
    /// need not wait for its buffers.
    fn make_way(&mut self) {
        if self.context.resources.memory.shared_pool().is_some() {
            self.give_up(None);
            let holding = &self.context.resources.memory.holding;
            holding.set_flushing(Flushing::Paused);
            holding.has_answered(false);
        }
    }

    /// The time of the next retry; `None` if no flush failed. A notification of `flush_wanted` ends the pause.
    fn pause(&mut self) -> Option<u64> {
        let deadline_micros = retried(&self.context).filter_map(|tree| tree.flush_retry_micros()).min();
        self.paused = deadline_micros.is_some();
        if !self.paused && self.context.status.flush_error.current().is_some() {
            // The keyspace with the failed flush was cleared or dropped.
            self.context.status.flush_error.clear();
            self.context.resources.memory.keep_for_deletes(false);
            self.context.status.progress.notify();
        }
        let error = self.context.status.flush_error.current().filter(|_| self.paused);
        let holding = &self.context.resources.memory.holding;
        holding.set_flushing(match error.map(|error| error.kind()) {
            None => Flushing::Able,
            Some(ErrorKind::NoSpace) => Flushing::DiskFull,
            Some(_) => Flushing::Failing,
        });
        holding.note_idle();
        deadline_micros
    }

    fn failed(&mut self, error: Error) {
        self.give_up(Some(&error));
        self.context.resources.close_files_after(&error);
        if error.may_pass() {
            // Warn once, not at each retry.
            if self.context.status.flush_error.current().is_none() {
                tracing::warn!(%error, "a flush failed and is tried again until it succeeds; when memory is used up, writes wait or fail");
            }
            self.context.resources.memory.keep_for_deletes(error.kind() == ErrorKind::NoSpace);
            self.context.status.note_flush_error(error);
        }
        // Other memtables of the group may have been installed.
        self.compactions.start_due();
        self.context.status.progress.notify();
    }
}

/// The progress of a step of the flush job.
enum Progressed {
    /// There is no memtable to flush.
    Idle,
    /// Other databases of the pool flush.
    NotItsTurn,
    /// The group needs more steps.
    Some,
    /// The group is done.
    Flushed,
}

impl Drop for FlushJob {
    fn drop(&mut self) {
        self.context.resources.memory.holding.set_flushing(Flushing::Never);
    }
}

impl Job for FlushJob {
    fn step(&mut self) -> Step {
        let context = Arc::clone(&self.context);
        let _inside = context.resources.enter(Inside::Job);
        let holding = &context.resources.memory.holding;
        let (seen, turn_seen) = (context.write.flush_wanted.epoch(), holding.flush_turn().epoch());
        let pending = |deadline_micros| Step::Pending {
            event: context.write.flush_wanted.clone(),
            seen,
            deadline_micros,
        };
        if context.status.is_stopping() {
            self.give_up(None);
            return Step::Done;
        }
        if let Some(pending) = context.status.control.pause() {
            self.make_way();
            return pending;
        }
        if holding.is_asked() {
            context.write.flush_for_pool();
        }
        if std::mem::take(&mut self.paused) {
            retried(&self.context).for_each(|tree| tree.retry_flush_at(0));
        }
        match caught("a flush", || self.step_group()) {
            Ok(Progressed::Idle) => pending(self.pause()),
            Ok(Progressed::NotItsTurn) => {
                let event = holding.flush_turn().clone();
                Step::Pending { event, seen: turn_seen, deadline_micros: None }
            }
            Ok(Progressed::Some) => Step::Again,
            Ok(Progressed::Flushed) => {
                if retried(&self.context).next().is_none() {
                    context.status.flush_error.clear();
                    context.resources.memory.keep_for_deletes(false);
                    context.resources.disk_reserve.fill();
                }
                self.compactions.start_due();
                context.status.progress.notify();
                Step::Again
            }
            Err(error) => {
                self.failed(error);
                Step::Again
            }
        }
    }
}
