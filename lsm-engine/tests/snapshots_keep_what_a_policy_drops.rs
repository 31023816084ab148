//! A policy such as FIFO drops tables with live data. Older snapshots, iterators and cursors must keep their view. A
//! snapshot used to return a value first and later none.

use std::sync::Arc;

use lsm_engine::compaction_policies::{Fifo, FifoOptions};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Keyspace, KeyspaceOptions, Options, Slice, Snapshot, WriteBatch};

const DAY: u64 = 24 * 3_600_000_000;

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)) }
    }

    fn open(&self) -> (Db, Keyspace) {
        let options =
            Options::new().vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>);
        let db = options.memory(8 << 20).open("/db").unwrap();
        let fifo = FifoOptions { time_to_live_micros: DAY, ..FifoOptions::default() };
        let log = db.keyspace("log", KeyspaceOptions::new().compaction(Arc::new(Fifo::new(fifo)))).unwrap();
        (db, log)
    }

    /// Advances the clock until all present tables are dropped.
    fn pass_a_day(&self, db: &Db) {
        self.env.advance(DAY);
        db.wait_for_compactions().unwrap();
        self.env.run_until_idle();
    }

    fn tables(&self) -> usize {
        let is_table = |path: &std::path::PathBuf| path.extension() == Some("sst".as_ref());
        self.fs.paths().iter().filter(|path| is_table(path)).count()
    }
}

/// The keys of a snapshot, read in every way.
fn keys(snapshot: &Snapshot, log: &Keyspace) -> Vec<String> {
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    let forward: Vec<_> = snapshot.range_in::<&[u8]>(log, ..).map(|entry| text(&entry.unwrap().0)).collect();
    let mut backward: Vec<_> =
        snapshot.prefix_in(log, "key").rev().map(|entry| text(&entry.unwrap().0)).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let mut cursor = snapshot.cursor_in(log).unwrap();
    cursor.first().unwrap();
    for key in &forward {
        assert_eq!(cursor.key().map(text).as_ref(), Some(key));
        assert!(snapshot.get_in(log, key).unwrap().is_some());
        cursor.next().unwrap();
    }
    assert!(cursor.key().is_none());
    forward
}

#[test]
fn a_snapshot_keeps_its_view_when_a_policy_drops_tables() {
    let world = World::new();
    let (db, log) = world.open();
    log.put("key1", "in a table").unwrap();
    db.flush().unwrap();
    log.put("key2", "in the memtable").unwrap();
    let old = db.snapshot().unwrap();
    let (mut iterator, mut cursor) = (log.iter(), log.cursor().unwrap());
    cursor.first().unwrap();
    assert_eq!(log.get("key1").unwrap().unwrap(), "in a table");

    world.pass_a_day(&db);
    assert!(log.get("key1").unwrap().is_none(), "it is dropped");
    log.put("key2", "newer").unwrap();
    log.put("key3", "newer").unwrap();
    db.flush().unwrap();
    assert_eq!(keys(&old, &log), ["key1", "key2"]);
    assert_eq!(old.get_in(&log, "key2").unwrap().unwrap(), "in the memtable");
    assert_eq!(keys(&db.snapshot().unwrap(), &log), ["key2", "key3"]);
    assert_eq!(iterator.next().unwrap().unwrap().1, "in a table");
    assert_eq!(iterator.next().unwrap().unwrap().1, "in the memtable");
    assert!(iterator.next().is_none());
    assert_eq!(cursor.value().unwrap(), b"in a table");

    // The file is removed when its last reader is dropped.
    drop((iterator, cursor));
    world.env.run_until_idle();
    assert_eq!(world.tables(), 2);
    drop(old);
    world.env.run_until_idle();
    assert_eq!(world.tables(), 1);
    let metrics = db.metrics();
    assert_eq!((metrics.held_memtable_bytes, metrics.held_table_bytes), (0, 0));
    drop(log);
    db.close().unwrap();
    world.env.drop_jobs();
}

