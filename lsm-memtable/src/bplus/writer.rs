//! The writing half: inserts into the tree.

use std::sync::atomic::Ordering;

use lsm_core::key::pack_trailer;
use lsm_core::{SequenceNumber, ValueKind};

use super::inner::{Child, Inner, Target};
use super::leaf::{LEAF_SLOTS, Leaf};
use super::prefix::{Fences, Prefix, Probe, Row};
use super::tree::Tree;
use crate::arena::{Allocator, Arena, Chain, Either, NewRecord, Record, Ref};
use crate::memtable::{Full, MemtableWriter, Reservation, assert_ascending, assert_insertable};

/// Inner nodes above each other. A root gets a parent only after it was filled, and so was each of its children
/// before it split, so a tree of this height does not fit 4 GiB by far.
const HEIGHT_MAX: usize = 24;

pub(super) struct Writer {
    allocator: Allocator<Tree>,
    /// Where the largest key is: ascending keys go there without a descent.
    tail: Option<Tail>,
    path: Path,
}

#[derive(Clone, Copy)]
struct Tail {
    leaf: Ref<Leaf>,
    largest: Ref<Record>,
}

/// The way from the root to a leaf.
struct Path {
    steps: [Option<Step>; HEIGHT_MAX],
    height: usize,
}

#[derive(Clone, Copy)]
struct Step {
    inner: Ref<Inner>,
    index: usize,
}

/// One version that is about to be inserted.
#[derive(Clone, Copy)]
struct Version<'a> {
    key: &'a [u8],
    trailer: u64,
    value: &'a [u8],
}

/// What takes the place of a leaf in its parent.
struct Replacement {
    left: Option<Ref<Leaf>>,
    /// The key where the right one begins, which is its first.
    right: Option<(Ref<Record>, Ref<Leaf>)>,
}

impl Path {
    const EMPTY: Self = Self { steps: [None; HEIGHT_MAX], height: 0 };

    fn push(&mut self, inner: Ref<Inner>, index: usize) {
        self.steps[self.height] = Some(Step { inner, index });
        self.height += 1;
    }

    fn step(&self, level: usize) -> Step {
        self.steps[level].expect("the path was walked")
    }

    /// Between which keys the node below the first `levels` steps lies.
    fn fences(&self, arena: &Arena, levels: usize) -> Fences {
        let mut fences = Fences { low: None, high: None };
        for level in (0..levels).rev() {
            let Step { inner, index } = self.step(level);
            let inner = arena.node(inner);
            fences.low = fences.low.or_else(|| if index > 0 { inner.separator(index) } else { None });
            fences.high = fences.high.or_else(|| inner.separator(index + 1));
        }
        fences
    }
}

