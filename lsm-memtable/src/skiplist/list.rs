//! The list: its nodes, and the search that writer, readers and cursors share.

use std::cmp::Ordering as KeyOrder;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use lsm_core::key::head;

use crate::arena::{Arena, AtomicRef, ChunkPool, Either, Record, Ref};

/// Index levels above the nodes, each with a quarter of the keys of the one below. A model checker gets one.
pub(super) const INDEX_LEVELS: usize = if cfg!(loom) { 1 } else { 14 };

/// A key and its newest version.
pub(super) struct Node {
    /// First eight bytes of the key, so that most comparisons need not go to the record.
    pub(super) head: u64,
    pub(super) newest: AtomicRef<Record>,
    pub(super) next: AtomicRef<Node>,
}

/// A key on an index level.
pub(super) struct IndexNode {
    pub(super) head: u64,
    /// Any version, for the key.
    pub(super) record: Ref<Record>,
    pub(super) next: AtomicRef<IndexNode>,
    /// The same key one level below.
    pub(super) below: Place,
}

/// A node of an index level, or of the ground level that has every key.
pub(super) type Place = Either<IndexNode, Node>;

/// What writer, readers and cursors of one table share.
pub(super) struct List {
    pub(super) levels: [AtomicRef<IndexNode>; INDEX_LEVELS],
    pub(super) first: AtomicRef<Node>,
    pub(super) arena: Arena,
    pub(super) entry_count: AtomicUsize,
}

/// Two nodes that were neighbours when the link between them was read; `None` for the ends. The writer may insert
/// between them at any time, so the link must not be read again.
#[derive(Clone, Copy)]
pub(super) struct Gap {
    pub(super) before: Option<Ref<Node>>,
    pub(super) after: Option<Ref<Node>>,
}

/// Which nodes a search leaves behind.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// All with smaller keys.
    Before(&'a [u8]),
    /// All.
    End,
}

impl List {
    pub(super) fn new(pool: Arc<ChunkPool>) -> Self {
        Self {
            levels: std::array::from_fn(|_| AtomicRef::new(None)),
            first: AtomicRef::new(None),
            arena: Arena::new(pool),
            entry_count: AtomicUsize::new(0),
        }
    }

    /// The gap after the last node that the target leaves behind. `visit` is told the last such node of each index level.
    #[inline]
    pub(super) fn search(
        &self,
        target: Target<'_>,
        mut visit: impl FnMut(usize, Option<Ref<IndexNode>>),
    ) -> Gap {
        let target_head = match target {
            Target::Before(key) => head(key, 0),
            Target::End => 0,
        };
        let mut place: Option<Place> = None;
        for level in (0..INDEX_LEVELS).rev() {
            let mut upper = match place {
                Some(Either::A(upper)) => Some(upper),
                _ => None,
            };
            loop {
                let link = upper.map_or(&self.levels[level], |upper| &self.arena.node(upper).next);
                let Some(next) = link.load() else { break };
                let node = self.arena.node(next);
                if !self.leaves_behind(target, target_head, node.head, || Some(node.record)) {
                    break;
                }
                upper = Some(next);
            }
            visit(level, upper);
            place = upper.map(|upper| self.arena.node(upper).below);
        }
        let mut before = match place {
            Some(Either::B(node)) => Some(node),
            _ => None,
        };
        loop {
            let after = self.after(before);
            match after.map(|node| self.arena.node(node)) {
                Some(node) if self.leaves_behind(target, target_head, node.head, || node.newest.load()) => {
                    before = after;
                }
                _ => return Gap { before, after },
            }
        }
    }

    /// Whether a search goes past a node with this head; `record` is asked for the key only if the heads are equal.
    #[inline]
    fn leaves_behind(
        &self,
        target: Target<'_>,
        target_head: u64,
        head: u64,
        record: impl FnOnce() -> Option<Ref<Record>>,
    ) -> bool {
        match target {
            Target::End => true,
            Target::Before(key) => match head.cmp(&target_head) {
                KeyOrder::Less => true,
                KeyOrder::Greater => false,
                KeyOrder::Equal => record().is_some_and(|record| self.arena.record(record).key() < key),
            },
        }
    }

    /// The node after `node`, or the first.
    #[inline]
    pub(super) fn after(&self, node: Option<Ref<Node>>) -> Option<Ref<Node>> {
        node.map_or(&self.first, |node| &self.arena.node(node).next).load()
    }

    /// The newest version of the key of `node`.
    #[inline]
    pub(super) fn newest(&self, node: Ref<Node>) -> Option<Ref<Record>> {
        self.arena.node(node).newest.load()
    }

    /// The key of `node`.
    #[inline]
    pub(super) fn key(&self, node: Ref<Node>) -> &[u8] {
        self.newest(node).map_or(&[], |record| self.arena.record(record).key())
    }
}

impl AsRef<Arena> for List {
    fn as_ref(&self) -> &Arena {
        &self.arena
    }
}
