//! The change feed: every durable batch once and in order, from a snapshot or a slot on.

use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    BuiltInMerge, Change, ChangeKind, Changes, Db, Error, ErrorKind, EventKind, Ingest, KeyspaceOptions,
    Options, PinKind, WriteBatch,
};

fn open(fs: &SimFs, seed: u64) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(seed));
    let options = Options::new().memory(8 << 20).vfs(Arc::new(fs.clone()));
    let merging = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::add_i64()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).keyspace(merging).open("/db").unwrap();
    (env, db)
}

/// All changes that are there now, by batch.
fn read(changes: &mut Changes) -> Vec<Vec<Change>> {
    std::iter::from_fn(|| changes.try_next().unwrap()).map(|batch| batch.changes).collect()
}

fn puts(changes: &mut Changes) -> Vec<String> {
    let key = |change: Change| match change.kind {
        ChangeKind::Put { key, .. } => String::from_utf8_lossy(&key).into_owned(),
        kind => panic!("{kind:?}"),
    };
    read(changes).into_iter().flatten().map(key).collect()
}

fn close(env: &SimEnv, db: Db) {
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn every_kind_of_change_is_told_as_it_was_made() {
    let (env, db) = open(&SimFs::new(), 1);
    let mut changes = db.changes(&db.change_position().unwrap()).unwrap();
    db.put("a", "1").unwrap();
    db.put_expiring("b", "2", Duration::from_secs(60)).unwrap();
    db.delete("a").unwrap();
    db.single_delete("b").unwrap();
    db.delete_range("a".."m").unwrap();
    db.merge("sum", 5_i64.to_le_bytes()).unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put("x", "1").put_in(&other, "y", "2").delete("z");
    db.write(batch).unwrap();
    other.clear().unwrap();
    db.drop_keyspace("other").unwrap();
    let again = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    again.put("y", vec![7; 300_000]).unwrap();
    db.sync().unwrap();

    let batches = read(&mut changes);
    let told = |change: &Change| (change.keyspace.to_string(), change.keyspace_id, change.kind.clone());
    let told: Vec<Vec<_>> = batches.iter().map(|batch| batch.iter().map(told).collect()).collect();
    let ChangeKind::PutExpiring { expires_at_micros, .. } = told[1][0].2 else { panic!("{told:?}") };
    assert!(expires_at_micros >= env.unix_micros() + 59_000_000);
    let one = |keyspace: &str, id, kind| vec![(keyspace.to_owned(), id, kind)];
    let put = |key: &str, value: &str| ChangeKind::Put { key: key.into(), value: value.into() };
    assert_eq!(told[0], one("default", 0, put("a", "1")));
    assert_eq!(told[2], one("default", 0, ChangeKind::Delete { key: "a".into() }));
    assert_eq!(told[3], one("default", 0, ChangeKind::SingleDelete { key: "b".into() }));
    assert_eq!(told[4], one("default", 0, ChangeKind::DeleteRange { start: "a".into(), end: "m".into() }));
    let operand = (&5_i64.to_le_bytes()[..]).into();
    assert_eq!(told[5], one("default", 0, ChangeKind::Merge { key: "sum".into(), operand }));
    assert_eq!(told[6], one("other", 1, ChangeKind::KeyspaceCreated));
    let of_batch = [
        one("default", 0, put("x", "1")),
        one("other", 1, put("y", "2")),
        one("default", 0, ChangeKind::Delete { key: "z".into() }),
    ];
    assert_eq!(told[7], of_batch.concat());
    assert_eq!(told[8], one("other", 1, ChangeKind::Clear));
    assert_eq!(told[9], one("other", 1, ChangeKind::KeyspaceDropped));
    assert_eq!(told[10], one("other", 2, ChangeKind::KeyspaceCreated));
    let ChangeKind::Put { key, value } = &told[11][0].2 else { panic!("{told:?}") };
    assert!(key == b"y" && **value == vec![7; 300_000] && told.len() == 12);
    let sequences: Vec<u64> = batches.iter().flatten().map(|change| change.sequence).collect();
    assert!(sequences.is_sorted());
    drop((other, again, changes));
    close(&env, db);
}

#[test]
fn an_ingest_tells_which_keys_its_tables_have() {
    let (env, db) = open(&SimFs::new(), 14);
    let mut changes = db.changes(&db.change_position().unwrap()).unwrap();
    let mut table = db.default_keyspace().table_builder("/table").unwrap();
    table.put("m", "1").unwrap();
    table.put("p", "2").unwrap();
    table.finish().unwrap();
    db.ingest(Ingest::new().table("/table").replace("l".."q")).unwrap();
    db.put("after", "").unwrap();
    db.sync().unwrap();
    let batches = read(&mut changes);
    let [deleted, ingested] = &batches[0][..] else { panic!("{batches:?}") };
    assert_eq!(deleted.kind, ChangeKind::DeleteRange { start: "l".into(), end: "q".into() });
    let ChangeKind::Ingest { tables } = &ingested.kind else { panic!("{batches:?}") };
    assert!(tables.len() == 1 && tables[0].entries == 2 && ingested.sequence == deleted.sequence + 1);
    assert_eq!((&tables[0].smallest, &tables[0].largest), (&"m".into(), &"p".into()));
    assert_eq!(batches.len(), 2);
    close(&env, db);
}

#[test]
fn a_snapshot_and_the_changes_from_it_are_everything_and_nothing_twice() {
    let (env, db) = open(&SimFs::new(), 2);
    let mut snapshots = Vec::new();
    for number in 0..400 {
        db.put(format!("key{number:03}"), vec![1; 2000]).unwrap();
        if number % 7 == 0 {
            snapshots.push((number, db.snapshot().unwrap()));
        }
        if number % 50 == 0 {
            db.sync().unwrap();
        }
    }
    db.sync().unwrap();
    for (number, snapshot) in &snapshots {
        let position = snapshot.change_position().unwrap();
        assert_eq!(position.sequence(), snapshot.sequence());
        let told = puts(&mut db.changes(&position).unwrap());
        let expected: Vec<String> = (number + 1..400).map(|number| format!("key{number:03}")).collect();
        assert_eq!(told, expected);
    }
    drop(snapshots);
    close(&env, db);
}

#[test]
fn only_what_is_durable_is_told() {
    let (env, db) = open(&SimFs::new(), 3);
    let mut changes = db.changes(&db.change_position().unwrap()).unwrap();
    db.put("a", "1").unwrap();
    assert!(changes.try_next().unwrap().is_none());
    // The log syncs it within about a second.
    assert!(changes.next_within(Duration::from_secs(3)).unwrap().is_some());
    assert!(changes.next_within(Duration::from_secs(3)).unwrap().is_none());
    close(&env, db);
    assert_eq!(changes.try_next().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_reader_that_waits_is_woken_by_a_write_a_cancel_and_a_close() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(directory.path()).unwrap();
    let begin = db.change_position().unwrap();
    let (mut first, mut second) = (db.changes(&begin).unwrap(), db.changes(&begin).unwrap());
    let canceller = first.canceller();
    let drain = |changes: &mut Changes| {
        let count = changes.by_ref().map(|batch| batch.unwrap().changes.len()).sum::<usize>();
        (count, changes.try_next().unwrap_err())
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| drain(&mut first));
        let second = scope.spawn(|| drain(&mut second));
        let mut own = db.changes(&begin).unwrap();
        for number in 0..100 {
            db.put(format!("{number}"), "").unwrap();
        }
        for _ in 0..100 {
            own.next_within(Duration::MAX).unwrap().unwrap();
        }
        canceller.cancel();
        let (count, error) = first.join().unwrap();
        assert!(count <= 100 && matches!(error, Error::ChangesCancelled), "{count} {error}");
        db.close().unwrap();
        let (count, error) = second.join().unwrap();
        assert!(count <= 100 && error.kind() == ErrorKind::Closed, "{count} {error}");
    });
}

