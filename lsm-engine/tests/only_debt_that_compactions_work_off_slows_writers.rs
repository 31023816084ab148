//! Writers are slowed so that background work can catch up. They used to be slowed forever when no background work
//! would ever reduce the debt.

use std::path::PathBuf;
use std::sync::Arc;

use lsm_engine::compaction_policies::{
    Compaction, CompactionPolicy, Fifo, LazyLeveled, Leveled, SizeTiered, TreeShape,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Keyspace, KeyspaceOptions, Options};

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)) }
    }

    fn open(&self) -> Db {
        let options =
            Options::new().vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>);
        options.memory(8 << 20).open("/db").unwrap()
    }

    /// Writes many runs into level 0. Returns how many are left.
    fn write_runs(&self, db: &Db, keyspace: &Keyspace) -> u64 {
        for number in 0..40_u8 {
            keyspace.put("key", vec![number; 100]).unwrap();
            db.put("other", [number]).unwrap();
            db.flush().unwrap();
            self.env.run_until_idle();
            // A failed compaction is tried again after a second.
            self.env.advance(100_000);
        }
        let name = keyspace.name();
        let metrics = db.metrics().keyspaces.into_iter().find(|metrics| metrics.name == name).unwrap();
        metrics.levels[0].runs
    }
}

fn assert_not_slowed(db: &Db) {
    let metrics = db.metrics();
    assert_eq!((metrics.write_rate_limit, metrics.stall_micros), (None, 0), "{metrics:?}");
}

fn with_policy(policy: impl CompactionPolicy + 'static) -> KeyspaceOptions {
    KeyspaceOptions::new().compaction(Arc::new(policy))
}

/// A policy that reports debt and never compacts.
#[derive(Debug)]
struct Idle;

impl CompactionPolicy for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn level_count(&self) -> usize {
        2
    }

    fn pick(&self, _: &TreeShape) -> Option<Compaction> {
        None
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        1 << 40
    }
}

#[test]
fn debt_that_the_policy_does_not_work_off_does_not_slow_writers() {
    let world = World::new();
    let db = world.open();
    let idle = db.keyspace("idle", with_policy(Idle)).unwrap();
    assert!(world.write_runs(&db, &idle) > 32);
    assert_not_slowed(&db);
    drop((idle, db));
    world.env.drop_jobs();
}

/// A keyspace found on disk has the options of the default one until the user opens it. That policy would merge its
/// runs.
#[test]
fn a_keyspace_not_opened_with_its_policy_does_not_slow_writers() {
    let world = World::new();
    let db = world.open();
    db.keyspace("log", with_policy(Fifo::default())).unwrap();
    db.close().unwrap();
    let db = world.open();
    let log = db.existing_keyspace("log").unwrap().unwrap();
    assert!(world.write_runs(&db, &log) > 32);
    assert_not_slowed(&db);
    assert_eq!(db.metrics().compaction_debt_bytes, 0);
    drop((log, db));
    world.env.drop_jobs();
}

/// The engine gives up compactions of a table that it cannot read.
#[test]
fn a_corrupt_table_in_level_0_does_not_slow_writers_forever() {
    let policies: [Arc<dyn CompactionPolicy>; 3] =
        [Arc::new(Leveled::default()), Arc::new(SizeTiered::default()), Arc::new(LazyLeveled::default())];
    for policy in policies {
        let world = World::new();
        let db = world.open();
        let broken = db.keyspace("broken", KeyspaceOptions::new().compaction(policy)).unwrap();
        broken.put("key", vec![b'v'; 100_000]).unwrap();
        db.flush().unwrap();
        let is_table = |path: &PathBuf| path.extension() == Some("sst".as_ref());
        let table = world.fs.paths().into_iter().find(is_table).unwrap();
        world.fs.corrupt(&table, 40_000, 1).unwrap();
        world.write_runs(&db, &broken);
        assert_not_slowed(&db);
        drop((broken, db));
        world.env.drop_jobs();
    }
}

/// A policy that panics when there are more runs than writers should make.
#[derive(Debug)]
struct Panics;

impl CompactionPolicy for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn level_count(&self) -> usize {
        1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        assert!(shape.run_count() <= 20, "too many runs");
        None
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        1 << 40
    }
}

#[test]
fn a_keyspace_with_stopped_background_work_does_not_slow_writers() {
    let world = World::new();
    let db = world.open();
    let stopped = db.keyspace("stopped", with_policy(Panics)).unwrap();
    for number in 0..20_u8 {
        stopped.put("key", [number]).unwrap();
        db.flush().unwrap();
        world.env.run_until_idle();
    }
    stopped.put("key", "one run too many").unwrap();
    // The write is in a table when the policy panics.
    db.flush().unwrap();
    world.env.run_until_idle();
    assert!(stopped.put("key", "value").is_err());
    db.put("key", "value").unwrap();
    assert_not_slowed(&db);
    assert_eq!(db.metrics().compaction_debt_bytes, 0);
    drop((stopped, db));
    world.env.drop_jobs();
}
