use std::sync::Arc;

use lsm_core::{BlobPointer, Entry, ValueKind, expiry};

use crate::filter::{BlobSource, CompactionAt, CompactionFilter, Decision, LazyBlob, LazyValue};

/// A compaction filter in a merge.
pub(super) struct Filtering {
    filter: Arc<dyn CompactionFilter>,
    at: CompactionAt,
    /// The kind and value that replace the ones at the cursor.
    kind: ValueKind,
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
        Self { filter, at, kind: ValueKind::Put, replacement: Vec::new() }
    }

    /// Asks about an entry. One in a blob file that cannot be read is kept, unless the filter decides without its value.
    pub(super) fn ask(&mut self, entry: Entry<'_>, blobs: Option<&dyn BlobSource>) -> Filtered {
        if let (ValueKind::BlobPointer, Some(source)) = (entry.kind, blobs) {
            let Some(pointer) = BlobPointer::decode(entry.value) else { return Filtered::Kept };
            let blob = LazyBlob::new(source, entry.value, pointer.bytes as usize);
            let expiry_micros = pointer.expires().then_some(pointer.expiry_micros);
            let filtered = self.decide(entry.key, LazyValue::of_blob(&blob), expiry_micros);
            return if blob.has_failed() { Filtered::Kept } else { filtered };
        }
        let (expiry_micros, value) = match entry.kind {
            ValueKind::Put => (None, entry.value),
            ValueKind::PutWithExpiry => match expiry::split(entry.value) {
                Some((micros, value)) => (Some(micros), value),
                None => return Filtered::Kept,
            },
            _ => return Filtered::Kept,
        };
        self.decide(entry.key, LazyValue::new(value), expiry_micros)
    }

    fn decide(&mut self, key: &[u8], value: LazyValue<'_>, expiry_micros: Option<u64>) -> Filtered {
        match self.filter.decide(key, value, self.at) {
            Decision::Keep => Filtered::Kept,
            Decision::Delete => Filtered::Deleted,
            Decision::Replace(replacement) => {
                self.replacement.clear();
                self.kind = ValueKind::Put;
                if let Some(micros) = expiry_micros {
                    self.kind = ValueKind::PutWithExpiry;
                    self.replacement.extend_from_slice(&expiry::prefix(micros));
                }
                self.replacement.extend_from_slice(&replacement);
                Filtered::Replaced
            }
        }
    }

    pub(super) fn replacement(&self) -> (ValueKind, &[u8]) {
        (self.kind, &self.replacement)
    }
}
