//! The log of a database holds more than fits the memory that it is opened with. Recovery then reads the log twice, and
//! must lose nothing, whatever fails meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::current;
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, ErrorKind, Keyspace, KeyspaceOptions, Options, RecoveryMode, Result, WriteBatch};

const DIRECTORY: &str = "/data/db";
const NAMES: [&str; 3] = ["default", "other", "third"];
/// About 230 KiB of it are for memtables.
const SMALL: usize = 1 << 20;
const LARGE: usize = 16 << 20;

/// The keyspaces and their contents.
type State = BTreeMap<&'static str, BTreeMap<Vec<u8>, Arc<[u8]>>>;

fn options(fs: &SimFs, env: &Arc<SimEnv>, memory: usize) -> Options {
    let options = Options::new().vfs(Arc::new(fs.clone())).env(Arc::clone(env) as Arc<dyn Env>);
    let options = options.memory(memory).log_segment_bytes(96 << 10);
    if memory == SMALL { options.cache_bytes(720_000).memtable_bytes(70_000) } else { options }
}

fn keyspace(db: &Db, name: &str) -> Keyspace {
    db.keyspace(name, KeyspaceOptions::new()).unwrap()
}

fn read(db: &Db) -> Result<State> {
    let names = db.keyspaces();
    NAMES
        .into_iter()
        .filter(|name| names.iter().any(|known| known == name))
        .map(|name| {
            let entries = keyspace(db, name).iter().map(|entry| {
                let (key, value) = entry?;
                Ok((key.to_vec(), value.to_vec().into()))
            });
            Ok((name, entries.collect::<Result<_>>()?))
        })
        .collect()
}

/// The files after a crash, and all states of the history. A power cut may lose the states after `synced`.
struct Crashed {
    fs: SimFs,
    /// The state after each write.
    states: Vec<State>,
    synced: usize,
}

/// The last clear is in the log, but the crash came before its edit reached the manifest.
fn write_history(seed: u64) -> Crashed {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let env = Arc::new(SimEnv::new(seed));
    let db = options(&fs, &env, LARGE).open(DIRECTORY).unwrap();
    let mut model: State = NAMES.iter().map(|name| (*name, BTreeMap::new())).collect();
    let (mut states, mut synced) = (Vec::new(), 0);
    let key = |number: u64| format!("key{number:03}").into_bytes();
    let value = |step: u64, bytes: usize| -> Arc<[u8]> {
        step.to_le_bytes().into_iter().cycle().take(bytes).collect()
    };
    let draw = |below: u64| env.random() % below;
    for number in 0..40 {
        for name in NAMES {
            keyspace(&db, name).put(key(number * 3), value(0, 600)).unwrap();
            model.get_mut(name).unwrap().insert(key(number * 3), value(0, 600));
        }
    }
    db.flush().unwrap();
    // The snapshot keeps the tables of the cleared keyspace.
    let snapshot = db.snapshot().unwrap();
    let mut manifest = None;
    states.push(model.clone());
    for step in 1..=130_u64 {
        let name = NAMES[draw(if step < 60 { 3 } else { 2 }) as usize];
        let (space, entries) = (keyspace(&db, name), model.get_mut(name).unwrap());
        match (step, draw(10)) {
            (60, _) => {
                db.drop_keyspace("third").unwrap();
                model.remove("third");
            }
            (40, _) => {
                space.clear().unwrap();
                entries.clear();
            }
            (105, _) => {
                let path = Path::new(DIRECTORY)
                    .join(format!("MANIFEST-{:06}", current(&fs, Path::new(DIRECTORY)).unwrap().manifest));
                manifest = Some((path.clone(), fs.read_all(&path).unwrap()));
                keyspace(&db, "other").clear().unwrap();
                model.get_mut("other").unwrap().clear();
            }
            (100, _) => db.sync().unwrap(),
            (_, 0) => {
                let from = draw(100);
                space.delete_range(key(from)..key(from + 20)).unwrap();
                entries.retain(|at, _| *at < key(from) || *at >= key(from + 20));
            }
            (_, 1) => {
                let at = draw(120);
                space.delete(key(at)).unwrap();
                entries.remove(&key(at));
            }
            (_, 2..=4) => {
                let mut batch = WriteBatch::new();
                for part in 0..8 {
                    let (name, at) = (NAMES[part % 2], draw(120));
                    batch.put_in(&keyspace(&db, name), key(at), value(step, 1500));
                    model.get_mut(name).unwrap().insert(key(at), value(step, 1500));
                }
                db.write(batch).unwrap();
            }
            _ => {
                let at = draw(120);
                space.put(key(at), value(step, 5000)).unwrap();
                entries.insert(key(at), value(step, 5000));
            }
        }
        states.push(model.clone());
        if matches!(step, 40 | 60 | 100) {
            synced = states.len() - 1;
        }
    }
    let crashed = fs.process_crash();
    let (path, bytes) = manifest.unwrap();
    crashed.write_all(&path, &bytes).unwrap();
    // A clear syncs the log before its edit, so no power cut undoes writes before it.
    synced = synced.max(104);
    drop((snapshot, db));
    env.drop_jobs();
    Crashed { fs: crashed, states, synced }
}

