use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use lsm_core::frame::{Frame, FramePool, Visit};
use parking_lot::Mutex;

use super::budget::Budget;
use super::slots::Slots;

/// Blocks that may go for one that fits the pool: about a span of it. They may be of other sizes than that one, and
/// leave it no place; it would empty the cache.
const EVICTIONS_MAX: usize = 32;

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
    places: Vec<Option<Place>>,
    vacant: Vec<usize>,
    hand: usize,
    /// Places whose table has closed.
    dead: usize,
}

/// One cached block.
#[derive(Debug)]
struct Place {
    slots: Weak<Slots>,
    block: u32,
    is_pooled: bool,
}

impl Clock {
    /// Caches a copy of `frame`, after evicting what has to go for it. `None` if it does not fit, or another reader
    /// was first.
    pub(super) fn insert(
        &self,
        budget: &Budget,
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
        let mut evictions_left = if Budget::is_poolable(frame) { EVICTIONS_MAX } else { usize::MAX };
        let frame = loop {
            if let Some(frame) = budget.allocate(frame) {
                break frame;
            }
            budget.is_full.store(true, Ordering::Relaxed);
            evictions_left = evictions_left.checked_sub(1)?;
            let was_pooled = ring.evict(budget, &mut evicted)?;
            let over = budget.over_bytes(frame.len());
            if was_pooled && over > 0 && !Budget::is_poolable(frame) {
                ring.give_pages_back(budget, over, &mut evicted);
            }
        };
        let is_pooled = frame.is_pooled();
        if let Err(frame) = slot.fill(frame.clone()) {
            budget.uncharge(&frame);
            return None;
        }
        budget.counters.insertions.fetch_add(1, Ordering::Relaxed);
        let entry = Some(Place { slots: Arc::downgrade(slots), block, is_pooled });
        match ring.vacant.pop() {
            Some(place) => ring.places[place] = entry,
            None => ring.places.push(entry),
        }
        Some(frame)
    }

    /// Evicts until everything fits into the budget.
    pub(super) fn shrink(&self, budget: &Budget) {
        let mut evicted = Vec::new();
        let mut ring = self.ring.lock();
        if budget.over_bytes(0) == 0 {
            return;
        }
        // First what gives its bytes back at once, so that small changes of the budget do not cost a page.
        ring.sweep(budget, &mut evicted, |place, _| !place.is_pooled && budget.over_bytes(0) > 0);
        ring.give_pages_back(budget, budget.over_bytes(0), &mut evicted);
        // Blocks that were being read are still there.
        while budget.over_bytes(0) > 0 && ring.evict(budget, &mut evicted).is_some() {}
    }

    /// A table with so many cached blocks closes.
    pub(super) fn forget(&self, closing: &Arc<Slots>, blocks: usize) {
        let mut ring = self.ring.lock();
        ring.dead += blocks;
        // The hand clears the places that it meets; when it does not move, they must not pile up.
        if ring.dead > ring.places.len() / 2 {
            let closing = Arc::as_ptr(closing);
            ring.places.retain(|place| {
                place
                    .as_ref()
                    .is_some_and(|Place { slots, .. }| slots.strong_count() > 0 && slots.as_ptr() != closing)
            });
            ring.places.shrink_to_fit();
            ring.vacant = Vec::new();
            ring.hand = 0;
            ring.dead = 0;
        }
    }
}

impl Ring {
    /// Evicts the next block that may go, and says whether it was in the pool; `None` if there is no block. Frames of
    /// the pool make room at once, others are moved to `evicted`, to be freed when the lock is released.
    fn evict(&mut self, budget: &Budget, evicted: &mut Vec<Frame>) -> Option<bool> {
        while self.vacant.len() < self.places.len() {
            if self.hand >= self.places.len() {
                self.hand = 0;
            }
            let at = self.hand;
            self.hand += 1;
            let Some(place) = &self.places[at] else { continue };
            let is_pooled = place.is_pooled;
            let visit = if let Some(slots) = place.slots.upgrade() {
                slots.visit(place.block)
            } else {
                self.dead = self.dead.saturating_sub(1);
                Visit::Empty
            };
            match visit {
                Visit::Spared => {}
                Visit::Empty => self.vacate(at),
                Visit::Taken(frame) => {
                    self.vacate(at);
                    forget_frame(budget, frame, evicted);
                    return Some(is_pooled);
                }
            }
        }
        None
    }

    fn vacate(&mut self, at: usize) {
        self.places[at] = None;
        self.vacant.push(at);
    }

    /// Evicts the blocks that `goes` picks by place and address, referenced or not, unless they are being read.
    fn sweep(&mut self, budget: &Budget, evicted: &mut Vec<Frame>, goes: impl Fn(&Place, usize) -> bool) {
        for at in 0..self.places.len() {
            let Some(place) = &self.places[at] else { continue };
            let Some(slots) = place.slots.upgrade() else { continue };
            let Some(slot) = slots.slot(place.block) else { continue };
            if let Some(address) = slot.address()
                && goes(place, address)
                && let Some(frame) = slot.take()
            {
                self.vacate(at);
                forget_frame(budget, frame, evicted);
            }
        }
    }

    /// Empties as many huge pages as have so many bytes: a page counts until its last frame is gone, and evicting
    /// by turns would empty half the cache before it emptied a page.
    fn give_pages_back(&mut self, budget: &Budget, bytes: usize, evicted: &mut Vec<Frame>) {
        let mut pages = budget.pool.emptiest_pages(bytes.div_ceil(FramePool::PAGE_BYTES));
        if pages.is_empty() {
            return;
        }
        pages.sort_unstable();
        self.sweep(budget, evicted, |place, address| {
            let page = address - address % FramePool::PAGE_BYTES;
            place.is_pooled && pages.binary_search(&page).is_ok()
        });
    }
}

fn forget_frame(budget: &Budget, frame: Frame, evicted: &mut Vec<Frame>) {
    budget.uncharge(&frame);
    budget.counters.evictions.fetch_add(1, Ordering::Relaxed);
    if !frame.is_pooled() {
        evicted.push(frame);
    }
}
