//! The atomics of shared memory: the standard ones, or loom's when a model is checked (`--cfg loom`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

/// Lets the writer get on when a reader met a node that is being changed.
///
/// The writer is in there for some tens of nanoseconds, so a few spins are enough, unless it was preempted: then
/// spinning would keep it from the core that it needs.
#[derive(Default)]
pub(crate) struct Backoff {
    spins: u32,
}

impl Backoff {
    const SPINS_MAX: u32 = 16;

    pub(crate) fn wait(&mut self) {
        #[cfg(loom)]
        loom::thread::yield_now();
        #[cfg(not(loom))]
        if self.spins < Self::SPINS_MAX {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
        self.spins = (self.spins + 1).min(Self::SPINS_MAX);
    }
}
