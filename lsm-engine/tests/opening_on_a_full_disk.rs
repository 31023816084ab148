//! A database opens for writing on a full disk. Recovery first removes files that nothing needs. Data that cannot be
//! flushed stays in memory and in the log, until deletes, clears, drops or others free disk space.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{Db, ErrorKind, KeyspaceOptions, Options, Result, WriteBatch};

mod manifest;

use manifest::verify_log;

const ENTRIES: u64 = 2000;
const DIRECTORY: &str = "/db";

fn open_with(fs: &SimFs, memory: usize) -> (Arc<SimEnv>, Result<Db>) {
    let env = Arc::new(SimEnv::new(1));
    // What a crash leaves of the log is no room for a flush.
    let options = Options::new().memory(memory).log_segment_bytes(1 << 20).vfs(Arc::new(fs.clone()));
    (Arc::clone(&env), options.env(env as Arc<dyn Env>).open(DIRECTORY))
}

fn open(fs: &SimFs) -> (Arc<SimEnv>, Result<Db>) {
    open_with(fs, 8 << 20)
}

fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(100)
}

fn key(number: u64) -> String {
    format!("key{number:05}")
}

/// Fills the disk up to a number of free bytes.
fn fill(fs: &SimFs, free_bytes: u64) {
    const DISK_BYTES: u64 = 1 << 40;
    fs.set_capacity(Some(DISK_BYTES));
    let used = DISK_BYTES - fs.free_bytes(Path::new("/")).unwrap();
    fs.set_capacity(Some(used + free_bytes));
}

/// The files of a process that was killed while its disk was full: the log has entries that no table has.
fn killed(act: impl FnOnce(&SimFs, &SimEnv, &Db)) -> SimFs {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    let db = db.unwrap();
    for number in 0..ENTRIES {
        db.put(key(number), value(number)).unwrap();
    }
    act(&fs, &env, &db);
    let crashed = fs.process_crash();
    drop(db);
    env.drop_jobs();
    fill(&crashed, 0);
    crashed
}

fn check_all(db: &Db) {
    for number in 0..ENTRIES {
        assert_eq!(db.get(key(number)).unwrap().unwrap(), value(number));
    }
}

fn end(env: &SimEnv, db: Db) {
    drop(db);
    env.drop_jobs();
}

/// The disk was full when the process ended, and a compaction had written half of its table. `room` bytes are free.
fn open_after_a_merge_that_filled_the_disk(room: u64) {
    let crashed = killed(|_, _, _| {});
    let leftover = Path::new("/db/000900.sst");
    crashed.set_capacity(None);
    crashed.write_all(leftover, &vec![7; 8 << 20]).unwrap();
    fill(&crashed, room);
    let (env, db) = open(&crashed);
    let db = db.unwrap();
    assert!(db.recovery().operations > 0);
    assert_eq!(db.recovery().waiting_for_space, None);
    assert!(!crashed.paths().iter().any(|path| path == leftover));
    check_all(&db);
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn tables_of_an_interrupted_compaction_are_removed_before_the_log_is_flushed() {
    open_after_a_merge_that_filled_the_disk(64 << 10);
}

#[test]
fn tables_of_an_interrupted_compaction_are_removed_even_if_no_manifest_fits() {
    open_after_a_merge_that_filled_the_disk(0);
}

/// An edit was written but failed to sync. After that, a sync of the same file succeeds but does not write the edit.
#[test]
fn a_manifest_that_failed_to_sync_is_written_again_before_tables_are_removed() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    let db = db.unwrap();
    for _ in 0..2 {
        for number in 0..ENTRIES {
            db.put(key(number), value(number)).unwrap();
        }
        db.flush().unwrap();
    }
    let failed = Fault::on(OperationKind::Sync, std::io::ErrorKind::Other).name_starting("MANIFEST-");
    let failed = fs.inject(failed);
    db.compact_range::<&str>(..).unwrap_err();
    assert_eq!(failed.fired(), 1);
    end(&env, db);
    // There is no space for another manifest.
    let full = Fault::on(OperationKind::Write, std::io::ErrorKind::StorageFull).name_starting("CURRENT");
    fs.inject(full.sticky());
    let (env, refused) = open(&fs);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoSpace);
    env.drop_jobs();
    let after_power_cut = fs.power_cut(&mut AllLost);
    let (env, db) = open(&after_power_cut);
    let db = db.unwrap();
    check_all(&db);
    end(&env, db);
}

