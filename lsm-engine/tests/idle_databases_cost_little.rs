//! Many databases in one process, most of them idle, take little memory.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, MEMORY_BYTES_DEFAULT, MemoryPool, Options};

const COUNT: usize = 1000;

#[test]
fn a_thousand_databases_of_a_process_take_less_than_300_kib_each() {
    // Simulated threads look at all jobs at each step, so each database has its own.
    let envs: Vec<_> = (0..COUNT).map(|seed| Arc::new(SimEnv::new(seed as u64))).collect();
    let open = |env: &Arc<SimEnv>| -> Db {
        let options = Options::new().vfs(Arc::new(SimFs::new()));
        options.env(Arc::clone(env) as Arc<dyn Env>).open("/db").unwrap()
    };
    let bytes = |dbs: &[Db]| dbs.iter().map(|db| db.metrics().memory_bytes()).max().unwrap();
    let dbs: Vec<Db> = envs.iter().map(open).collect();
    assert!(bytes(&dbs) < 10 << 10, "{} when opened", bytes(&dbs));
    for (number, db) in dbs.iter().enumerate() {
        db.put("key", number.to_le_bytes()).unwrap();
    }
    assert!(bytes(&dbs) < 300 << 10, "{} after a write", bytes(&dbs));
    for db in &dbs {
        db.flush().unwrap();
    }
    assert!(bytes(&dbs) < 300 << 10, "{} after a flush", bytes(&dbs));
    // One of them is busy. The others are not affected.
    for key in 0..2000 {
        dbs[500].put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    for (number, db) in dbs.iter().enumerate() {
        assert_eq!(db.get("key").unwrap().unwrap(), number.to_le_bytes());
    }
    for db in dbs {
        db.close().unwrap();
    }
    for env in &envs {
        env.drop_jobs();
    }
}

/// With the memory that one of them has by default.
#[test]
fn a_thousand_databases_that_were_written_to_share_a_pool() {
    const KEYS: usize = 20;
    let pool = MemoryPool::new(MEMORY_BYTES_DEFAULT);
    let env = Arc::new(SimEnv::new(1));
    let open = |_| -> Db {
        let options = Options::new().memory_pool(&pool).vfs(Arc::new(SimFs::new()));
        options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap()
    };
    let dbs: Vec<Db> = (0..COUNT).map(open).collect();
    let most = || dbs.iter().map(|db| db.metrics().memory_bytes()).max().unwrap();
    assert!(pool.used_bytes() < COUNT * (10 << 10), "{} when opened", pool.used_bytes());
    for (number, db) in dbs.iter().enumerate() {
        for key in 0..KEYS {
            db.put(key.to_le_bytes(), [number.to_le_bytes(); 25].concat()).unwrap();
        }
        assert!(pool.used_bytes() <= MEMORY_BYTES_DEFAULT, "{number}: {}", pool.used_bytes());
    }
    assert_eq!(dbs[7].metrics().memory_pool.unwrap().databases, COUNT as u64);
    assert!(most() < 300 << 10, "{} after writes", most());
    // After a second they have given back what was set aside for further writes.
    env.advance(2_000_000);
    env.run_until_idle();
    assert!(pool.used_bytes() < COUNT * (150 << 10), "{} after a second", pool.used_bytes());
    // One of them is busy for a while. It gets most of the memory, and gives it back.
    for key in 0..40_000 {
        dbs[500].put(format!("key{key}"), [b'v'; 1000]).unwrap();
        if key % 1000 == 0 {
            assert!(pool.used_bytes() <= MEMORY_BYTES_DEFAULT);
        }
    }
    assert!(dbs[500].metrics().active_memtable_bytes > 20 << 20);
    dbs[500].flush().unwrap();
    env.advance(2_000_000);
    env.run_until_idle();
    assert!(pool.used_bytes() < COUNT * (300 << 10), "{} when idle", pool.used_bytes());
    for (number, db) in dbs.iter().enumerate() {
        assert_eq!(db.get(7_usize.to_le_bytes()).unwrap().unwrap(), [number.to_le_bytes(); 25].concat());
    }
    drop(dbs);
    env.drop_jobs();
}
