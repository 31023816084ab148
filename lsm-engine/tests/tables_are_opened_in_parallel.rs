//! All workers help to open a database with many tables, and errors are reported as with few tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_engine::env::Env;
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, Error, ErrorKind, KeyspaceOptions, Options};

mod never;

use lsm_dev::{Layer, Wide};
use never::Never;

const TABLES: usize = 400;

struct Machine {
    fs: SimFs,
    env: Arc<Layer<Wide>>,
}

impl Machine {
    /// A database of two keyspaces with many tables.
    fn new() -> Self {
        let machine = Self { fs: SimFs::new(), env: Arc::new(Wide::new(1)) };
        let db = machine.open(64 << 20).unwrap();
        let other = db.keyspace("other", Self::keyspace()).unwrap();
        for number in 0..TABLES {
            db.put(key(number), key(number)).unwrap();
            other.put(key(number), "other").unwrap();
        }
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
        drop(other);
        db.close().unwrap();
        machine.env.run_until_idle();
        assert_eq!(machine.tables().len(), 2 * TABLES);
        machine
    }

    fn keyspace() -> KeyspaceOptions {
        KeyspaceOptions::new().compaction(Arc::new(Never { splits: true }))
    }

    fn open(&self, memory: usize) -> Result<Db, Error> {
        let env = Arc::clone(&self.env) as Arc<dyn Env>;
        let options = Options::new().memory(memory).keyspace(Self::keyspace());
        options.vfs(Arc::new(self.fs.clone())).env(env).open("/db")
    }

    fn tables(&self) -> Vec<PathBuf> {
        let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
        self.fs.paths().into_iter().filter(is_table).collect()
    }
}

fn key(number: usize) -> String {
    format!("{number:05}")
}

fn check(db: &Db) {
    let other = db.existing_keyspace("other").unwrap().unwrap();
    for number in 0..TABLES {
        assert_eq!(db.get(key(number)).unwrap().unwrap(), *key(number));
    }
    assert_eq!(other.iter().map(Result::unwrap).filter(|(_, value)| *value == *"other").count(), TABLES);
}

#[test]
fn workers_share_the_tables_and_pin_no_more_than_fits() {
    let machine = Machine::new();
    let steps = machine.env.steps();
    let db = machine.open(64 << 20).unwrap();
    assert!(machine.env.steps() - steps >= 2 * TABLES as u64 / 16, "workers opened the tables");
    let unpinned = |db: &Db| {
        let keyspaces = db.metrics().keyspaces;
        let levels = keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
        levels.map(|level| level.unpinned_tables).sum::<u64>()
    };
    assert_eq!(unpinned(&db), 0);
    check(&db);
    let pinned_bytes = db.metrics().pinned_bytes;
    db.close().unwrap();
    machine.env.drop_jobs();

    // Half of the memory is for tables, and three quarters of that for indexes and filters.
    let memory = usize::try_from(pinned_bytes).unwrap() / 10 * 9 * 8 / 3;
    let db = machine.open(memory).unwrap();
    let some = unpinned(&db);
    assert!(some > 0 && some < 2 * TABLES as u64, "{some}");
    assert!(db.metrics().pinned_bytes <= memory as u64 / 2, "{} of {memory}", db.metrics().pinned_bytes);
    check(&db);
    db.close().unwrap();
}

#[test]
fn a_missing_or_damaged_table_is_named_and_no_job_keeps_running() {
    let machine = Machine::new();
    let path = machine.tables().swap_remove(TABLES);
    let bytes = machine.fs.read_all(&path).unwrap();
    let check_refused = |said: &str| {
        let error = machine.open(64 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(said) && error.to_string().contains(name(&path)), "{error}");
        assert_eq!((machine.env.job_count(), machine.fs.open_files()), (0, 0));
    };
    machine.fs.corrupt(&path, bytes.len() as u64 - 20, 1).unwrap();
    check_refused("");
    machine.fs.remove_file(&path).unwrap();
    check_refused("the file is missing");
    machine.fs.write_all(&path, &bytes[..bytes.len() - 1]).unwrap();
    check_refused("bytes");
    machine.fs.write_all(&path, &bytes).unwrap();
    let db = machine.open(64 << 20).unwrap();
    check(&db);
    db.close().unwrap();
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn threads_open_the_tables_of_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options::new().background_threads(4).keyspace(Machine::keyspace());
    let db = options().open(directory.path()).unwrap();
    for number in 0..TABLES {
        db.put(key(number), key(number)).unwrap();
    }
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    db.close().unwrap();
    for _ in 0..5 {
        let db = options().open(directory.path()).unwrap();
        assert_eq!(db.iter().map(Result::unwrap).count(), TABLES);
        db.close().unwrap();
    }
}
