//! Memtables whose cursors count their steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::{Cursor, Entry, SequenceNumber};
use lsm_memtable::{MemtableFactory, MemtableReader, MemtableWriter, SkipListMemtable};

/// Counts the steps of all its cursors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting(Arc<AtomicU64>);

impl Counting {
    /// Number of steps and seeks so far.
    pub(crate) fn taken(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct CountingReader(Arc<dyn MemtableReader>, Arc<AtomicU64>);

struct CountingCursor(Box<dyn Cursor + Send>, Arc<AtomicU64>);

impl MemtableFactory for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = SkipListMemtable::default().create();
        (writer, Arc::new(CountingReader(reader, Arc::clone(&self.0))))
    }
}

impl MemtableReader for CountingReader {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        self.0.get(key, sequence)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(CountingCursor(Arc::clone(&self.0).cursor(), Arc::clone(&self.1)))
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    fn entry_count(&self) -> usize {
        self.0.entry_count()
    }
}

impl Cursor for CountingCursor {
    fn first(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.first();
    }

    fn last(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.last();
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.seek(key, sequence);
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.seek_for_prev(key, sequence);
    }

    fn next(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.next();
    }

    fn prev(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.prev();
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.0.entry()
    }

    fn error(&self) -> Option<&lsm_core::Error> {
        self.0.error()
    }
}