fn open(fs: &SimFs, memory: usize) -> (Arc<SimEnv>, Result<Db>) {
    open_as(fs, memory, RecoveryMode::TolerateTornTail)
}

fn open_as(fs: &SimFs, memory: usize, mode: RecoveryMode) -> (Arc<SimEnv>, Result<Db>) {
    let env = Arc::new(SimEnv::new(7));
    let db = options(fs, &env, memory).recovery(mode).open(DIRECTORY);
    (env, db)
}

fn files(fs: &SimFs, suffix: &str) -> Vec<PathBuf> {
    let wanted = |path: &PathBuf| path.extension().is_some_and(|extension| extension == suffix);
    fs.paths().into_iter().filter(wanted).collect()
}

impl Crashed {
    /// Opens the files after a second crash, with little or much memory.
    fn check(&self, fs: &SimFs, memory: usize, from: usize, what: &dyn Fn() -> String) {
        let (env, db) = open(fs, memory);
        let db = db.unwrap_or_else(|error| panic!("{}: {error}", what()));
        let found = read(&db).unwrap();
        assert!(
            self.states[from..].contains(&found),
            "{}: at least state {from} of {} was promised, found {:?}",
            what(),
            self.states.len(),
            self.states.iter().rposition(|state| *state == found)
        );
        let tables: u64 =
            db.metrics().keyspaces.iter().flat_map(|space| &space.levels).map(|level| level.tables).sum();
        assert_eq!(files(fs, "sst").len() as u64, tables, "{}: unneeded files", what());
        db.put("zzz", "after").unwrap();
        let again = fs.process_crash();
        drop(db);
        env.drop_jobs();
        let (env, db) = open(&again, SMALL + LARGE - memory);
        let db = db.unwrap();
        db.delete("zzz").unwrap();
        assert_eq!(read(&db).unwrap(), found, "{}: changed by another recovery", what());
        drop(db);
        env.drop_jobs();
    }

    /// Checks that the small memory requires a second reading.
    fn assert_does_not_fit(&self) {
        let env = Arc::new(SimEnv::new(7));
        let refused = options(&self.fs, &env, SMALL).read_only(true).open(DIRECTORY).unwrap_err();
        assert!(refused.to_string().contains("holds more than fits"), "{refused}");
    }
}

#[test]
fn a_crash_during_the_second_reading_of_the_log_loses_nothing() {
    for seed in 1..=2_u64 {
        let crashed = write_history(seed);
        crashed.assert_does_not_fit();
        let last = crashed.states.len() - 1;
        let fs = crashed.fs.process_crash();
        let (env, db) = open(&fs, SMALL);
        drop(db.unwrap());
        env.drop_jobs();
        let operations = fs.operations();
        assert!(operations > 50, "{operations}");
        // Each history uses different crash points.
        for operation in (seed..=operations).step_by(4) {
            let fs = crashed.fs.process_crash();
            fs.crash_at(operation);
            let (env, db) = open(&fs, SMALL);
            drop(db);
            env.drop_jobs();
            let at = |image: &str| {
                format!("seed {seed}, operation {operation} ({:?}), {image}", fs.last_operation())
            };
            let memory = if operation % 8 < 4 { SMALL } else { LARGE };
            crashed.check(&fs.process_crash(), memory, last, &|| at("process crash"));
            for image in fs.crash_images().at_most(2).with_seed(operation) {
                crashed.check(&image.fs, memory, crashed.synced, &|| at(&image.description));
            }
        }
    }
}

