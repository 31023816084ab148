//! How the committer tells the watches of writes.

use std::sync::{Arc, Weak};

use crate::read::KeyRange;
use crate::write::committer::Committer;
use crate::write::payload::{Operation, Operations};
use crate::write::watch::RangeWatch;

impl Committer {
    /// Watches ranges from now on, until the result is dropped.
    pub(crate) fn watch(&mut self, ranges: Vec<(u32, KeyRange)>) -> Arc<RangeWatch> {
        let watch = Arc::new(RangeWatch::new(ranges));
        self.watches.push(Arc::downgrade(&watch));
        watch
    }

    /// Tells the watches of an operation that is about to be written.
    #[cold]
    pub(super) fn note_one(&mut self, operation: &Operation<'_>) {
        let next = self.last_sequence() + 1;
        self.watches.retain(|watch| {
            let Some(watch) = Weak::upgrade(watch) else { return false };
            watch.note(operation, next);
            true
        });
    }

    /// Tells the watches of a batch that is about to be written.
    #[cold]
    pub(super) fn note_batch(&mut self, payload: &[u8]) {
        for operation in Operations::new(payload, 0).flatten() {
            self.note_one(&operation);
        }
    }
}
