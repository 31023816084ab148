//! Inner nodes: up to 63 children and the keys that separate them, in order, changed in place under a version.
//!
//! ```text
//! inner    := heads [u64; 63], version u32, count u32, prefix (bytes u32, guess u32),
//!             separators [u32; 63], children [u32; 63]
//! ```
//!
//! Child `i` holds the keys from separator `i`, inclusive, to separator `i + 1`, exclusive; separator 0 does not
//! exist; unused heads are all ones. The version is odd while the writer changes the node. A reader notes the version, reads what it needs,
//! and looks at the version again: if that was odd or has changed, what it read may be torn, and it starts anew.
//! All that a torn read can yield is a wrong child, never a bad reference: each slot holds at any time either
//! nothing or a reference that was stored whole.

use std::cmp::Ordering as KeyOrder;

use lsm_core::key::head;

use super::leaf::Leaf;
use super::prefix::{Fences, Prefix};
use crate::arena::{Arena, AtomicEither, AtomicRef, Either, Record, Ref};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Children of a node: with 63, it has exactly 16 cache lines. A model checker gets few.
pub(super) const INNER_SLOTS: usize = if cfg!(loom) { 3 } else { 63 };

/// A child, which is an inner node or a leaf.
pub(super) type Child = Either<Inner, Leaf>;

/// Fills the heads that no child has, so that a search need not know how many there are.
const UNUSED_HEAD: u64 = u64::MAX;

/// Heads in a cache line.
const HEADS_PER_LINE: usize = 8;

