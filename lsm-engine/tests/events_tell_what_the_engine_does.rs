//! The events of a database: what they tell, in which order, and what a slow reader gets.

use std::sync::Arc;
use std::time::Duration;

use lsm_core::env::{Env, SimEnv};
use lsm_core::vfs::{Fault, OperationKind, SimFs};
use lsm_engine::{Db, EventKind, Options};

fn open(fs: &SimFs) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(4 << 20).vfs(Arc::new(fs.clone()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    (env, db)
}

/// All events so far.
fn kinds(db: &Db) -> Vec<EventKind> {
    let mut events = db.events();
    std::iter::from_fn(|| events.try_next()).map(|event| event.kind).collect()
}

/// The position of the first event for which `is` returns true.
#[track_caller]
fn find(kinds: &[EventKind], is: impl Fn(&EventKind) -> bool) -> usize {
    kinds.iter().position(is).unwrap_or_else(|| panic!("no such event in {kinds:#?}"))
}

#[test]
fn a_flush_tells_of_its_begin_its_table_and_its_end_in_this_order() {
    let (env, db) = open(&SimFs::new());
    db.put("key", "value").unwrap();
    db.flush().unwrap();
    let kinds = kinds(&db);
    let begin = find(&kinds, |kind| matches!(kind, EventKind::FlushBegin { .. }));
    let created = find(
        &kinds,
        |kind| matches!(kind, EventKind::FileCreated { file, bytes } if file.ends_with(".sst") && *bytes > 0),
    );
    let end = find(
        &kinds,
        |kind| matches!(kind, EventKind::FlushEnd { keyspace, tables: 1, bytes, .. } if **keyspace == *"default" && *bytes > 0),
    );
    let opened = find(&kinds, |kind| matches!(kind, EventKind::Opened { created: true, .. }));
    assert!(opened < begin && begin < created && created < end, "{kinds:#?}");
    drop(db);
    env.drop_jobs();
}

#[test]
fn a_compaction_tells_of_its_begin_its_end_and_the_files_that_it_deletes() {
    let (env, db) = open(&SimFs::new());
    for round in 0..2 {
        for key in 0..100 {
            db.put(format!("key{key}"), format!("{round}")).unwrap();
        }
        db.flush().unwrap();
    }
    db.compact_range::<&str>(..).unwrap();
    env.advance(2_000_000);
    db.wait_for_compactions().unwrap();
    db.clone().close().unwrap();
    let kinds = kinds(&db);
    let begin = find(
        &kinds,
        |kind| matches!(kind, EventKind::CompactionBegin { tables: 2, reason, .. } if **reason == *"manual"),
    );
    let end = find(&kinds, |kind| matches!(kind, EventKind::CompactionEnd { tables: 1, .. }));
    let deleted =
        find(&kinds, |kind| matches!(kind, EventKind::FileDeleted { file } if file.ends_with(".sst")));
    let closed = find(&kinds, |kind| matches!(kind, EventKind::Closed));
    assert!(begin < end && end < deleted && deleted < closed, "{kinds:#?}");
    drop(db);
    env.drop_jobs();
}

#[test]
fn segments_of_the_log_are_events() {
    let (env, db) = open(&SimFs::new());
    for key in 0..3000 {
        db.put(format!("key{key}"), [b'v'; 1000]).unwrap();
    }
    db.flush().unwrap();
    let kinds = kinds(&db);
    let segments = kinds.iter().filter(|kind| matches!(kind, EventKind::LogSegment { .. })).count();
    assert!(segments >= 2, "the first one and at least another: {kinds:#?}");
    find(&kinds, |kind| matches!(kind, EventKind::FileDeleted { file } if file.ends_with(".wal")));
    drop(db);
    env.drop_jobs();
}

#[test]
fn an_error_that_repeats_is_one_event() {
    let fs = SimFs::new();
    let (env, db) = open(&fs);
    db.put("key", "value").unwrap();
    fs.inject(Fault::on(OperationKind::Create, std::io::ErrorKind::StorageFull).named(".sst").sticky());
    for _ in 0..3 {
        db.flush().unwrap_err();
    }

    fs.clear_faults();
    db.flush().unwrap();
    let kinds = kinds(&db);
    let errors = kinds.iter().filter(|kind| matches!(kind, EventKind::Error { .. })).count();
    assert_eq!(errors, 1, "{kinds:#?}");
    drop(db);
    env.drop_jobs();
}

#[test]
fn a_reader_that_is_too_slow_learns_how_many_events_it_missed() {
    let (env, db) = open(&SimFs::new());
    let mut events = db.events();
    let first = events.try_next().unwrap();
    for _ in 0..300 {
        db.put("key", "value").unwrap();
        db.flush().unwrap();
    }
    let lagged = events.try_next().unwrap();
    let EventKind::Lagged(lost) = lagged.kind else { panic!("{lagged:?}") };
    let next = events.try_next().unwrap();
    assert_eq!(next.number, first.number + lost + 1, "every event is either read or counted");
    assert_eq!(events.by_ref().take(511).count(), 511);
    assert_eq!(events.try_next(), None);
    drop(db);
    env.drop_jobs();
}

#[test]
fn a_reader_waits_for_the_next_event_and_ends_with_the_database() {
    let (env, db) = open(&SimFs::new());
    let mut events = db.events();
    while events.try_next().is_some() {}
    let before = env.monotonic_micros();
    assert_eq!(events.next_within(Duration::from_millis(300)), None);
    assert!(env.monotonic_micros() >= before + 300_000);
    // The flush runs while the reader waits, since there is one thread.
    db.put("key", "value").unwrap();
    db.close().unwrap();
    let kinds: Vec<_> = events.map(|event| event.kind).collect();
    assert!(matches!(kinds.last(), Some(EventKind::Closed)), "{kinds:#?}");
    env.drop_jobs();
}
