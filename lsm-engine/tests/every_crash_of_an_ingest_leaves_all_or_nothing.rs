//! Crashes at every file-system operation of ingests and bulk loads, and a failure of every one. What is left is the state
//! before or the state after, whole; what was acknowledged stays; no file is left over; the given tables are as they were.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::{Kind, kind_of};
use lsm_engine::vfs::{Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{BuiltInMerge, Db, Durability, ErrorKind, Ingest, KeyspaceOptions, Options, Result};

type Contents = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// Images of the disk that are looked at after each crash.
const IMAGES: usize = 8;

struct Process {
    env: Arc<SimEnv>,
    db: Db,
}

impl Process {
    fn open(fs: &SimFs) -> Self {
        let env = Arc::new(SimEnv::new(fs.operations()));
        let operator = || Arc::new(BuiltInMerge::append(","));
        let options = Options::new().memory(1 << 20).memtable_bytes(70_000).log_segment_bytes(16 << 10);
        let options = options.merge_operator(operator()).vfs(Arc::new(fs.clone()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        db.keyspace("other", KeyspaceOptions::new().merge_operator(operator())).unwrap();
        Self { env, db }
    }

    fn kill(self) {
        drop(self.db);
        self.env.drop_jobs();
    }

    fn contents(&self) -> Contents {
        let entries = |name: String| {
            let keyspace = self.db.keyspace(&name, KeyspaceOptions::new()).unwrap();
            let pair = |entry: Result<(lsm_engine::Slice, lsm_engine::Slice)>| {
                let (key, value) = entry.unwrap();
                assert_eq!(keyspace.get(&key).unwrap().as_ref(), Some(&value));
                (key.to_vec(), value.to_vec())
            };
            let all = keyspace.iter().map(pair).collect();
            (name, all)
        };
        self.db.keyspaces().into_iter().map(entries).collect()
    }

    /// Number of tables in versions.
    fn tables(&self) -> u64 {
        let metrics = self.db.metrics();
        metrics.keyspaces.iter().flat_map(|keyspace| &keyspace.levels).map(|level| level.tables).sum()
    }
}

/// Number of tables in the directory.
fn files(fs: &SimFs) -> u64 {
    fs.read_dir(Path::new("/db")).unwrap().iter().filter(|name| kind_of(name) == Some(Kind::Table)).count()
        as u64
}

/// A disk with tables to ingest, and a database that has data in tables and in the log.
fn prepare() -> SimFs {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let other = process.db.keyspace("other", KeyspaceOptions::new()).unwrap();
    for number in 0..20 {
        process.db.put(format!("key{number:02}"), "flushed").unwrap();
        other.put(format!("key{number:02}"), "flushed").unwrap();
    }
    process.db.flush().unwrap();
    process.db.put("key03", "in the log").unwrap();
    process.db.merge("key04", "in the log").unwrap();
    other.put("key03", "in the log").unwrap();
    let mut table = process.db.default_keyspace().table_builder("/one.sst").unwrap();
    for key in ["key00", "key03", "key07"] {
        table.put(key, "ingested").unwrap();
    }
    table.merge("key08", "ingested").unwrap();
    table.delete("key09").unwrap();
    table.finish().unwrap();
    let mut table = process.db.default_keyspace().table_builder("/two.sst").unwrap();
    table.delete_range("key15".."key18").unwrap();
    table.put("key17", "ingested").unwrap();
    table.finish().unwrap();
    process.db.put_with("key05", "in the log", Durability::Sync).unwrap();
    process.kill();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

fn request() -> Ingest {
    Ingest::new().tables(["/one.sst", "/two.sst"])
}

fn ingest_with(process: &Process, request: Ingest) -> Result<()> {
    process.db.put("before", "1")?;
    process.db.ingest(request)?;
    Ok(())
}

/// The ingest, and what the background work does with it.
fn settle(process: &Process) -> Result<()> {
    process.db.put("before", "1")?;
    process.db.ingest(request())?;
    process.db.put("key00", "later")?;
    process.db.flush()?;
    process.db.compact_range::<&[u8]>(..)
}

fn bulk_load(process: &Process) -> Result<()> {
    process.db.put("before", "1")?;
    let mut load = process.db.bulk_load()?;
    for number in 0_u32..400 {
        load.put(format!("key{number:03}"), [number as u8; 200])?;
    }
    load.finish()?;
    Ok(())
}

type Act = fn(&Process) -> Result<()>;

/// Links a table that nobody has synced.
fn link_unsynced(process: &Process, fs: &SimFs) -> Result<()> {
    let bytes = fs.read_all(Path::new("/one.sst")).unwrap();
    let written = fs.create_new(Path::new("/unsynced.sst")).and_then(|file| file.write_at(&bytes, 0));
    match written {
        Ok(()) => ingest_with(process, Ingest::new().tables(["/unsynced.sst", "/two.sst"]).link()),
        // The crash came before.
        Err(_) => Err(lsm_engine::Error::Closed),
    }
}

#[test]
fn a_linked_table_is_durable_although_its_builder_did_not_sync_it() {
    let prepared = prepare();
    let fs = prepared.process_crash();
    let process = Process::open(&fs);
    link_unsynced(&process, &fs).unwrap();
    let ended = process.contents();
    process.kill();
    for image in fs.crash_images().at_most(40).with_seed(1) {
        let process = Process::open(&image.fs);
        assert_eq!(process.contents(), ended, "{}", image.description);
        process.kill();
    }
}

/// The record may be in the log although its append has failed. Then it must not count, or its files must stay.
#[test]
fn a_record_that_was_written_although_the_write_failed_takes_no_files_with_it() {
    for repeats in [false, true] {
        let fs = prepare();
        fs.set_windows(false);
        let process = Process::open(&fs);
        let before = process.contents();
        let ended = {
            let process = Process::open(&fs.process_crash());
            process.db.ingest(request()).unwrap();
            let ended = process.contents();
            process.kill();
            ended
        };
        // The whole record is written before the failure.
        let fault = Fault::on(OperationKind::Write, io::ErrorKind::Other).named("wal").after_writing(4096);
        let fault = fs.inject(fault);
        if repeats {
            // No other record can follow.
            fs.inject(Fault::on(OperationKind::Create, io::ErrorKind::Other).named("wal").sticky());
            fs.inject(Fault::on(OperationKind::Write, io::ErrorKind::Other).named("wal").skip(1).sticky());
        }
        assert_eq!(process.db.ingest(request()).unwrap_err().kind(), ErrorKind::Io);
        assert!(fault.fired() > 0);
        assert_eq!(process.contents(), before);
        process.kill();
        fs.clear_faults();
        let left = fs.process_crash();
        let process = Process::open(&left);
        let found = process.contents();
        assert!(found == before || (repeats && found == ended), "{found:?}");
        process.db.flush().unwrap();
        process.env.run_until_idle();
        assert_eq!(files(&left), process.tables());
        process.kill();
    }
}

const ACTS: [(&str, Act); 5] = [
    ("copy", |process| ingest_with(process, request())),
    ("link and replace", |process| ingest_with(process, request().link().replace("key02".."key06"))),
    ("move", |process| ingest_with(process, request().move_files())),
    ("settle", settle),
    ("bulk load", bulk_load),
];

/// The states that a disk may have: before, with the first write, after the ingest, and in the end.
struct States {
    before: Contents,
    written: Contents,
    ingested: Contents,
    ended: Contents,
    /// Number of operations.
    count: u64,
}

impl States {
    fn of(prepared: &SimFs, name: &str, act: Act) -> Self {
        let fs = prepared.process_crash();
        let process = Process::open(&fs);
        let (before, begun) = (process.contents(), fs.operations());
        act(&process).unwrap();
        let (count, ended) = (fs.operations() - begun, process.contents());
        process.kill();
        let mut written = before.clone();
        let default = written.get_mut("default").unwrap();
        default.push((b"before".to_vec(), b"1".to_vec()));
        default.sort();
        let mut ingested = ended.clone();
        if name == "settle" {
            for (key, value) in ingested.get_mut("default").unwrap() {
                if key == b"key00" {
                    *value = b"ingested".to_vec();
                }
            }
        }
        assert!(ended != written && count > 10, "{name}: {count}");
        Self { before, written, ingested, ended, count }
    }

    fn have(&self, found: &Contents) -> bool {
        [&self.before, &self.written, &self.ingested, &self.ended].contains(&found)
    }
}

/// Opens what is left, and checks it.
fn check(fs: &SimFs, states: &States, was_done: bool, what: &str) {
    let process = Process::open(fs);
    let found = process.contents();
    assert!(states.have(&found), "{what}: {found:?}");
    if was_done {
        assert!(found == states.ingested || found == states.ended, "{what}: lost {found:?}");
    }
    process.db.flush().unwrap();
    process.env.run_until_idle();
    assert_eq!(process.contents(), found, "{what}: flushed");
    assert_eq!(files(fs), process.tables(), "{what}: {:?}", fs.paths());
    process.kill();
}

#[test]
fn a_crash_at_any_operation_leaves_all_or_nothing() {
    let prepared = prepare();
    for (name, act) in ACTS {
        let states = States::of(&prepared, name, act);
        for operation in 0..states.count {
            let fs = prepared.process_crash();
            let process = Process::open(&fs);
            fs.crash_at(fs.operations() + operation);
            let was_done = act(&process).is_ok();
            process.kill();
            let at =
                |image: &str| format!("{name}, operation {operation} ({:?}), {image}", fs.last_operation());
            check(&fs.process_crash(), &states, was_done, &at("process crash"));
            for image in fs.crash_images().at_most(IMAGES).with_seed(operation) {
                check(&image.fs, &states, was_done, &at(&image.description));
            }
        }
    }
}

#[test]
fn a_failure_of_any_operation_leaves_all_or_nothing_and_the_given_files() {
    let prepared = prepare();
    let given = |fs: &SimFs| ["/one.sst", "/two.sst"].map(|path| fs.read_all(Path::new(path)).unwrap());
    for (name, act) in ACTS {
        let states = States::of(&prepared, name, act);
        for error in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for operation in 0..states.count {
                let what = format!("{name}, {error} at operation {operation}");
                let fs = prepared.process_crash();
                let process = Process::open(&fs);
                fs.inject(Fault::at_operation(fs.operations() + operation, error));
                let result = act(&process);
                let found = process.contents();
                assert!(states.have(&found), "{what}: {found:?}");
                if name != "move" || result.is_err() {
                    assert!(given(&fs) == given(&prepared), "{what}");
                }
                if let Err(failed) = &result {
                    assert!(failed.kind() != ErrorKind::Corruption, "{what}: {failed}");
                    // What failed before the record is in the log can be done again.
                    let has_ingested = found == states.ingested || found == states.ended;
                    if !has_ingested && process.db.put("before", "1").is_ok() {
                        process.env.run_until_idle();
                        assert_eq!(files(&fs), process.tables(), "{what}: {:?}", fs.paths());
                        act(&process).unwrap_or_else(|error| panic!("{what}: {failed}, again {error}"));
                        assert_eq!(process.contents(), states.ended, "{what}");
                    }
                } else {
                    assert_eq!(found, states.ended, "{what}");
                }
                let found = process.contents();
                process.kill();
                let process = Process::open(&fs.process_crash());
                assert_eq!(process.contents(), found, "{what}: opened again");
                process.kill();
            }
        }
    }
}

#[test]
fn a_disk_that_becomes_full_at_any_moment_leaves_all_or_nothing() {
    let prepared = prepare();
    for (name, act) in ACTS {
        let states = States::of(&prepared, name, act);
        let used = 4096
            * prepared
                .paths()
                .iter()
                .map(|path| {
                    let bytes =
                        prepared.read_all(&Path::new("/").join(path)).map_or(0, |bytes| bytes.len() as u64);
                    bytes.div_ceil(4096)
                })
                .sum::<u64>();
        let mut is_done = false;
        for pages in 0..200 {
            let fs = prepared.process_crash();
            let process = Process::open(&fs);
            fs.set_capacity(Some(used + pages * 4096));
            let result = act(&process);
            let found = process.contents();
            assert!(states.have(&found), "{name}, {pages} pages: {found:?}");
            if result.is_ok() {
                assert_eq!(found, states.ended, "{name}, {pages} pages");
                is_done = true;
            }
            fs.set_capacity(None);
            process.kill();
            let process = Process::open(&fs.process_crash());
            assert_eq!(process.contents(), found, "{name}, {pages} pages: opened again");
            process.kill();
            if is_done {
                break;
            }
        }
        assert!(is_done, "{name}");
    }
}
