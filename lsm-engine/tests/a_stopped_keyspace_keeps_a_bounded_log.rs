//! A memtable that is not flushed keeps the log from its first record on. A keyspace with stopped background work used
//! to let the log grow without bound while other keyspaces were written to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_engine::compaction_policies::{Compaction, CompactionPolicy, TreeShape};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Error, Keyspace, KeyspaceOptions, Options};

const MEMORY: usize = 2 << 20;
/// The bound of the log: four memtables, or two segments.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// A policy that panics when the test sets its flag.
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

/// Makes a stopped keyspace with one write in its memtable.
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

/// Writes until a write fails or `bytes` are written. Returns the error.
fn fill(db: &Db, env: &SimEnv, bytes: u64) -> Result<(), Error> {
    for number in 0..bytes / 1000 {
        db.put(format!("key{number:06}"), vec![b'v'; 1000])?;
        env.run_until_idle();
    }
    Ok(())
}

#[test]
fn writes_fail_before_the_log_is_too_long_and_resume_when_the_keyspace_is_dropped() {
    for cleared in [false, true] {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let db = open(&fs, &env);
        let stopped = stop(&db);
        let refused = fill(&db, &env, 20 * LOG_BYTES_MAX).unwrap_err();
        assert!(refused.to_string().contains("told to"), "{refused}");
        let log_bytes = db.metrics().log_bytes;
        assert!((4 * LOG_BYTES_MAX..6 * LOG_BYTES_MAX).contains(&log_bytes), "{log_bytes}");
        assert_eq!(stopped.get("key").unwrap().unwrap(), "2");
        // A crash then loses none of these writes.
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

/// Flushing other keyspaces does not shorten a log that a stopped one pins. Each write used to be flushed alone.
#[test]
fn other_keyspaces_are_not_flushed_more_often() {
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
