//! The flight recorder: what a database did is found again after a clean close, a crash, and damage, and its files stay
//! small. Its failures are nobody's.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::{Kind, RecordedEvents, kind_of};
use lsm_engine::vfs::{AllKept, AllLost, Fault, OperationKind, SimFs, Vfs};
use lsm_engine::{Db, Event, EventKind, Options, WaitReason};

const DIRECTORY: &str = "/db";

fn open(fs: &SimFs) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(1 << 20).vfs(Arc::new(fs.clone()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open(DIRECTORY).unwrap();
    (env, db)
}

fn recorded(fs: &SimFs) -> (Vec<Event>, Vec<String>) {
    let mut recorded = RecordedEvents::of(Arc::new(fs.clone()), Path::new(DIRECTORY)).unwrap();
    let events = recorded.by_ref().collect::<Result<_, _>>().unwrap();
    (events, recorded.dropped().to_vec())
}

fn recorder_files(fs: &SimFs) -> Vec<PathBuf> {
    let is_events =
        |path: &PathBuf| kind_of(&path.file_name().unwrap().to_string_lossy()) == Some(Kind::Events);
    fs.paths().into_iter().filter(is_events).collect()
}

/// Writes until writers have waited for memory, and lets the recorder see it.
fn stall(env: &SimEnv, db: &Db) {
    for key in 0..1500 {
        db.put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    env.advance(2_000_000);
    env.run_until_idle();
}

fn is_stall(event: &Event) -> bool {
    let why = match event.kind {
        EventKind::ShortStalls { why, count, .. } if count > 0 => why,
        EventKind::StallEnd { why, .. } => why,
        _ => return false,
    };
    why == WaitReason::Memory
}

#[test]
fn a_closed_database_tells_of_its_stalls_its_work_and_its_close() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    stall(&env, &db);
    db.close().unwrap();
    env.drop_jobs();
    let (events, dropped) = recorded(&fs);
    assert_eq!(dropped, [] as [&str; 0]);
    let is_opened = |event: &Event| matches!(event.kind, EventKind::Opened { created: true, .. });
    assert!(events.iter().any(is_opened), "{events:#?}");
    assert!(events.iter().any(is_stall), "{events:#?}");
    assert!(events.iter().any(|event| matches!(event.kind, EventKind::FlushEnd { .. })));
    assert_eq!(events.last().unwrap().kind, EventKind::Closed);
    assert!(events.is_sorted_by_key(|event| event.unix_micros));
}

#[test]
fn a_crashed_process_has_told_of_what_it_did_until_about_a_second_before() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    stall(&env, &db);
    let crashed = fs.process_crash();
    let (events, dropped) = recorded(&crashed);
    assert!(dropped.is_empty() && events.iter().any(is_stall), "{events:#?}");
    drop(db);
    env.drop_jobs();
    // The next process goes on where this one ended.
    let (env, db) = open(&crashed);
    db.close().unwrap();
    env.drop_jobs();
    let (more, _) = recorded(&crashed);
    assert!(more.starts_with(&events) && more.len() > events.len(), "{more:#?}");
}

#[test]
fn a_power_cut_may_take_events_but_harms_nothing() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    stall(&env, &db);
    for cut in [fs.power_cut(&mut AllLost), fs.power_cut(&mut AllKept)] {
        let (env, db) = open(&cut);
        db.close().unwrap();
        env.drop_jobs();
        let (events, _) = recorded(&cut);
        assert_eq!(events.last().unwrap().kind, EventKind::Closed);
    }
    drop(db);
    env.drop_jobs();
}

#[test]
fn databases_that_are_opened_again_and_again_keep_their_history_in_few_small_files() {
    let fs = SimFs::new();
    for _ in 0..300 {
        let (env, db) = open(&fs);
        db.put("key", "value").unwrap();
        db.close().unwrap();
        env.drop_jobs();
    }
    let files = recorder_files(&fs);
    let bytes: u64 = files.iter().map(|path| fs.metadata(path).unwrap().len).sum();
    assert!(files.len() <= 4 && bytes <= 1 << 20, "{files:?} of {bytes} bytes");
    let (events, _) = recorded(&fs);
    let opened = events.iter().filter(|event| matches!(event.kind, EventKind::Opened { .. })).count();
    assert_eq!(opened, 300, "all of it fits");
}

