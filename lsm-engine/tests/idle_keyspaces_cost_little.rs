//! An idle keyspace holds no memtable, and work for other keyspaces does not visit it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_engine::compaction_policies::{Compaction, CompactionPolicy, Leveled, TreeShape};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{AllLost, SimFs};
use lsm_engine::{Db, FilterPolicy, Keyspace, KeyspaceOptions, Options};
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
fn twenty_thousand_idle_keyspaces_fit_into_64_mebibytes() {
    const COUNT: usize = 20_000;
    let fs = SimFs::new();
    let (env, db) = open(&fs, 64 << 20);
    let before = db.metrics().memory_bytes();
    let spaces = keyspaces(&db, COUNT);
    let each = (db.metrics().memory_bytes() - before) / COUNT as u64;
    assert!((256..2048).contains(&each), "{each} bytes");
    // After a write and a flush they cost no more than their tables.
    for space in &spaces[..100] {
        space.put("key", "value").unwrap();
    }
    db.flush().unwrap();
    assert_eq!(db.metrics().active_memtable_bytes + db.metrics().immutable_memtable_bytes, 0);
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

/// A factory that counts the memtables that it makes.
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
fn a_keyspace_has_a_memtable_only_from_its_first_write_to_its_flush() {
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

#[test]
fn the_flush_of_many_small_memtables_shares_its_syncs() {
    const COUNT: usize = 500;
    let fs = SimFs::new();
    let (env, db) = open(&fs, 256 << 20);
    let spaces = keyspaces(&db, COUNT);
    for (number, space) in spaces.iter().enumerate() {
        for key in 0..10 {
            space.put(format!("key{key}"), format!("{number} {key}")).unwrap();
        }
    }
    let before = fs.operations();
    db.flush().unwrap();
    assert_eq!(db.metrics().flushes, COUNT as u64);
    // Each file is created, written twice and synced.
    let operations = fs.operations() - before;
    assert!(operations < COUNT as u64 * 9 / 2, "{operations} operations");
    // The tables are durable, so the log is not needed.
    let cut = fs.power_cut(&mut AllLost);
    drop((spaces, db));
    env.drop_jobs();
    let (env, db) = open(&cut, 256 << 20);
    assert_eq!(db.recovery().operations, 0);
    for (number, space) in keyspaces(&db, COUNT).iter().enumerate() {
        assert_eq!(space.get("key7").unwrap().unwrap(), format!("{number} 7").as_bytes());
    }
    drop(db);
    env.drop_jobs();
}

/// A filter policy that panics when a filter is built.
#[derive(Debug)]
struct Panics;

impl FilterPolicy for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn build(&self, _: &[u64]) -> Vec<u8> {
        panic!("no filter today")
    }

    fn may_contain(&self, _: &[u8], _: u64) -> bool {
        true
    }

    fn filter_bytes(&self, _: usize) -> usize {
        1
    }
}

#[test]
fn a_keyspace_that_fails_does_not_block_the_flushes_of_others() {
    let fs = SimFs::new();
    let (env, db) = open(&fs, 8 << 20);
    let options = |fails: bool| {
        let filter = fails.then(|| Arc::new(Panics) as Arc<dyn FilterPolicy>);
        KeyspaceOptions::new().filter(filter)
    };
    let spaces: Vec<_> =
        (0..5).map(|number| db.keyspace(&format!("{number}"), options(number == 2)).unwrap()).collect();
    for space in &spaces {
        space.put("key", "value").unwrap();
    }
    let error = db.flush().unwrap_err();
    assert!(error.to_string().contains("no filter today"), "{error}");
    env.run_until_idle();
    assert_eq!(db.metrics().flushes, 4);
    for (number, space) in spaces.iter().enumerate() {
        let written = space.put("other", "value");
        assert_eq!(written.is_err(), number == 2, "{written:?}");
        assert_eq!(space.get("key").unwrap().unwrap(), "value");
    }
    drop((spaces, db));
    env.drop_jobs();
}

/// A policy that counts how often it is asked.
#[derive(Debug, Default)]
struct Asked(Leveled, AtomicUsize);

impl CompactionPolicy for Asked {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn level_count(&self) -> usize {
        self.0.level_count()
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.pick(shape)
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.debt_bytes(shape)
    }
}

#[test]
fn policies_are_asked_only_about_changed_keyspaces() {
    const COUNT: usize = 300;
    let fs = SimFs::new();
    let (env, db) = open(&fs, 64 << 20);
    let policy = Arc::new(Asked::default());
    let options = || KeyspaceOptions::new().compaction(Arc::clone(&policy) as Arc<dyn CompactionPolicy>);
    let spaces: Vec<_> =
        (0..COUNT).map(|number| db.keyspace(&format!("{number}"), options()).unwrap()).collect();
    for space in &spaces {
        space.put("key", "value").unwrap();
    }
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    let asked = || policy.1.swap(0, Ordering::Relaxed);
    assert!(asked() >= 2 * COUNT);
    // Level 0 fills up and is merged.
    for round in 0..20 {
        spaces[7].put(format!("key{}", round % 3), round.to_string()).unwrap();
        db.flush().unwrap();
        drop(db.snapshot().unwrap());
    }
    assert!(db.metrics().compactions > 0);
    let times = asked();
    assert!((20..20 * 8).contains(&times), "{times} times");
    db.wait_for_compactions().unwrap();
    assert!(asked() >= 2 * COUNT, "wait_for_compactions asks all policies");
    drop((spaces, db));
    env.drop_jobs();
}
