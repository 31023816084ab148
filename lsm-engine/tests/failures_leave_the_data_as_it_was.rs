//! The file system fails, once or for good, at every operation of a small history. Calls end, errors say why, and
//! what was acknowledged is there: at once, after the failure went away, and after reopening.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{Db, Durability, ErrorKind, KeyspaceOptions, Options, Result, WriteBatch};

const DIRECTORY: &str = "/data/db";

/// What a key may hold: the last acknowledged value, or one of a write that failed after it, in doubt.
#[derive(Debug, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
    errors: Vec<String>,
}

impl Model {
    fn note(&mut self, key: &[u8], value: Option<&[u8]>, result: &Result<()>) {
        let values = self.keys.entry(key.to_vec()).or_insert_with(|| vec![None]);
        if result.is_ok() {
            values.clear();
        }
        values.push(value.map(<[u8]>::to_vec));
    }

    fn put(&mut self, db: &Db, key: &str, durability: Durability) {
        let value = format!("{} {key}", self.keys.len()).repeat(60);
        let result = db.put_with(key, &value, durability);
        self.note(key.as_bytes(), Some(value.as_bytes()), &result);
        self.check_error(result);
    }

    fn delete(&mut self, db: &Db, key: &str) {
        let result = db.delete(key);
        self.note(key.as_bytes(), None, &result);
        self.check_error(result);
    }

    fn batch(&mut self, db: &Db, keys: &[&str]) {
        let mut batch = WriteBatch::new();
        for key in keys {
            batch.put(key, "of a batch");
        }
        let result = db.write(batch);
        for key in keys {
            self.note(key.as_bytes(), Some(b"of a batch"), &result);
        }
        self.check_error(result);
    }

    /// An error is one of the file system, or says that an earlier one stopped writing.
    fn check_error(&mut self, result: Result<()>) {
        if let Err(error) = result {
            let kind = error.kind();
            let known = matches!(kind, ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::ReadOnly);
            assert!(known, "{kind:?}: {error}");
            assert!(!error.to_string().is_empty());
            self.errors.push(error.to_string());
        }
    }

    fn check(&self, db: &Db, what: &str) {
        let found: Result<BTreeMap<_, _>> =
            db.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect();
        let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
        for (key, possible) in &self.keys {
            let value = found.get(key).cloned();
            let name = key.escape_ascii();
            assert!(possible.contains(&value), "{what}: {name} is {value:?} after {:?}", self.errors);
            let got = db.get(key).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(got.map(|value| value.to_vec()), value, "{what}: {name}");
        }
        assert!(found.keys().all(|key| self.keys.contains_key(key)), "{what}: a key nobody wrote");
    }
}

fn options(fs: &SimFs, env: &Arc<SimEnv>) -> Options {
    Options::new()
        .memory(1 << 20)
        .memtable_bytes(70_000)
        .log_segment_bytes(16 << 10)
        .vfs(Arc::new(fs.clone()))
        .env(Arc::clone(env) as Arc<dyn Env>)
}

fn file_system() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

/// Works on whatever fails: each call must come back.
fn work(db: &Db, env: &SimEnv, model: &mut Model) {
    let other = db.keyspace("other", KeyspaceOptions::new());
    for number in 0..8 {
        let durability = if number % 3 == 0 { Durability::Sync } else { Durability::Buffered };
        model.put(db, &format!("key{number}"), durability);
    }
    model.check_error(db.flush());
    env.run_until_idle();
    model.delete(db, "key3");
    model.batch(db, &["key1", "key5", "key9"]);
    if let Ok(other) = other {
        model.check_error(other.put("elsewhere", "too"));
    }
    model.check_error(db.flush());
    model.put(db, "key2", Durability::Sync);
    model.check_error(db.compact_range::<&[u8]>(..));
    model.check_error(db.wait_for_compactions());
    model.put(db, "key7", Durability::Buffered);
    model.check_error(db.sync());
    env.run_until_idle();
}

/// How the failure ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It goes away and the same handle goes on, if it can.
    Heals,
    /// The database is closed while it lasts.
    Closed,
    /// The power goes while it lasts.
    PowerCut,
}

