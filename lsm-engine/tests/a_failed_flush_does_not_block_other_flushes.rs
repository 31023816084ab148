//! A flush that fails is tried again, and flushes of other keyspaces go on meanwhile. A flush that cannot succeed is
//! not tried again.

use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{Db, ErrorKind, KeyspaceOptions, Metrics, Options};

fn open(fs: &SimFs, env: &Arc<SimEnv>) -> Db {
    let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(env) as Arc<dyn Env>);
    options.memory(16 << 20).log_segment_bytes(4 << 20).open("/db").unwrap()
}

/// Incompressible bytes.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn runs(metrics: &Metrics, name: &str) -> u64 {
    let keyspace = metrics.keyspaces.iter().find(|keyspace| keyspace.name == name).unwrap();
    keyspace.levels.iter().map(|level| level.runs).sum()
}

#[test]
fn small_memtables_are_flushed_while_a_large_one_does_not_fit_the_disk() {
    const CAPACITY: u64 = 1 << 30;
    let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
    let db = open(&fs, &env);
    let [large, small] = ["large", "small"].map(|name| db.keyspace(name, KeyspaceOptions::new()).unwrap());
    large.put("key", noise(1_500_000)).unwrap();
    small.put("key", "1").unwrap();
    fs.set_capacity(Some(CAPACITY));
    let used = CAPACITY - fs.free_bytes(Path::new("/db")).unwrap();
    fs.set_capacity(Some(used + 200_000));
    assert_eq!(db.flush().unwrap_err().kind(), ErrorKind::NoSpace);
    env.run_until_idle();
    let metrics = db.metrics();
    assert_eq!((runs(&metrics, "large"), runs(&metrics, "small")), (0, 1), "{metrics:?}");
    assert!(metrics.waiting_for_space.is_some(), "the large memtable still waits");

    // The small keyspace keeps flushing, however often the large flush is tried.
    for number in 2..5 {
        small.put("key", format!("{number}")).unwrap();
        db.flush().unwrap_err();
        env.advance(1_000_000);
        env.run_until_idle();
        let metrics = db.metrics();
        assert_eq!((runs(&metrics, "large"), metrics.flushes), (0, number), "{metrics:?}");
        assert!(metrics.waiting_for_space.is_some());
    }

    fs.set_capacity(None);
    env.advance(1_000_000);
    env.run_until_idle();
    let metrics = db.metrics();
    assert_eq!((runs(&metrics, "large"), metrics.waiting_for_space), (1, None));
    drop((large, small));
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn dropping_a_keyspace_clears_its_background_error() {
    for cleared in [false, true] {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let db = open(&fs, &env);
        let gone = db.keyspace("gone", KeyspaceOptions::new()).unwrap();
        gone.put("key", "value").unwrap();
        fs.inject(Fault::on(OperationKind::Create, Io::Other).named(".sst").sticky());
        db.flush().unwrap_err();
        assert!(db.metrics().background_error.is_some());
        if cleared {
            gone.clear().unwrap();
        } else {
            db.drop_keyspace("gone").unwrap();
        }
        env.advance(1_000_000);
        env.run_until_idle();
        assert_eq!(db.metrics().background_error, None);
        fs.clear_faults();
        drop(gone);
        db.close().unwrap();
        env.drop_jobs();
    }
}

#[test]
fn a_flush_that_cannot_succeed_is_not_tried_again() {
    for error in [Io::ReadOnlyFilesystem, Io::Unsupported, Io::InvalidInput] {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let db = open(&fs, &env);
        db.put("key", "value").unwrap();
        fs.inject(Fault::on(OperationKind::Create, error).named(".sst").sticky());
        assert!(db.flush().unwrap_err().to_string().contains(".sst"));
        let metrics = db.metrics();
        assert!(metrics.keyspaces[0].failure.is_some() && metrics.background_error.is_none(), "{metrics:?}");
        assert_eq!(db.put("key", "other").unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(db.get("key").unwrap().unwrap(), "value");
        fs.clear_faults();
        env.advance(10_000_000);
        env.run_until_idle();
        assert_eq!(db.metrics().flushes, 0, "{error:?}");
        drop(db);
        env.drop_jobs();
        let db = open(&fs, &env);
        assert_eq!(db.get("key").unwrap().unwrap(), "value");
        db.close().unwrap();
        env.drop_jobs();
    }
}

#[test]
fn flush_returns_an_error_after_the_other_keyspaces_are_flushed() {
    for error in [Io::Other, Io::ReadOnlyFilesystem, Io::StorageFull] {
        for closes in [false, true] {
            let (fs, env, what) = (SimFs::new(), Arc::new(SimEnv::new(1)), format!("{error:?}, {closes}"));
            let db = open(&fs, &env);
            let names = ["first", "second", "third"];
            let [first, second, third] = names.map(|name| db.keyspace(name, KeyspaceOptions::new()).unwrap());
            for keyspace in [&first, &second, &third] {
                keyspace.put("key", noise(100_000)).unwrap();
            }
            fs.inject(Fault::on(OperationKind::Create, error).named(".sst"));
            let result = if closes { db.clone().close() } else { db.flush() };
            result.unwrap_err();
            let metrics = db.metrics();
            let found = names.map(|name| runs(&metrics, name));
            assert_eq!(found, [0, 1, 1], "{what}");
            drop((first, second, third, db));
            env.drop_jobs();
            let db = open(&fs, &env);
            for name in names {
                let keyspace = db.existing_keyspace(name).unwrap().unwrap();
                assert_eq!(keyspace.get("key").unwrap().unwrap(), noise(100_000), "{what}");
            }
            db.close().unwrap();
            env.drop_jobs();
        }
    }
}
