//! A write that would not fit even with all memtables flushed is refused at once. It used to wait for a running
//! compaction, and all other writers waited behind it in the write queue.

use std::io::ErrorKind as Io;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{Db, Error, Keyspace, KeyspaceOptions, Options, WriteBatch};

const MEMORY: usize = 16 << 20;

/// A database in the middle of a compaction, with `count` keyspaces besides the default one.
fn merging(count: usize) -> (Arc<SimEnv>, Db, Vec<Keyspace>) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(MEMORY).open("/db").unwrap();
    let spaces: Vec<_> = (0..count)
        .map(|number| db.keyspace(&format!("space{number}"), KeyspaceOptions::new()).unwrap())
        .collect();
    for round in 0..4 {
        for number in 0..2_000 {
            db.put(format!("key{number:06}"), format!("{round}").repeat(300)).unwrap();
        }
        db.flush().unwrap();
    }
    while !is_merging(&db) {
        assert!(env.step(), "no compaction was due");
    }
    (env, db, spaces)
}

fn is_merging(db: &Db) -> bool {
    let metrics = db.metrics();
    metrics.compactions_running > 0 && metrics.buffer_bytes > 0
}

/// A batch of `bytes` that writes to all of `spaces`.
fn batch(spaces: &[Keyspace], bytes: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for space in spaces {
        batch.put_in(space, "key", vec![b'v'; bytes / spaces.len()]);
    }
    batch
}

#[test]
fn a_write_that_can_never_fit_does_not_wait_for_a_compaction() {
    let (env, db, spaces) = merging(40);
    let steps = env.steps();
    let refused = db.write(batch(&spaces, 7 * MEMORY / 32)).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    assert_eq!(env.steps(), steps, "the write waited for background work");
    assert_eq!(db.metrics().stall_micros, 0);
    db.put("key", "value").unwrap();
    assert_eq!(env.steps(), steps);
    assert!(is_merging(&db));
    drop((spaces, db));
    env.drop_jobs();
}

#[test]
fn a_write_that_can_never_fit_does_not_join_the_queue() {
    let fs = SimFs::new();
    let db = Options::new().vfs(Arc::new(fs.clone())).memory(MEMORY).open("/db").unwrap();
    let spaces: Vec<_> =
        (0..40).map(|number| db.keyspace(&format!("{number}"), KeyspaceOptions::new()).unwrap()).collect();
    fs.inject(Fault::on(OperationKind::Create, Io::StorageFull).named(".sst").sticky());
    std::thread::scope(|scope| {
        let full = scope.spawn(|| {
            for number in 0..20 {
                db.put(format!("key{number}"), vec![b'v'; MEMORY / 32]).unwrap();
            }
        });
        while db.metrics().writers_waiting == 0 {
            assert!(!full.is_finished());
            std::thread::yield_now();
        }
        let refused = scope.spawn(|| db.write(batch(&spaces, 7 * MEMORY / 32)).unwrap_err());
        let mut in_line = 1;
        while !refused.is_finished() && in_line == 1 {
            in_line = db.metrics().writers_waiting;
            std::thread::yield_now();
        }
        fs.clear_faults();
        let refused = refused.join().unwrap();
        assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
        assert_eq!(in_line, 1, "the write joined the queue");
    });
    drop(spaces);
    db.close().unwrap();
}
