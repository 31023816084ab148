//! A checkpoint is a database of its own, with all that the first one had at that moment. It shares files with the
//! first, and neither notices the other.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lsm_engine::vfs::{AllLost, Fault, LockMode, OperationKind, SimFs, Vfs};
use lsm_engine::{Checkpoint, CheckpointOptions, Db, ErrorKind, KeyspaceOptions, Options, WriteBatch};

mod copies;
mod manifest;

use copies::{DIRECTORY, Process, TARGET, contents, contents_of, file_system, files_below, fill};

#[test]
fn it_has_all_writes_that_had_returned_and_is_durable() {
    for flush_above in [0, 1 << 20] {
        let fs = file_system();
        let process = Process::open(&fs, DIRECTORY);
        fill(&process.db, 1);
        let options = CheckpointOptions::new().flush_above(flush_above);
        let expected = contents(&process.db);
        let sequence = process.db.snapshot().unwrap().sequence();
        let made = process.db.checkpoint_with(TARGET, &options).unwrap();
        assert_eq!(made.sequence, sequence);
        assert!(made.linked_files > 1 && made.linked_bytes > 1000 && made.copied_files == 0, "{made:?}");
        assert_eq!(made.log_bytes > 300, flush_above > 0, "{made:?}");
        fill(&process.db, 2);
        assert_ne!(contents(&process.db), expected);
        let after = fs.power_cut(&mut AllLost);
        process.kill();
        for fs in [after, fs] {
            manifest::verify_log(&fs, Path::new(TARGET), &|| TARGET.to_owned());
            assert_eq!(contents_of(&fs, TARGET), expected);
            // Also after its log was replayed and its files were cleaned up.
            assert_eq!(contents_of(&fs, TARGET), expected);
        }
    }
}

#[test]
fn what_is_written_to_one_database_does_not_show_in_the_other() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    process.db.checkpoint(TARGET).unwrap();
    let shared: BTreeMap<String, Vec<u8>> = files_below(&fs, TARGET)
        .into_iter()
        .filter(|path| is_table(path))
        .map(|path| (path.clone(), fs.read_all(Path::new(&path)).unwrap()))
        .collect();
    let branch = Process::open(&fs, TARGET);
    let before = contents(&branch.db);
    for round in 2..5 {
        fill(&process.db, round);
        process.db.compact_range::<&[u8]>(..).unwrap();
        process.db.wait_for_compactions().unwrap();
    }
    let (first, untouched) = (contents(&process.db), contents(&branch.db));
    assert_eq!(untouched, before);
    for (path, bytes) in &shared {
        assert!(fs.read_all(Path::new(path)).unwrap() == *bytes, "{path} was written to");
    }
    for round in 5..8 {
        fill(&branch.db, round);
        branch.db.keyspace("of the branch", KeyspaceOptions::new()).unwrap().put("a", "b").unwrap();
        branch.db.compact_range::<&[u8]>(..).unwrap();
        branch.db.wait_for_compactions().unwrap();
    }
    let second = contents(&branch.db);
    assert_eq!(contents(&process.db), first);
    branch.close();
    process.close();
    assert_eq!((contents_of(&fs, DIRECTORY), contents_of(&fs, TARGET)), (first, second));
}

#[test]
fn a_checkpoint_of_a_checkpoint_is_one_too() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let expected = contents(&process.db);
    process.db.checkpoint(TARGET).unwrap();
    process.kill();
    let branch = Process::open(&fs, TARGET);
    branch.db.checkpoint("/data/third").unwrap();
    fill(&branch.db, 2);
    branch.kill();
    assert_eq!(contents_of(&fs, "/data/third"), expected);
    let ids: Vec<u128> = [DIRECTORY, TARGET, "/data/third"].map(|directory| id(&fs, directory)).into();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    Process::open(&fs, DIRECTORY).close();
    Process::open(&fs, TARGET).close();
    assert_eq!((id(&fs, DIRECTORY), id(&fs, TARGET)), (ids[0], ids[1]), "it is kept");
}

fn id(fs: &SimFs, directory: &str) -> u128 {
    let (_, edits) = manifest::edits(fs, Path::new(directory)).unwrap();
    edits.iter().rev().find_map(|edit| edit.database_id).unwrap()
}

#[test]
fn one_of_a_database_that_is_open_read_only_has_the_log_too() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let expected = contents(&process.db);
    process.kill();
    let reader = Process::open_read_only(&fs, DIRECTORY);
    let made = reader.db.checkpoint(TARGET).unwrap();
    assert!(made.log_bytes > 300);
    assert_eq!(made.sequence, reader.db.snapshot().unwrap().sequence());
    reader.kill();
    assert_eq!(contents_of(&fs, TARGET), expected);
}

