//! A merge copies blocks that no newer data overlaps, and its output reads the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, FixedPrefix, KeyspaceOptions, Options};

type Model = BTreeMap<String, Vec<u8>>;

fn value(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| if at % 2 == 0 { b'v' } else { (number * 31 + at * at) as u8 }).collect()
}

fn key(number: u64) -> String {
    format!("key{number:06}")
}

fn check(db: &Db, model: &Model) {
    let read: Vec<_> = db.iter().map(|entry| entry.unwrap()).collect();
    assert_eq!(read.len(), model.len());
    for ((key, value), (expected_key, expected)) in read.iter().zip(model) {
        assert_eq!((&key[..], &value[..]), (expected_key.as_bytes(), &expected[..]));
    }
    for (key, value) in model.iter().step_by(37) {
        assert_eq!(db.get(key).unwrap().as_deref(), Some(&value[..]));
    }
    let prefix = "key0012";
    let expected = model.keys().filter(|key| key.starts_with(prefix)).count();
    assert_eq!(db.prefix(prefix).count(), expected);
}

#[test]
fn a_compaction_rewrites_only_blocks_near_new_writes() {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(3)));
    let options = || {
        let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(&env) as Arc<dyn Env>);
        options.keyspace(KeyspaceOptions::new().prefix_extractor(Arc::new(FixedPrefix { bytes: 7 })))
    };
    let db = options().open("/db").unwrap();
    let mut model = Model::new();
    // Two tables, so that they are merged and not moved.
    for half in 0..2 {
        for number in (half..20_000).step_by(2) {
            db.put(key(number), value(number, 300)).unwrap();
            model.insert(key(number), value(number, 300));
        }
        db.flush().unwrap();
    }
    db.compact_range::<&str>(..).unwrap();
    let first = db.metrics();
    assert_eq!(first.compaction_bytes_copied, 0);
    let (before, snapshot) = (model.clone(), db.snapshot().unwrap());

    // Overwritten, deleted and new keys in one percent of the key range.
    for number in (0..20_000).step_by(1000) {
        for near in number..number + 10 {
            match near % 3 {
                0 => {
                    db.put(key(near), value(near + 1, 200)).unwrap();
                    model.insert(key(near), value(near + 1, 200));
                }
                1 => {
                    db.delete(key(near)).unwrap();
                    model.remove(&key(near));
                }
                _ => {
                    db.put(key(near) + "x", value(near, 100)).unwrap();
                    model.insert(key(near) + "x", value(near, 100));
                }
            }
        }
    }
    db.compact_range::<&str>(..).unwrap();
    let second = db.metrics();
    let written = second.compaction_bytes_out - first.compaction_bytes_out;
    assert!(
        second.compaction_bytes_copied > written / 10 * 8 && second.compaction_bytes_copied < written,
        "{} bytes copied of {written}",
        second.compaction_bytes_copied
    );
    check(&db, &model);
    for (key, value) in before.iter().step_by(7) {
        assert_eq!(snapshot.get(key).unwrap().as_deref(), Some(&value[..]));
    }
    drop(snapshot);

    // A range delete hides entries without a sequence number like all others.
    db.delete_range(key(5_000)..key(15_000)).unwrap();
    model.retain(|name, _| !(key(5_000)..key(15_000)).contains(name));
    db.compact_range::<&str>(..).unwrap();
    check(&db, &model);
    db.close().unwrap();
    let db = options().open("/db").unwrap();
    check(&db, &model);
    db.close().unwrap();
    env.drop_jobs();
}