/// What a descent looks for.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// The leftmost leaf.
    First,
    /// The rightmost leaf.
    Last,
    /// The leaf for this key.
    At(&'a [u8]),
    /// The leaf of the keys just before this one.
    Before(&'a [u8]),
}

#[repr(C, align(64))]
pub(super) struct Inner {
    /// First, so that eight of them share a cache line.
    heads: [AtomicU64; INNER_SLOTS],
    version: AtomicU32,
    count: AtomicU32,
    prefix_bytes: AtomicU32,
    prefix_guess: AtomicRef<Record>,
    separators: [AtomicRef<Record>; INNER_SLOTS],
    children: [AtomicEither<Inner, Leaf>; INNER_SLOTS],
}

/// A child and what separates it from the one before, copied out of a node.
#[derive(Clone, Copy)]
struct Slot {
    head: u64,
    separator: Option<Ref<Record>>,
    child: Option<Child>,
}

impl Inner {
    fn new(prefix: Prefix, slots: &[Slot]) -> Self {
        let slot = |index: usize| slots.get(index);
        Self {
            version: AtomicU32::new(0),
            count: AtomicU32::new(slots.len() as u32),
            prefix_bytes: AtomicU32::new(prefix.bytes),
            prefix_guess: AtomicRef::new(prefix.guess),
            heads: std::array::from_fn(|i| AtomicU64::new(slot(i).map_or(UNUSED_HEAD, |slot| slot.head))),
            separators: std::array::from_fn(|i| AtomicRef::new(slot(i).and_then(|slot| slot.separator))),
            children: std::array::from_fn(|i| AtomicEither::new(slot(i).and_then(|slot| slot.child))),
        }
    }

    /// A root above two nodes.
    pub(super) fn root(arena: &Arena, left: Child, separator: Ref<Record>, right: Child) -> Self {
        let head = head(arena.record(separator).key(), 0);
        let left = Slot { head: 0, separator: None, child: Some(left) };
        let right = Slot { head, separator: Some(separator), child: Some(right) };
        Self::new(Prefix::EMPTY, &[left, right])
    }

    /// The version to [`validate`](Self::validate) against, unless the node is being changed.
    #[inline]
    pub(super) fn read_version(&self) -> Option<u32> {
        let version = self.version.load(Ordering::Acquire);
        version.is_multiple_of(2).then_some(version)
    }

    /// Whether everything that was read since `version` is from one state of the node.
    #[inline]
    pub(super) fn validate(&self, version: u32) -> bool {
        // Orders the reads before this load, as the release fence in `lock` orders its store before the writes.
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    /// Number of children.
    #[inline]
    pub(super) fn len(&self) -> usize {
        (self.count.load(Ordering::Relaxed) as usize).min(INNER_SLOTS)
    }

    #[inline]
    pub(super) fn child(&self, index: usize) -> Option<Child> {
        self.children.get(index)?.load()
    }

    /// The key where child `index` begins. `None` for the first child and beyond the last.
    #[inline]
    pub(super) fn separator(&self, index: usize) -> Option<Ref<Record>> {
        if index < self.len() { self.separators[index].load() } else { None }
    }

    #[inline]
    fn prefix(&self) -> Prefix {
        Prefix { bytes: self.prefix_bytes.load(Ordering::Relaxed), guess: self.prefix_guess.load() }
    }

    /// Which child leads to the target. `None` if what was read is torn.
    #[inline]
    pub(super) fn find(&self, arena: &Arena, target: Target<'_>) -> Option<usize> {
        match target {
            Target::First => Some(0),
            Target::Last => self.len().checked_sub(1),
            Target::At(key) => self.rank(arena, key, true),
            Target::Before(key) => self.rank(arena, key, false),
        }
    }

    /// Number of separators before `key`, or at it if `or_equal`.
    #[inline]
    fn rank(&self, arena: &Arena, key: &[u8], or_equal: bool) -> Option<usize> {
        let count = self.len();
        let prefix = self.prefix();
        match prefix.position_of(arena, key) {
            KeyOrder::Less => return Some(0),
            KeyOrder::Equal => {}
            KeyOrder::Greater => return count.checked_sub(1),
        }
        let head = head(key, prefix.bytes as usize);
        // One head of each line, then the heads of one line: loads that do not wait for one another, and no branch
        // that could be mispredicted. Slot 0 counts as smaller than everything.
        let is_smaller =
            |slot: usize| self.heads.get(slot).is_some_and(|other| other.load(Ordering::Relaxed) < head);
        let count_smaller =
            |first: usize, step: usize| (1..HEADS_PER_LINE).filter(|i| is_smaller(first + i * step)).count();
        let mut before = HEADS_PER_LINE * count_smaller(0, HEADS_PER_LINE);
        before += count_smaller(before, 1);
        let is_tie = |&index: &usize| self.heads[index].load(Ordering::Relaxed) == head;
        let mut ties = (before + 1..count).take_while(is_tie).count();
        // Among equal heads, the keys decide.
        while ties > 0 {
            let half = ties / 2;
            let separator = arena.record(self.separators[before + 1 + half].load()?).key();
            if separator < key || (or_equal && separator == key) {
                before += half + 1;
                ties -= half + 1;
            } else {
                ties = half;
            }
        }
        Some(before)
    }
}

/// Changes, made by the writer.
impl Inner {
    /// Sends readers away until [`unlock`](Self::unlock).
    pub(super) fn lock(&self) {
        let version = self.version.load(Ordering::Relaxed);
        debug_assert!(version.is_multiple_of(2));
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
    }

    pub(super) fn unlock(&self) {
        let version = self.version.load(Ordering::Relaxed);
        debug_assert!(!version.is_multiple_of(2));
        self.version.store(version.wrapping_add(1), Ordering::Release);
    }

    /// Replaces a child by one with the same keys. Needs no lock: readers may see either.
    pub(super) fn set_child(&self, index: usize, child: Child) {
        self.children[index].store(Some(child));
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == INNER_SLOTS
    }

    /// Inserts `child`, which begins at `separator`, as number `index` into a locked node that is not full.
    pub(super) fn insert(
        &self,
        arena: &Arena,
        fences: Fences,
        index: usize,
        separator: Ref<Record>,
        child: Child,
    ) {
        let key = arena.record(separator).key();
        let prefix = self.prefix();
        let count = self.len();
        let head = head(key, prefix.bytes as usize);
        let ties_with =
            |other: usize| other > 0 && other < count && self.heads[other].load(Ordering::Relaxed) == head;
        let matches = prefix.position_of(arena, key).is_eq();
        if !matches || ties_with(index - 1) || ties_with(index) {
            let mut slots = self.slots();
            slots.insert(index, Slot { head, separator: Some(separator), child: Some(child) });
            let prefix = refit_prefix(arena, prefix, separator, fences, &mut slots);
            self.rewrite(prefix, &slots);
            return;
        }
        for slot in (index..count).rev() {
            self.heads[slot + 1].store(self.heads[slot].load(Ordering::Relaxed), Ordering::Relaxed);
            self.separators[slot + 1].store(self.separators[slot].load());
            self.children[slot + 1].store(self.children[slot].load());
        }
        self.heads[index].store(head, Ordering::Relaxed);
        self.separators[index].store(Some(separator));
        self.children[index].store(Some(child));
        self.count.store(count as u32 + 1, Ordering::Relaxed);
    }

    /// Like [`insert`](Self::insert) into a locked node that is full: keeps the lower part and returns the upper
    /// one as a node of its own, with the key where it begins.
    pub(super) fn split(
        &self,
        arena: &Arena,
        fences: Fences,
        index: usize,
        separator: Ref<Record>,
        child: Child,
    ) -> (Ref<Record>, Self) {
        let mut prefix = self.prefix();
        let mut lower = self.slots();
        let head = head(arena.record(separator).key(), prefix.bytes as usize);
        lower.insert(index, Slot { head, separator: Some(separator), child: Some(child) });
        prefix = refit_prefix(arena, prefix, separator, fences, &mut lower);
        // Ascending keys leave full nodes behind.
        let middle = if index == INNER_SLOTS { index } else { lower.len() / 2 };
        let mut upper = lower.split_off(middle);
        let middle_separator = upper[0].separator.take().expect("only slot 0 has no separator");
        upper[0].head = 0;

        let upper_fences = Fences { low: Some(middle_separator), high: fences.high };
        let lower_fences = Fences { low: fences.low, high: Some(middle_separator) };
        let upper_prefix = fit_prefix(arena, prefix, upper_fences, &mut upper);
        let lower_prefix = fit_prefix(arena, prefix, lower_fences, &mut lower);
        self.rewrite(lower_prefix, &lower);
        (middle_separator, Self::new(upper_prefix, &upper))
    }

    fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::with_capacity(INNER_SLOTS + 1);
        slots.extend((0..self.len()).map(|index| Slot {
            head: self.heads[index].load(Ordering::Relaxed),
            separator: self.separators[index].load(),
            child: self.children[index].load(),
        }));
        slots
    }

    fn rewrite(&self, prefix: Prefix, slots: &[Slot]) {
        self.prefix_bytes.store(prefix.bytes, Ordering::Relaxed);
        self.prefix_guess.store(prefix.guess);
        for (index, slot) in slots.iter().enumerate() {
            self.heads[index].store(slot.head, Ordering::Relaxed);
            self.separators[index].store(slot.separator);
            self.children[index].store(slot.child);
        }
        for unused in self.heads.iter().skip(slots.len()) {
            unused.store(UNUSED_HEAD, Ordering::Relaxed);
        }
        self.count.store(slots.len() as u32, Ordering::Relaxed);
    }
}

/// Makes `prefix` short enough for a new separator, which is among `slots`, and long enough to tell them apart.
fn refit_prefix(
    arena: &Arena,
    prefix: Prefix,
    separator: Ref<Record>,
    fences: Fences,
    slots: &mut [Slot],
) -> Prefix {
    let key = arena.record(separator).key();
    if prefix.position_of(arena, key).is_eq() {
        return fit_prefix(arena, prefix, fences, slots);
    }
    let prefix = prefix.shortened(arena, key);
    take_heads(arena, prefix, slots);
    prefix
}

/// Lengthens `prefix` if heads after it do not tell the separators apart and a longer one does better.
fn fit_prefix(arena: &Arena, prefix: Prefix, fences: Fences, slots: &mut [Slot]) -> Prefix {
    let separators = slots.get(1..).unwrap_or_default();
    let has_ties = separators.windows(2).any(|pair| pair[0].head == pair[1].head);
    let ends = separators
        .first()
        .and_then(|first| first.separator)
        .zip(slots.last().and_then(|last| last.separator));
    let (true, Some((first, last))) = (has_ties, ends) else { return prefix };
    let Some(longer) = prefix.longer(arena, fences, first, last) else { return prefix };
    take_heads(arena, longer, slots);
    longer
}

fn take_heads(arena: &Arena, prefix: Prefix, slots: &mut [Slot]) {
    for slot in slots {
        slot.head =
            slot.separator.map_or(0, |separator| head(arena.record(separator).key(), prefix.bytes as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(loom))]
    fn an_inner_node_is_sixteen_cache_lines() {
        assert_eq!(size_of::<Inner>(), 16 * 64);
    }
}