#[test]
fn one_of_some_keyspaces_has_nothing_of_the_others() {
    for flush_above in [0, 1 << 20] {
        let fs = file_system();
        let process = Process::open(&fs, DIRECTORY);
        fill(&process.db, 1);
        process.db.keyspace("left out", KeyspaceOptions::new()).unwrap().put("a", "b").unwrap();
        let expected = contents(&process.db);
        let options = CheckpointOptions::new().flush_above(flush_above);
        process.db.checkpoint_with(TARGET, &options.clone().keyspaces(["users"])).unwrap();
        let found = contents_of(&fs, TARGET);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["default", "users"]);
        assert_eq!((found["default"].len(), &found["users"]), (0, &expected["users"]));
        let unknown = options.keyspaces(["users", "no such"]);
        let error = process.db.checkpoint_with("/data/other", &unknown).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("no such"), "{error}");
        assert_eq!(files_below(&fs, "/data/other"), [""; 0]);
        process.kill();
    }
}

#[test]
fn it_does_not_wait_for_background_work_that_is_paused() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    process.db.pause_background_work().unwrap();
    process.db.put("while paused", "1").unwrap();
    let expected = contents(&process.db);
    process.db.checkpoint_with(TARGET, &CheckpointOptions::new().flush_above(0)).unwrap();
    process.kill();
    assert_eq!(contents_of(&fs, TARGET), expected);
}

#[test]
fn options_and_expiry_are_those_of_the_database() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    let hour = std::time::Duration::from_secs(3600);
    let sessions = process.db.keyspace("sessions", KeyspaceOptions::new().ttl(hour)).unwrap();
    sessions.put("in a table", "1").unwrap();
    process.db.flush().unwrap();
    process.env.advance(1_800_000_000);
    sessions.put("in the log", "2").unwrap();
    process.db.checkpoint(TARGET).unwrap();
    process.kill();
    // The process begins with an earlier clock, which must not bring back time.
    let branch = Process::open(&fs, TARGET);
    let sessions = branch.db.keyspace("sessions", KeyspaceOptions::new()).unwrap();
    assert_eq!(sessions.count::<&[u8]>(..).unwrap(), 2);
    branch.env.advance(1_900_000_000);
    assert_eq!(sessions.get("in a table").unwrap(), None);
    assert_eq!(sessions.get("in the log").unwrap().unwrap(), "2");
    sessions.put("new", "3").unwrap();
    branch.env.advance(3_700_000_000);
    assert_eq!(sessions.get("new").unwrap(), None, "the time to live is stored");
    branch.kill();
}

#[test]
fn another_file_system_gets_copies_and_damage_is_not_copied() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let expected = contents(&process.db);
    fs.inject(Fault::on(OperationKind::Link, Io::CrossesDevices).sticky());
    let made = process.db.checkpoint(TARGET).unwrap();
    assert!(made.copied_files > 1 && made.copied_bytes > 1000 && made.linked_files == 0, "{made:?}");
    let table = files_below(&fs, TARGET).into_iter().find(|path| is_table(path)).unwrap();
    let table = table.replace(TARGET, DIRECTORY);
    fs.corrupt(Path::new(&table), 200, 1).unwrap();
    let error = process.db.checkpoint("/data/other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains(&table), "{error}");
    assert_eq!(files_below(&fs, "/data/other"), [""; 0]);
    process.kill();
    assert_eq!(contents_of(&fs.power_cut(&mut AllLost), TARGET), expected);
}