#[test]
fn a_slot_keeps_the_history_across_reopens_until_it_is_acknowledged() {
    let fs = SimFs::new();
    let (env, db) = open(&fs, 4);
    let slot = db.change_slot("replica", 64 << 20).unwrap();
    let mut expected = Vec::new();
    let write = |db: &Db, expected: &mut Vec<String>, round: u64| {
        for number in 0..20 {
            let key = format!("{round}/{number}");
            db.put(&key, vec![3; 60_000]).unwrap();
            expected.push(key);
        }
        db.flush().unwrap();
    };
    write(&db, &mut expected, 0);
    let pin = db.pins().into_iter().find(|pin| pin.kind == PinKind::ChangeSlot).unwrap();
    assert_eq!((pin.label.as_deref(), pin.log_bytes), (Some("replica"), slot.held_bytes()));
    assert!(slot.held_bytes() > 1_000_000 && db.metrics().pinned_log_bytes == slot.held_bytes());
    drop(slot);
    let (mut env, mut db) = (env, db);
    for round in 1..5 {
        // In turn: a clean close, and the end of the process.
        if round % 2 == 0 {
            close(&env, db);
        } else {
            drop(db);
            env.drop_jobs();
        }
        (env, db) = open(&fs, 4 + round);
        write(&db, &mut expected, round);
    }
    let slot = db.change_slot("replica", 64 << 20).unwrap();
    let mut changes = slot.changes().unwrap();
    assert_eq!(puts(&mut changes), expected);
    slot.acknowledge(&changes.position()).unwrap();
    env.run_until_idle();
    env.advance(2_000_000);
    env.run_until_idle();
    assert_eq!((slot.position(), slot.held_bytes()), (changes.position(), 0));
    close(&env, db);
    let (env, db) = open(&fs, 10);
    let slot = db.change_slot("replica", 1).unwrap();
    assert_eq!(slot.position().sequence(), changes.position().sequence());
    assert_eq!(puts(&mut slot.changes().unwrap()), Vec::<String>::new());
    db.drop_change_slot("replica").unwrap();
    assert_eq!(slot.changes().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(db.change_slots().is_empty());
    close(&env, db);
    let logs = fs.paths().into_iter().filter(|path| path.extension().is_some_and(|name| name == "wal"));
    assert_eq!(logs.count(), 1);
}

#[test]
fn a_slot_that_keeps_too_much_is_lost_and_told_so_and_can_go_on() {
    let fs = SimFs::new();
    let (env, db) = open(&fs, 5);
    let slot = db.change_slot("slow", 3 << 20).unwrap();
    let mut changes = slot.changes().unwrap();
    let mut events = db.events();
    let mut number = 0;
    let mut write = |count: u64| {
        for _ in 0..count {
            db.put(format!("{number}"), vec![5; 100_000]).unwrap();
            number += 1;
        }
        db.flush().unwrap();
    };
    write(20);
    assert!(!slot.is_lost());
    write(200);
    assert!(slot.is_lost() && slot.held_bytes() == 0);
    assert_eq!(slot.changes().unwrap_err().kind(), ErrorKind::HistoryGone);
    let error = std::iter::repeat_with(|| changes.try_next()).find_map(Result::err).unwrap();
    assert_eq!(error.kind(), ErrorKind::HistoryGone, "{error}");
    assert_eq!(db.metrics().log_pins_lost, 1);
    let lost = |kind: &EventKind| matches!(kind, EventKind::LogPinLost { label: Some(label), .. } if &**label == "slow");
    assert!(std::iter::from_fn(|| events.try_next()).any(|event| lost(&event.kind)));
    let log_bytes = |fs: &SimFs| -> usize {
        let logs = fs.paths().into_iter().filter(|path| path.extension().is_some_and(|name| name == "wal"));
        logs.map(|path| fs.read_all(&path).unwrap().len()).sum()
    };
    assert!(log_bytes(&fs) < 12 << 20);
    let snapshot = db.snapshot().unwrap();
    slot.acknowledge(&snapshot.change_position().unwrap()).unwrap();
    assert!(!slot.is_lost());
    db.put("after", "").unwrap();
    db.sync().unwrap();
    assert_eq!(puts(&mut slot.changes().unwrap()), ["after"]);
    drop((snapshot, changes, events, slot));
    close(&env, db);
    let (env, db) = open(&fs, 6);
    assert_eq!(puts(&mut db.change_slots()[0].changes().unwrap()), ["after"]);
    close(&env, db);
}

#[test]
fn without_a_slot_a_reader_goes_on_after_a_reopen_if_nothing_is_missing() {
    let fs = SimFs::new();
    let (env, db) = open(&fs, 7);
    let before = db.change_position().unwrap();
    db.put("a", "1").unwrap();
    db.keyspace("k", KeyspaceOptions::new()).unwrap();
    let end = db.change_position().unwrap();
    close(&env, db);
    let (env, db) = open(&fs, 8);
    db.put("b", "2").unwrap();
    db.sync().unwrap();
    assert_eq!(puts(&mut db.changes(&end).unwrap()), ["b"]);
    let error = db.changes(&before).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryGone, "{error}");
    close(&env, db);
}

