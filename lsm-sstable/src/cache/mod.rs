//! The block cache: decoded blocks of all open tables, within one byte budget.
//!
//! Each open table has an array with a slot for every block, so that finding a block is an index into an array,
//! not a hash lookup. A slot is eight bytes; a reader pins what is in it with one atomic addition. Blocks are evicted
//! by CLOCK: a hand goes round all cached blocks, spares those that were referenced since it last came by, and
//! takes the others.
//!
//! Frames lie in huge pages, which makes a lookup a third faster: it is mostly misses, of the address translation
//! too. A page counts against the budget as soon as it is mapped. Frames too large for the pool, or for which the
//! budget has no further page, are allocations of their own.
//!
//! While there is room every block that a point read missed is kept. Once full, one in eight is: writing a block
//! to memory that is not in the processor's cache costs half as much as decoding it again, and blocks that are
//! asked for often get in soon anyway. Scans keep nothing.

mod clock;
mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use clock::Clock;
use lsm_core::frame::{Frame, FramePool};
pub(crate) use slots::CachedTable;

/// What a cached block costs beside its frame: its place on the clock.
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// What a frame of its own costs beside its bytes: counts and allocator overhead.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Longest frame that is put into the pool. Values are copied out of those rather than pinned.
const POOLED_BYTES_MAX: usize = 16 << 10;

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
    pool: FramePool,
    /// What frames of their own and places on the clock take. It grows only under the lock of the clock.
    aside_bytes: AtomicUsize,
    /// Whether the last insertion had to evict.
    is_full: AtomicBool,
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
            pool: FramePool::default(),
            aside_bytes: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            clock: Clock::default(),
            counters: Counters::default(),
        })
    }

    /// Bytes that all cached blocks occupy, everything included; never above the capacity, except while
    /// [`BlockCache::set_capacity`] is lowering it. The arrays of slots belong to the tables
    /// ([`Table::pinned_bytes`](crate::Table::pinned_bytes)).
    pub fn used_bytes(&self) -> usize {
        self.pool.live_bytes() + self.aside_bytes.load(Ordering::Relaxed)
    }

    /// [`BlockCache::used_bytes`] and what is free in the huge pages: what the budget bounds.
    fn held_bytes(&self) -> usize {
        self.pool.page_bytes() + self.aside_bytes.load(Ordering::Relaxed)
    }

    /// The budget.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes.load(Ordering::Relaxed)
    }

    /// Changes the budget. When it shrinks, blocks are evicted before this returns.
    pub fn set_capacity(&self, capacity_bytes: usize) {
        self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
        self.clock.shrink(self);
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
        let is_full = self.is_full.load(Ordering::Relaxed);
        // The count of misses, scrambled, is random enough not to fall in step with what is being read.
        let draw = misses.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (!is_full && bytes <= capacity.saturating_sub(self.used_bytes()))
            || (bytes <= capacity / 4 && draw.is_multiple_of(ADMIT_ONE_IN))
    }

    fn is_poolable(bytes: &[u8]) -> bool {
        bytes.len() <= POOLED_BYTES_MAX
    }

    /// By how much a frame of its own of so many bytes, on top of what there is, would exceed the budget. 0 bytes ask
    /// about what there is.
    fn over_bytes(&self, bytes: usize) -> usize {
        let more = if bytes == 0 { 0 } else { ENTRY_OVERHEAD_BYTES + FRAME_OVERHEAD_BYTES + bytes };
        self.held_bytes().saturating_add(more).saturating_sub(self.capacity_bytes())
    }

    /// A copy of `bytes`, charged to the budget; `None` if it does not fit. Small ones go to the pool, and where not
    /// even another page fits, into what is left.
    fn allocate(&self, bytes: &[u8]) -> Option<Frame> {
        let room = self.capacity_bytes().saturating_sub(self.held_bytes());
        let mut frame = None;
        if Self::is_poolable(bytes) && room >= ENTRY_OVERHEAD_BYTES {
            frame = self.pool.copy_from(bytes, room >= FramePool::PAGE_BYTES + ENTRY_OVERHEAD_BYTES);
        }
        if frame.is_none() && self.over_bytes(bytes.len()) == 0 {
            frame = Some(Frame::copy_from(bytes));
        }
        let frame = frame?;
        self.aside_bytes.fetch_add(charge(&frame), Ordering::Relaxed);
        Some(frame)
    }

    /// The frame is not the cache's any more. Whoever still reads it answers for it.
    fn uncharge(&self, frame: &Frame) {
        self.aside_bytes.fetch_sub(charge(frame), Ordering::Relaxed);
    }
}

/// What a frame costs beside its place in the pool.
fn charge(frame: &Frame) -> usize {
    let own = if frame.is_pooled() { 0 } else { FRAME_OVERHEAD_BYTES + frame.len() };
    ENTRY_OVERHEAD_BYTES + own
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_count_as_soon_as_they_are_mapped_and_are_given_back() {
        let cache = BlockCache::new(20 << 20);
        let table = CachedTable::new(Arc::clone(&cache), 20_000);
        let fill = |lens: &[usize]| {
            for block in 0..20_000 {
                table.offer(block, &vec![block as u8; lens[block % lens.len()]]);
                assert!(cache.held_bytes() <= cache.capacity_bytes());
                assert!(cache.used_bytes() <= cache.held_bytes());
            }
            for block in 0..20_000 {
                if let Some(frame) = table.get(block) {
                    assert!(frame.iter().all(|&byte| byte == block as u8), "block {block}");
                }
            }
        };
        fill(&[4300, 4280, 4350]);
        assert!(cache.pool.page_bytes() >= 16 << 20);
        assert!(cache.used_bytes() >= 19 << 20, "{}", cache.used_bytes());
        // Blocks of other sizes take over pages that their predecessors leave.
        for _ in 0..8 {
            fill(&[9000, 4300, 30_000, 200_000, 1200]);
        }
        assert!(cache.used_bytes() >= 15 << 20, "{}", cache.used_bytes());
        fill(&[4300]);
        let evictions = cache.stats().evictions;
        cache.set_capacity(cache.held_bytes() - 1);
        let evictions = cache.stats().evictions - evictions;
        assert!((1..600).contains(&evictions), "{evictions} evictions for a byte");
        cache.set_capacity(5 << 20);
        assert!(cache.held_bytes() <= 5 << 20);
        assert!(cache.used_bytes() > 3 << 20, "{}", cache.used_bytes());
        drop(table);
        assert_eq!((cache.held_bytes(), cache.used_bytes()), (0, 0));
    }
}