#[test]
fn bad_targets_are_refused_by_name_and_nothing_is_left() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    fs.create_dir(Path::new("/data/empty")).unwrap();
    fs.create_new(Path::new("/data/file")).unwrap();
    fs.create_dir(Path::new("/data/foreign.tmp")).unwrap();
    fs.create_new(Path::new("/data/foreign.tmp/thesis.txt")).unwrap();
    fs.create_dir(Path::new("/data/mixed.tmp")).unwrap();
    fs.create_new(Path::new("/data/mixed.tmp/STAGING")).unwrap();
    fs.create_new(Path::new("/data/mixed.tmp/thesis.txt")).unwrap();
    fs.create_dir(Path::new("/data/busy.tmp")).unwrap();
    let other = fs.lock(Path::new("/data/busy.tmp/STAGING"), LockMode::Exclusive).unwrap();
    fs.create_dir(Path::new("/data/db/inner")).unwrap();
    let before = fs.paths();
    let bad = [
        (DIRECTORY, ErrorKind::AlreadyExists, "already exists"),
        ("/data/empty", ErrorKind::AlreadyExists, "/data/empty already exists"),
        ("/data/file", ErrorKind::AlreadyExists, "/data/file already exists"),
        ("/data/foreign", ErrorKind::AlreadyExists, "/data/foreign.tmp already exists"),
        ("/data/mixed", ErrorKind::InvalidArgument, "thesis.txt"),
        ("/data/busy", ErrorKind::Locked, "/data/busy.tmp"),
        ("/data/db/copy", ErrorKind::InvalidArgument, "inside of the database in /data/db"),
        ("/data/db/inner/copy", ErrorKind::InvalidArgument, "inside of the database in /data/db"),
        ("/data/missing/copy", ErrorKind::NotFound, "/data/missing"),
        ("/data/file/copy", ErrorKind::InvalidArgument, "/data/file is not a directory"),
        ("/", ErrorKind::InvalidArgument, "names no new directory"),
        ("/data/..", ErrorKind::InvalidArgument, "names no new directory"),
    ];
    for (target, kind, text) in bad {
        let error = process.db.checkpoint(target).unwrap_err();
        assert_eq!(error.kind(), kind, "{target}: {error}");
        assert!(error.to_string().contains(text), "{target}: {error}");
        assert_eq!(fs.paths(), before, "{target}");
    }
    fs.inject(Fault::on(OperationKind::CreateDir, Io::PermissionDenied));
    let error = process.db.checkpoint(TARGET).unwrap_err();
    assert!(error.to_string().contains("/data/copy.tmp"), "{error}");
    drop(other);
    process.db.checkpoint("/data/busy").unwrap();
    process.kill();
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let expected = contents(&process.db);
    let used = |fs: &SimFs| (1_u64 << 60) - fs.free_bytes(Path::new("/")).unwrap();
    let bytes = used(&fs);
    let mut refused = 0;
    for room in 0..40 {
        fs.set_capacity(Some(bytes + room * 4096));
        let before = fs.paths();
        match process.db.checkpoint(TARGET) {
            Ok(_) => break,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                assert_eq!(fs.paths(), before);
                refused += 1;
            }
        }
    }
    assert!((1..40).contains(&refused), "{refused}");
    fs.set_capacity(None);
    assert_eq!(contents(&process.db), expected);
    process.kill();
    assert_eq!(contents_of(&fs, TARGET), expected);
}

/// The log goes on where an earlier process wrote it, since there was no space for the flush at the open.
#[test]
fn a_database_that_was_opened_on_a_full_disk_is_copied_with_its_old_log() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    for number in 0..60 {
        process.db.put(format!("{number:03}"), "value ".repeat(200)).unwrap();
    }
    let expected = contents(&process.db);
    process.kill();
    let used = (1_u64 << 60) - fs.free_bytes(Path::new("/")).unwrap();
    let waiting = (0..60).find_map(|pages| {
        let fs = fs.process_crash();
        fs.set_capacity(Some(used + pages * 4096));
        let process = Process::try_open(&fs, DIRECTORY).ok()?;
        if process.db.recovery().waiting_for_space.is_some() {
            return Some((fs, process));
        }
        process.kill();
        None
    });
    let (fs, process) = waiting.expect("a disk with space for a manifest, but not for a flush");
    fs.set_capacity(None);
    process.db.put("after", "1").unwrap();
    let options = CheckpointOptions::new().flush_above(u64::MAX);
    let made = process.db.checkpoint_with(TARGET, &options).unwrap();
    assert!(made.log_bytes > 60 * 1200, "{made:?}");
    process.kill();
    let mut found = contents_of(&fs.power_cut(&mut AllLost), TARGET);
    assert_eq!(found.get_mut("default").unwrap().remove(&b"after"[..]), Some(b"1".to_vec()));
    assert_eq!(found, expected);
}

#[test]
fn each_operation_may_fail_and_the_next_checkpoint_works() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    fill(&process.db, 1);
    let expected = contents(&process.db);
    process.db.sync().unwrap();
    let begun = fs.operations();
    process.db.checkpoint("/data/first").unwrap();
    let count = fs.operations() - begun;
    assert!(count > 15, "{count}");
    let mut failed = 0;
    for operation in 0..count {
        process.db.sync().unwrap();
        let fault = fs.inject(Fault::at_operation(fs.operations() + operation, Io::Other));
        let result = process.db.checkpoint(TARGET);
        fs.clear_faults();
        if result.is_err() {
            failed += 1;
            assert_eq!(files_below(&fs, TARGET), [""; 0], "operation {operation}");
            assert!(fs.metadata(Path::new("/data/copy.tmp")).is_err(), "operation {operation}");
            process.db.checkpoint(TARGET).unwrap_or_else(|error| panic!("operation {operation}: {error}"));
        }
        assert_eq!(contents_of(&fs, TARGET), expected, "operation {operation}");
        remove(&fs, TARGET);
        assert_eq!(fault.fired(), 1);
    }
    // What does not count is the removal of the marker.
    assert!(failed >= count - 3, "{failed} of {count}");
    assert_eq!(contents(&process.db), expected);
    process.kill();
}

