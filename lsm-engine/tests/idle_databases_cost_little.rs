//! Many databases in one process, most of them idle, take little memory.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Options};

const COUNT: usize = 1000;

#[test]
fn a_thousand_databases_of_a_process_take_less_than_300_kib_each() {
    // Simulated threads look at all jobs at each step, so each database has its own.
    let envs: Vec<_> = (0..COUNT).map(|seed| Arc::new(SimEnv::new(seed as u64))).collect();
    let open = |env: &Arc<SimEnv>| -> Db {
        let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()));
        options.env(Arc::clone(env) as Arc<dyn Env>).open("/db").unwrap()
    };
    let bytes = |dbs: &[Db]| dbs.iter().map(|db| db.metrics().memory_bytes()).max().unwrap();
    let dbs: Vec<Db> = envs.iter().map(open).collect();
    assert!(bytes(&dbs) < 300 << 10, "{} when opened", bytes(&dbs));
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
    assert!(dbs[500].metrics().memory_bytes() <= 8 << 20);
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
