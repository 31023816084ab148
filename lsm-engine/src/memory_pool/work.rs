//! Flushes and compactions of a pool that several databases share take turns: each takes buffers, and together they must
//! fit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::env::Event;
use parking_lot::Mutex;

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
const PARTS_MAX: usize = 2;

/// The work that runs, and who waits for a turn.
#[derive(Default)]
pub(super) struct Turns {
    flushes: AtomicUsize,
    merges: AtomicUsize,
    /// Notified when a flush may begin.
    flush: Event,
    /// Notified, once each, when a merge may begin. By database.
    merge: Mutex<BTreeMap<usize, [Event; 2]>>,
}

impl Turns {
    fn count(&self, work: Work) -> &AtomicUsize {
        match work {
            Work::Flush => &self.flushes,
            Work::Merge => &self.merges,
        }
    }

    /// Takes a turn; `None` if too many others work. A merge of the database `number` then has `waiting` notified when there
    /// may be one, and a flush waits for [`flush`](Self::flush).
    pub(super) fn take(self: &Arc<Self>, work: Work, number: usize, waiting: [Event; 2]) -> Option<Turn> {
        let more = |count: usize| (count < RUNNING_MAX).then_some(count + 1);
        let try_take = || {
            let taken = self.count(work).fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
            taken.is_ok().then(|| Turn { of: Some((Arc::clone(self), work)) })
        };
        try_take().or_else(|| {
            if matches!(work, Work::Merge) {
                self.merge.lock().insert(number, waiting);
            }
            // One may have ended meanwhile.
            try_take()
        })
    }

    pub(super) fn flush(&self) -> &Event {
        &self.flush
    }
}

/// A turn to work, until it is dropped.
pub(crate) struct Turn {
    /// `None` where the database has its pool alone: there its own limits suffice.
    of: Option<(Arc<Turns>, Work)>,
}

impl Turn {
    pub(super) fn alone() -> Self {
        Self { of: None }
    }

    /// Whether others may wait for the end of the turn.
    pub(crate) fn is_shared(&self) -> bool {
        self.of.is_some()
    }
}

/// What a merge may take of `bytes` that are left for merges, and into how many parts it may be split.
pub(super) fn merge_limits(bytes: usize) -> (usize, usize) {
    (bytes / RUNNING_MAX, PARTS_MAX)
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((turns, work)) = &self.of else { return };
        turns.count(*work).fetch_sub(1, Ordering::SeqCst);
        match work {
            Work::Flush => turns.flush.notify(),
            Work::Merge => {
                let waiting = std::mem::take(&mut *turns.merge.lock());
                waiting.values().flatten().for_each(Event::notify);
            }
        }
    }
}
