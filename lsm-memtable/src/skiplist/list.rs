//! The list as readers see it.

use std::cmp::Ordering as KeyOrder;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::key::head;
use lsm_core::{Cursor, Entry, SequenceNumber};

use super::cursor::SkipListCursor;
use super::writer::Writer;
use crate::MemtableReader;
use crate::arena::{Arena, AtomicRef, ChunkPool, Either, Record, Ref};

/// Lanes above the nodes, each with a quarter of the stops of the one below. A model checker gets one.
pub(super) const LANES: usize = if cfg!(loom) { 1 } else { 14 };

/// A key and its newest version.
pub(super) struct Node {
    /// First eight bytes of the key, so that most comparisons need not go to the record.
    pub(super) head: u64,
    pub(super) newest: AtomicRef<Record>,
    pub(super) next: AtomicRef<Node>,
}

/// A stop of an upper lane.
pub(super) struct Stop {
    pub(super) head: u64,
    /// Any version, for the key.
    pub(super) record: Ref<Record>,
    pub(super) next: AtomicRef<Stop>,
    /// The same key one lane below.
    pub(super) below: Place,
}

/// A place in the list, which is on a lane or on the ground.
pub(super) type Place = Either<Stop, Node>;

/// What writer, readers and cursors of one table share.
pub(super) struct List {
    pub(super) lanes: [AtomicRef<Stop>; LANES],
    pub(super) first: AtomicRef<Node>,
    pub(super) arena: Arena,
    pub(super) entry_count: AtomicUsize,
}

/// Two nodes that were neighbours when the link between them was read, `None` for the ends. The writer may insert
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
            lanes: std::array::from_fn(|_| AtomicRef::new(None)),
            first: AtomicRef::new(None),
            arena: Arena::new(pool),
            entry_count: AtomicUsize::new(0),
        }
    }

    /// The gap after the last node that the target leaves behind. `note` is told the last such stop of each lane.
    #[inline]
    pub(super) fn search(&self, target: Target<'_>, mut visit: impl FnMut(usize, Option<Ref<Stop>>)) -> Gap {
        let target_head = match target {
            Target::Before(key) => head(key, 0),
            Target::End => 0,
        };
        let mut place: Option<Place> = None;
        for lane in (0..LANES).rev() {
            let mut stop = match place {
                Some(Either::A(stop)) => Some(stop),
                _ => None,
            };
            loop {
                let link = stop.map_or(&self.lanes[lane], |stop| &self.arena.node(stop).next);
                let Some(next) = link.load() else { break };
                let node = self.arena.node(next);
                if !self.leaves_behind(target, target_head, node.head, || Some(node.record)) {
                    break;
                }
                stop = Some(next);
            }
            visit(lane, stop);
            place = stop.map(|stop| self.arena.node(stop).below);
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

impl MemtableReader for List {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        let node = self.search(Target::Before(key), |_, _| ()).after?;
        let newest = self.newest(node)?;
        if self.arena.record(newest).key() != key {
            return None;
        }
        self.arena.record(self.arena.version_at(newest, sequence)?).entry()
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(SkipListCursor::new(self))
    }

    fn memory_bytes(&self) -> usize {
        /// The two counts in front of what an `Arc` holds.
        const ARC_BYTES: usize = 2 * size_of::<usize>();
        ARC_BYTES + size_of::<Self>() + size_of::<Writer>() + self.arena.allocated_bytes()
    }

    fn entry_count(&self) -> usize {
        self.entry_count.load(Ordering::Relaxed)
    }
}
