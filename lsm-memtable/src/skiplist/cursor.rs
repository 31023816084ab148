use std::sync::Arc;

use lsm_core::{Cursor, Entry, Error, SequenceNumber};

use super::list::{Gap, List, Node, Target};
use crate::arena::{Record, Ref};

/// A cursor that follows the links forwards; backwards it searches, because there are no links back.
pub(super) struct SkipListCursor {
    list: Arc<List>,
    /// Node and version where the cursor stands.
    node: Option<Ref<Node>>,
    version: Option<Ref<Record>>,
}

impl SkipListCursor {
    pub(super) fn new(list: Arc<List>) -> Self {
        Self { list, node: None, version: None }
    }

    fn enter_newest(&mut self, node: Option<Ref<Node>>) {
        self.node = node;
        self.version = node.and_then(|node| self.list.newest(node));
    }

    fn enter_oldest(&mut self, node: Option<Ref<Node>>) {
        self.enter_newest(node);
        self.version = self.version.map(|newest| self.list.arena.version_oldest(newest));
    }

    /// The gap before `key`, and the newest version of `key` if the node after the gap has it.
    fn find(&self, key: &[u8]) -> (Gap, Option<Ref<Record>>) {
        let gap = self.list.search(Target::Before(key), |_, _| ());
        let newest = gap.after.and_then(|node| self.list.newest(node));
        (gap, newest.filter(|&newest| self.list.arena.record(newest).key() == key))
    }
}

impl Cursor for SkipListCursor {
    fn first(&mut self) {
        self.enter_newest(self.list.after(None));
    }

    fn last(&mut self) {
        self.enter_oldest(self.list.search(Target::End, |_, _| ()).before);
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        let (gap, newest) = self.find(key);
        let Some(newest) = newest else {
            self.enter_newest(gap.after);
            return;
        };
        self.node = gap.after;
        self.version = self.list.arena.version_at(newest, sequence);
        if self.version.is_none() {
            self.enter_newest(self.list.after(gap.after));
        }
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        let (gap, newest) = self.find(key);
        let arena = &self.list.arena;
        match newest {
            Some(newest) if arena.record(newest).sequence() >= sequence => {
                self.version = Some(arena.version_at_or_above(newest, sequence));
                self.node = gap.after;
            }
            _ => self.enter_oldest(gap.before),
        }
    }

    fn next(&mut self) {
        let (Some(node), Some(version)) = (self.node, self.version) else { return };
        match self.list.arena.record(version).previous() {
            Some(older) => self.version = Some(older),
            None => self.enter_newest(self.list.after(Some(node))),
        }
    }

    fn prev(&mut self) {
        let (Some(node), Some(version)) = (self.node, self.version) else { return };
        let arena = &self.list.arena;
        let sequence = arena.record(version).sequence();
        match self.list.newest(node) {
            Some(newest) if newest != version => self.version = Some(arena.version_above(newest, sequence)),
            _ => self.enter_oldest(self.list.search(Target::Before(self.list.key(node)), |_, _| ()).before),
        }
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.list.arena.record(self.version?).entry()
    }

    fn error(&self) -> Option<&Error> {
        None
    }
}
