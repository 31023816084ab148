//! The reading half: lookups, cursors and figures.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::{Cursor, Entry, SequenceNumber};

use super::cursor::BPlusCursor;
use super::inner::Target;
use super::tree::Tree;
use super::writer::Writer;
use crate::memtable::MemtableReader;

impl MemtableReader for Tree {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        let leaf = self.arena.node(self.descend(Target::At(key))?.leaf);
        let (_, newest) = leaf.find(&self.arena, key)?;
        self.arena.record(self.arena.version_at(newest, sequence)?).entry()
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(BPlusCursor::new(self))
    }

    fn memory_bytes(&self) -> usize {
        self.arena.table_bytes::<Self, Writer>()
    }

    fn entry_count(&self) -> usize {
        self.entry_count.load(Ordering::Relaxed)
    }
}
