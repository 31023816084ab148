use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::BlockCache;
use super::slots::{Slots, Visit, entry_bytes};

/// The ring of all cached blocks and the hand that goes round it.
///
/// Whoever adds or evicts blocks holds the ring; readers never do. Lock order: ring, then slot.
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
    /// Caches a copy of `frame`, after evicting what has to go for it.
    pub(super) fn insert(
        &self,
        cache: &BlockCache,
        slots: &Arc<Slots>,
        block: usize,
        frame: &[u8],
    ) -> Option<Arc<[u8]>> {
        let block = u32::try_from(block).ok()?;
        let bytes = entry_bytes(frame);
        // Freed after the lock is released.
        let mut evicted = Vec::new();
        let mut ring = self.ring.lock();
        if !ring.make_room(cache, bytes, &mut evicted) {
            return None;
        }
        let frame = slots.fill(block, frame)?;
        cache.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        cache.counters.insertions.fetch_add(1, Ordering::Relaxed);
        let entry = Some((Arc::downgrade(slots), block));
        match ring.vacant.pop() {
            Some(place) => ring.places[place] = entry,
            None => ring.places.push(entry),
        }
        Some(frame)
    }

    /// Evicts until another `bytes` fit into the budget.
    pub(super) fn make_room(&self, cache: &BlockCache, bytes: usize) {
        let mut evicted = Vec::new();
        self.ring.lock().make_room(cache, bytes, &mut evicted);
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
    /// Evicts until `bytes` fit; `false` if they cannot.
    fn make_room(&mut self, cache: &BlockCache, bytes: usize, evicted: &mut Vec<Arc<[u8]>>) -> bool {
        while cache.used_bytes().saturating_add(bytes) > cache.capacity_bytes() {
            if self.vacant.len() == self.places.len() {
                return false;
            }
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
            if let Visit::Evicted(frame) = visit {
                cache.used_bytes.fetch_sub(entry_bytes(&frame), Ordering::Relaxed);
                cache.counters.evictions.fetch_add(1, Ordering::Relaxed);
                evicted.push(frame);
            }
        }
        true
    }
}
