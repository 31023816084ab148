//! The queues of updates that have failed because another write came between.

use lsm_core::env::Event;

use crate::events::WaitReason;
use crate::lock_order::assert_none_held;
use crate::resources::Resources;
use crate::write::queue::{Waiting, WriteQueue};

/// How long an update waits for its turn before it tries again all the same.
const TURN_MICROS: u64 = 5000;
/// Updates of keys with different hashes rarely wait for each other.
const QUEUES: usize = 16;

#[derive(Default)]
pub(super) struct UpdateQueues([UpdateQueue; QUEUES]);

impl UpdateQueues {
    pub(super) fn of(&self, hash: u64) -> &UpdateQueue {
        &self.0[hash as usize % QUEUES]
    }
}

#[derive(Default)]
pub(super) struct UpdateQueue {
    line: WriteQueue,
    /// Somebody left the queue.
    moved: Event,
}

impl UpdateQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.line.len() == 0
    }

    pub(super) fn join(&self) -> Turn<'_> {
        Turn { place: Some(self.line.join()), moved: &self.moved }
    }
}

/// A place in a queue. Dropping it tells those behind.
pub(super) struct Turn<'q> {
    place: Option<Waiting<'q>>,
    moved: &'q Event,
}

impl Turn<'_> {
    /// Waits until all those before have left, but not for long: the first may itself wait for something.
    pub(super) fn wait(&self, resources: &Resources) {
        if resources.is_called_back() {
            // Background work waits for this thread.
            return;
        }
        assert_none_held(resources.place());
        let mut deadline = None;
        loop {
            let seen = self.moved.epoch();
            if self.place.as_ref().is_none_or(Waiting::is_first) {
                return;
            }
            let (_, micros) = deadline.get_or_insert_with(|| {
                let micros = resources.env.monotonic_micros().saturating_add(TURN_MICROS);
                (resources.waits.begin(WaitReason::Update, None), micros)
            });
            if !resources.env.wait(self.moved, seen, Some(*micros)) {
                return;
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.place.take();
        self.moved.notify();
    }
}
