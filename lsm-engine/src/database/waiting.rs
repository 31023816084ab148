//! Calls that wait for background work: flushes, compactions, the sync of the log.

use std::ops::Bound;
use std::sync::Arc;

use super::{Database, WriteSide};
use crate::background::Manual;
use crate::control::Uncancelled;
use crate::error::{Error, Result};
use crate::events::{EventKind, WaitReason};
use crate::keyspaces::Tree;
use crate::waits::Waiting;

impl Database {
    pub(crate) fn flush_all(&self) -> Result<()> {
        self.resources.check_may_wait()?;
        self.rotate_and_flush(self.write_side()?, || Ok(()))
    }

    /// Waits like [`Resources::wait_for`](crate::resources::Resources::wait_for) for background work, which may be
    /// paused.
    fn wait_for_work(
        &self,
        why: WaitReason,
        side: &WriteSide,
        mut done: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let mut waiting: Option<Waiting<'_>> = None;
        self.resources.wait_until(&side.write.status.progress, || {
            let is_done = done()?;
            if !is_done {
                let why = if side.write.status.control.is_paused() { WaitReason::Paused } else { why };
                match &mut waiting {
                    Some(waiting) => waiting.change(why),
                    None => waiting = Some(self.resources.waits.begin(why, None)),
                }
            }
            Ok(is_done)
        })
    }

    /// Pauses background work: no flush or compaction begins, and those that run stop before their next step.
    pub(crate) fn pause_background_work(&self) -> Result<()> {
        let status = &self.write_side()?.write.status;
        if status.control.set_paused(true) {
            status.events.emit(EventKind::Paused);
        }
        // Callers that wait say from now on that work is paused.
        status.progress.notify();
        // `close` ends a pause, but this one may have come after it.
        self.check_open().inspect_err(|_| {
            status.control.set_paused(false);
        })
    }

    /// Resumes paused background work.
    pub(crate) fn resume_background_work(&self) -> Result<()> {
        let side = self.write_side()?;
        let status = &side.write.status;
        if status.control.set_paused(false) {
            status.events.emit(EventKind::Resumed);
        }
        // This job starts the compactions that became due meanwhile.
        self.resources.obsolete_files.event().notify();
        status.progress.notify();
        Ok(())
    }

    pub(crate) fn cancel_manual_compactions(&self) -> Result<()> {
        let status = &self.write_side()?.write.status;
        status.control.cancel();
        status.progress.notify();
        Ok(())
    }

    /// Rotates all memtables and waits until they are in tables.
    /// Each time before it waits, it calls `check`, which may fail.
    pub(super) fn rotate_and_flush(&self, side: &WriteSide, check: impl Fn() -> Result<()>) -> Result<()> {
        side.write.status.check_writing()?;
        // This makes a failed flush try again now.
        let errors_before = side.write.status.flush_error.count();
        side.write.flush_wanted.notify();
        let (mut waiting, mut stopped): (Vec<_>, _) = {
            side.write.committer.lock().rotate_all();
            let with_immutable = |tree: Arc<Tree>| {
                let immutable = tree.load().immutable.clone();
                (tree, immutable)
            };
            let trees = side.write.unflushed.trees();
            // A memtable that panicked during its rotation is still the active one.
            let mut not_rotated = trees.iter().filter(|tree| tree.load().memtable.is_some());
            let stopped = not_rotated.try_for_each(|tree| tree.check_writable());
            (trees.into_iter().map(with_immutable).collect(), stopped)
        };
        // The error of one keyspace is returned only after the memtables of the others are in tables.
        let mut retried = Vec::new();
        self.wait_for_work(WaitReason::Flush, side, || {
            check()?;
            side.write.status.check_writing()?;
            while let Some((tree, immutable)) = waiting.pop() {
                if !tree.has_unflushed(&immutable) {
                    continue;
                }
                if let Err(error) = tree.check_writable() {
                    stopped = Err(error);
                } else if tree.flush_retry_micros().is_some() {
                    retried.push((tree, immutable));
                } else {
                    waiting.push((tree, immutable));
                    return Ok(false);
                }
            }
            retried.retain(|(tree, immutable)| {
                let left = tree.has_unflushed(immutable);
                if left && let Err(error) = tree.check_writable() {
                    stopped = Err(error);
                }
                left && tree.is_healthy()
            });
            if !retried.is_empty() {
                side.write.status.flush_error.check(errors_before)?;
            }
            Ok(retried.is_empty())
        })?;
        stopped
    }

