//! A keyspace that nobody writes to holds no memtable, and nothing that others do walks over it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Keyspace, KeyspaceOptions, Options};
use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, MemtableWriter};

fn open(fs: &SimFs, memory: usize) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(memory).vfs(Arc::new(fs.clone()));
    (Arc::clone(&env), options.env(env as Arc<dyn Env>).open(Path::new("/db")).unwrap())
}

fn keyspaces(db: &Db, count: usize) -> Vec<Keyspace> {
    (0..count)
        .map(|number| db.keyspace(&format!("space{number:05}"), KeyspaceOptions::new()).unwrap())
        .collect()
}

#[test]
fn twenty_thousand_of_them_fit_into_64_mebibytes() {
    const COUNT: usize = 20_000;
    let fs = SimFs::new();
    let (env, db) = open(&fs, 64 << 20);
    let before = db.metrics().memory_bytes();
    let spaces = keyspaces(&db, COUNT);
    let each = (db.metrics().memory_bytes() - before) / COUNT as u64;
    assert!((256..2048).contains(&each), "{each} bytes");
    // Written to and flushed, they cost no more than their tables.
    for space in &spaces[..100] {
        space.put("key", "value").unwrap();
    }
    db.flush().unwrap();
    assert_eq!(db.metrics().active_memtable_bytes + db.metrics().sealed_memtable_bytes, 0);
    assert!(spaces[..100].iter().all(|space| space.get("key").unwrap().unwrap() == "value"));
    assert_eq!(spaces[100].iter().count(), 0);
    db.close().unwrap();
    env.drop_jobs();
    drop(spaces);
    let (env, db) = open(&fs, 64 << 20);
    assert_eq!(db.keyspaces().len(), COUNT + 1);
    assert!((db.metrics().memory_bytes() - before) / (COUNT as u64) < 2048);
    let spaces = keyspaces(&db, 100);
    assert!(spaces.iter().all(|space| space.get("key").unwrap().unwrap() == "value"));
    drop((spaces, db));
    env.drop_jobs();
}

/// Counts the memtables that are made.
#[derive(Debug, Default)]
struct Counted(BPlusMemtable, AtomicUsize);

impl MemtableFactory for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.create()
    }
}

#[test]
fn a_memtable_is_made_at_the_first_write_and_goes_with_the_flush() {
    let fs = SimFs::new();
    let (env, db) = open(&fs, 8 << 20);
    let counted = Arc::new(Counted::default());
    let made = || counted.1.load(Ordering::Relaxed);
    let space = db
        .keyspace("space", KeyspaceOptions::new().memtable(Arc::clone(&counted) as Arc<dyn MemtableFactory>))
        .unwrap();
    assert_eq!(space.get("key").unwrap(), None);
    assert_eq!(made(), 0);
    for round in 1..=3 {
        for number in 0..10 {
            space.put(format!("key{number}"), round.to_string()).unwrap();
        }
        assert_eq!(made(), round);
        db.flush().unwrap();
        db.flush().unwrap();
        assert_eq!((made(), db.metrics().active_memtable_bytes), (round, 0));
    }
    space.clear().unwrap();
    db.put("elsewhere", "value").unwrap();
    db.flush().unwrap();
    assert_eq!((made(), space.iter().count()), (3, 0));
    drop((space, db));
    env.drop_jobs();
}
