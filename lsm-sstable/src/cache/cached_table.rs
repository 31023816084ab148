use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::frame::{Frame, FrameSlot, PinnedFrame};

use super::block_cache::BlockCache;
use super::slots::Slots;

/// A table's place in a cache. Dropping it drops the table's cached blocks.
#[derive(Debug)]
pub(crate) struct CachedTable {
    cache: Arc<BlockCache>,
    slots: Arc<Slots>,
}

impl CachedTable {
    /// Bytes of memory that each block of a table costs, cached or not.
    pub(crate) const SLOT_BYTES: u64 = size_of::<FrameSlot>() as u64;

    pub(crate) fn new(cache: Arc<BlockCache>, block_count: usize) -> Self {
        Self { cache, slots: Arc::new(Slots((0..block_count).map(|_| FrameSlot::default()).collect())) }
    }

    /// Bytes that the slots themselves occupy, cached blocks not included.
    pub(crate) fn slot_bytes(&self) -> usize {
        size_of_val(&*self.slots.0)
    }

    /// The block, if it is cached, for the length of one call.
    #[inline]
    pub(crate) fn get(&self, block: usize) -> Option<PinnedFrame<'_>> {
        let Some(found) = self.slots.0.get(block)?.pin() else {
            self.cache.budget.counters.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.cache.budget.counters.hits.add_one();
        Some(found)
    }

    /// Offers a block that a point read missed. Returns it, if it is now cached.
    pub(crate) fn offer(&self, block: usize, frame: &[u8]) -> Option<Frame> {
        if !self.cache.budget.admits(frame.len()) {
            return None;
        }
        self.cache.clock.insert(&self.cache.budget, &self.slots, block, frame)
    }
}

impl Drop for CachedTable {
    fn drop(&mut self) {
        let mut blocks = 0;
        for frame in self.slots.0.iter().filter_map(FrameSlot::take) {
            blocks += 1;
            self.cache.budget.uncharge(&frame);
        }
        self.cache.clock.forget(&self.slots, blocks);
        if blocks > 0 {
            self.cache.budget.is_full.store(false, Ordering::Relaxed);
        }
    }
}
