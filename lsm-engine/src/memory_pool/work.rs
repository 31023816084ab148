//! Flushes and compactions of a pool that several databases share take turns: each takes buffers, and together they must
//! fit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pool::Pool;

/// Background work that takes buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    Flush,
    Merge,
}

/// Number of flushes, and of merges, that run at the same time in a shared pool. A table writer takes at most an eighth of
/// the shares of buffers and tables, and a merge has at most [`PARTS_MAX`] of them.
const RUNNING_MAX: usize = 2;
/// Number of parts of a merge in a shared pool.
pub(super) const PARTS_MAX: usize = 2;

/// The work that runs.
#[derive(Default)]
pub(super) struct Running {
    flushes: AtomicUsize,
    merges: AtomicUsize,
}

impl Running {
    fn count(&self, work: Work) -> &AtomicUsize {
        match work {
            Work::Flush => &self.flushes,
            Work::Merge => &self.merges,
        }
    }
}

/// A turn to work, until it is dropped.
pub(crate) struct Slot {
    pool: Arc<Pool>,
    work: Work,
}

impl Slot {
    /// Takes a turn; `None` if too many others work.
    pub(super) fn take(pool: &Arc<Pool>, work: Work) -> Option<Self> {
        let more = |count: usize| (count < RUNNING_MAX).then_some(count + 1);
        let taken = pool.running.count(work).fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok().then(|| Self { pool: Arc::clone(pool), work })
    }

    /// How much of what is left each of several merges may take.
    pub(super) fn part_of(bytes: usize) -> usize {
        bytes / RUNNING_MAX
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.running.count(self.work).fetch_sub(1, Ordering::AcqRel);
        match self.work {
            Work::Flush => self.pool.flush_turn.notify(),
            Work::Merge => self.pool.offer_merge(),
        }
    }
}
