//! The reading half: lookups, cursors and figures.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::{Cursor, Entry, SequenceNumber};

use super::cursor::SkipListCursor;
use super::list::{List, Target};
use super::writer::Writer;
use crate::memtable::MemtableReader;

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
        self.arena.table_bytes::<Self, Writer>()
    }

    fn entry_count(&self) -> usize {
        self.entry_count.load(Ordering::Relaxed)
    }
}