fn remove(fs: &SimFs, directory: &str) {
    let directory = Path::new(directory);
    for name in fs.read_dir(directory).unwrap() {
        fs.remove_file(&directory.join(name)).unwrap();
    }
    fs.remove_dir(directory).unwrap();
}

fn is_table(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "sst")
}

#[test]
fn change_slots_stay_with_the_database() {
    let fs = file_system();
    let process = Process::open(&fs, DIRECTORY);
    let slot = process.db.change_slot("consumer", 10 << 20).unwrap();
    fill(&process.db, 1);
    let expected = contents(&process.db);
    process.db.checkpoint(TARGET).unwrap();
    fill(&process.db, 2);
    assert!(slot.changes().unwrap().try_next().unwrap().is_some());
    let branch = Process::open(&fs, TARGET);
    assert!(branch.db.change_slots().is_empty());
    let error = branch.db.changes(&slot.position()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignPosition, "{error}");
    assert_eq!(contents(&branch.db), expected);
    branch.kill();
    drop(slot);
    process.kill();
}

/// Tells threads to end.
struct Stop<'d>(&'d AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Batches give two keyspaces the same number, one after another.
#[test]
fn one_that_is_made_while_threads_write_is_a_moment_between_two_batches() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path().join("db")).unwrap();
    let others: Vec<_> =
        ["one", "two"].map(|name| db.keyspace(name, KeyspaceOptions::new()).unwrap()).into_iter().collect();
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let checkpoint = |index: u32| -> (Checkpoint, u64) {
        let least = written.load(Ordering::SeqCst);
        let options =
            CheckpointOptions::new().flush_above(if index.is_multiple_of(2) { 0 } else { 64 << 20 });
        (db.checkpoint_with(directory.path().join(format!("copy{index}")), &options).unwrap(), least)
    };
    let made: Vec<(Checkpoint, u64)> = std::thread::scope(|scope| {
        // Also when this panics.
        let _stop = Stop(&done);
        scope.spawn(|| {
            for number in 1.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                let mut batch = WriteBatch::new();
                batch.put("number", number.to_string());
                for keyspace in &others {
                    batch.put_in(keyspace, "number", number.to_string());
                    batch.put_in(keyspace, format!("{number:09}"), vec![7; 1000]);
                }
                db.write(batch).unwrap();
                written.store(number, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                db.compact_range::<&[u8]>(..).unwrap();
                others[0].compact_range::<&[u8]>(..).unwrap();
            }
        });
        while written.load(Ordering::SeqCst) < 500 {
            std::thread::yield_now();
        }
        (0..12).map(checkpoint).collect()
    });
    for (index, (made, least)) in made.into_iter().enumerate() {
        let copy = Db::open(directory.path().join(format!("copy{index}"))).unwrap();
        let number: u64 = String::from_utf8_lossy(&copy.get("number").unwrap().unwrap()).parse().unwrap();
        assert!(number >= least, "copy {index}");
        assert_eq!(copy.snapshot().unwrap().sequence(), made.sequence, "copy {index}");
        for name in ["one", "two"] {
            let keyspace = copy.existing_keyspace(name).unwrap().unwrap();
            assert_eq!(keyspace.get("number").unwrap().unwrap(), number.to_string(), "copy {index}, {name}");
            assert_eq!(keyspace.count::<&[u8]>(..).unwrap(), number + 1, "copy {index}, {name}");
        }
        copy.close().unwrap();
    }
}

#[test]
fn user_code_that_the_database_calls_makes_no_checkpoint() {
    let fs = Arc::new(file_system());
    let process = Process::open(&fs, DIRECTORY);
    let ticket = process.db.submit_put("a", "b").unwrap();
    let (db, result) = (process.db.clone(), Arc::new(std::sync::Mutex::new(None)));
    let told = Arc::clone(&result);
    ticket.on_durable(move |_| *told.lock().unwrap() = Some(db.checkpoint(TARGET)));
    process.db.sync().unwrap();
    process.env.run_until_idle();
    let error = result.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(files_below(&fs, TARGET), [""; 0]);
    process.kill();
}
