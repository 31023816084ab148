use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use lsm_core::frame::{Frame, Visit};
use parking_lot::Mutex;

use super::BlockCache;
use super::slots::Slots;

/// The ring of all cached blocks and the hand that goes round it.
///
/// Whoever adds or evicts blocks holds the ring; readers never do.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// A new block takes a place that the hand has just left, so that it is visited last.
    places: Vec<Option<(Weak<Slots>, u32)>>,
    vacant: Vec<usize>,
    hand: usize,
    /// Places whose table has closed.
    dead: usize,
}

impl Clock {
    /// Caches a copy of `frame`, after evicting what has to go for it. `None` if it does not fit, or another reader
    /// was first.
    pub(super) fn insert(
        &self,
        cache: &BlockCache,
        slots: &Arc<Slots>,
        block: usize,
        frame: &[u8],
    ) -> Option<Frame> {
        let block = u32::try_from(block).ok()?;
        let slot = slots.slot(block)?;
        let mut evicted = Vec::new();
        let mut ring = self.ring.lock();
        if slot.is_filled() {
            return None;
        }
        let frame = loop {
            if let Some(frame) = cache.allocate(frame) {
                break frame;
            }
            cache.is_full.store(true, Ordering::Relaxed);
            if !ring.evict(cache, &mut evicted) {
                return None;
            }
        };
        if let Err(frame) = slot.fill(frame.clone()) {
            cache.uncharge(&frame);
            return None;
        }
        cache.counters.insertions.fetch_add(1, Ordering::Relaxed);
        let entry = Some((Arc::downgrade(slots), block));
        match ring.vacant.pop() {
            Some(place) => ring.places[place] = entry,
            None => ring.places.push(entry),
        }
        Some(frame)
    }

    /// Evicts until everything fits into the budget.
    pub(super) fn shrink(&self, cache: &BlockCache) {
        let mut evicted = Vec::new();
        let mut ring = self.ring.lock();
        while cache.held_bytes() > cache.capacity_bytes() && ring.evict(cache, &mut evicted) {}
    }

    /// A table with so many cached blocks closes.
    pub(super) fn forget(&self, closing: &Arc<Slots>, blocks: usize) {
        let mut ring = self.ring.lock();
        ring.dead += blocks;
        // The hand clears the places that it meets; when it does not move, they must not pile up.
        if ring.dead > ring.places.len() / 2 {
            let closing = Arc::as_ptr(closing);
            ring.places.retain(|place| {
                place.as_ref().is_some_and(|(slots, _)| slots.strong_count() > 0 && slots.as_ptr() != closing)
            });
            ring.places.shrink_to_fit();
            ring.vacant = Vec::new();
            ring.hand = 0;
            ring.dead = 0;
        }
    }
}

impl Ring {
    /// Evicts the next block that may go; `false` if there is none. Frames of the pool make room at once, others are
    /// moved to `evicted`, to be freed when the lock is released.
    fn evict(&mut self, cache: &BlockCache, evicted: &mut Vec<Frame>) -> bool {
        while self.vacant.len() < self.places.len() {
            if self.hand >= self.places.len() {
                self.hand = 0;
            }
            let place = self.hand;
            self.hand += 1;
            let Some((slots, block)) = &self.places[place] else { continue };
            let visit = if let Some(slots) = slots.upgrade() {
                slots.visit(*block)
            } else {
                self.dead = self.dead.saturating_sub(1);
                Visit::Empty
            };
            if let Visit::Spared = visit {
                continue;
            }
            self.places[place] = None;
            self.vacant.push(place);
            if let Visit::Taken(frame) = visit {
                cache.uncharge(&frame);
                cache.counters.evictions.fetch_add(1, Ordering::Relaxed);
                if !frame.is_pooled() {
                    evicted.push(frame);
                }
                return true;
            }
        }
        false
    }
}