#[test]
fn replayed_data_stays_in_memory_and_is_flushed_when_there_is_space() {
    let fs = killed(|_, _, _| {});
    let (env, db) = open(&fs);
    let db = db.unwrap();
    let reason = db.recovery().waiting_for_space.clone();
    assert!(reason.is_some_and(|reason| reason.contains(".sst")), "{:?}", db.recovery());
    check_all(&db);
    env.run_until_idle();
    assert!(db.metrics().waiting_for_space.is_some());
    db.delete(key(7)).unwrap();
    db.put(key(8), "new").unwrap();
    db.sync().unwrap();
    let cut = fs.power_cut(&mut AllLost);
    fs.set_capacity(None);
    env.advance(1_000_000);
    env.run_until_idle();
    let metrics = db.metrics();
    assert!(metrics.waiting_for_space.is_none() && metrics.flushes > 0, "{metrics:?}");
    db.close().unwrap();
    env.drop_jobs();
    for fs in [fs, cut] {
        fs.set_capacity(None);
        let (env, db) = open(&fs);
        let db = db.unwrap();
        assert_eq!(db.recovery().waiting_for_space, None);
        assert_eq!(db.get(key(7)).unwrap(), None);
        assert_eq!(db.get(key(8)).unwrap().unwrap(), "new");
        assert_eq!(db.iter().count() as u64, ENTRIES - 1);
        end(&env, db);
    }
}

/// Two memtables are replayed. Their tables count together, or not at all.
#[test]
fn an_open_with_space_for_the_first_table_only_keeps_all_in_memory() {
    let fs = killed(|_, _, _| {});
    fill(&fs, 1_300_000);
    let (env, db) = open(&fs);
    let db = db.unwrap();
    assert!(db.recovery().waiting_for_space.is_some());
    assert!(!fs.paths().iter().any(|path| path.extension().is_some_and(|suffix| suffix == "sst")));
    check_all(&db);
    fs.set_capacity(None);
    env.run_until_idle();
    db.flush().unwrap();
    assert_eq!(db.metrics().flushes, 2);
    db.close().unwrap();
    env.drop_jobs();
    let (env, db) = open(&fs);
    let db = db.unwrap();
    check_all(&db);
    end(&env, db);
}

#[test]
fn a_full_disk_can_be_opened_again_and_again() {
    let fs = killed(|_, _, _| {});
    for round in 0..10 {
        let (env, db) = open(&fs);
        let db = db.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(db.iter().count() as u64, ENTRIES - round);
        env.run_until_idle();
        db.delete(key(round)).unwrap();
        end(&env, db);
    }
    let cut = fs.power_cut(&mut AllLost);
    cut.set_capacity(None);
    let (env, db) = open(&cut);
    assert_eq!(db.unwrap().iter().count() as u64, ENTRIES - 10);
    env.drop_jobs();
}

#[test]
fn dropping_a_keyspace_frees_the_space_that_the_flush_needs() {
    let fs = killed(|_, env, db| {
        let old = db.keyspace("old", KeyspaceOptions::new()).unwrap();
        for number in 0..2 * ENTRIES {
            old.put(key(number), value(number)).unwrap();
        }
        db.flush().unwrap();
        env.run_until_idle();
        for number in 0..ENTRIES {
            db.put(key(number), value(number)).unwrap();
        }
    });
    let (env, db) = open(&fs);
    let db = db.unwrap();
    assert!(db.recovery().waiting_for_space.is_some());
    db.drop_keyspace("old").unwrap();
    env.run_until_idle();
    db.flush().unwrap();
    assert_eq!(db.metrics().waiting_for_space, None);
    check_all(&db);
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn clearing_a_keyspace_frees_the_space_that_the_flush_needs() {
    let fs = killed(|_, env, db| {
        db.flush().unwrap();
        env.run_until_idle();
        let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
        for number in 0..ENTRIES {
            other.put(key(number), value(number)).unwrap();
        }
    });
    let (env, db) = open(&fs);
    let db = db.unwrap();
    assert!(db.recovery().waiting_for_space.is_some());
    db.default_keyspace().clear().unwrap();
    env.run_until_idle();
    db.flush().unwrap();
    assert_eq!(db.iter().count(), 0);
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    assert_eq!(other.get(key(5)).unwrap().unwrap(), value(5));
    drop(other);
    db.close().unwrap();
    env.drop_jobs();
}

/// The table of a range delete is small and fits the disk reserve. Then the tables that it covers are removed.
#[test]
fn a_range_delete_of_everything_frees_space_by_itself() {
    let fs = killed(|_, env, db| {
        db.flush().unwrap();
        env.run_until_idle();
    });
    let (env, db) = open(&fs);
    let db = db.unwrap();
    fill(&fs, 0);
    for number in 0..100 {
        db.put(key(number), value(number)).unwrap();
    }
    assert_eq!(db.iter().count() as u64, ENTRIES);
    db.delete_range("a".."z").unwrap();
    db.flush().unwrap();
    env.run_until_idle();
    let free = fs.free_bytes(Path::new("/")).unwrap();
    assert!(free > 1 << 20, "only {free} bytes are free");
    assert_eq!(db.iter().count(), 0);
    db.close().unwrap();
    env.drop_jobs();
}

/// A clean close, no disk reserve, and not one free byte.
#[test]
fn an_open_without_space_says_how_much_it_needs_and_changes_nothing() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    let db = db.unwrap();
    db.put("key", "value").unwrap();
    db.close().unwrap();
    env.drop_jobs();
    fs.remove_file(Path::new("/db/RESERVE")).unwrap();
    fs.sync_dir(Path::new(DIRECTORY)).unwrap();
    fill(&fs, 0);
    for _ in 0..2 {
        let (env, refused) = open(&fs);
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains("at least 20480 bytes, and 0 are free"), "{error}");
        env.drop_jobs();
    }
    fill(&fs, 20_480);
    let (env, db) = open(&fs);
    let db = db.unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    end(&env, db);
}

