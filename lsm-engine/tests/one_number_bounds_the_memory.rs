//! `Options::memory` bounds all that the engine holds, at every moment, whatever background work is doing.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, KeyspaceOptions, Metrics, Options};

fn check(db: &Db, memory: usize, most: &mut Metrics) {
    let metrics = db.metrics();
    let held = metrics.memory_bytes();
    assert!(held <= memory as u64, "{held} bytes of {memory}: {metrics:?}");
    let memtables =
        metrics.active_memtable_bytes + metrics.sealed_memtable_bytes + metrics.pooled_memtable_bytes;
    // An eighth of their half is for the buffers of flushes and merges.
    assert!(memtables <= memory as u64 / 16 * 7, "{memtables} bytes of {memory}: {metrics:?}");
    most.pooled_memtable_bytes = most.pooled_memtable_bytes.max(metrics.pooled_memtable_bytes);
    most.buffer_bytes = most.buffer_bytes.max(metrics.buffer_bytes);
    most.sealed_memtable_bytes = most.sealed_memtable_bytes.max(metrics.sealed_memtable_bytes);
    most.cache_bytes = most.cache_bytes.max(metrics.cache_bytes);
}

/// Values have `value_bytes`, the last twenty `value_bytes_late`.
fn fill(memory: usize, (value_bytes, value_bytes_late): (usize, usize), entries: u64) {
    let env = Arc::new(SimEnv::new(9));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(memory).open("/db").unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    let mut most = Metrics::default();
    let mut random = 1_u64;
    for number in 0..entries {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number);
        let key = format!("key{:08}", (random >> 33) % entries);
        let value = vec![b'v'; if number < entries - 20 { value_bytes } else { value_bytes_late }];
        if number % 5 == 0 {
            other.put(&key, &value).unwrap();
        } else {
            db.put(&key, &value).unwrap();
        }
        db.get(format!("key{:08}", (random >> 20) % entries)).unwrap();
        let late = number >= entries - 20;
        if number == entries - 20 {
            env.run_until_idle();
        }
        // Background work is starved for a while, until writers must wait for it; then it gets on a little after each
        // write, so that it is seen half done.
        let steps = if late || number / 400 % 2 == 0 { 0 } else { random >> 62 };
        for step in 0..=steps {
            if step > 0 {
                env.step();
            }
            if late || number % 16 == 0 {
                check(&db, memory, &mut most);
            }
        }
    }
    check(&db, memory, &mut most);
    let metrics = db.metrics();
    assert!(metrics.flushes > 8 && metrics.compactions > 0, "{metrics:?}");
    assert_eq!(metrics.log_window_bytes, (memory as u64 / 64).min(512 << 10));
    let parts =
        [most.pooled_memtable_bytes, most.buffer_bytes, most.cache_bytes, metrics.active_memtable_bytes];
    assert!(parts.iter().all(|&bytes| bytes > 0), "a part is not counted: {parts:?}");
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn a_small_memory_is_kept_to() {
    fill(2 << 20, (300, 300), 30_000);
}

#[test]
fn a_middling_memory_is_kept_to() {
    fill(16 << 20, (2_000, 2_000), 30_000);
}

#[test]
fn values_as_large_as_a_memtable_are_kept_to() {
    fill(8 << 20, (200_000, 200_000), 400);
}

/// Values over 256 KiB do not come out of the memory that is kept of flushed memtables.
#[test]
fn memory_that_is_kept_gives_way_to_what_is_needed() {
    fill(16 << 20, (1_000, 3_000_000), 30_000);
}
