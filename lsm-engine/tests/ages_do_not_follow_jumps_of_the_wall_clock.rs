//! A time to live counts the time that passed, whatever the wall clock is set to. Data written before the clock of a
//! device was set used to be dropped as soon as the clock was set.

use std::sync::Arc;

use lsm_engine::compaction_policies::{Fifo, FifoOptions};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Options};

const MINUTE: u64 = 60_000_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A time in 2033.
const LATER: u64 = 2_000_000_000_000_000;

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
    time_to_live_micros: u64,
}

impl World {
    fn new(time_to_live_micros: u64, unix_micros: u64) -> Self {
        let env = Arc::new(SimEnv::new(1));
        env.set_unix_micros(unix_micros);
        Self { fs: SimFs::new(), env, time_to_live_micros }
    }

    fn open(&self) -> Db {
        let fifo = FifoOptions { time_to_live_micros: self.time_to_live_micros, ..FifoOptions::default() };
        let options =
            Options::new().vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>);
        options.memory(8 << 20).compaction(Arc::new(Fifo::new(fifo))).open("/db").unwrap()
    }
}

fn put(db: &Db, key: &str) {
    db.put(key, "value").unwrap();
    db.flush().unwrap();
}

/// Whether `key` is there after all expired data was dropped.
fn has(db: &Db, key: &str) -> bool {
    db.wait_for_compactions().unwrap();
    db.get(key).unwrap().is_some()
}

#[test]
fn data_written_before_the_clock_was_set_expires_like_other_data() {
    let world = World::new(DAY, MINUTE);
    let db = world.open();
    put(&db, "early");
    world.env.advance(MINUTE);
    world.env.set_unix_micros(LATER);
    put(&db, "late");
    assert!(has(&db, "early"), "it is a minute old");
    world.env.advance(DAY - 3 * MINUTE);
    assert!(has(&db, "early"), "its day has a minute or two left");
    world.env.advance(2 * MINUTE);
    assert!(!has(&db, "early"));
    assert!(has(&db, "late"));
    world.env.advance(MINUTE);
    assert!(!has(&db, "late"));
    db.close().unwrap();
}

#[test]
fn setting_the_clock_while_the_database_is_closed_adds_at_most_one_hour() {
    let world = World::new(DAY, MINUTE);
    let db = world.open();
    put(&db, "early");
    db.close().unwrap();
    world.env.set_unix_micros(LATER);
    for round in 0..30 {
        let db = world.open();
        assert!(has(&db, "early"), "after opening it {round} times");
        // Every other round ends without a close, like a crash.
        if round % 2 == 0 {
            db.close().unwrap();
        }
        world.env.drop_jobs();
    }
    let db = world.open();
    world.env.advance(DAY - HOUR - MINUTE);
    assert!(has(&db, "early"));
    world.env.advance(MINUTE);
    assert!(!has(&db, "early"));
    db.close().unwrap();
}

#[test]
fn ages_grow_although_the_clock_was_set_back() {
    let world = World::new(DAY, LATER);
    let db = world.open();
    put(&db, "key");
    world.env.set_unix_micros(MINUTE);
    world.env.advance(DAY / 2);
    assert!(has(&db, "key"));
    db.close().unwrap();
    let db = world.open();
    put(&db, "other");
    world.env.advance(DAY / 2 - MINUTE);
    assert!(has(&db, "key"));
    world.env.advance(MINUTE);
    assert!(!has(&db, "key"));
    assert!(has(&db, "other"));
    db.close().unwrap();
}

#[test]
fn time_counts_without_writes() {
    let world = World::new(DAY, LATER);
    let db = world.open();
    put(&db, "key");
    world.env.advance(DAY - 2 * MINUTE);
    db.close().unwrap();
    world.env.advance(MINUTE);
    let db = world.open();
    assert!(has(&db, "key"));
    world.env.advance(MINUTE);
    assert!(!has(&db, "key"));
    db.close().unwrap();
}

#[test]
fn time_while_the_database_is_closed_counts_up_to_one_hour() {
    for (closed, lives) in [(29 * MINUTE, true), (30 * MINUTE, false), (7 * DAY, false)] {
        let world = World::new(30 * MINUTE, LATER);
        let db = world.open();
        put(&db, "key");
        db.close().unwrap();
        world.env.advance(closed);
        let db = world.open();
        assert_eq!(has(&db, "key"), lives, "{closed}");
        db.close().unwrap();
    }
}