#[test]
fn the_recorder_of_a_busy_database_stays_below_a_megabyte_and_keeps_the_last_events() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    let keyspaces: Vec<_> = (0..4)
        .map(|number| format!("{number}{}", "k".repeat(200)))
        .map(|name| db.keyspace(&name, lsm_engine::KeyspaceOptions::new()).unwrap())
        .collect();
    for round in 0..1000 {
        for keyspace in &keyspaces {
            keyspace.put("key", format!("{round}")).unwrap();
        }
        db.flush().unwrap();
        if round % 20 == 0 {
            env.advance(1_100_000);
            env.run_until_idle();
        }
    }
    drop(keyspaces);
    db.close().unwrap();
    env.drop_jobs();
    let files = recorder_files(&fs);
    let bytes: u64 = files.iter().map(|path| fs.metadata(path).unwrap().len).sum();
    assert!(files.len() == 4 && bytes > 1 << 19 && bytes <= 1 << 20, "{files:?} of {bytes} bytes");
    let (events, _) = recorded(&fs);
    assert_eq!(events.last().unwrap().kind, EventKind::Closed);
    assert!(events.is_sorted_by_key(|event| event.number), "in the order in which they happened");
}

#[test]
fn a_flipped_bit_loses_few_events_and_makes_up_none() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    for _ in 0..5 {
        db.put("key", "value").unwrap();
        db.flush().unwrap();
        env.advance(2_000_000);
        env.run_until_idle();
    }
    db.close().unwrap();
    env.drop_jobs();
    let (events, _) = recorded(&fs);
    let [file] = &recorder_files(&fs)[..] else { panic!("one file") };
    let len = fs.metadata(file).unwrap().len;
    for offset in 0..len {
        let damaged = fs.process_crash();
        damaged.corrupt(file, offset, 1 << (offset % 8)).unwrap();
        let (left, dropped) = recorded(&damaged);
        assert!(left.iter().all(|event| events.contains(event)), "byte {offset}: {left:#?}");
        assert!(left == events || !dropped.is_empty(), "byte {offset}: lost without a word");
    }
    for length in [0, 1, len / 2, len - 1] {
        let damaged = fs.process_crash();
        damaged.truncate(file, length).unwrap();
        let (left, _) = recorded(&damaged);
        assert!(events.starts_with(&left), "cut to {length}: {left:#?}");
        let (env, db) = open(&damaged);
        assert_eq!(db.get("key").unwrap().unwrap(), "value");
        db.close().unwrap();
        env.drop_jobs();
        let (more, _) = recorded(&damaged);
        assert_eq!(more.last().unwrap().kind, EventKind::Closed, "it goes on");
    }
}

#[test]
fn a_recorder_that_cannot_be_written_fails_nothing_and_goes_on_later() {
    for kind in [OperationKind::Create, OperationKind::Write, OperationKind::Sync, OperationKind::ReadDir] {
        let fs = SimFs::new();
        let (env, db) = open(&fs);
        let fault = Fault::on(kind, Io::Other);
        let fault = if kind == OperationKind::ReadDir { fault } else { fault.name_starting("EVENTS-") };
        fs.inject(fault.sticky());
        stall(&env, &db);
        db.flush().unwrap();
        if kind == OperationKind::Sync {
            db.clone().close().unwrap();
        } else {
            fs.clear_faults();
            env.advance(2_000_000);
            env.run_until_idle();
        }
        let (events, _) = recorded(&fs);
        assert!(events.iter().any(is_stall), "{kind:?}: {events:#?}");
        drop(db);
        env.drop_jobs();
    }
}

#[test]
fn reading_only_writes_no_events() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    db.put("key", "value").unwrap();
    db.close().unwrap();
    env.drop_jobs();
    let before = fs.fingerprint();
    let options = Options::new().read_only(true).vfs(Arc::new(fs.clone()));
    let db = options.env(Arc::new(SimEnv::new(1))).open(DIRECTORY).unwrap();
    assert_eq!(db.events().try_next().map(|event| event.number), Some(0), "it still has events");
    db.close().unwrap();
    assert_eq!(fs.fingerprint(), before);
}

/// The process may be killed after that, so the reason must be on the disk without a close.
#[test]
fn errors_that_stop_writing_or_fill_the_disk_are_recorded_before_the_end() {
    for (kind, file, error) in
        [(OperationKind::Sync, ".wal", Io::Other), (OperationKind::Create, ".sst", Io::StorageFull)]
    {
        let fs = SimFs::new();
        let (env, db) = open(&fs);
        db.put("key", "value").unwrap();
        env.advance(2_000_000);
        env.run_until_idle();
        fs.inject(Fault::on(kind, error).named(file).sticky());
        db.put("key", "other").unwrap();
        let _ = (db.sync(), db.flush());
        for _ in 0..3 {
            env.advance(2_000_000);
            env.run_until_idle();
        }
        let (events, _) = recorded(&fs.process_crash());
        let is_error =
            |event: &Event| matches!(&event.kind, EventKind::Error { message, .. } if message.contains(file));
        assert!(events.iter().any(is_error), "{events:#?}");
        drop(db);
        env.drop_jobs();
    }
}
