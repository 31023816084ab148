//! The block cache: decoded blocks of all open tables, within one byte budget.
//!
//! Each open table has an array with a slot for every block, so that finding a block is an index into an array,
//! not a hash lookup. A slot is a small read-write lock around a counted pointer. Blocks are evicted by CLOCK: a hand goes round all cached blocks, spares those that were
//! referenced since it last came by, and takes the others.
//!
//! While there is room every block that a point read missed is kept. Once full, one in eight is: writing a block
//! to memory that is not in the processor's cache costs half as much as decoding it again, and blocks that are
//! asked for often get in soon anyway. Scans keep nothing.

mod clock;
mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use clock::Clock;
pub(crate) use slots::{CachedBlock, CachedTable};

/// What a cached block costs beside its bytes: counts and allocator overhead, and its place on the clock.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// One missed block in so many is kept once the cache is full.
const ADMIT_ONE_IN: u64 = 8;

/// A budget of memory for decoded blocks, shared by any number of tables.
///
/// ```
/// let cache = lsm_sstable::BlockCache::new(64 << 20);
/// assert_eq!(cache.used_bytes(), 0);
/// ```
#[derive(Debug)]
pub struct BlockCache {
    capacity_bytes: AtomicUsize,
    /// Changed only by who holds the clock, or by a table that closes.
    used_bytes: AtomicUsize,
    clock: Clock,
    counters: Counters,
}

/// Counters of a [`BlockCache`] since it was made.
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
struct Counters {
    hits: Striped,
    misses: AtomicU64,
    insertions: AtomicU64,
    evictions: AtomicU64,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`.
    pub fn new(capacity_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity_bytes: AtomicUsize::new(capacity_bytes),
            used_bytes: AtomicUsize::new(0),
            clock: Clock::default(),
            counters: Counters::default(),
        })
    }

    /// Bytes that all cached blocks occupy, everything included; never above the capacity, except while
    /// [`BlockCache::set_capacity`] is lowering it. The arrays of slots belong to the tables
    /// ([`Table::pinned_bytes`](crate::Table::pinned_bytes)).
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The budget.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes.load(Ordering::Relaxed)
    }

    /// Changes the budget. When it shrinks, blocks are evicted before this returns.
    pub fn set_capacity(&self, capacity_bytes: usize) {
        self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
        self.clock.make_room(self, 0);
    }

    /// Counters.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.counters.hits.sum(),
            misses: self.counters.misses.load(Ordering::Relaxed),
            insertions: self.counters.insertions.load(Ordering::Relaxed),
            evictions: self.counters.evictions.load(Ordering::Relaxed),
        }
    }

    /// Whether a block of `bytes` that was just missed shall be kept.
    fn admits(&self, bytes: usize) -> bool {
        let misses = self.counters.misses.load(Ordering::Relaxed);
        let capacity = self.capacity_bytes();
        let room = capacity.saturating_sub(self.used_bytes());
        // The count of misses, scrambled, is random enough not to fall in step with what is being read.
        let draw = misses.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        bytes <= room || (bytes <= capacity / 4 && draw.is_multiple_of(ADMIT_ONE_IN))
    }
}

/// A counter that threads add to without sharing a cache line, as long as there are no more than 16. With more, or
/// when two add at once after all, a count may get lost: an atomic addition would cost each hit 5 ns.
#[derive(Debug, Default)]
struct Striped([Stripe; 16]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

impl Striped {
    #[inline]
    fn add_one(&self) {
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
