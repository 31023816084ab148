//! The tree, and the descent that readers and cursors share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::inner::{Inner, Target};
use super::leaf::Leaf;
use crate::arena::{Arena, AtomicEither, ChunkPool, Either, Record, Ref};
use crate::sync::Backoff;

/// What writer, readers and cursors of one table share.
pub(super) struct Tree {
    /// `None` until the first insert.
    pub(super) root: AtomicEither<Inner, Leaf>,
    pub(super) arena: Arena,
    pub(super) entry_count: AtomicUsize,
}

/// A leaf, and the keys between which it lies: the lower inclusive, the upper exclusive.
pub(super) struct Descent {
    pub(super) leaf: Ref<Leaf>,
    pub(super) low: Option<Ref<Record>>,
    pub(super) high: Option<Ref<Record>>,
}

/// A node changed while it was read.
struct Torn;

impl Tree {
    pub(super) fn new(pool: Arc<ChunkPool>) -> Self {
        Self { root: AtomicEither::new(None), arena: Arena::new(pool), entry_count: AtomicUsize::new(0) }
    }

    /// The leaf where the target is; `None` if the tree is empty.
    #[inline]
    pub(super) fn descend(&self, target: Target<'_>) -> Option<Descent> {
        let mut backoff = Backoff::default();
        loop {
            match self.try_descend(target) {
                Ok(descent) => return descent,
                Err(Torn) => backoff.wait(),
            }
        }
    }

    /// Optimistic lock coupling (Leis et al., "The ART of practical synchronization", 2016): the version of a child
    /// is taken before that of its parent is validated. A node that is being split stays locked until its parent
    /// leads to both halves, so whoever finds it unlocked and the parent unchanged is in the right half.
    #[inline]
    fn try_descend(&self, target: Target<'_>) -> Result<Option<Descent>, Torn> {
        let Some(root) = self.root.load() else { return Ok(None) };
        let (mut low, mut high) = (None, None);
        let mut inner = match root {
            // A leaf needs no validation: at worst it was replaced, and is what it was a moment ago.
            Either::B(leaf) => return Ok(Some(Descent { leaf, low, high })),
            Either::A(inner) => self.arena.node(inner),
        };
        let mut version = inner.read_version().ok_or(Torn)?;
        if self.root.load() != Some(root) {
            return Err(Torn);
        }
        loop {
            let index = inner.find(&self.arena, target).ok_or(Torn)?;
            let child = inner.child(index).ok_or(Torn)?;
            low = if index > 0 { inner.separator(index) } else { low };
            high = inner.separator(index + 1).or(high);
            match child {
                Either::B(leaf) => {
                    self.prefetch_leaf(leaf, Leaf::BYTES_TO_FIND);
                    return if inner.validate(version) {
                        Ok(Some(Descent { leaf, low, high }))
                    } else {
                        Err(Torn)
                    };
                }
                Either::A(child) => {
                    let child = self.arena.node(child);
                    let child_version = child.read_version().ok_or(Torn)?;
                    if !inner.validate(version) {
                        return Err(Torn);
                    }
                    (inner, version) = (child, child_version);
                }
            }
        }
    }

    /// Leaves are where cache misses are; several lines of one are fetched at the price of one.
    #[inline]
    pub(super) fn prefetch_leaf(&self, leaf: Ref<Leaf>, bytes: usize) {
        for line in 0..bytes.div_ceil(64) {
            self.arena.prefetch(leaf, line * 64);
        }
    }
}

impl AsRef<Arena> for Tree {
    fn as_ref(&self) -> &Arena {
        &self.arena
    }
}
