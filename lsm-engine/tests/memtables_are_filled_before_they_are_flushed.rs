//! A memtable is flushed when its memory is used, not already when it has allocated it, together with others that wait.

use std::sync::Arc;

use lsm_engine::Options;
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;

#[test]
fn small_memtables_are_full_when_they_are_flushed() {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(4 << 20).open("/db").unwrap();
    for number in 0..40_000_u64 {
        // In random order, each key once.
        let key = (number * 7_919_333 % 40_000).to_be_bytes();
        db.put(key, [b'v'; 100]).unwrap();
    }
    db.flush().unwrap();
    let metrics = db.metrics();
    // With such small entries, at least half of the 512 KiB holds keys and values.
    let data_bytes: u64 = 40_000 * 108;
    assert!(metrics.flushes <= data_bytes / (256 << 10), "{} flushes", metrics.flushes);
    assert!(metrics.memory_bytes() <= 4 << 20, "{} bytes", metrics.memory_bytes());
    drop(db);
    env.drop_jobs();
}

#[test]
fn memtables_that_wait_become_one_run() {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(4 << 20).memtable_bytes(128 << 10).open("/db").unwrap();
    let put_all = |version: u8| {
        for key in 0..1000_u32 {
            db.put(key.to_be_bytes(), [version; 100]).unwrap();
        }
    };
    put_all(1);
    db.delete_range(100_u32.to_be_bytes()..200_u32.to_be_bytes()).unwrap();
    let before = db.snapshot().unwrap();
    put_all(2);
    db.delete_range(500_u32.to_be_bytes()..600_u32.to_be_bytes()).unwrap();
    assert!(db.metrics().immutable_memtable_bytes >= 2 * (128 << 10));
    db.flush().unwrap();
    let metrics = db.metrics();
    assert_eq!((metrics.flushes, metrics.keyspaces[0].levels[0].runs), (1, 1));
    assert_eq!(metrics.immutable_memtable_bytes, 0);
    for key in 0..1000_u32 {
        let version = |value: Option<lsm_engine::Slice>| value.map(|value| value[0]);
        let (old, new) = (before.get(key.to_be_bytes()).unwrap(), db.get(key.to_be_bytes()).unwrap());
        assert_eq!(version(old), (!(100..200).contains(&key)).then_some(1), "{key}");
        assert_eq!(version(new), (!(500..600).contains(&key)).then_some(2), "{key}");
    }
    drop((before, db));
    env.drop_jobs();
}
