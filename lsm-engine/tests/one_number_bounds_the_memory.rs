//! `Options::memory` bounds all that the engine holds, at every moment, whatever background work is doing.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, KeyspaceOptions, Metrics, Options};

fn check(db: &Db, memory: usize, most: &mut Metrics) {
    let metrics = db.metrics();
    let held = metrics.memory_bytes();
    assert!(held <= memory as u64, "{held} bytes of {memory}: {metrics:?}");
    most.pooled_memtable_bytes = most.pooled_memtable_bytes.max(metrics.pooled_memtable_bytes);
    most.buffer_bytes = most.buffer_bytes.max(metrics.buffer_bytes);
    most.cache_bytes = most.cache_bytes.max(metrics.cache_bytes);
}

fn fill(memory: usize, value_bytes: usize, entries: u64) {
    let env = Arc::new(SimEnv::new(9));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(memory).open("/db").unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    let mut most = Metrics::default();
    let mut random = 1_u64;
    for number in 0..entries {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number);
        let key = format!("key{:08}", (random >> 33) % entries);
        let value = vec![b'v'; value_bytes];
        if number % 5 == 0 {
            other.put(&key, &value).unwrap();
        } else {
            db.put(&key, &value).unwrap();
        }
        db.get(format!("key{:08}", (random >> 20) % entries)).unwrap();
        // Now and then background work gets on a little, so that it is seen half done.
        for _ in 0..random >> 62 {
            env.step();
            if number % 16 == 0 {
                check(&db, memory, &mut most);
            }
        }
    }
    check(&db, memory, &mut most);
    let metrics = db.metrics();
    assert!(metrics.flushes > 8 && metrics.compactions > 0, "{metrics:?}");
    assert_eq!(metrics.log_window_bytes, 2 * (memory as u64 / 64).min(512 << 10));
    let parts =
        [most.pooled_memtable_bytes, most.buffer_bytes, most.cache_bytes, metrics.active_memtable_bytes];
    assert!(parts.iter().all(|&bytes| bytes > 0), "a part is not counted: {parts:?}");
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn a_small_memory_is_kept_to() {
    fill(2 << 20, 300, 30_000);
}

#[test]
fn a_middling_memory_is_kept_to() {
    fill(16 << 20, 2_000, 30_000);
}

#[test]
fn values_as_large_as_a_memtable_are_kept_to() {
    fill(8 << 20, 200_000, 400);
}