/// For any amount of free disk space, the open works, or it fails and changes nothing.
#[test]
fn recovery_works_or_changes_nothing_when_the_disk_fills_up_during_the_second_reading() {
    let crashed = write_history(3);
    let used = |fs: &SimFs| -> u64 {
        let bytes = |path: &PathBuf| fs.read_all(path).unwrap().len().next_multiple_of(4096) as u64;
        fs.paths().iter().map(bytes).sum()
    };
    let before = used(&crashed.fs);
    let mut failed = 0;
    for pages in (0..140).step_by(3) {
        let fs = crashed.fs.process_crash();
        fs.set_capacity(Some(before + pages * 4096));
        for _ in 0..2 {
            let (env, db) = open(&fs, SMALL);
            if let Err(error) = &db {
                assert_eq!(error.kind(), ErrorKind::NoSpace, "{pages} pages: {error}");
                // Tables of an interrupted compaction were removed to free space.
                let known = files(&crashed.fs, "sst");
                let left = files(&fs, "sst");
                assert!(left.iter().all(|table| known.contains(table)), "{pages} pages: tables left behind");
                assert_eq!(files(&fs, "wal"), files(&crashed.fs, "wal"), "{pages} pages");
                failed += 1;
            }
            drop(db);
            env.drop_jobs();
        }
        fs.set_capacity(None);
        crashed.check(&fs.process_crash(), SMALL, crashed.states.len() - 1, &|| format!("{pages} pages"));
    }
    assert!(failed > 20, "{failed}");
}

/// A torn or damaged log gives the same result with little and with much memory: intact up to the same record, refused,
/// or salvaged.
#[test]
fn a_damaged_log_is_treated_the_same_with_little_and_much_memory() {
    let crashed = write_history(4);
    crashed.assert_does_not_fit();
    let logs = files(&crashed.fs, "wal");
    assert!(logs.len() > 4, "{logs:?}");
    let (mut refused, mut opened) = (0, 0);
    for (index, path) in logs.iter().enumerate() {
        let bytes = crashed.fs.read_all(path).unwrap();
        for part in 0..8 {
            let at = bytes.len() * part / 8 + 37 * part;
            for torn in [false, true] {
                let mut damaged = bytes.clone();
                if torn {
                    damaged[at..].fill(0);
                } else {
                    damaged[at] ^= 4;
                }
                for mode in [RecoveryMode::TolerateTornTail, RecoveryMode::Salvage] {
                    let answers = [SMALL, LARGE].map(|memory| {
                        let fs = crashed.fs.process_crash();
                        fs.write_all(path, &damaged).unwrap();
                        let (env, db) = open_as(&fs, memory, mode);
                        let answer = db.map(|db| {
                            let state = read(&db).unwrap();
                            drop(db);
                            env.drop_jobs();
                            let (env, db) = open(&fs.process_crash(), LARGE);
                            assert_eq!(read(&db.unwrap()).unwrap(), state);
                            env.drop_jobs();
                            state
                        });
                        env.drop_jobs();
                        answer.map_err(|error| error.to_string())
                    });
                    let [little, much] = answers;
                    if little.is_err() {
                        refused += 1;
                    } else {
                        opened += 1;
                    }
                    assert!(
                        little == much,
                        "segment {index} at {at}, torn: {torn}, {mode:?}: {:?} {:?}",
                        little.err(),
                        much.err()
                    );
                }
            }
        }
    }
    assert!(refused > 20 && opened > 20, "{refused} {opened}");
}

#[test]
fn replay_needs_no_memory_for_writes_to_dropped_keyspaces() {
    let fs = SimFs::new();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs, &env, LARGE).open(DIRECTORY).unwrap();
    let names: Vec<String> = (0..50).map(|number| format!("keyspace {number}")).collect();
    let mut batch = WriteBatch::new();
    batch.put("key", "value");
    for name in &names {
        batch.put_in(&keyspace(&db, name), "key", vec![1; 10_000]);
    }
    db.write(batch).unwrap();
    for name in &names {
        db.drop_keyspace(name).unwrap();
    }
    let crashed = fs.process_crash();
    drop(db);
    env.drop_jobs();
    let env = Arc::new(SimEnv::new(2));
    let db = options(&crashed, &env, SMALL).open(DIRECTORY).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    drop(db);
    env.drop_jobs();
}
