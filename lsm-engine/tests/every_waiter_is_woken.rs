//! A waiting caller is woken when work ends or fails: flushes, and compactions, also those that need no job.

use std::io::ErrorKind;
use std::sync::Arc;

use lsm_engine::compaction_policies::{Compaction, CompactionPolicy, Leveled, LeveledOptions, TreeShape};
use lsm_engine::env::SimEnv;
use lsm_engine::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{KeyspaceOptions, Options, WriteBatch};

use lsm_dev::Impatient;

/// A policy that compacts but reports no debt. The end of a rate limit would wake waiting callers too.
#[derive(Debug)]
struct Debtless(Leveled);

impl CompactionPolicy for Debtless {
    fn name(&self) -> &'static str {
        "debtless"
    }

    fn level_count(&self) -> usize {
        self.0.level_count()
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        self.0.pick(shape)
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

/// The edit of a trivial move fails, once or, with `is_sticky`, until the fault is cleared.
fn fail_a_move(is_sticky: bool) {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
    let policy = LeveledOptions { level0_runs_max: 1, target_table_bytes: 500, ..LeveledOptions::default() };
    let options = options.compaction(Arc::new(Debtless(Leveled::new(policy))));
    let db = options.env(Impatient::over(&env, 1000)).open("/db").unwrap();
    db.put("key", [7; 2000]).unwrap();
    // The first edit is the one of the flush.
    let fault = Fault::on(OperationKind::Write, ErrorKind::Other).name_starting("MANIFEST-").skip(1);
    let fault = fs.inject(if is_sticky { fault.sticky() } else { fault });
    db.flush().unwrap();
    assert_eq!((fault.fired(), db.metrics().moves), (1, 0));
    if is_sticky {
        let error = db.wait_for_compactions().unwrap_err();
        assert!(error.to_string().contains("MANIFEST-"), "{error}");
        fs.clear_faults();
    }
    db.wait_for_compactions().unwrap();
    assert_eq!(db.metrics().moves, 1);
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn a_move_that_succeeds_at_the_second_try() {
    fail_a_move(false);
}

#[test]
fn a_move_that_fails_again_and_again() {
    fail_a_move(true);
}

/// The flush cannot end, because tables cannot be opened. While a writer waits for it, the sync of the log fails.
#[test]
fn a_writer_that_waits_for_memory_gets_the_error_of_a_stopped_log() {
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
    let options = Options::new().memory(1 << 20).vfs(Arc::new(fs.clone()));
    let db = options.env(Impatient::over(&env, 1000)).open("/db").unwrap();
    // With another keyspace, a flush syncs the log first.
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    let steps = env.steps();
    for number in 0..60 {
        other.put(number.to_string(), [7; 500]).unwrap();
        db.put(number.to_string(), [7; 500]).unwrap();
    }
    fs.inject(Fault::on(OperationKind::Open, ErrorKind::Other).named(".sst").sticky());
    let fault = fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other).named(".wal"));
    assert_eq!(env.steps(), steps, "nothing was flushed yet");
    let mut batch = WriteBatch::new();
    (0..24).for_each(|number| _ = batch.put(format!("large {number}"), [7; 10_000]));
    let error = db.write(batch).unwrap_err();
    assert!(env.steps() > steps, "the writer did not wait");
    assert_eq!(fault.fired(), 1);
    assert!(error.to_string().contains("injected fault"), "{error}");
    drop((other, db));
    env.drop_jobs();
}