/// Only tables that a snapshot sees are kept, however often tables are dropped.
#[test]
fn a_snapshot_does_not_keep_tables_written_after_it() {
    let world = World::new();
    let (db, log) = world.open();
    let put = |day: u64| {
        log.put(format!("key{day}"), "value").unwrap();
        db.flush().unwrap();
    };
    put(0);
    let first = db.snapshot().unwrap();
    let mut second = None;
    for day in 1..10 {
        world.pass_a_day(&db);
        put(day);
        if day == 5 {
            second = Some(db.snapshot().unwrap());
        }
    }
    world.env.run_until_idle();
    assert_eq!(world.tables(), 3);
    assert_eq!(keys(&first, &log), ["key0"]);
    assert_eq!(keys(second.as_ref().unwrap(), &log), ["key5"]);
    drop(first);
    world.env.run_until_idle();
    assert_eq!(world.tables(), 2);
    drop((second, log));
    db.close().unwrap();
    world.env.drop_jobs();
}

/// A drop uses a sequence number that no log record has.
#[test]
fn writes_after_a_drop_of_tables_survive_a_crash() {
    let world = World::new();
    let (db, log) = world.open();
    for round in 0..4 {
        log.put("key", format!("{round}")).unwrap();
        db.flush().unwrap();
        world.pass_a_day(&db);
        let mut batch = WriteBatch::new();
        batch.put("other", format!("{round}"));
        batch.put_in(&log, "after", format!("{round}"));
        db.write(batch).unwrap();
        let crashed = World { fs: world.fs.process_crash(), env: Arc::new(SimEnv::new(2)) };
        let (db, log) = crashed.open();
        assert_eq!(log.get("after").unwrap().unwrap(), format!("{round}"));
        assert_eq!(db.get("other").unwrap().unwrap(), format!("{round}"));
        assert!(log.get("key").unwrap().is_none());
        db.put("other", "last").unwrap();
        assert_eq!(db.get("other").unwrap().unwrap(), "last");
        drop(log);
        db.close().unwrap();
        crashed.env.drop_jobs();
    }
    drop((log, db));
    world.env.drop_jobs();
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn entries(iterator: impl Iterator<Item = lsm_engine::Result<(Slice, Slice)>>) -> Entries {
    iterator.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// Tables are dropped, keyspaces cleared and keys deleted around the snapshots.
#[test]
fn random_snapshots_keep_their_view() {
    for seed in 0..10 {
        let env = Arc::new(SimEnv::new(seed));
        // A random source of its own, since the database also draws from the environment.
        let random = SimEnv::new(seed + 1000);
        let below = |bound: usize| random.random() as usize % bound;
        let world = World { fs: SimFs::new(), env };
        let (db, log) = world.open();
        let mut snapshots: Vec<(Snapshot, Entries)> = Vec::new();
        let key = || format!("key{:03}", below(300));
        for step in 0..1_500 {
            match below(100) {
                0..=49 => log.put(key(), format!("{step}")).unwrap(),
                50..=64 => log.delete(key()).unwrap(),
                65 | 66 => {
                    let (a, b) = (key(), key());
                    log.delete_range(a.clone().min(b.clone())..a.max(b)).unwrap();
                }
                67..=72 => db.flush().unwrap(),
                73..=80 => {
                    for _ in 0..below(6) {
                        world.env.step();
                    }
                }
                81..=84 => world.env.advance(DAY / 5),
                85 => log.clear().unwrap(),
                86..=89 => {
                    let snapshot = db.snapshot().unwrap();
                    let found = entries(snapshot.range_in::<&[u8]>(&log, ..));
                    snapshots.push((snapshot, found));
                }
                90 | 91 if !snapshots.is_empty() => {
                    snapshots.swap_remove(below(snapshots.len()));
                }
                92..=94 => db.wait_for_compactions().unwrap(),
                _ => {
                    // Other readers add empty spans.
                    entries(log.iter());
                    for (snapshot, expected) in &snapshots {
                        assert_eq!(&entries(snapshot.range_in::<&[u8]>(&log, ..)), expected, "seed {seed}");
                        let mut backward = entries(snapshot.prefix_in(&log, "").rev());
                        backward.reverse();
                        assert_eq!(&backward, expected, "seed {seed}");
                        let key = key();
                        let found = snapshot.get_in(&log, &key).unwrap().map(|value| value.to_vec());
                        let known = expected.iter().find(|(known, _)| *known == key.as_bytes());
                        assert_eq!(found, known.map(|(_, value)| value.clone()), "seed {seed}");
                    }
                }
            }
        }
        drop((snapshots, log, db));
        world.env.drop_jobs();
    }
}
