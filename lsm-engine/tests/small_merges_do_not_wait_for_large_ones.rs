//! A large merge takes a while: what is merged meanwhile in little time does not wait for it.

use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{KeyspaceOptions, Options};

#[test]
fn a_small_merge_begins_beside_a_large_one_and_a_large_one_does_not() {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(512 << 20).open("/db").unwrap();
    let flush_runs = |name: &str, value_bytes: usize| {
        let keyspace = db.keyspace(name, KeyspaceOptions::new()).unwrap();
        for run in 0..4 {
            for key in 0..20_u8 {
                keyspace.put([key], vec![run; value_bytes]).unwrap();
            }
            db.flush().unwrap();
        }
    };
    flush_runs("large", 1 << 20);
    assert_eq!(db.metrics().compactions_running, 1);
    flush_runs("large too", 1 << 20);
    assert_eq!((db.metrics().compactions_running, db.metrics().compactions), (1, 0));
    flush_runs("small", 1);
    assert_eq!((db.metrics().compactions_running, db.metrics().compactions), (2, 0));
    drop(db);
    env.drop_jobs();
}
