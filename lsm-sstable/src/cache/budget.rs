//! What cached blocks cost, and the memory that they are in.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lsm_core::frame::{Frame, FramePool};

use super::counters::Counters;

/// What a cached block costs beside its frame: its place on the clock.
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// What a frame of its own costs beside its bytes: counts and allocator overhead.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Longest frame that is put into the pool. Values are copied out of those rather than pinned.
const POOLED_BYTES_MAX: usize = 16 << 10;

/// One missed block in so many is kept once the cache is full.
const ADMIT_ONE_IN: u64 = 8;

/// The memory of a cache and what is known about it.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) capacity_bytes: AtomicUsize,
    pub(super) pool: FramePool,
    /// What frames of their own and places on the clock take. It grows only under the lock of the clock.
    aside_bytes: AtomicUsize,
    /// Whether the last insertion had to evict.
    pub(super) is_full: AtomicBool,
    pub(super) counters: Counters,
}

impl Budget {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self {
            capacity_bytes: AtomicUsize::new(capacity_bytes),
            pool: FramePool::default(),
            aside_bytes: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// See [`BlockCache::used_bytes`](crate::BlockCache::used_bytes).
    pub(super) fn used_bytes(&self) -> usize {
        self.pool.live_bytes() + self.aside_bytes.load(Ordering::Relaxed)
    }

    /// [`used_bytes`](Self::used_bytes) and what is free in the huge pages: what the budget bounds.
    pub(super) fn held_bytes(&self) -> usize {
        self.pool.page_bytes() + self.aside_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        self.capacity_bytes.load(Ordering::Relaxed)
    }

    /// Whether a block of `bytes` that was just missed shall be kept.
    pub(super) fn admits(&self, bytes: usize) -> bool {
        let misses = self.counters.misses.load(Ordering::Relaxed);
        let capacity = self.capacity_bytes();
        let is_full = self.is_full.load(Ordering::Relaxed);
        // The count of misses, scrambled, is random enough not to fall in step with what is being read.
        let draw = misses.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        (!is_full && bytes <= capacity.saturating_sub(self.used_bytes()))
            || (bytes <= capacity / 4 && draw.is_multiple_of(ADMIT_ONE_IN))
    }

    pub(super) fn is_poolable(bytes: &[u8]) -> bool {
        bytes.len() <= POOLED_BYTES_MAX
    }

    /// By how much a frame of its own of so many bytes, on top of what there is, would exceed the budget. 0 bytes ask
    /// about what there is.
    pub(super) fn over_bytes(&self, bytes: usize) -> usize {
        let more = if bytes == 0 { 0 } else { ENTRY_OVERHEAD_BYTES + FRAME_OVERHEAD_BYTES + bytes };
        self.held_bytes().saturating_add(more).saturating_sub(self.capacity_bytes())
    }

    /// A copy of `bytes`, charged to the budget; `None` if it does not fit. Small ones go to the pool, and where not
    /// even another page fits, into what is left.
    pub(super) fn allocate(&self, bytes: &[u8]) -> Option<Frame> {
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
    pub(super) fn uncharge(&self, frame: &Frame) {
        self.aside_bytes.fetch_sub(charge(frame), Ordering::Relaxed);
    }
}

/// What a frame costs beside its place in the pool.
fn charge(frame: &Frame) -> usize {
    let own = if frame.is_pooled() { 0 } else { FRAME_OVERHEAD_BYTES + frame.len() };
    ENTRY_OVERHEAD_BYTES + own
}