impl MemtableWriter for Writer {
    fn insert(
        &mut self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<(), Full> {
        assert_insertable(key, sequence, value);
        self.allocator.reserve(key, value, self.node_bytes_max())?;
        let version = Version { key, trailer: pack_trailer(sequence, kind), value };
        let is_largest = self.tail.is_none_or(|tail| key > self.arena().record(tail.largest).key());
        if !(is_largest && self.append(version)) {
            self.insert_below_root(version, is_largest);
        }
        let count = &self.tree().entry_count;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    fn reserve(&mut self, reservation: &Reservation<'_>) -> Result<usize, Full> {
        self.allocator.reserve_ahead(reservation, self.node_bytes_max())
    }

    fn unused_bytes(&self) -> usize {
        self.allocator.unused_bytes()
    }
}

impl Writer {
    pub(super) fn new(tree: Tree) -> Self {
        Self { allocator: Allocator::new(tree), tail: None, path: Path::EMPTY }
    }

    pub(super) fn tree(&self) -> &std::sync::Arc<Tree> {
        self.allocator.home()
    }

    fn arena(&self) -> &Arena {
        self.allocator.arena()
    }

    /// What the nodes of one insert take at most: two leaves, a new sibling for each inner node, a new root, each
    /// with what its alignment may skip. One inner node more, because the tree may grow by a level before that insert.
    /// It does not grow by two within a reservation of more entries: a new root gains one child per insert.
    fn node_bytes_max(&self) -> usize {
        2 * (size_of::<Leaf>() + align_of::<Leaf>())
            + (HEIGHT_MAX.min(self.path.height + 2) + 1) * (size_of::<Inner>() + align_of::<Inner>())
    }

    fn write(&mut self, version: Version<'_>, chain: Option<Chain>) -> Ref<Record> {
        let Version { key, trailer, value } = version;
        self.allocator.record(&NewRecord { key, trailer, value, chain })
    }

    /// Appends the largest key of all to the rightmost leaf, if that has room.
    #[inline]
    fn append(&mut self, version: Version<'_>) -> bool {
        let Some(tail) = self.tail else { return false };
        let leaf = self.arena().node(tail.leaf);
        let prefix = leaf.prefix();
        if leaf.is_full() || prefix.position_of(self.arena(), version.key).is_ne() {
            return false;
        }
        let largest = self.write(version, None);
        self.arena().node(tail.leaf).push(Probe::new(version.key, prefix.bytes), largest);
        self.tail = Some(Tail { largest, ..tail });
        true
    }

    fn insert_below_root(&mut self, version: Version<'_>, is_largest: bool) {
        let Some(old) = self.descend(version.key) else {
            let record = self.write(version, None);
            let row = Row::new(self.arena(), record, 0);
            let leaf = self.allocator.node(Leaf::new(Prefix::EMPTY, &[row]));
            self.tree().root.store(Some(Either::B(leaf)));
            self.tail = Some(Tail { leaf, largest: record });
            return;
        };
        let leaf = self.arena().node(old);
        if let Some((slot, newest)) = leaf.find(self.arena(), version.key) {
            assert_ascending(self.arena().record(newest).sequence(), version.trailer >> 8);
            let chain = self.arena().chain_onto(newest);
            let record = self.write(version, Some(chain));
            self.arena().node(old).replace(slot, record);
            return;
        }
        let prefix = leaf.prefix();
        let matches = prefix.position_of(self.arena(), version.key).is_eq();
        let is_full = leaf.is_full();
        let record = self.write(version, None);
        let changed = if is_full {
            let replacement = self.split(old, record);
            let left = replacement.left;
            let right = replacement.right.map(|(_, leaf)| leaf);
            self.replace(&replacement);
            right.or(left)
        } else if matches {
            self.arena().node(old).push(Probe::new(version.key, prefix.bytes), record);
            Some(old)
        } else {
            let leaf = self.rebuild(old, record);
            self.replace(&Replacement { left: Some(leaf), right: None });
            Some(leaf)
        };
        // The rightmost leaf may have been replaced, and the largest key may be this one.
        if let (Some(tail), Some(rightmost)) = (self.tail, changed) {
            if is_largest {
                self.tail = Some(Tail { leaf: rightmost, largest: record });
            } else if tail.leaf == old {
                self.tail = Some(Tail { leaf: rightmost, ..tail });
            }
        }
    }

    /// Finds the leaf for `key` and notes the way. Nobody else changes the tree, so no version needs a look.
    fn descend(&mut self, key: &[u8]) -> Option<Ref<Leaf>> {
        self.path.height = 0;
        let tree = self.allocator.home();
        let mut child = tree.root.load()?;
        loop {
            match child {
                Either::B(leaf) => return Some(leaf),
                Either::A(inner) => {
                    let node = tree.arena.node(inner);
                    let index = node.find(&tree.arena, Target::At(key))?;
                    child = node.child(index)?;
                    if let Either::B(leaf) = child {
                        tree.prefetch_leaf(leaf, size_of::<Leaf>());
                    }
                    self.path.push(inner, index);
                }
            }
        }
    }

    /// A copy of a leaf with a new key, whose prefix the key shares.
    fn rebuild(&mut self, old: Ref<Leaf>, record: Ref<Record>) -> Ref<Leaf> {
        let arena = self.arena();
        let leaf = arena.node(old);
        let prefix = leaf.prefix().shortened(arena, arena.record(record).key());
        let mut rows = Vec::with_capacity(LEAF_SLOTS + 1);
        leaf.copy_sorted::<false>(arena, &mut rows);
        for row in &mut rows {
            *row = Row::new(arena, row.record, prefix.bytes);
        }
        rows.push(Row::new(arena, record, prefix.bytes));
        let leaf = Leaf::new(prefix, &rows);
        self.allocator.node(leaf)
    }

    /// Leaves that hold the keys of a full one and a new key.
    fn split(&mut self, old: Ref<Leaf>, record: Ref<Record>) -> Replacement {
        let arena = self.arena();
        let leaf = arena.node(old);
        let key = arena.record(record).key();
        let mut prefix = leaf.prefix();
        let mut rows = Vec::with_capacity(LEAF_SLOTS + 1);
        leaf.copy_sorted::<false>(arena, &mut rows);
        let largest = rows.last().map(|row| row.record);
        if largest.is_some_and(|largest| arena.record(largest).key() < key) {
            // An ascending run: the full leaf stays, and the run goes on in an empty one.
            let run = leaf.oldest_key().map_or(Prefix::EMPTY, |first| Prefix::guess(arena, record, first));
            let prefix = if prefix.guess.is_none() && prefix.bytes >= run.bytes { prefix } else { run };
            let row = Row::new(arena, record, prefix.bytes);
            let right = self.allocator.node(Leaf::new(prefix, &[row]));
            return Replacement { left: None, right: Some((record, right)) };
        }
        if prefix.position_of(arena, key).is_ne() {
            prefix = prefix.shortened(arena, key);
            for row in &mut rows {
                *row = Row::new(arena, row.record, prefix.bytes);
            }
        }
        rows.push(Row::new(arena, record, prefix.bytes));
        Row::sort(arena, &mut rows);

        let middle = rows.len() / 2;
        let (lower, upper) = rows.split_at_mut(middle);
        let separator = upper[0].record;
        let fences = self.path.fences(arena, self.path.height);
        let left = fitted_leaf(arena, prefix, Fences { high: Some(separator), ..fences }, lower);
        let right = fitted_leaf(arena, prefix, Fences { low: Some(separator), ..fences }, upper);
        let left = self.allocator.node(left);
        let right = self.allocator.node(right);
        Replacement { left: Some(left), right: Some((separator, right)) }
    }

    /// Puts the replacement of the leaf at the end of the path into its parents.
    fn replace(&mut self, replacement: &Replacement) {
        let mut level = self.path.height;
        let mut left: Option<Child> = replacement.left.map(Either::B);
        let Some((mut separator, right)) = replacement.right else {
            match (level, left) {
                (0, left) => self.tree().root.store(left),
                (_, Some(left)) => {
                    let Step { inner, index } = self.path.step(level - 1);
                    self.arena().node(inner).set_child(index, left);
                }
                (_, None) => {}
            }
            return;
        };
        let mut right: Child = Either::B(right);
        let topmost = loop {
            let Some(above) = level.checked_sub(1) else {
                // The old root has a sibling now.
                let Some(left) = left.or_else(|| self.tree().root.load()) else { break 0 };
                let root = Inner::root(self.arena(), left, separator, right);
                let root = self.allocator.node(root);
                self.tree().root.store(Some(Either::A(root)));
                break 0;
            };
            level = above;
            let Step { inner, index } = self.path.step(level);
            let node = self.arena().node(inner);
            let fences = self.path.fences(self.arena(), level);
            node.lock();
            if let Some(left) = left.take() {
                node.set_child(index, left);
            }
            if !node.is_full() {
                node.insert(self.arena(), fences, index + 1, separator, right);
                break level;
            }
            let upper;
            (separator, upper) = node.split(self.arena(), fences, index + 1, separator, right);
            right = Either::A(self.allocator.node(upper));
        };
        // A split node is unlocked only after its parent leads to both halves.
        for level in topmost..self.path.height {
            self.arena().node(self.path.step(level).inner).unlock();
        }
    }
}

/// A leaf of these keys, with a longer prefix if the heads do not tell them apart.
fn fitted_leaf(arena: &Arena, mut prefix: Prefix, fences: Fences, rows: &mut [Row]) -> Leaf {
    if rows.windows(2).any(|pair| pair[0].head == pair[1].head)
        && let (Some(first), Some(last)) = (rows.first(), rows.last())
        && let Some(longer) = prefix.longer(arena, fences, first.record, last.record)
    {
        prefix = longer;
        for row in &mut *rows {
            *row = Row::new(arena, row.record, prefix.bytes);
        }
    }
    Leaf::new(prefix, rows)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::arena::ChunkPool;
    use crate::writer_checks;

    #[test]
    fn a_full_table_refuses_and_stays_as_it_was() {
        let writer = Writer::new(Tree::new(Arc::new(ChunkPool::new(0))));
        let table = Arc::clone(writer.tree());
        let skip = |writer: &mut Writer| writer.allocator.skip_to_last_chunk();
        writer_checks::a_full_table_refuses_and_stays_as_it_was(writer, &*table, skip);
    }
}