#[test]
fn a_closed_database_opens_on_a_full_disk_with_its_disk_reserve() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    let db = db.unwrap();
    let space = db.keyspace("space", KeyspaceOptions::new()).unwrap();
    for number in 0..2 * ENTRIES {
        space.put(key(number), value(number)).unwrap();
    }
    drop(space);
    db.close().unwrap();
    env.drop_jobs();
    fill(&fs, 0);
    let (env, db) = open(&fs);
    let db = db.unwrap();
    assert_eq!(db.recovery().waiting_for_space, None, "there is nothing to flush");
    db.drop_keyspace("space").unwrap();
    env.run_until_idle();
    for number in 0..100 {
        db.put(key(number), value(number)).unwrap();
    }
    db.close().unwrap();
    env.drop_jobs();
    assert!(fs.metadata(Path::new("/db/RESERVE")).unwrap().len > 0, "the reserve is needed the next time");
}

#[test]
fn on_a_full_disk_a_log_larger_than_memory_is_refused_and_kept() {
    let fs = killed(|_, _, _| {});
    let (env, refused) = open_with(&fs, 1 << 20);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("Options::memory"), "{error}");
    env.drop_jobs();
    let (env, db) = open(&fs);
    let db = db.unwrap();
    check_all(&db);
    end(&env, db);
}

type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn small_options(fs: &SimFs, env: &Arc<SimEnv>) -> Options {
    Options::new()
        .memory(4 << 20)
        .memtable_bytes(400_000)
        .log_segment_bytes(16 << 10)
        .vfs(Arc::new(fs.clone()))
        .env(Arc::clone(env) as Arc<dyn Env>)
}

fn open_small(fs: &SimFs, what: &dyn Fn() -> String) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(3));
    let db = small_options(fs, &env).open(DIRECTORY);
    (env, db.unwrap_or_else(|error| panic!("{}: {error}, {}", what(), listing(fs))))
}

fn listing(fs: &SimFs) -> String {
    let len = |path: &Path| fs.metadata(path).map_or(0, |metadata| metadata.len);
    let files: Vec<_> = fs.paths().iter().map(|path| format!("{} {}", path.display(), len(path))).collect();
    files.join(", ")
}

fn state(db: &Db) -> State {
    let read = |name: String| {
        let keyspace = db.keyspace(&name, KeyspaceOptions::new()).unwrap();
        let entries = keyspace.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        (name, entries.collect::<Result<_>>().unwrap())
    };
    db.keyspaces().into_iter().map(read).collect()
}

