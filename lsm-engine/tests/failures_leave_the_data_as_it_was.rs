//! The file system fails, once or permanently, at every operation of a small history. Calls return, errors tell why,
//! and acknowledged data is there: at once, after the failure ended, and after reopening.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use lsm_engine::compaction_policies::{SizeTiered, SizeTieredOptions};
use lsm_engine::env::{Env, Event, Job, Priority, SimEnv, Step};
use lsm_engine::vfs::{AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{Db, Durability, ErrorKind, KeyspaceOptions, Options, Result, Transaction, WriteBatch};

const DIRECTORY: &str = "/data/db";

/// The values that a key may have: the last acknowledged one, or one of a failed write after it.
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

    /// Ends a transaction that put the keys, or a part of them.
    fn commit(&mut self, transaction: Transaction, keys: &[&str]) {
        let result = transaction.commit().map(drop);
        for key in keys {
            self.note(key.as_bytes(), Some(b"of a transaction"), &result);
        }
        self.check_error(result);
    }

    /// Checks that an error comes from the file system, or says that an earlier one stopped writing.
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

/// Enough memory for everything that [`work`] writes. With less, writers would wait for a disk that stays full.
fn options(fs: &SimFs, env: &Arc<SimEnv>) -> Options {
    Options::new()
        .memory(4 << 20)
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

/// Runs a history although calls fail. Each call must return.
fn work(db: &Db, env: &SimEnv, model: &mut Model) {
    let other = db.keyspace("other", KeyspaceOptions::new());
    for number in 0..8 {
        let durability = if number % 3 == 0 { Durability::Sync } else { Durability::Buffered };
        model.put(db, &format!("key{number}"), durability);
    }
    model.check_error(db.flush());
    env.run_until_idle();
    // It begins before a flush and ends after it, so that its commit must look into tables.
    let transaction = db.transaction().unwrap();
    let read =
        transaction.get("key0").and_then(|_| transaction.prefix("key7").try_for_each(|row| row.map(drop)));
    model.check_error(read);
    let mut written = Vec::new();
    for key in ["key0", "key4", "key8"] {
        let result = transaction.put(key, "of a transaction");
        written.extend(result.is_ok().then_some(key));
        model.check_error(result);
    }
    model.delete(db, "key3");
    model.batch(db, &["key1", "key5", "key9"]);
    if let Ok(other) = other {
        model.check_error(other.put("elsewhere", "too"));
    }
    model.check_error(db.flush());
    model.commit(transaction, &written);
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
    /// The failure ends, and the same handle is used again, if possible.
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
        // Not all writes must be there, but the database must open.
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

/// Number of operations of the history when nothing fails.
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
    fail_everywhere_after(0, error, sticky, end);
}

/// Failing writes write this many bytes before they fail.
fn fail_everywhere_after(written: u64, error: Io, sticky: bool, end: End) {
    let range = operations();
    let mut failed = 0;
    for operation in range.clone() {
        let mut fault = Fault::at_operation(operation, error).after_writing(written);
        if sticky {
            fault = fault.sticky();
        }
        let what =
            format!("{error:?} at operation {operation} after {written} bytes, sticky: {sticky}, {end:?}");
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

/// The next open must not find refused writes, and must not wait for them.
#[test]
fn a_disk_that_fails_after_all_writes() {
    for end in [End::Heals, End::Closed, End::PowerCut] {
        fail_everywhere_after(u64::MAX, Io::Other, false, end);
    }
}

/// Checks the database while a writer waits, and then frees disk space.
struct MakeRoom {
    db: Db,
    fs: SimFs,
    begun_micros: Option<u64>,
    env: Arc<SimEnv>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Job for MakeRoom {
    fn step(&mut self) -> Step {
        let now = self.env.monotonic_micros();
        let metrics = self.db.metrics();
        if metrics.writers_waiting == 0 {
            return Step::Again;
        }
        let begun = *self.begun_micros.get_or_insert(now);
        if now - begun < 3_000_000 {
            let deadline_micros = Some(begun + 3_000_000);
            return Step::Pending { event: Event::new(), seen: 0, deadline_micros };
        }
        let count =
            self.db.iter().filter(|entry| entry.as_ref().is_ok_and(|(key, _)| key.starts_with(b"key")));
        let mut seen = self.seen.lock().unwrap();
        seen.push(format!("{} keys are readable", count.count()));
        seen.push(metrics.waiting_for_space.unwrap_or_default());
        self.fs.set_capacity(None);
        Step::Done
    }
}

#[test]
fn on_a_full_disk_reads_work_and_writers_wait_for_space() {
    const CAPACITY: u64 = 1 << 30;
    let fs = file_system();
    let env = Arc::new(SimEnv::new(5));
    // The log segments are allocated, so only tables find no space.
    let db = options(&fs, &env).log_segment_bytes(2 << 20).open(DIRECTORY).unwrap();
    fs.set_capacity(Some(CAPACITY));
    let used = CAPACITY - fs.free_bytes(Path::new(DIRECTORY)).unwrap();
    fs.set_capacity(Some(used + (8 << 10)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let make_room = MakeRoom {
        db: db.clone(),
        fs: fs.clone(),
        begun_micros: None,
        env: Arc::clone(&env),
        seen: Arc::clone(&seen),
    };
    env.spawn(Priority::Low, Box::new(make_room));
    let value = vec![b'v'; 4000];
    let mut acknowledged = 0;
    while seen.lock().unwrap().is_empty() {
        db.put(format!("key{acknowledged:06}"), &value).unwrap();
        acknowledged += 1;
        assert!(acknowledged < 1000, "writes go on without end: {:?}", db.metrics());
    }
    let before = acknowledged - 1;
    let [readable, error] = std::mem::take(&mut *seen.lock().unwrap()).try_into().unwrap();
    assert_eq!(readable, format!("{before} keys are readable"));
    assert!(error.contains(".sst"), "the metrics name the file that finds no room: {error}");
    db.flush().unwrap();
    let metrics = db.metrics();
    assert_eq!((metrics.waiting_for_space, metrics.writers_waiting), (None, 0));
    assert!(metrics.stall_space_micros >= 3_000_000, "{}", metrics.stall_space_micros);
    let crashed = fs.process_crash();
    drop(db);
    env.drop_jobs();
    let env = Arc::new(SimEnv::new(6));
    let db = options(&crashed, &env).open(DIRECTORY).unwrap();
    assert_eq!(db.iter().count(), acknowledged);
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn calls_that_wait_for_a_flush_return_the_error_of_a_full_disk() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(5));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    db.put("key", "value").unwrap();
    fs.inject(Fault::on(OperationKind::Write, Io::StorageFull).sticky().named(".sst"));
    for result in [db.flush(), db.wait_for_compactions(), db.compact_range::<&[u8]>(..)] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains(".sst"), "{error}");
    }
    assert!(db.metrics().waiting_for_space.is_some());
    assert_eq!(db.clone().close().unwrap_err().kind(), ErrorKind::NoSpace);
    fs.clear_faults();
    env.drop_jobs();
    drop(db);
    let env = Arc::new(SimEnv::new(6));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), b"value");
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn failed_compactions_are_retried_after_a_pause() {
    let fs = file_system();
    let env = Arc::new(SimEnv::new(5));
    let open = |runs_max| {
        let tiers = SizeTiered::new(SizeTieredOptions { runs_max, ..SizeTieredOptions::default() });
        options(&fs, &env).compaction(Arc::new(tiers)).open(DIRECTORY).unwrap()
    };
    let db = open(100);
    for value in ["one", "two", "three", "last"] {
        db.put("key", value).unwrap();
        db.flush().unwrap();
    }
    db.close().unwrap();
    fs.inject(Fault::on(OperationKind::Write, Io::StorageFull).named(".sst").sticky());
    let db = open(3);
    let idle_within = |steps: usize| (0..steps).any(|_| !env.step());
    for second in 0..5 {
        assert!(idle_within(100), "background work never becomes idle in second {second}");
        env.advance(1_000_001);
    }
    assert_eq!(db.metrics().compactions, 0);
    fs.clear_faults();
    db.wait_for_compactions().unwrap();
    assert!(db.metrics().compactions > 0);
    assert_eq!(db.get("key").unwrap().unwrap(), "last");
    db.close().unwrap();
    env.drop_jobs();
}

/// A database on a full disk with a waiting writer, and the number of writes acknowledged when that writer gets its
/// error.
fn while_a_writer_waits(act: impl FnOnce(&Db)) -> (lsm_engine::Error, SimFs, usize) {
    let fs = file_system();
    let db = Options::new().memory(1 << 20).memtable_bytes(70_000).vfs(Arc::new(fs.clone())).open(DIRECTORY);
    let db = db.unwrap();
    fs.inject(Fault::on(OperationKind::Write, Io::StorageFull).sticky().named(".sst"));
    db.put("first", "value").unwrap();
    db.flush().unwrap_err();
    let (error, acknowledged) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut acknowledged = 0;
            loop {
                if let Err(error) = db.put(format!("key{acknowledged:06}"), vec![b'v'; 4000]) {
                    return (error, acknowledged);
                }
                acknowledged += 1;
            }
        });
        while db.metrics().writers_waiting == 0 {
            std::thread::yield_now();
        }
        act(&db);
        writer.join().unwrap()
    });
    fs.clear_faults();
    (error, fs, acknowledged)
}

