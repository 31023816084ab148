//! A memtable is flushed when its memory is used, not already when it has allocated it.

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
