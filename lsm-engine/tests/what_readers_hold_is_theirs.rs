//! `Options::memory` bounds what the engine holds for itself. What only iterators hold any more is theirs: writers need
//! not wait for it.

use std::sync::Arc;

use lsm_engine::compaction_policies::Fifo;
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Options};

fn open(memory: usize) -> (Db, Arc<SimEnv>) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    // It lets all tables be.
    let db = options.memory(memory).compaction(Arc::new(Fifo::default())).open("/db").unwrap();
    (db, env)
}

/// A version gathers the range deletes of all of its tables for the first scan.
#[test]
fn range_deletes_gathered_for_old_iterators_do_not_count_against_writers() {
    const MEMORY: usize = 2 << 20;
    let (db, env) = open(MEMORY);
    let mut iterators = Vec::new();
    for round in 0..100 {
        let key = |end| [format!("key{round:03}{end}").into_bytes(), vec![b'.'; 500]].concat();
        db.put(key('c'), "value").unwrap();
        db.delete_range(key('a')..key('b')).unwrap();
        db.flush().unwrap();
        // Every other one looks at a version that is an old one by now.
        let mut iterator = db.iter();
        if round % 2 == 0 {
            assert!(iterator.next().unwrap().is_ok());
        }
        iterators.push(iterator);
        let metrics = db.metrics();
        assert!(metrics.memory_bytes() <= MEMORY as u64, "{round}: {metrics:?}");
    }
    let pinned_bytes = db.metrics().pinned_bytes;
    for iterator in &mut iterators {
        assert!(iterator.next_back().is_none_or(|entry| entry.is_ok()));
    }
    let metrics = db.metrics();
    assert!(metrics.held_table_bytes > MEMORY as u64, "{metrics:?}");
    assert!(metrics.pinned_bytes < pinned_bytes + 200_000, "{pinned_bytes}, then {}", metrics.pinned_bytes);
    drop(iterators);
    assert_eq!(db.metrics().held_table_bytes, 0);
    db.close().unwrap();
    env.drop_jobs();
}
