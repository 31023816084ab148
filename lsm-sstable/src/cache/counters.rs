use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of a [`BlockCache`](crate::BlockCache) since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads that found their block; approximate where more than 16 threads read.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Missed blocks that were kept.
    pub insertions: u64,
    /// Blocks that had to leave for others.
    pub evictions: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hits: Striped,
    pub(super) misses: AtomicU64,
    pub(super) insertions: AtomicU64,
    pub(super) evictions: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.sum(),
            misses: self.misses.load(Ordering::Relaxed),
            insertions: self.insertions.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }
}

/// A counter that threads add to without sharing a cache line, as long as there are no more than 16. With more, or
/// when two add at once after all, a count may get lost: an atomic addition would cost each hit 5 ns.
#[derive(Debug, Default)]
pub(super) struct Striped([Stripe; 16]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

impl Striped {
    #[inline]
    pub(super) fn add_one(&self) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % 16;
        }
        STRIPE.with(|&stripe| {
            let count = &self.0[stripe].0;
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}
