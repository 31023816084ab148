//! Starts the loads, lets them run, stops them, and compares.

mod backups;
mod bank;
mod copies;
mod counters;
mod followers;
mod large;
mod load;
mod loaded;
mod map;
mod mirror;
mod sessions;
mod views;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lsm_dev::Random;
use lsm_engine::{Db, Options};

use load::Load;
use mirror::Mirror;
use watch::Watch;

pub(crate) struct Settings {
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    pub(crate) memory: usize,
    pub(crate) directory: PathBuf,
}

fn open(settings: &Settings) -> Db {
    Options::new().memory(settings.memory).open(settings.directory.join("db")).unwrap()
}

/// The loads that know what the database must hold at the end.
fn loads(db: &Db) -> Vec<Box<dyn Load>> {
    vec![
        Box::new(map::Map::new(db, 0)),
        Box::new(map::Map::new(db, 1)),
        Box::new(counters::Counters::new(db)),
        Box::new(bank::Bank::new(db, 0)),
        Box::new(bank::Bank::new(db, 1)),
        Box::new(sessions::Sessions::new(db)),
        Box::new(views::Views::new()),
        Box::new(copies::Copies::new(db)),
        Box::new(large::Large::new(db)),
        Box::new(followers::Followers::new()),
        Box::new(backups::Backups::new(db)),
        Box::new(loaded::Loaded::new(db)),
    ]
}

/// Runs everything at once. Returns the directories of all databases that are left.
pub(crate) fn run(settings: &Settings) -> Vec<PathBuf> {
    let db = open(settings);
    let mut mirror = Mirror::new(&db);
    bank::open_accounts(&db);
    let mut loads = loads(&db);
    let stop = AtomicBool::new(false);
    let watch = thread::scope(|scope| {
        let all = loads.iter_mut().map(|load| &mut **load).chain([&mut mirror as &mut dyn Load]);
        for (number, load) in all.enumerate() {
            let (db, stop, mut random) = (&db, &stop, Random(settings.seed ^ (number as u64) << 32));
            scope.spawn(move || {
                let _stop_all = StopOnPanic(stop);
                while !stop.load(Ordering::Relaxed) {
                    load.step(db, &mut random);
                }
                load.stopped();
            });
        }
        let end = Instant::now() + Duration::from_secs(settings.seconds);
        let mut watch = Watch::new(settings.memory);
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            watch.look(&db);
            load::pause();
        }
        stop.store(true, Ordering::Relaxed);
        watch
    });
    mirror.catch_up(&db);
    for load in &loads {
        load.check(&db);
        load.check(mirror.db());
    }
    watch.print(&db);
    for load in &loads {
        println!("{}", load.report());
    }
    println!("{}", mirror.report());
    mirror.close();
    db.close().unwrap();
    let db = open(settings);
    for load in &loads {
        load.check(&db);
    }
    db.close().unwrap();
    ["db", "mirror"].map(|name| settings.directory.join(name)).into()
}

/// A load that fails ends the others, so that the failure is told at once.
struct StopOnPanic<'s>(&'s AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
