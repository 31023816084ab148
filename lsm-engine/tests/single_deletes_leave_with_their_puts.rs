//! A single delete leaves the disk with its put, on any level. Where something older of its key is left, it stays, however
//! the key was written.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Options};

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)) }
    }

    fn options(&self) -> Options {
        Options::new().vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>)
    }

    fn open(&self) -> Db {
        self.options().memory(1 << 20).open("/db").unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

/// Entries in tables, by level.
fn entries(db: &Db) -> Vec<u64> {
    db.metrics().keyspaces[0].levels.iter().map(|level| level.entries).collect()
}

fn total(db: &Db) -> u64 {
    entries(db).iter().sum()
}

#[test]
fn a_put_and_its_single_delete_never_reach_the_disk_together() {
    let world = World::new();
    let db = world.open();
    // Below lie other keys of the same range.
    db.put("a", "1").unwrap();
    db.put("z", "1").unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    for number in 0..100 {
        let key = format!("job{number}");
        db.put(&key, "work").unwrap();
        db.single_delete(&key).unwrap();
        let other = format!("other{number}");
        db.put(&other, "work").unwrap();
        db.delete(&other).unwrap();
    }
    db.flush().unwrap();
    assert_eq!(total(&db), 2 + 100, "only the plain deletes are written");
    assert_eq!(db.iter().count(), 2);
}

#[test]
fn a_single_delete_meets_its_put_in_a_level_above_the_last() {
    let world = World::new();
    let db = world.open();
    db.put("a", "1").unwrap();
    db.put("z", "1").unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    // Four runs of level 0 are merged within it or into the next level.
    for round in 0..4 {
        for number in 0..100 {
            match round {
                0 => db.put(format!("job{number}"), "work").unwrap(),
                1 => db.single_delete(format!("job{number}")).unwrap(),
                _ => {}
            }
        }
        db.put("b", "1").unwrap();
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
    }
    assert!(total(&db) < 10, "{:?}", entries(&db));
    assert_eq!(db.iter().count(), 3);
}

#[test]
fn nothing_comes_back_however_the_key_was_written() {
    let world = World::new();
    let db = world.open();
    db.put("twice", "old").unwrap();
    db.put("again", "old").unwrap();
    db.put("mixed", "old").unwrap();
    db.put("expired", "old").unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    // Put twice; put again after a single delete, which is allowed; put again after a delete.
    db.put("twice", "new").unwrap();
    db.single_delete("again").unwrap();
    db.put("again", "new").unwrap();
    db.delete("mixed").unwrap();
    db.put("mixed", "new").unwrap();
    db.put_expiring("expired", "new", std::time::Duration::ZERO).unwrap();
    db.flush().unwrap();
    for key in ["twice", "again", "mixed", "expired"] {
        db.single_delete(key).unwrap();
    }
    for step in 0..5 {
        assert_eq!(db.iter().count(), 0, "step {step}");
        match step {
            0 => db.flush().unwrap(),
            1 => db.wait_for_compactions().unwrap(),
            _ => db.compact_range::<&[u8]>(..).unwrap(),
        }
    }
    assert_eq!(total(&db), 0);
}

#[test]
fn a_snapshot_keeps_what_it_sees() {
    let world = World::new();
    let db = world.open();
    db.put("a", "1").unwrap();
    let snapshot = db.snapshot().unwrap();
    db.single_delete("a").unwrap();
    db.put("b", "1").unwrap();
    db.single_delete("b").unwrap();
    db.flush().unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(snapshot.get("a").unwrap().unwrap(), b"1");
    assert_eq!(snapshot.iter().count(), 1);
    assert_eq!(total(&db), 2, "b left although a snapshot is older");
    drop(snapshot);
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(total(&db), 0);
}

/// Recovery writes the tables of several memtables before it installs any. So a single delete in a later one used to see
/// nothing of its put, and left without it.
#[test]
fn recovery_of_several_memtables_keeps_single_deletes() {
    let world = World::new();
    let db = world.options().memory(32 << 20).open("/db").unwrap();
    let value = [b'x'; 1000];
    for number in 0..300 {
        db.put(format!("key{number:03}"), value).unwrap();
        if number % 2 == 1 {
            // Its put is in the same memtable or in the one before.
            db.single_delete(format!("key{:03}", number - 1)).unwrap();
        }
    }
    db.put("first", value).unwrap();
    for number in 0..300 {
        db.put(format!("filler{number:03}"), value).unwrap();
    }
    db.single_delete("first").unwrap();
    let image = world.fs.process_crash();
    drop(db);
    let mut after = World::new();
    after.fs = image;
    let db = after.options().memory(4 << 20).memtable_bytes(70_000).open("/db").unwrap();
    assert_eq!(db.get("first").unwrap(), None);
    assert_eq!(db.prefix("key").count(), 150);
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(db.get("first").unwrap(), None);
    assert_eq!(db.prefix("key").count(), 150);
}
