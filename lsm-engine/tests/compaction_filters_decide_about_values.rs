//! A compaction filter deletes and changes values while compactions rewrite them: never under a snapshot or an iterator,
//! never uncovering what is older, and without harm if it panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    CompactionAt, CompactionFilter, Db, Decision, ErrorKind, KeyspaceOptions, LazyValue, Options,
};
use parking_lot::Mutex;

/// Deletes values that begin with "dead", and makes "grow" longer.
#[derive(Debug, Default)]
struct Gardener {
    asked: Mutex<Vec<Vec<u8>>>,
    panics: AtomicBool,
    at_last_level: AtomicU64,
}

impl CompactionFilter for Gardener {
    fn decide(&self, key: &[u8], value: LazyValue<'_>, at: CompactionAt) -> Decision {
        assert!(!self.panics.load(Ordering::Relaxed), "the gardener is ill");
        self.asked.lock().push(key.to_vec());
        self.at_last_level.fetch_add(u64::from(at.is_last_level), Ordering::Relaxed);
        match value.get() {
            dead if dead.starts_with(b"dead") => Decision::Delete,
            grow if grow == b"grow" => Decision::Replace(b"grown".to_vec()),
            other => {
                assert_eq!(value.len(), other.len());
                Decision::Keep
            }
        }
    }
}

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
    gardener: Arc<Gardener>,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)), gardener: Arc::default() }
    }

    fn open(&self) -> Db {
        let keyspace = KeyspaceOptions::new().compaction_filter(Arc::clone(&self.gardener) as _);
        let options =
            Options::new().vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>);
        options.memory(1 << 20).keyspace(keyspace).open("/db").unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

fn compact(db: &Db) {
    db.flush().unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
}

fn all(iter: lsm_engine::Iter) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    iter.map(|entry| entry.unwrap()).map(|(key, value)| (text(&key), text(&value))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn values_are_deleted_and_changed_and_the_rest_stays() {
    let world = World::new();
    let db = world.open();
    for (key, value) in [("a", "dead 1"), ("b", "grow"), ("c", "stays")] {
        db.put(key, value).unwrap();
    }
    db.put_expiring("d", "grow", Duration::from_secs(60)).unwrap();
    db.put_expiring("e", "dead", Duration::from_secs(60)).unwrap();
    db.delete("f").unwrap();
    db.flush().unwrap();
    assert_eq!(db.iter().count(), 5, "a flush asks no filter");
    compact(&db);
    let expected = pairs(&[("b", "grown"), ("c", "stays"), ("d", "grown")]);
    assert_eq!(all(db.iter()), expected);
    assert_eq!(db.get("a").unwrap(), None);
    let asked: Vec<_> = world.gardener.asked.lock().iter().map(|key| key[0]).collect();
    assert_eq!(asked, b"abcde");
    assert!(world.gardener.at_last_level.load(Ordering::Relaxed) > 0);
    assert_eq!(db.metrics().keyspaces[0].levels.iter().map(|level| level.entries).sum::<u64>(), 3);
    db.close().unwrap();
    let db = world.open();
    assert_eq!(all(db.iter()), expected);
    world.env.advance(60_000_000);
    assert_eq!(all(db.iter()), pairs(&[("b", "grown"), ("c", "stays")]), "a changed value keeps its time");
}

#[test]
fn blocks_of_old_data_are_looked_into() {
    let world = World::new();
    let db = world.open();
    for number in 0..3000 {
        db.put(format!("key{number:04}"), if number % 2 == 0 { "stays" } else { "later" }).unwrap();
    }
    compact(&db);
    world.gardener.asked.lock().clear();
    db.put("key0000", "stays").unwrap();
    compact(&db);
    assert_eq!(world.gardener.asked.lock().len(), 3000);
}

#[test]
fn what_is_deleted_uncovers_nothing() {
    let world = World::new();
    let db = world.open();
    db.put("a", "older").unwrap();
    compact(&db);
    // Runs of level 0 that are merged within it, above the older value.
    for round in 0..6 {
        db.put("a", format!("dead {round}")).unwrap();
        db.put("b", "stays").unwrap();
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
        let seen = db.get("a").unwrap();
        assert!(seen.is_none_or(|value| value.starts_with(b"dead")), "round {round}");
    }
    compact(&db);
    assert_eq!(db.get("a").unwrap(), None);
}

#[test]
fn nothing_changes_under_a_snapshot_or_an_iterator() {
    let world = World::new();
    let db = world.open();
    db.put("a", "dead").unwrap();
    db.put("b", "grow").unwrap();
    let before = pairs(&[("a", "dead"), ("b", "grow")]);
    let older = db.snapshot().unwrap();
    db.put("c", "dead").unwrap();
    compact(&db);
    assert_eq!(all(older.iter()), before);
    assert_eq!(all(db.iter()), before, "a snapshot sees both, so the filter was asked about neither");
    drop(older);
    let iterator = db.iter();
    let mut cursor = db.cursor().unwrap();
    compact(&db);
    assert_eq!(all(db.iter()), pairs(&[("b", "grown")]));
    assert_eq!(all(iterator), before);
    cursor.first().unwrap();
    assert_eq!(cursor.entry(), Some((&b"a"[..], &b"dead"[..])));
}

/// A snapshot that is taken while the merge runs sees what the merge changes. It keeps the tables from before.
#[test]
fn a_snapshot_that_is_taken_during_the_compaction_keeps_its_view() {
    let world = World::new();
    let db = world.open();
    // Runs of level 0 that overlap.
    for round in 0..4 {
        for number in (0..20_000).filter(|number| number / 2 % 4 == round) {
            db.put(format!("key{number:05}"), if number % 2 == 0 { "dead" } else { "grow" }).unwrap();
        }
        db.flush().unwrap();
    }
    // Let the compaction run for some steps, and take a snapshot.
    while world.gardener.asked.lock().is_empty() {
        assert!(world.env.step(), "a compaction is due");
    }
    let (snapshot, iterator) = (db.snapshot().unwrap(), db.iter());
    let seen =
        |snapshot: &lsm_engine::Snapshot| -> Vec<_> { snapshot.iter().map(|entry| entry.unwrap()).collect() };
    let before = seen(&snapshot);
    assert_eq!(before.len(), 20_000);
    db.wait_for_compactions().unwrap();
    assert!(db.get("key00000").unwrap().is_none(), "the compaction has ended, and what it deleted is gone");
    assert_eq!(db.get("key00001").unwrap().unwrap(), b"grown");
    assert!(seen(&snapshot) == before);
    assert_eq!(snapshot.get("key00000").unwrap().unwrap(), b"dead");
    assert_eq!(iterator.count(), 20_000);
    drop(snapshot);
    compact(&db);
    assert_eq!(db.iter().count(), 10_000);
}

#[test]
fn a_panic_leaves_the_data_as_it_was() {
    let world = World::new();
    let db = world.open();
    db.put("a", "dead").unwrap();
    db.put("b", "stays").unwrap();
    world.gardener.panics.store(true, Ordering::Relaxed);
    db.flush().unwrap();
    let error = db.compact_range::<&[u8]>(..).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Callback, "{error}");
    assert!(error.to_string().contains("the gardener is ill"), "{error}");
    assert_eq!(all(db.iter()), pairs(&[("a", "dead"), ("b", "stays")]));
    assert_eq!(db.put("c", "1").unwrap_err().kind(), ErrorKind::Callback);
    drop(db);
    world.gardener.panics.store(false, Ordering::Relaxed);
    let db = world.open();
    compact(&db);
    assert_eq!(all(db.iter()), pairs(&[("b", "stays")]));
}
