//! What is not flushed stays in the log, with all that is written elsewhere since. A keyspace whose background work stopped
//! used to keep the log growing for as long as anybody wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_engine::compaction_policies::{Compaction, CompactionPolicy, TreeShape};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Error, Keyspace, KeyspaceOptions, Options};

const MEMORY: usize = 2 << 20;
/// Four memtables, or two segments.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Panics when told to.
#[derive(Debug, Default)]
struct Panics(AtomicBool);

impl CompactionPolicy for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn level_count(&self) -> usize {
        1
    }

    fn pick(&self, _: &TreeShape) -> Option<Compaction> {
        assert!(!self.0.load(Ordering::Relaxed), "told to");
        None
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

fn open(fs: &SimFs, env: &Arc<SimEnv>) -> Db {
    let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(env) as Arc<dyn Env>);
    options.memory(MEMORY).open("/db").unwrap()
}

/// A keyspace that stopped with a write in its memtable.
fn stop(db: &Db) -> Keyspace {
    let policy = Arc::new(Panics::default());
    let given = Arc::clone(&policy) as Arc<dyn CompactionPolicy>;
    let stopped = db.keyspace("stopped", KeyspaceOptions::new().compaction(given)).unwrap();
    stopped.put("key", "1").unwrap();
    db.flush().unwrap();
    stopped.put("key", "2").unwrap();
    policy.0.store(true, Ordering::Relaxed);
    let _asks_the_policy = db.wait_for_compactions();
    assert!(matches!(stopped.put("key", "3"), Err(Error::WritingStopped(_))));
    stopped
}

/// Writes until it fails or `bytes` are written; returns the error.
fn fill(db: &Db, env: &SimEnv, bytes: u64) -> Result<(), Error> {
    for number in 0..bytes / 1000 {
        db.put(format!("key{number:06}"), vec![b'v'; 1000])?;
        env.run_until_idle();
    }
    Ok(())
}

#[test]
fn writes_fail_before_the_log_is_too_long_and_go_on_once_the_keyspace_is_gone() {
    for cleared in [false, true] {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let db = open(&fs, &env);
        let stopped = stop(&db);
        let refused = fill(&db, &env, 20 * LOG_BYTES_MAX).unwrap_err();
        assert!(refused.to_string().contains("told to"), "{refused}");
        let log_bytes = db.metrics().log_bytes;
        assert!((4 * LOG_BYTES_MAX..6 * LOG_BYTES_MAX).contains(&log_bytes), "{log_bytes}");
        assert_eq!(stopped.get("key").unwrap().unwrap(), "2");
        // Nothing of it is lost by a crash then.
        let crashed = fs.process_crash();
        let other = Arc::new(SimEnv::new(2));
        let reopened = open(&crashed, &other);
        assert_eq!(reopened.existing_keyspace("stopped").unwrap().unwrap().get("key").unwrap().unwrap(), "2");
        drop(reopened);
        other.drop_jobs();

        if cleared {
            stopped.clear().unwrap();
        } else {
            db.drop_keyspace("stopped").unwrap();
        }
        fill(&db, &env, 4 * LOG_BYTES_MAX).unwrap();
        let log_bytes = db.metrics().log_bytes;
        assert!(log_bytes < 2 * LOG_BYTES_MAX, "{log_bytes}");
        drop((stopped, db));
        env.drop_jobs();
    }
}

/// Sealing others shortens no log that another keeps: each write used to be flushed alone.
#[test]
fn others_are_flushed_no_more_often() {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
    let db = open(&fs, &env);
    let stopped = stop(&db);
    let before = db.metrics().flushes;
    fill(&db, &env, 3 * LOG_BYTES_MAX).unwrap();
    let flushes = db.metrics().flushes - before;
    assert!(flushes < 40, "{flushes} flushes");
    drop((stopped, db));
    env.drop_jobs();
}