/// Tables and a log with range deletes and a clear that only the log knows, after three ways to end the process.
fn history() -> [(&'static str, SimFs); 3] {
    let fs = &SimFs::new();
    let env = Arc::new(SimEnv::new(1));
    let db = small_options(fs, &env).open(DIRECTORY).unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    let cleared = db.keyspace("cleared", KeyspaceOptions::new()).unwrap();
    for number in 0..40 {
        db.put(key(number), [b'1'; 500]).unwrap();
        other.put(key(number), [b'1'; 500]).unwrap();
        cleared.put(key(number), [b'1'; 500]).unwrap();
    }
    db.flush().unwrap();
    env.run_until_idle();
    for number in 20..140 {
        let mut batch = WriteBatch::new();
        batch.put(key(number), [b'2'; 400]);
        batch.put_in(&other, key(number), [b'2'; 400]);
        batch.put_in(&cleared, key(number), [b'2'; 10]);
        db.write(batch).unwrap();
    }
    other.delete_range(key(5)..key(25)).unwrap();
    cleared.put("in", "the log").unwrap();
    // The edit of the clear does not reach the manifest.
    let names = fs.read_dir(Path::new(DIRECTORY)).unwrap();
    let manifest = names.into_iter().find(|name| name.starts_with("MANIFEST-")).unwrap();
    fs.inject(Fault::on(OperationKind::Write, std::io::ErrorKind::Other).named(manifest));
    cleared.clear().unwrap_err();
    let (killed, cut) = (fs.process_crash(), fs.power_cut(&mut AllLost));
    drop((other, cleared, db));
    env.drop_jobs();
    [("process crash", killed), ("power cut", cut), ("the database was dropped", fs.process_crash())]
}

/// Opens the files after an interrupted open, on the still full disk; then deletes, loses power, and gets disk space.
fn check_after_crash(fs: &SimFs, expected: &State, what: &dyn Fn() -> String) {
    let mut expected = expected.clone();
    verify_log(fs, Path::new(DIRECTORY), what);
    let (env, db) = open_small(fs, what);
    assert_eq!(state(&db), expected, "{}: still full", what());
    db.delete_range(key(30)..key(50)).unwrap_or_else(|error| panic!("{}: {error}", what()));
    expected.get_mut("default").unwrap().retain(|at, _| *at < key(30).into() || *at >= key(50).into());
    env.run_until_idle();
    db.sync().unwrap_or_else(|error| panic!("{}: {error}", what()));
    let cut = fs.power_cut(&mut AllLost);
    let crashed = fs.process_crash();
    end(&env, db);
    for fs in [cut, crashed] {
        verify_log(&fs, Path::new(DIRECTORY), what);
        let (env, db) = open_small(&fs, what);
        assert_eq!(state(&db), expected, "{}: full for the third time", what());
        fs.set_capacity(None);
        env.advance(1_000_000);
        env.run_until_idle();
        assert_eq!(state(&db), expected, "{}: with room", what());
        db.flush().unwrap();
        let cut = fs.power_cut(&mut AllLost);
        db.close().unwrap();
        env.drop_jobs();
        for fs in [fs, cut] {
            let (env, db) = open_small(&fs, what);
            assert_eq!(state(&db), expected, "{}: at the end", what());
            end(&env, db);
        }
    }
}

/// The image after a power cut, or after the death of the process. In the latter, unsynced data is in the page cache.
fn crash_while_opening(image: &SimFs, has_reserve: bool, what: &str) {
    let expected = {
        let fs = image.process_crash();
        let (env, db) = open_small(&fs, &|| what.to_owned());
        let expected = state(&db);
        end(&env, db);
        expected
    };
    if !has_reserve {
        image.remove_file(Path::new("/db/RESERVE")).unwrap();
        image.sync_dir(Path::new(DIRECTORY)).unwrap();
    }
    fill(image, if has_reserve { 0 } else { 16 << 10 });
    let whole = image.process_crash();
    let (env, db) = open_small(&whole, &|| what.to_owned());
    assert_eq!(db.recovery().waiting_for_space.is_none(), has_reserve, "{what}: {:?}", db.recovery());
    assert_eq!(state(&db), expected, "{what}");
    env.run_until_idle();
    end(&env, db);
    for operation in 0..whole.operations() {
        let fs = image.process_crash();
        fs.crash_at(operation);
        let env = Arc::new(SimEnv::new(3));
        if let Ok(db) = small_options(&fs, &env).open(DIRECTORY) {
            env.run_until_idle();
            drop(db);
        }
        env.drop_jobs();
        let at = |image: &str| format!("{what}, operation {operation} ({:?}), {image}", fs.last_operation());
        check_after_crash(&fs.process_crash(), &expected, &|| at("process crash"));
        for image in fs.crash_images().at_most(3).with_seed(operation) {
            check_after_crash(&image.fs, &expected, &|| at(&image.description));
        }
    }
}

#[test]
fn a_crash_during_an_open_on_a_full_disk_loses_nothing() {
    for has_reserve in [false, true] {
        for (end, image) in history() {
            let held = if has_reserve { "held back" } else { "nothing held back" };
            crash_while_opening(&image, has_reserve, &format!("{held}, {end}"));
        }
    }
}
