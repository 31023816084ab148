use std::sync::Arc;

use lsm_core::{Entry, ValueKind, expiry};

use crate::filter::{CompactionAt, CompactionFilter, Decision, LazyValue};

/// A compaction filter in a merge.
pub(super) struct Filtering {
    filter: Arc<dyn CompactionFilter>,
    at: CompactionAt,
    /// The value that replaces the one at the cursor.
    replacement: Vec<u8>,
}

/// What becomes of an entry.
pub(super) enum Filtered {
    Kept,
    Deleted,
    Replaced,
}

impl Filtering {
    pub(super) fn new(filter: Arc<dyn CompactionFilter>, at: CompactionAt) -> Self {
        Self { filter, at, replacement: Vec::new() }
    }

    pub(super) fn ask(&mut self, entry: Entry<'_>) -> Filtered {
        let (expiry_micros, value) = match entry.kind {
            ValueKind::Put => (None, entry.value),
            ValueKind::PutWithExpiry => match expiry::split(entry.value) {
                Some((micros, value)) => (Some(micros), value),
                None => return Filtered::Kept,
            },
            _ => return Filtered::Kept,
        };
        match self.filter.decide(entry.key, LazyValue::new(value), self.at) {
            Decision::Keep => Filtered::Kept,
            Decision::Delete => Filtered::Deleted,
            Decision::Replace(replacement) => {
                self.replacement.clear();
                if let Some(micros) = expiry_micros {
                    self.replacement.extend_from_slice(&expiry::prefix(micros));
                }
                self.replacement.extend_from_slice(&replacement);
                Filtered::Replaced
            }
        }
    }

    pub(super) fn replacement(&self) -> &[u8] {
        &self.replacement
    }
}
