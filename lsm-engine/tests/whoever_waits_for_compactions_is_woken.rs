//! Whoever waits for compactions hears of each that ends or fails, also of those that are done without a job: moves of
//! tables, and drops.

use std::io::ErrorKind;
use std::sync::Arc;

use lsm_engine::Options;
use lsm_engine::compaction_policies::{Compaction, CompactionPolicy, Leveled, LeveledOptions, TreeShape};
use lsm_engine::env::{Env, Event, Job, Priority, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, SimFs};

/// Nothing takes a minute here: who waits longer was forgotten.
struct Impatient(SimEnv);

impl Env for Impatient {
    fn monotonic_micros(&self) -> u64 {
        self.0.monotonic_micros()
    }

    fn unix_micros(&self) -> u64 {
        self.0.unix_micros()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        self.0.spawn(priority, job);
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        let minute = self.monotonic_micros() + 60_000_000;
        let woken = self.0.wait(event, seen, Some(deadline_micros.map_or(minute, |at| at.min(minute))));
        assert!(woken || deadline_micros.is_some(), "nobody was woken for a minute");
        woken
    }
}

/// Wants compactions, but slows nobody down for them: a limit that ends would wake others too.
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

/// The move of a flushed table to its level cannot be logged, once or, if `is_sticky`, until the disk is healed.
fn fail_a_move(is_sticky: bool) {
    let (fs, env) = (SimFs::new(), Arc::new(Impatient(SimEnv::new(1))));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
    let policy = LeveledOptions { level0_runs_max: 1, target_table_bytes: 500, ..LeveledOptions::default() };
    let options = options.compaction(Arc::new(Debtless(Leveled::new(policy))));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    db.put("key", [7; 2000]).unwrap();
    // The first edit is that of the flush.
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
    env.0.drop_jobs();
}

#[test]
fn a_move_that_succeeds_at_the_second_try() {
    fail_a_move(false);
}

#[test]
fn a_move_that_fails_again_and_again() {
    fail_a_move(true);
}
