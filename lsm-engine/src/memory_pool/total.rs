use std::sync::atomic::{AtomicUsize, Ordering};

/// A sum that never goes below zero.
#[derive(Debug, Default)]
pub(crate) struct Total(AtomicUsize);

impl Total {
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Returns the new sum.
    pub(crate) fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    /// Adds `bytes` if the sum stays within `bytes_max`. Returns whether it did.
    pub(crate) fn add_within(&self, bytes: usize, bytes_max: usize) -> bool {
        let grown = |sum: usize| sum.checked_add(bytes).filter(|&sum| sum <= bytes_max);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, grown).is_ok()
    }

    /// Returns the new sum.
    pub(crate) fn remove(&self, bytes: usize) -> usize {
        let less = |sum: usize| Some(sum.saturating_sub(bytes));
        let (Ok(before) | Err(before)) = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        debug_assert!(before >= bytes, "more bytes removed than added");
        before.saturating_sub(bytes)
    }
}