    pub(crate) fn sync_log(&self) -> Result<()> {
        self.write_side()?.write.sync_log()
    }

    pub(crate) fn wait_for_compactions(&self) -> Result<()> {
        let side = self.write_side()?;
        self.resources.check_may_wait()?;
        let status = &side.write.status;
        let (flush_errors, compaction_errors) = (status.flush_error.count(), status.compaction_error.count());
        side.write.flush_wanted.notify();
        self.all_trees().iter().for_each(|tree| side.background.compaction_queue.add(tree));
        self.wait_for_work(WaitReason::Compaction, side, || {
            self.check_open()?;
            side.write.status.check_writing()?;
            side.write.status.flush_error.check(flush_errors)?;
            side.write.status.compaction_error.check(compaction_errors)?;
            side.compactions.start_due();
            let settled = side.write.unflushed.trees().iter().all(|tree| tree.load().immutable.is_empty())
                && side.compactions.are_settled();
            // `start_due` asks the policies, and one that panics stops its keyspace.
            self.all_trees().iter().try_for_each(|tree| tree.check_writable())?;
            Ok(settled)
        })
    }

    pub(crate) fn compact_range(&self, tree: &Arc<Tree>, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Result<()> {
        check_order(range)?;
        let side = self.write_side()?;
        self.resources.check_may_wait()?;
        let begun = side.write.status.control.uncancelled();
        let held = side.compactions.hold(tree.id);
        let done = self.compact_held(side, tree, range, begun);
        drop(held);
        side.background.compaction_queue.add(tree);
        side.compactions.start_due();
        // A caller of `wait_for_compactions` may have seen the policy on hold, and trivial moves do not notify it.
        side.write.status.progress.notify();
        done
    }

    pub(crate) fn delete_files_in_range(
        &self,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<DeletedFiles> {
        check_order(range)?;
        let side = self.write_side()?;
        self.resources.check_may_wait()?;
        let (tables, bytes) = side.compactions.drop_range(tree, range)?;
        Ok(DeletedFiles { tables, bytes })
    }

    /// Compacts a range while the policy is on hold: this loop could miss tables that the policy's compactions write.
    fn compact_held(
        &self,
        side: &WriteSide,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        begun: Uncancelled,
    ) -> Result<()> {
        let control = &side.write.status.control;
        self.rotate_and_flush(side, || control.check(begun))?;
        let since = side.versions.numbers.next();
        let errors_before = side.write.status.compaction_error.count();
        self.wait_for_work(WaitReason::Compaction, side, || {
            loop {
                self.check_open()?;
                side.write.status.check_writing()?;
                if control.check(begun).is_err() && side.compactions.is_manual_running(tree) {
                    // Its jobs end with their next step. Then the data is as it was.
                    return Ok(false);
                }
                control.check(begun)?;
                side.write.status.compaction_error.check(errors_before)?;
                if control.is_paused() {
                    return Ok(false);
                }
                match side.compactions.start_manual(tree, range, since, begun)? {
                    Manual::Started => {}
                    Manual::Wait => return Ok(false),
                    Manual::Done => return Ok(true),
                }
            }
        })
    }
}

/// Fails if a range ends before it starts.
fn check_order(range: (Bound<&[u8]>, Bound<&[u8]>)) -> Result<()> {
    use Bound::{Excluded, Included};
    match range {
        (Included(start) | Excluded(start), Included(end) | Excluded(end)) if start > end => {
            Err(Error::inverted(start, end))
        }
        _ => Ok(()),
    }
}

/// What [`Keyspace::delete_files_in_range`](crate::Keyspace::delete_files_in_range) took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletedFiles {
    /// Number of tables.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
}
