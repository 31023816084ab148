//! Thousands of versions of one key, kept for a snapshot, are passed by a seek and not one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::{Cursor, Entry, SequenceNumber};
use lsm_engine::{KeyspaceOptions, Options};
use lsm_memtable::{MemtableFactory, MemtableReader, MemtableWriter, SkipListMemtable};

/// Counts the steps of all its cursors.
#[derive(Debug, Default)]
struct Counting(Arc<AtomicUsize>);

struct CountingReader(Arc<dyn MemtableReader>, Arc<AtomicUsize>);

struct CountingCursor(Box<dyn Cursor + Send>, Arc<AtomicUsize>);

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
        self.0.first();
    }

    fn last(&mut self) {
        self.0.last();
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.0.seek(key, sequence);
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
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

#[test]
fn versions_of_a_hot_key_are_passed_by_a_seek() {
    let dir = tempfile::tempdir().unwrap();
    let steps = Arc::new(AtomicUsize::new(0));
    let memtable = Arc::new(Counting(Arc::clone(&steps))) as Arc<dyn MemtableFactory>;
    let options = Options::new().keyspace(KeyspaceOptions::new().memtable(memtable));
    let db = options.open(dir.path()).unwrap();
    db.put("a", "first").unwrap();
    db.put("hot", "old").unwrap();
    db.put("z", "last").unwrap();
    let snapshot = db.snapshot().unwrap();
    for number in 0..5_000 {
        db.put("hot", number.to_string()).unwrap();
    }
    let before = steps.load(Ordering::Relaxed);
    for (mut cursor, hot) in [(snapshot.cursor(), "old"), (db.cursor().unwrap(), "4999")] {
        let expected = [("a", "first"), ("hot", hot), ("z", "last")];
        let expected = expected.map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        cursor.first().unwrap();
        for pair in expected {
            assert_eq!(cursor.entry(), Some(pair));
            cursor.next().unwrap();
        }
        cursor.last().unwrap();
        for pair in expected.into_iter().rev() {
            assert_eq!(cursor.entry(), Some(pair));
            cursor.prev().unwrap();
        }
    }
    let taken = steps.load(Ordering::Relaxed) - before;
    assert!(taken < 100, "{taken} steps");
}
