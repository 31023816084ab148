use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use super::{BlockCache, ENTRY_OVERHEAD_BYTES};

/// A table's place in a cache. Dropping it drops the table's cached blocks.
#[derive(Debug)]
pub(crate) struct CachedTable {
    cache: Arc<BlockCache>,
    slots: Arc<Slots>,
}

/// A slot for each block of a table.
#[derive(Debug)]
pub(super) struct Slots(Box<[Slot]>);

/// Whoever searches a block holds the lock of its slot meanwhile, for some hundred nanoseconds. That is cheaper
/// than counting references: a counter is in the block, and changing it would hold up every load behind it
/// until its cache line has come from memory.
#[derive(Debug, Default)]
struct Slot {
    block: RwLock<Option<Arc<[u8]>>>,
    /// Read since the clock's hand came by.
    is_referenced: AtomicBool,
}

/// A cached block for as long as it is looked at: not longer than one call.
pub(crate) type CachedBlock<'a> = MappedRwLockReadGuard<'a, Arc<[u8]>>;

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
        Self { cache, slots: Arc::new(Slots((0..block_count).map(|_| Slot::default()).collect())) }
    }

    /// Bytes that the slots themselves occupy, cached blocks not included.
    pub(crate) fn slot_bytes(&self) -> usize {
        size_of_val(&*self.slots.0)
    }

    /// The block, if it is cached.
    #[inline]
    pub(crate) fn get(&self, block: usize) -> Option<CachedBlock<'_>> {
        let slot = self.slots.0.get(block)?;
        let Ok(found) = RwLockReadGuard::try_map(slot.block.read(), Option::as_ref) else {
            self.cache.counters.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if !slot.is_referenced.load(Ordering::Relaxed) {
            slot.is_referenced.store(true, Ordering::Relaxed);
        }
        self.cache.counters.hits.add_one();
        Some(found)
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
            if let Some(frame) = slot.block.write().take() {
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
        if slot.block.read().is_some() {
            return None;
        }
        let frame: Arc<[u8]> = Arc::from(frame);
        *slot.block.write() = Some(Arc::clone(&frame));
        Some(frame)
    }

    /// The clock's hand comes by.
    pub(super) fn visit(&self, block: u32) -> Visit {
        let Some(slot) = self.0.get(block as usize) else { return Visit::Empty };
        if slot.is_referenced.swap(false, Ordering::Relaxed) {
            return Visit::Spared;
        }
        // Being read right now counts as referenced, so the hand never waits.
        let Some(mut block) = slot.block.try_write() else { return Visit::Spared };
        block.take().map_or(Visit::Empty, Visit::Evicted)
    }
}

/// What a cached block occupies.
#[inline]
pub(super) fn entry_bytes(frame: &[u8]) -> usize {
    frame.len() + ENTRY_OVERHEAD_BYTES
}
