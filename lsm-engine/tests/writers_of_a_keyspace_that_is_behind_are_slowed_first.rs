//! A rate limit belongs to the keyspace whose compactions are behind. Writers of other keyspaces are not slowed.

use std::io::ErrorKind as Io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_engine::compaction_policies::{
    Action, Compaction, CompactionPolicy, InputLevel, LevelShape, OutputRun, Reason, TreeShape,
};
use lsm_engine::env::{Env, Event, Job, Priority, SimEnv, Step};
use lsm_engine::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{Db, ErrorKind, Keyspace, KeyspaceOptions, Options, WriteBatch};

/// A policy that always wants another merge.
#[derive(Debug, Default)]
struct Behind {
    panics: AtomicBool,
}

impl CompactionPolicy for Behind {
    fn name(&self) -> &'static str {
        "behind"
    }

    fn level_count(&self) -> usize {
        1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        assert!(!self.panics.load(Ordering::Relaxed), "told to");
        let busy = shape.levels.iter().any(LevelShape::is_busy);
        (!busy && shape.run_count() > 0).then(|| Compaction {
            inputs: vec![InputLevel::new(0, shape.tables().map(|(_, table)| table))],
            output_level: 0,
            output_run: OutputRun::NewRun,
            action: Action::Merge,
            target_table_bytes: 1 << 20,
            reason: Reason::Level0,
        })
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        if shape.run_count() > 0 { 1 << 50 } else { 0 }
    }
}

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
    policy: Arc<Behind>,
    db: Db,
    behind: Keyspace,
}

impl World {
    fn new() -> Self {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(&env) as Arc<dyn Env>);
        let db = options.memory(64 << 20).open("/db").unwrap();
        let policy = Arc::new(Behind::default());
        let given = Arc::clone(&policy) as Arc<dyn CompactionPolicy>;
        let behind = db.keyspace("behind", KeyspaceOptions::new().compaction(given)).unwrap();
        behind.put("key", "value").unwrap();
        db.flush().unwrap();
        assert_eq!(db.metrics().write_rate_limit, Some(1_000_000));
        Self { fs, env, policy, db, behind }
    }

    /// Makes the running merge fail, so that the next one starts only after a second. Otherwise the test would wait for
    /// thousands of merges.
    fn fail_merge(&self) {
        self.fs.inject(Fault::on(OperationKind::Create, Io::Other).named(".sst").sticky());
        self.env.run_until_idle();
        assert_eq!(self.db.metrics().write_rate_limit, Some(1_000_000));
    }

    fn end(self) {
        drop((self.behind, self.db));
        self.env.drop_jobs();
    }
}

fn long_value() -> Vec<u8> {
    vec![b'v'; 1_000_000]
}

#[test]
fn writers_of_other_keyspaces_are_not_slowed() {
    let world = World::new();
    world.fail_merge();
    let limits: Vec<_> =
        world.db.metrics().keyspaces.into_iter().map(|keyspace| keyspace.write_rate_limit).collect();
    assert_eq!(limits, [None, Some(1_000_000)]);
    world.db.put("key", long_value()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put("key", long_value());
    world.db.write(&batch).unwrap();
    assert_eq!(world.db.metrics().stall_micros, 0);

    world.behind.put("key", long_value()).unwrap();
    let stalled = world.db.metrics().stall_rate_micros;
    assert!((999_000..1_001_000).contains(&stalled), "{stalled}");
    // The limit charges a batch for the bytes that it writes to this keyspace.
    batch.put_in(&world.behind, "key", long_value());
    world.db.write(batch).unwrap();
    let metrics = world.db.metrics();
    assert!((1_999_000..2_002_000).contains(&metrics.stall_rate_micros), "{metrics:?}");
    assert_eq!(metrics.stall_micros, metrics.stall_rate_micros);
    world.end();
}

/// A job that drops a keyspace after a while.
struct Drops(Arc<SimEnv>, Db);

impl Job for Drops {
    fn step(&mut self) -> Step {
        if self.0.monotonic_micros() < 100_000 {
            return Step::Pending { event: Event::new(), seen: 0, deadline_micros: Some(100_000) };
        }
        self.1.drop_keyspace("behind").unwrap();
        Step::Done
    }
}

#[test]
fn a_slowed_writer_fails_when_its_keyspace_is_dropped() {
    let world = World::new();
    world.fail_merge();
    world.db.sync().unwrap();
    world.env.spawn(Priority::High, Box::new(Drops(Arc::clone(&world.env), world.db.clone())));
    let error = world.behind.put("key", long_value()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let stalled = world.db.metrics().stall_rate_micros;
    assert!((90_000..200_000).contains(&stalled), "{stalled}");
    world.end();
}

#[test]
fn a_slowed_writer_fails_when_background_work_of_its_keyspace_stops() {
    let world = World::new();
    world.policy.panics.store(true, Ordering::Relaxed);
    let error = world.behind.put("key", long_value()).unwrap_err();
    assert!(error.to_string().contains("told to"), "{error}");
    let metrics = world.db.metrics();
    assert!(metrics.stall_rate_micros < 500_000, "{metrics:?}");
    assert_eq!(metrics.write_rate_limit, None);
    world.end();
}

/// The metrics distinguish waiting for memory from a rate limit.
#[test]
fn metrics_tell_the_reason_of_a_write_stall() {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db = options.memory(2 << 20).open("/db").unwrap();
    for number in 0..100 {
        db.put(format!("key{number}"), vec![b'v'; 100_000]).unwrap();
    }
    let metrics = db.metrics();
    assert!(metrics.stall_memory_micros > 0, "{metrics:?}");
    assert_eq!(metrics.stall_space_micros, 0);
    assert_eq!(metrics.stall_micros, metrics.stall_memory_micros + metrics.stall_rate_micros);
    drop(db);
    env.drop_jobs();
}
