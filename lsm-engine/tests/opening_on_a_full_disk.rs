//! Opening flushes what the log holds. On a full disk, what nothing needs makes room for that first.

use std::path::Path;
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, Options, Result};

const ENTRIES: u64 = 2000;

fn open(fs: &SimFs) -> (Arc<SimEnv>, Result<Db>) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
    (Arc::clone(&env), options.env(env as Arc<dyn Env>).open("/db"))
}

fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(100)
}

/// The disk was full when the process ended, and a merge had written half of its table: `room` bytes are free.
fn open_after_a_merge_that_filled_the_disk(room: u64) {
    const DISK_BYTES: u64 = 1 << 30;
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    let db = db.unwrap();
    for number in 0..ENTRIES {
        db.put(format!("key{number:05}"), value(number)).unwrap();
    }
    let crashed = fs.process_crash();
    drop(db);
    env.drop_jobs();
    let leftover = Path::new("/db/000900.sst");
    crashed.write_all(leftover, &vec![7; 8 << 20]).unwrap();
    crashed.set_capacity(Some(DISK_BYTES));
    let free = crashed.free_bytes(Path::new("/db")).unwrap();
    crashed.set_capacity(Some(DISK_BYTES - free + room));
    let (env, db) = open(&crashed);
    let db = db.unwrap();
    assert!(db.recovery().operations > 0);
    assert!(!crashed.paths().iter().any(|path| path == leftover));
    for number in 0..ENTRIES {
        assert_eq!(db.get(format!("key{number:05}")).unwrap().unwrap(), value(number));
    }
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn what_a_merge_left_half_done_goes_before_the_log_is_flushed() {
    open_after_a_merge_that_filled_the_disk(64 << 10);
}

#[test]
fn what_a_merge_left_half_done_goes_where_not_even_a_manifest_fits() {
    open_after_a_merge_that_filled_the_disk(0);
}