#[test]
fn closing_the_database_wakes_a_waiting_writer() {
    let (error, fs, acknowledged) = while_a_writer_waits(|db| {
        assert_eq!(db.clone().close().unwrap_err().kind(), ErrorKind::NoSpace);
    });
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let env = Arc::new(SimEnv::new(6));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert_eq!(db.iter().count(), acknowledged + 1);
    drop(db);
    env.drop_jobs();
}

/// Some memory is theirs.
#[test]
fn deletes_go_on_while_a_writer_waits_for_room_on_the_disk() {
    let (error, fs, acknowledged) = while_a_writer_waits(|db| {
        db.delete("key000000").unwrap();
        let mut batch = WriteBatch::new();
        batch.delete("key000001");
        batch.delete_range("key000002".."key000004");
        db.write(batch).unwrap();
        assert_eq!(db.get("key000002").unwrap(), None);
        assert_eq!(db.metrics().writers_waiting, 1);
        assert_eq!(db.clone().close().unwrap_err().kind(), ErrorKind::NoSpace);
    });
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let env = Arc::new(SimEnv::new(6));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert_eq!(db.iter().count(), acknowledged + 1 - 4);
    drop(db);
    env.drop_jobs();
}

#[test]
fn clearing_a_keyspace_that_cannot_be_flushed_wakes_a_waiting_writer() {
    let (error, ..) = while_a_writer_waits(|db| {
        let before = db.metrics().visible_sequence;
        db.default_keyspace().clear().unwrap();
        while db.metrics().visible_sequence < before + 3 {
            std::thread::yield_now();
        }
        db.clone().close().unwrap_err();
    });
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

#[test]
fn a_failed_recovery_can_be_repeated() {
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

/// A flush that failed once used not to be tried again: the keyspace refused all writes until the database was
/// reopened.
#[test]
fn a_flush_is_retried_after_a_transient_error() {
    use OperationKind::{Create, Open, Sync, Write};
    let errors = [Io::Other, Io::OutOfMemory, Io::TimedOut, Io::Interrupted, Io::PermissionDenied];
    for (kind, error) in
        [Create, Write, Sync, Open].into_iter().flat_map(|kind| errors.map(|error| (kind, error)))
    {
        let (fs, env, what) = (file_system(), Arc::new(SimEnv::new(5)), format!("{kind:?}, {error:?}"));
        let db = options(&fs, &env).open(DIRECTORY).unwrap();
        db.put("before", "1").unwrap();
        fs.inject(Fault::on(kind, error).named(".sst"));
        let refused = db.flush().unwrap_err();
        assert!(refused.to_string().contains(".sst"), "{what}: {refused}");
        let shown = db.metrics().background_error.unwrap_or_else(|| panic!("{what}: no metric shows it"));
        assert_eq!(shown, refused.to_string(), "{what}");
        db.put("meanwhile", "2").unwrap();
        env.advance(1_000_000);
        env.run_until_idle();
        let metrics = db.metrics();
        assert_eq!(metrics.background_error, None, "{what}");
        assert!(metrics.flushes > 0, "{what}");
        db.flush().unwrap();
        db.close().unwrap();
        env.drop_jobs();
        let env = Arc::new(SimEnv::new(6));
        let db = options(&fs, &env).open(DIRECTORY).unwrap();
        assert_eq!(db.get("before").unwrap().unwrap(), "1", "{what}");
        assert_eq!(db.get("meanwhile").unwrap().unwrap(), "2", "{what}");
        drop(db);
        env.drop_jobs();
    }
}

/// Failed attempts used to leave two files per second, which took up the freed space.
#[test]
fn a_failed_replacement_of_the_manifest_leaves_no_files() {
    let (fs, env) = (file_system(), Arc::new(SimEnv::new(5)));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    db.put("key", "value").unwrap();
    let manifests = |fs: &SimFs| -> Vec<String> {
        let names = fs.paths().into_iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        names.filter(|name| name.starts_with("MANIFEST-")).collect()
    };
    let [manifest] = manifests(&fs).try_into().unwrap();
    fs.inject(Fault::on(OperationKind::Write, Io::StorageFull).named(&manifest));
    fs.inject(Fault::on(OperationKind::Create, Io::StorageFull).named("CURRENT.next").sticky());
    db.flush().unwrap_err();
    for _ in 0..20 {
        env.advance(600_000);
        env.run_until_idle();
    }
    assert!(db.metrics().waiting_for_space.is_some_and(|error| error.contains("CURRENT.next")));
    assert_eq!(manifests(&fs), [manifest]);
    fs.clear_faults();
    db.flush().unwrap();
    db.close().unwrap();
    env.drop_jobs();
    let env = Arc::new(SimEnv::new(6));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    drop(db);
    env.drop_jobs();
}

/// Unlike a full disk, such an error may never end, so writers do not wait for it.
#[test]
fn writes_fail_while_memory_is_full_and_flushes_keep_failing() {
    let (fs, env) = (file_system(), Arc::new(SimEnv::new(5)));
    let db = options(&fs, &env).open(DIRECTORY).unwrap();
    fs.inject(Fault::on(OperationKind::Create, Io::Other).named(".sst").sticky());
    let value = vec![b'v'; 4000];
    let put = |number: usize| db.put(format!("key{number:06}"), &value);
    let (written, error) = (0..2000).find_map(|number| Some((number, put(number).err()?))).unwrap();
    assert!(written > 10, "memory takes more than {written} values");
    assert!(error.to_string().contains(".sst"), "{error}");
    fs.clear_faults();
    env.advance(1_000_000);
    env.run_until_idle();
    put(written).unwrap();
    assert_eq!(db.iter().count(), written + 1);
    db.close().unwrap();
    env.drop_jobs();
}

/// The search for conflicts reads tables. If that fails, nobody knows whether there is a conflict.
#[test]
fn a_commit_whose_search_for_conflicts_cannot_read_writes_nothing() {
    let mut failed = 0;
    for skip in 0.. {
        let (fs, env) = (file_system(), Arc::new(SimEnv::new(5)));
        let db = options(&fs, &env).open(DIRECTORY).unwrap();
        let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
        for number in 0..200 {
            db.put(format!("key{number:03}"), vec![b'v'; 100]).unwrap();
            other.put(format!("key{number:03}"), vec![b'v'; 100]).unwrap();
        }
        let begin = || {
            let transaction = db.transaction().unwrap();
            transaction.get("key003").unwrap();
            transaction.range_in(&other, "key050".."key060").try_for_each(|row| row.map(drop)).unwrap();
            transaction.put("key007", "new").unwrap();
            transaction.delete_range_in(&other, "key100".."key110").unwrap();
            transaction
        };
        let transaction = begin();
        for key in ["key001", "key100x", "key199"] {
            db.put(key, "of another").unwrap();
        }
        other.put("key001", "of another").unwrap();
        db.flush().unwrap();
        let reads = fs.inject(Fault::on(OperationKind::Read, Io::Other).named(".sst").skip(skip));
        let committed = transaction.commit();
        fs.clear_faults();
        if reads.fired() == 0 {
            committed.unwrap();
            assert!(failed >= 3, "{failed} reads failed");
        } else {
            failed += 1;
            let error = committed.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains(".sst"), "{error}");
            assert_eq!(db.get("key007").unwrap().unwrap(), vec![b'v'; 100]);
            assert_eq!(other.count("key100".."key110").unwrap(), 10);
            begin().commit().unwrap();
        }
        assert_eq!(db.get("key007").unwrap().unwrap(), "new");
        assert_eq!(other.count("key100".."key110").unwrap(), 0);
        drop(other);
        db.close().unwrap();
        env.drop_jobs();
        if reads.fired() == 0 {
            return;
        }
    }
}

/// What happens to the database after a batch failed.
#[derive(Clone, Copy, Debug)]
enum Afterwards {
    /// It is flushed and the process crashes.
    Flushed,
    /// A keyspace of the batch is written to again, flushed, and the process crashes.
    WrittenAndFlushed,
    /// As before, but a write to the other keyspace follows the flush.
    FlushedAndWritten,
    /// It is closed.
    Closed,
}

/// An append may fail after the whole record reached the file. The flush of one keyspace used to count the sequence
/// numbers of that record as flushed, so that recovery skipped one half of the batch and applied the other.
#[test]
fn a_batch_with_a_failed_append_is_recovered_whole_or_not_at_all() {
    use Afterwards::{Closed, Flushed, FlushedAndWritten, WrittenAndFlushed};
    // A record larger than half of the window goes directly to the segment.
    let ways = [(false, 1), (true, 1 << 20)].map(|way| [(way, false), (way, true)]);
    let endings = [Flushed, WrittenAndFlushed, FlushedAndWritten, Closed];
    for (((windows, value_bytes), in_transaction), ending) in
        ways.into_iter().flatten().flat_map(|way| endings.map(|ending| (way, ending)))
    {
        let fs = file_system();
        fs.set_windows(windows);
        let (env, what) =
            (Arc::new(SimEnv::new(5)), format!("windows: {windows}, {ending:?}, {in_transaction}"));
        let open = |fs: &SimFs, env: &Arc<SimEnv>| {
            let options = Options::new().memory(32 << 20).vfs(Arc::new(fs.clone()));
            options.env(Arc::clone(env) as Arc<dyn Env>).open(DIRECTORY).unwrap()
        };
        let db = open(&fs, &env);
        let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
        db.put("before", "1").unwrap();
        db.sync().unwrap();
        let append = Fault::on(OperationKind::Write, Io::Other).named(".wal").after_writing(u64::MAX);
        let append = fs.inject(append);
        let value = vec![b'v'; value_bytes];
        if in_transaction {
            let transaction = db.transaction().unwrap();
            transaction.put("key", &value).unwrap();
            transaction.put_in(&other, "key", &value).unwrap();
            transaction.commit().unwrap_err();
        } else {
            let mut batch = WriteBatch::new();
            batch.put("key", &value).put_in(&other, "key", &value);
            db.write(batch).unwrap_err();
        }
        assert_eq!(append.fired(), 1, "{what}");
        assert_eq!((db.get("key").unwrap(), other.get("key").unwrap()), (None, None), "{what}");
        fs.clear_faults();
        match ending {
            Flushed => db.flush().unwrap(),
            WrittenAndFlushed => {
                db.put("after", "2").unwrap();
                db.flush().unwrap();
            }
            FlushedAndWritten => {
                db.flush().unwrap();
                other.put("after", "2").unwrap();
            }
            Closed => {}
        }
        let images = if matches!(ending, Closed) {
            drop(other);
            db.close().unwrap();
            vec![fs]
        } else {
            let images = vec![fs.process_crash(), fs.power_cut(&mut AllLost)];
            drop((other, db));
            images
        };
        env.drop_jobs();
        for fs in images {
            let env = Arc::new(SimEnv::new(6));
            let db = open(&fs, &env);
            let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
            assert_eq!(db.get("before").unwrap().unwrap(), "1", "{what}");
            let (here, there) = (db.get("key").unwrap(), other.get("key").unwrap());
            assert_eq!(here.is_some(), there.is_some(), "{what}: half of a batch");
            drop((other, db));
            env.drop_jobs();
        }
    }
}
