//! Memtables that run code after a cursor has read, so before anything that depends on the read is written.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lsm_core::{Cursor, Entry, SequenceNumber};
use lsm_memtable::{MemtableFactory, MemtableReader, MemtableWriter, SkipListMemtable};

type Code = Box<dyn FnOnce() + Send>;

#[derive(Clone, Default)]
pub(crate) struct Between(Arc<Shared>);

#[derive(Default)]
struct Shared {
    code: Mutex<Option<Code>>,
    reads: AtomicU64,
}

impl Between {
    /// Runs this once, after the next cursor was positioned.
    pub(crate) fn once_after_a_read(&self, code: impl FnOnce() + Send + 'static) {
        *self.0.code.lock().unwrap() = Some(Box::new(code));
    }

    /// Number of steps of cursors so far.
    pub(crate) fn reads(&self) -> u64 {
        self.0.reads.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Shared {
    fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        // Not under the lock: the code may read.
        let code = self.code.lock().unwrap().take();
        if let Some(code) = code {
            code();
        }
    }
}

struct BetweenReader(Arc<dyn MemtableReader>, Arc<Shared>);

struct BetweenCursor(Box<dyn Cursor + Send>, Arc<Shared>);

impl MemtableFactory for Between {
    fn name(&self) -> &'static str {
        "between"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = SkipListMemtable::default().create();
        (writer, Arc::new(BetweenReader(reader, Arc::clone(&self.0))))
    }
}

impl MemtableReader for BetweenReader {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        self.0.get(key, sequence)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(BetweenCursor(Arc::clone(&self.0).cursor(), Arc::clone(&self.1)))
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    fn entry_count(&self) -> usize {
        self.0.entry_count()
    }
}

impl Cursor for BetweenCursor {
    fn first(&mut self) {
        self.0.first();
        self.1.read();
    }

    fn last(&mut self) {
        self.0.last();
        self.1.read();
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.0.seek(key, sequence);
        self.1.read();
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.0.seek_for_prev(key, sequence);
        self.1.read();
    }

    fn next(&mut self) {
        self.0.next();
        self.1.read();
    }

    fn prev(&mut self) {
        self.0.prev();
        self.1.read();
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.0.entry()
    }

    fn error(&self) -> Option<&lsm_core::Error> {
        self.0.error()
    }
}
