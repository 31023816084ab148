//! How threads that append, wait and are called back interleave while syncs succeed and fail.
//!
//! Shuttle runs the threads as coroutines and decides at every lock, atomic and event who goes on. When nobody can, it
//! fails with `deadlock`; any failure prints the schedule, which `shuttle::replay` plays again.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::task::{Wake, Waker};

use lsm_core::env::{Env, Event, Job, Priority, Step};
use lsm_core::vfs::{AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_core::{Error, Result};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::Mutex;
use shuttle::{Config, Runner, thread};

use crate::log::{Log, LogSync, Position};
use crate::options::WalOptions;
use crate::read::wal_reader::WalReader;
use crate::report::{LogExpectation, RecoveryMode};
use crate::wal::{FirstSegment, Wal};

const SEED: u64 = 0x5eed_0001;
const SCHEDULES: usize = 500;
const WAITERS: u64 = 3;
const RECORDS: u64 = 2;

/// Jobs are threads of shuttle, and waiting is its parking. No time passes.
struct Explored;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Env for Explored {
    fn monotonic_micros(&self) -> u64 {
        0
    }

    fn unix_micros(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        SEED
    }

    fn spawn(&self, _: Priority, mut job: Box<dyn Job>) {
        thread::spawn(move || {
            while let step @ (Step::Again | Step::Pending { .. }) = job.step() {
                if let Step::Pending { event, seen, .. } = step {
                    Explored.wait(&event, seen, None);
                }
            }
        });
    }

    fn wait(&self, event: &Event, seen: u64, _: Option<u64>) -> bool {
        thread::yield_now();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        while event.epoch() == seen {
            event.register(seen, waker.clone());
            thread::park();
        }
        true
    }
}

/// Where the log would end if the power failed now.
fn end_on_disk(fs: &SimFs) -> Position {
    let disk = Arc::new(fs.power_cut(&mut AllLost));

    let mut reader =
        WalReader::open(disk, Path::new("/log"), &LogExpectation::default(), RecoveryMode::default())
            .unwrap();
    while reader.next().unwrap().is_some() {}
    reader.report().end
}

struct World {
    fs: SimFs,
    log: Mutex<Wal>,
    sync: Arc<dyn LogSync>,
    syncs_fail: bool,
}

impl World {
    /// A log whose sync fails after so many that succeed.
    fn new(syncs: Option<u64>) -> Self {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/log")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        let options = WalOptions {
            segment_bytes: 4096,
            window_bytes: 1024,
            sync_lag_micros: None,
            ..WalOptions::default()
        };
        let vfs = Arc::new(fs.clone());
        let log = Wal::create(vfs, Arc::new(Explored), Path::new("/log"), FirstSegment::default(), options)
            .unwrap();
        if let Some(syncs) = syncs {
            fs.inject(Fault::on(OperationKind::Sync, ErrorKind::Other).named("000001.wal").skip(syncs));
        }
        Self { fs, sync: log.sync_handle(), log: Mutex::new(log), syncs_fail: syncs.is_some() }
    }

    /// Appends; `None` if the log was stopped.
    fn append(&self, tag: u64) -> Option<Position> {
        match self.log.lock().unwrap().append(tag, b"forty bytes and these") {
            Ok(end) => Some(end),
            Err(Error::Stopped { .. }) if self.syncs_fail => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// What someone was told about a position has to be true. Returns whether it is durable.
    fn check(&self, end: Position, told: &Result<()>) -> bool {
        match told {
            Ok(()) => assert!(end_on_disk(&self.fs) >= end, "{end} was called durable and is not"),
            Err(error) => {
                assert!(self.syncs_fail, "{error}");
                assert_eq!(self.append(0), None, "the log goes on after a failed sync");
                let again = self.sync.wait_durable(end);
                assert!(matches!(again, Err(Error::Stopped { .. })), "{again:?}");
            }
        }
        told.is_ok()
    }

    fn wait(&self, tag: u64) -> bool {
        let Some(end) = self.append(tag) else { return false };
        let told = self.sync.wait_durable(end);
        self.check(end, &told)
    }

    fn be_called_back(&self, tag: u64) -> bool {
        let Some(end) = self.append(tag) else { return false };
        let (told, event) = (Arc::new(Mutex::new(Vec::new())), Event::new());
        let (slot, notified) = (Arc::clone(&told), event.clone());
        let callback = move |result| {
            slot.lock().unwrap().push(result);
            notified.notify();
        };
        self.sync.on_durable(end, Box::new(callback));
        loop {
            let seen = event.epoch();
            if let [told] = told.lock().unwrap().as_slice() {
                return self.check(end, told);
            }
            Explored.wait(&event, seen, None);
        }
    }
}

fn explore(scheduler: impl Scheduler + 'static, syncs: Option<u64>) {
    Runner::new(scheduler, Config::default()).run(move || {
        let world = Arc::new(World::new(syncs));
        let threads: Vec<_> = (0..=WAITERS)
            .map(|thread| {
                let world = Arc::clone(&world);
                let act = if thread == 0 { World::be_called_back } else { World::wait };
                thread::spawn(move || (0..RECORDS).all(|record| act(&world, thread * RECORDS + record)))
            })
            .collect();
        let fine = threads.into_iter().map(|thread| thread.join().unwrap()).filter(|fine| *fine).count();
        if syncs.is_none() {
            assert_eq!(fine as u64, WAITERS + 1);
        }
    });
}

fn explore_all(syncs: Option<u64>) {
    explore(RandomScheduler::new_from_seed(SEED, SCHEDULES), syncs);
    explore(PctScheduler::new_from_seed(SEED, 3, SCHEDULES), syncs);
}

/// A thread asks for callbacks while another one closes the log.
fn explore_the_close(scheduler: impl Scheduler + 'static, syncs: Option<u64>) {
    Runner::new(scheduler, Config::default()).run(move || {
        let World { log, sync, .. } = World::new(syncs);
        let mut log = log.into_inner().unwrap();
        let ends: Vec<_> =
            (0..RECORDS).map_while(|tag| log.append(tag, b"forty bytes and these").ok()).collect();
        let (told, told_count) = (Arc::new(Mutex::new(Vec::new())), ends.len());
        let (slots, event) = (Arc::clone(&told), Event::new());
        let notified = event.clone();
        let asking = thread::spawn(move || {
            for end in ends {
                let (slot, notified) = (Arc::clone(&slots), notified.clone());
                sync.on_durable(
                    end,
                    Box::new(move |result| {
                        slot.lock().unwrap().push(result);
                        notified.notify();
                    }),
                );
            }
        });
        let closed = Box::new(log).close();
        asking.join().unwrap();
        loop {
            let seen = event.epoch();
            let count = told.lock().unwrap().len();
            assert!(count <= told_count, "somebody was called twice");
            if count == told_count {
                break;
            }
            Explored.wait(&event, seen, None);
        }
        let fine = told.lock().unwrap().iter().all(Result::is_ok);
        assert!(fine || closed.is_err() && syncs.is_some());
    });
}

#[test]
fn everybody_is_called_once_although_the_log_is_closed_meanwhile() {
    for syncs in [None, Some(0), Some(1)] {
        explore_the_close(RandomScheduler::new_from_seed(SEED, SCHEDULES), syncs);
        explore_the_close(PctScheduler::new_from_seed(SEED, 3, SCHEDULES), syncs);
    }
}

#[test]
fn nobody_returns_before_the_position_is_durable_and_nobody_hangs() {
    explore_all(None);
}

#[test]
fn a_failed_sync_fails_everyone_who_waits_for_it_and_stops_the_log() {
    for syncs in 0..3 {
        explore_all(Some(syncs));
    }
}
