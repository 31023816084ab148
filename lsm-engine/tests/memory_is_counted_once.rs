//! `Options::memory` bounds what the engine holds for itself, and everything is counted once, while it is held. Memory
//! that only iterators still hold is counted separately, and writers do not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::{Cursor, Entry, SequenceNumber};
use lsm_engine::compaction_policies::Fifo;
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Options};
use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, MemtableWriter};

fn open(memory: usize) -> (Db, Arc<SimEnv>) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    // FIFO leaves the tables alone here.
    let db = options.memory(memory).compaction(Arc::new(Fifo::default())).open("/db").unwrap();
    (db, env)
}

/// The first scan of a version loads the range deletes of all its tables.
#[test]
fn range_deletes_held_only_by_iterators_do_not_count_against_writers() {
    const MEMORY: usize = 2 << 20;
    let (db, env) = open(MEMORY);
    let mut iterators = Vec::new();
    for round in 0..100 {
        let key = |end| [format!("key{round:03}{end}").into_bytes(), vec![b'.'; 500]].concat();
        db.put(key('c'), "value").unwrap();
        db.delete_range(key('a')..key('b')).unwrap();
        db.flush().unwrap();
        // Every other iterator reads a version that is no longer current.
        let mut iterator = db.iter();
        if round % 2 == 0 {
            assert!(iterator.next().unwrap().is_ok());
        }
        iterators.push(iterator);
        let metrics = db.metrics();
        assert!(metrics.memory_bytes() <= MEMORY as u64, "{round}: {metrics:?}");
    }
    let pinned_bytes = db.metrics().pinned_bytes;
    for iterator in &mut iterators {
        assert!(iterator.next_back().is_none_or(|entry| entry.is_ok()));
    }
    let metrics = db.metrics();
    assert!(metrics.held_table_bytes > MEMORY as u64, "{metrics:?}");
    assert!(metrics.pinned_bytes < pinned_bytes + 200_000, "{pinned_bytes}, then {}", metrics.pinned_bytes);
    drop(iterators);
    assert_eq!(db.metrics().held_table_bytes, 0);
    db.close().unwrap();
    env.drop_jobs();
}

/// A memtable that takes and reports more memory after it was read.
#[derive(Debug, Default)]
struct Growing(BPlusMemtable);

struct GrowingReader(Arc<dyn MemtableReader>, AtomicUsize);

const GROWTH_BYTES: usize = 50_000;

impl MemtableFactory for Growing {
    fn name(&self) -> &'static str {
        "growing"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let (writer, reader) = self.0.create();
        (writer, Arc::new(GrowingReader(reader, AtomicUsize::new(0))))
    }
}

impl MemtableReader for GrowingReader {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        self.0.get(key, sequence)
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        self.1.fetch_add(GROWTH_BYTES, Ordering::Relaxed);
        Arc::clone(&self.0).cursor()
    }

    fn memory_bytes(&self) -> usize {
        self.0.memory_bytes() + self.1.load(Ordering::Relaxed)
    }

    fn entry_count(&self) -> usize {
        self.0.entry_count()
    }
}

#[test]
fn an_immutable_memtable_may_grow_before_its_flush() {
    let env = Arc::new(SimEnv::new(2));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as _);
    let db = options.memtable(Arc::new(Growing::default())).open("/db").unwrap();
    for number in 0..20 {
        db.put(format!("key{number}"), "value").unwrap();
        // It grows by a flush alone, or by a scan before the flush.
        if number % 2 == 0 {
            assert!(db.iter().next().unwrap().is_ok());
        }
        db.flush().unwrap();
        let metrics = db.metrics();
        assert_eq!(metrics.immutable_memtable_bytes, 0, "after flush {number}");
        assert!(metrics.active_memtable_bytes < GROWTH_BYTES as u64, "{metrics:?}");
    }
    db.put("key", "value").unwrap();
    db.default_keyspace().clear().unwrap();
    assert_eq!(db.metrics().immutable_memtable_bytes, 0);
    db.close().unwrap();
    env.drop_jobs();
}
