use std::cmp::Ordering;
use std::sync::Arc;

use lsm_core::key::head;
use lsm_core::{Cursor, Entry, Error, SequenceNumber};

use super::inner::Target;
use super::leaf::LEAF_SLOTS;
use super::prefix::{Prefix, Row};
use super::tree::Tree;
use crate::arena::{Record, Ref};

/// A cursor that copies one leaf at a time, in order, and comes back through the root for the next.
///
/// So it needs no links between leaves, and what the writer does meanwhile cannot confuse it: the leaf that follows
/// is the one for the key where this one ends.
pub(super) struct BPlusCursor {
    tree: Arc<Tree>,
    /// The newest version of each key of the leaf, as they were when it was copied.
    rows: Vec<Row>,
    prefix: Prefix,
    low: Option<Ref<Record>>,
    high: Option<Ref<Record>>,
    /// Row and version where the cursor stands.
    index: usize,
    version: Option<Ref<Record>>,
}

impl BPlusCursor {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self {
            tree,
            rows: Vec::with_capacity(LEAF_SLOTS),
            prefix: Prefix::EMPTY,
            low: None,
            high: None,
            index: 0,
            version: None,
        }
    }

    /// Copies the leaf where the target is.
    fn load(&mut self, target: Target<'_>) {
        self.rows.clear();
        (self.low, self.high) = (None, None);
        if let Some(descent) = self.tree.descend(target) {
            let leaf = self.tree.arena.node(descent.leaf);
            self.prefix = leaf.prefix();
            leaf.copy_sorted::<true>(&self.tree.arena, &mut self.rows);
            (self.low, self.high) = (descent.low, descent.high);
        }
    }

    /// The first row at or after `key`, and whether it is at `key`.
    fn position_of(&self, key: &[u8]) -> (usize, bool) {
        let arena = &self.tree.arena;
        match self.prefix.position_of(arena, key) {
            Ordering::Less => return (0, false),
            Ordering::Equal => {}
            Ordering::Greater => return (self.rows.len(), false),
        }
        let head = head(key, self.prefix.bytes as usize);
        let order = |row: &Row| row.head.cmp(&head).then_with(|| arena.record(row.record).key().cmp(key));
        match self.rows.binary_search_by(order) {
            Ok(index) => (index, true),
            Err(index) => (index, false),
        }
    }

    /// Stands on the newest version of row `index`, or of what follows.
    fn enter_from_front(&mut self, index: usize) {
        self.index = index;
        loop {
            if let Some(row) = self.rows.get(self.index) {
                self.version = Some(row.record);
                return;
            }
            let Some(high) = self.high else {
                self.version = None;
                return;
            };
            let tree = Arc::clone(&self.tree);
            self.load(Target::At(tree.arena.record(high).key()));
            self.index = 0;
        }
    }

    /// Stands on the oldest version of the row before `end`, or of what precedes.
    fn enter_from_back(&mut self, end: usize) {
        let mut end = end;
        loop {
            if let Some(index) = end.checked_sub(1) {
                self.index = index;
                self.version = Some(self.tree.arena.version_oldest(self.rows[index].record));
                return;
            }
            let Some(low) = self.low else {
                self.version = None;
                return;
            };
            let tree = Arc::clone(&self.tree);
            self.load(Target::Before(tree.arena.record(low).key()));
            end = self.rows.len();
        }
    }
}

impl Cursor for BPlusCursor {
    fn first(&mut self) {
        self.load(Target::First);
        self.enter_from_front(0);
    }

    fn last(&mut self) {
        self.load(Target::Last);
        self.enter_from_back(self.rows.len());
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.load(Target::At(key));
        let (index, is_there) = self.position_of(key);
        if is_there {
            self.version = self.tree.arena.version_at(self.rows[index].record, sequence);
            if self.version.is_some() {
                self.index = index;
                return;
            }
        }
        self.enter_from_front(index + usize::from(is_there));
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.load(Target::At(key));
        let (index, is_there) = self.position_of(key);
        if is_there {
            let arena = &self.tree.arena;
            let newest = self.rows[index].record;
            if arena.record(newest).sequence() >= sequence {
                self.version = Some(arena.version_at_or_above(newest, sequence));
                self.index = index;
                return;
            }
        }
        self.enter_from_back(index);
    }

    fn next(&mut self) {
        let Some(version) = self.version else { return };
        match self.tree.arena.record(version).previous() {
            Some(older) => self.version = Some(older),
            None => self.enter_from_front(self.index + 1),
        }
    }

    fn prev(&mut self) {
        let Some(version) = self.version else { return };
        let newest = self.rows[self.index].record;
        if version == newest {
            self.enter_from_back(self.index);
        } else {
            let arena = &self.tree.arena;
            self.version = Some(arena.version_above(newest, arena.record(version).sequence()));
        }
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.tree.arena.record(self.version?).entry()
    }

    fn error(&self) -> Option<&Error> {
        None
    }
}
