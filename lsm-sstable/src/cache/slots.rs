use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::{BlockCache, ENTRY_OVERHEAD_BYTES};

/// A table's place in a cache. Dropping it drops the table's cached blocks.
#[derive(Debug)]
pub(crate) struct CachedTable {
    cache: Arc<BlockCache>,
    slots: Arc<Slots>,
}

/// A slot for each block of a table.
#[derive(Debug)]
pub(super) struct Slots(Box<[Mutex<Slot>]>);

#[derive(Debug, Default)]
struct Slot {
    block: Option<Arc<[u8]>>,
    /// Read since the clock's hand came by.
    is_referenced: bool,
}

/// What the clock's hand found in a slot.
pub(super) enum Visit {
    /// Nothing.
    Empty,
    /// A block that was read since the last visit; spared once.
    Spared,
    /// A block, which was taken out.
    Evicted(Arc<[u8]>),
}

impl CachedTable {
    pub(crate) fn new(cache: Arc<BlockCache>, block_count: usize) -> Self {
        Self { cache, slots: Arc::new(Slots((0..block_count).map(|_| Mutex::default()).collect())) }
    }

    /// Bytes that the slots themselves occupy, cached blocks not included.
    pub(crate) fn slot_bytes(&self) -> usize {
        size_of_val(&*self.slots.0)
    }

    /// The block, if it is cached.
    #[inline]
    pub(crate) fn get(&self, block: usize) -> Option<Arc<[u8]>> {
        let mut slot = self.slots.0.get(block)?.lock();
        if let Some(found) = &slot.block {
            let found = Arc::clone(found);
            slot.is_referenced = true;
            drop(slot);
            self.cache.counters.hits.add_one();
            return Some(found);
        }
        drop(slot);
        self.cache.counters.misses.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Offers a block that a point read missed. Returns it, if it is now cached.
    pub(crate) fn offer(&self, block: usize, frame: &[u8]) -> Option<Arc<[u8]>> {
        if !self.cache.admits(entry_bytes(frame)) {
            return None;
        }
        self.cache.clock.insert(&self.cache, &self.slots, block, frame)
    }
}

impl Drop for CachedTable {
    fn drop(&mut self) {
        let (mut blocks, mut bytes) = (0, 0);
        for slot in &self.slots.0 {
            if let Some(frame) = slot.lock().block.take() {
                blocks += 1;
                bytes += entry_bytes(&frame);
            }
        }
        self.cache.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.cache.clock.forget(&self.slots, blocks);
    }
}

impl Slots {
    /// Puts a copy of a block into its slot; `None` if another reader was first. Only who holds the clock fills.
    pub(super) fn fill(&self, block: u32, frame: &[u8]) -> Option<Arc<[u8]>> {
        let slot = self.0.get(block as usize)?;
        if slot.lock().block.is_some() {
            return None;
        }
        let frame: Arc<[u8]> = Arc::from(frame);
        slot.lock().block = Some(Arc::clone(&frame));
        Some(frame)
    }

    /// The clock's hand comes by.
    pub(super) fn visit(&self, block: u32) -> Visit {
        let Some(slot) = self.0.get(block as usize) else { return Visit::Empty };
        let mut slot = slot.lock();
        if slot.is_referenced {
            slot.is_referenced = false;
            return Visit::Spared;
        }
        slot.block.take().map_or(Visit::Empty, Visit::Evicted)
    }
}

/// What a cached block occupies.
#[inline]
pub(super) fn entry_bytes(frame: &[u8]) -> usize {
    frame.len() + ENTRY_OVERHEAD_BYTES
}