fn fail_with(fault: Fault, end: End, what: &str) -> Vec<String> {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(5));
    let mut model = Model::default();
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    fs.inject(fault);
    work(&db, &env, &mut model);
    model.check(&db, &format!("{what}, while it lasts"));
    let fs = match end {
        End::Heals => {
            fs.clear_faults();
            env.advance(2_000_000);
            env.run_until_idle();
            let before = model.errors.len();
            work(&db, &env, &mut model);
            let stopped = model.errors[before..].iter().all(|error| error.contains("stopped"));
            assert!(stopped, "{what}: it heals and yet: {:?}", &model.errors[before..]);
            model.check(&db, &format!("{what}, healed"));
            drop(db);
            fs
        }
        End::Closed => {
            model.check_error(db.close());
            fs.clear_faults();
            fs
        }
        End::PowerCut => {
            model.check_error(db.sync());
            drop(db);
            fs.clear_faults();
            fs.power_cut(&mut AllLost)
        }
    };
    env.drop_jobs();
    let env = Arc::new(SimEnv::new(6));
    let db = options(&fs, &env).open(DIRECTORY).unwrap_or_else(|error| panic!("{what}, reopened: {error}"));
    let errors = model.errors.clone();
    if end == End::PowerCut && !model.errors.is_empty() {
        // Only some of it is promised; that it opens, always.
        assert!(db.iter().all(|entry| entry.is_ok()), "{what}");
        model = Model::default();
        for entry in &db {
            let (key, value) = entry.unwrap();
            model.keys.insert(key.to_vec(), vec![Some(value.to_vec())]);
        }
    }
    model.check(&db, &format!("{what}, reopened"));
    model.errors.clear();
    work(&db, &env, &mut model);
    assert!(model.errors.is_empty(), "{what}, reopened: {:?}", model.errors);
    db.close().unwrap_or_else(|error| panic!("{what}: {error}"));
    env.drop_jobs();
    errors
}

/// How many operations the history takes when nothing fails.
fn operations() -> std::ops::Range<u64> {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(5));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    let begun = fs.operations();
    let mut model = Model::default();
    work(&db, &env, &mut model);
    assert!(model.errors.is_empty(), "{:?}", model.errors);
    let end = fs.operations();
    drop(db);
    env.drop_jobs();
    begun..end
}

fn fail_everywhere(error: Io, sticky: bool, end: End) {
    let range = operations();
    let mut failed = 0;
    for operation in range.clone() {
        let mut fault = Fault::at_operation(operation, error);
        if sticky {
            fault = fault.sticky();
        }
        let what = format!("{error:?} at operation {operation}, sticky: {sticky}, {end:?}");
        failed += usize::from(!fail_with(fault, end, &what).is_empty());
    }
    assert!(failed as u64 > (range.end - range.start) / 4, "{failed} of {range:?} failures showed");
}

#[test]
fn a_full_disk_that_gets_room_again() {
    fail_everywhere(Io::StorageFull, true, End::Heals);
}

#[test]
fn a_disk_that_is_full_for_a_moment() {
    fail_everywhere(Io::StorageFull, false, End::Heals);
}

#[test]
fn a_full_disk_that_stays_full() {
    fail_everywhere(Io::StorageFull, true, End::Closed);
    fail_everywhere(Io::StorageFull, true, End::PowerCut);
}

#[test]
fn a_disk_that_fails_once() {
    fail_everywhere(Io::Other, false, End::Heals);
    fail_everywhere(Io::Other, false, End::Closed);
    fail_everywhere(Io::Other, false, End::PowerCut);
}

#[test]
fn a_disk_that_fails_for_good() {
    fail_everywhere(Io::Other, true, End::Closed);
    fail_everywhere(Io::Other, true, End::PowerCut);
}

#[test]
fn a_full_disk_stops_no_reader_and_a_full_memory_says_so() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(5));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    db.put("before", "the disk was full").unwrap();
    fs.inject(Fault::on(OperationKind::Write, Io::StorageFull).sticky().named(".sst"));
    let value = vec![b'v'; 4000];
    let mut acknowledged = 0;
    let error = loop {
        match db.put(format!("key{acknowledged:06}"), &value) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "writes go on without end");
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains(".sst"), "{error}");
    assert_eq!(db.iter().count(), acknowledged + 1);
    assert_eq!(db.flush().unwrap_err().kind(), ErrorKind::NoSpace);
    fs.clear_faults();
    db.put("after", "there is room").unwrap();
    db.flush().unwrap();
    assert_eq!(db.iter().count(), acknowledged + 2);
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn a_recovery_that_fails_can_be_repeated() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(5));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    let mut model = Model::default();
    work(&db, &env, &mut model);
    model.put(&db, "the last", Durability::Buffered);
    let crashed = fs.process_crash();
    drop(db);
    env.drop_jobs();
    let begun = crashed.operations();
    let env = Arc::new(SimEnv::new(6));
    let whole = crashed.process_crash();
    drop(options(&whole, &env).open(DIRECTORY).unwrap());
    env.drop_jobs();
    for operation in begun..whole.operations() {
        for error in [Io::StorageFull, Io::Other] {
            let fs = crashed.process_crash();
            let what = format!("{error:?} at operation {operation} of the recovery");
            fs.inject(Fault::at_operation(operation, error).sticky());
            let env = Arc::new(SimEnv::new(6));
            if let Ok(db) = options(&fs, &env).open(DIRECTORY) {
                model.check(&db, &what);
                drop(db);
            }
            env.drop_jobs();
            fs.clear_faults();
            let env = Arc::new(SimEnv::new(7));
            let db = options(&fs, &env).open(DIRECTORY).unwrap_or_else(|error| panic!("{what}: {error}"));
            model.check(&db, &what);
            drop(db);
            env.drop_jobs();
        }
    }
}
