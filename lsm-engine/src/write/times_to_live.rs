//! Which databases must look through batches for puts that expire.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::keyspaces::Tree;

/// Whether any keyspace has a time to live, so that batches must be looked through for puts into it.
#[derive(Debug, Default)]
pub(crate) struct TimesToLive(AtomicBool);

impl TimesToLive {
    /// Notes that a keyspace may have a time to live. Called before the first write to it.
    pub(crate) fn note(&self, tree: &Tree) {
        if tree.ttl_micros().is_some() {
            self.0.store(true, Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
