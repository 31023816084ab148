//! A small database in a simulator, for the tests of checkpoints and backups.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{BuiltInMerge, Db, KeyspaceOptions, Options, Result, WriteBatch};

pub(crate) const DIRECTORY: &str = "/data/db";
pub(crate) const TARGET: &str = "/data/copy";

/// All keyspaces with their entries.
pub(crate) type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

pub(crate) fn file_system() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

/// A process that has a database open.
pub(crate) struct Process {
    pub(crate) env: Arc<SimEnv>,
    pub(crate) db: Db,
}

impl Process {
    pub(crate) fn open(fs: &SimFs, directory: &str) -> Self {
        Self::try_open(fs, directory).unwrap_or_else(|error| panic!("{directory}: {error}"))
    }

    pub(crate) fn try_open(fs: &SimFs, directory: &str) -> Result<Self> {
        Self::open_with(fs, directory, options())
    }

    pub(crate) fn open_read_only(fs: &SimFs, directory: &str) -> Self {
        Self::open_with(fs, directory, options().read_only(true)).unwrap()
    }

    fn open_with(fs: &SimFs, directory: &str, options: Options) -> Result<Self> {
        // Each process draws other random numbers.
        let env = Arc::new(SimEnv::new(fs.operations() ^ directory.len() as u64));
        let db = options
            .vfs(Arc::new(fs.clone()))
            .env(Arc::clone(&env) as Arc<dyn Env>)
            .open(directory)
            .inspect_err(|_| env.drop_jobs())?;
        Ok(Self { env, db })
    }

    /// Ends without closing the database.
    pub(crate) fn kill(self) {
        let Self { env, db } = self;
        drop(db);
        env.drop_jobs();
    }

    pub(crate) fn close(self) {
        let Self { env, db } = self;
        db.close().unwrap();
        env.drop_jobs();
    }
}

pub(crate) fn options() -> Options {
    Options::new()
        .memory(1 << 20)
        .memtable_bytes(70_000)
        .log_segment_bytes(16 << 10)
        .merge_operator(Arc::new(BuiltInMerge::append(",")))
}

fn keyspace_options() -> KeyspaceOptions {
    KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::append(",")))
}

/// Puts data of all kinds into tables and log: of two keyspaces, with deletes, merges and range deletes.
pub(crate) fn fill(db: &Db, round: u32) {
    let users = db.keyspace("users", keyspace_options()).unwrap();
    for number in 0..20 {
        let value = format!("{round} of {number} ").repeat(20);
        db.put(format!("key{number:03}"), &value).unwrap();
        users.put(format!("user{number:03}"), &value).unwrap();
    }
    db.flush().unwrap();
    db.delete(format!("key{:03}", round % 20)).unwrap();
    users.delete_range("user005".."user008").unwrap();
    users.merge("user001", format!("merged {round}")).unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    db.merge("key002", format!("merged {round}")).unwrap();
    let mut batch = WriteBatch::new();
    batch.put("both", round.to_string()).put_in(&users, "both", round.to_string());
    db.write(batch).unwrap();
    users.compact_range::<&[u8]>(..).unwrap();
    db.put("in the log", round.to_string().repeat(400)).unwrap();
}

pub(crate) fn contents(db: &Db) -> Contents {
    let entries = |name: String| {
        let keyspace = db.keyspace(&name, KeyspaceOptions::new()).unwrap();
        let entries = keyspace.iter().map(|entry| {
            let (key, value) = entry.unwrap_or_else(|error| panic!("{name}: {error}"));
            (key.to_vec(), value.to_vec())
        });
        let entries = entries.collect();
        (name, entries)
    };
    db.keyspaces().into_iter().map(entries).collect()
}

/// What a database holds that nobody has open.
pub(crate) fn contents_of(fs: &SimFs, directory: &str) -> Contents {
    let process = Process::open(fs, directory);
    let found = contents(&process.db);
    process.kill();
    found
}

/// The paths of all files below a directory, without the lock files.
pub(crate) fn files_below(fs: &SimFs, directory: &str) -> Vec<String> {
    let paths = fs.paths().into_iter().map(|path| Path::new("/").join(path).to_string_lossy().into_owned());
    paths.filter(|path| path.starts_with(&format!("{directory}/")) && !path.ends_with("LOCK")).collect()
}
