use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers for files, memtables and runs.
#[derive(Debug)]
pub(crate) struct Numbers(AtomicU64);

impl Numbers {
    /// Gives out numbers from `first` on.
    pub(crate) fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// The next number: higher than all before, and never given out twice.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives out no number below `first` from now on.
    pub(crate) fn skip_to(&self, first: u64) {
        self.0.fetch_max(first, Ordering::Relaxed);
    }

    /// The number that will be given out next.
    pub(crate) fn unused(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