#[test]
fn a_position_of_what_a_power_cut_took_or_of_another_database_is_refused() {
    let fs = SimFs::new();
    let (env, db) = open(&fs, 9);
    db.put("kept", "1").unwrap();
    db.sync().unwrap();
    let kept = db.change_position().unwrap();
    db.put("lost", "2").unwrap();
    let lost = db.change_position().unwrap();
    let image = fs.power_cut(&mut lsm_engine::vfs::AllLost);
    let (other_env, other) = open(&image, 10);
    other.put("instead", "3").unwrap();
    other.put("and more", "4").unwrap();
    other.sync().unwrap();
    assert_eq!(puts(&mut other.changes(&kept).unwrap()), ["instead", "and more"]);
    match other.changes(&lost) {
        Err(Error::HistoryDiverged { common, .. }) => {
            assert_eq!(common.sequence(), kept.sequence());
            assert_eq!(puts(&mut other.changes(&common).unwrap()), ["instead", "and more"]);
        }
        changes => panic!("{changes:?}"),
    }
    let future = other.change_position().unwrap();
    assert_eq!(db.changes(&future).unwrap_err().kind(), ErrorKind::ForeignPosition);
    let (third_env, third) = open(&SimFs::new(), 11);
    assert_eq!(third.changes(&kept).unwrap_err().kind(), ErrorKind::ForeignPosition);
    close(&third_env, third);
    close(&other_env, other);
    close(&env, db);
}

#[test]
fn a_database_that_is_read_only_tells_what_its_log_has() {
    let fs = SimFs::new();
    let (env, db) = open(&fs, 12);
    let begin = db.change_position().unwrap();
    db.put("a", "1").unwrap();
    db.put("b", "2").unwrap();
    drop(db);
    env.drop_jobs();
    let options = Options::new().vfs(Arc::new(fs.clone())).read_only(true);
    let db = options.env(Arc::new(SimEnv::new(13))).open("/db").unwrap();
    assert_eq!(puts(&mut db.changes(&begin).unwrap()), ["a", "b"]);
    let snapshot = db.snapshot().unwrap();
    assert_eq!(puts(&mut db.changes(&snapshot.change_position().unwrap()).unwrap()), Vec::<String>::new());
}
