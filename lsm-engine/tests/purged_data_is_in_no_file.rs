//! A keyspace may set a bound within which deleted and overwritten data leaves all files of the database: tables, the log
//! and its window, the manifest. Each file is searched for the bytes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_dev::Random;
use lsm_engine::compaction_policies::{
    CompactionPolicy, Fifo, LazyLeveled, Leveled, LeveledOptions, SizeTiered,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{AllKept, AllLost, SimFs, Vfs};
use lsm_engine::{Db, ErrorKind, Keyspace, KeyspaceOptions, Options, PinKind};

const BOUND: Duration = Duration::from_secs(3600);
const SECOND: u64 = 1_000_000;
const SECRET: &str = "a secret that must go";

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: Arc::new(SimEnv::new(1)) }
    }

    fn after(fs: SimFs) -> Self {
        Self { fs, env: Arc::new(SimEnv::new(2)) }
    }

    fn options(&self) -> Options {
        let options = Options::new().memory(8 << 20).vfs(Arc::new(self.fs.clone()));
        options.env(Arc::clone(&self.env) as Arc<dyn Env>)
    }

    fn open(&self) -> Db {
        self.options().open("/db").unwrap()
    }

    /// Lets time pass while nothing is written.
    fn pass(&self, seconds: u64) {
        for _ in 0..seconds.div_ceil(60) {
            self.env.advance(60 * SECOND);
            self.env.run_until_idle();
        }
    }

    /// The files that hold these bytes.
    fn holders(&self, bytes: &str) -> Vec<String> {
        holders(&self.fs, bytes)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

fn holders(fs: &SimFs, bytes: &str) -> Vec<String> {
    let holds = |name: &String| {
        let file = fs.read_all(&Path::new("/db").join(name)).unwrap();
        let begins = |(_, byte): &(usize, &u8)| **byte == bytes.as_bytes()[0];
        file.iter().enumerate().filter(begins).any(|(at, _)| file[at..].starts_with(bytes.as_bytes()))
    };
    fs.read_dir(Path::new("/db")).unwrap().into_iter().filter(holds).collect()
}

fn bounded() -> KeyspaceOptions {
    KeyspaceOptions::new().purge_within(BOUND)
}

/// A key that holds the secret itself.
fn key(number: u32) -> String {
    format!("{number:04} {SECRET}")
}

fn fill(keyspace: &Keyspace, value: &str) {
    for number in 0..300 {
        keyspace.put(key(number), format!("{value} {number}")).unwrap();
    }
}

#[test]
fn what_was_deleted_leaves_all_files_while_nothing_is_written() {
    let policies: [Arc<dyn CompactionPolicy>; 4] = [
        Arc::new(Leveled::default()),
        Arc::new(Leveled::new(LeveledOptions { level_count: 1, ..LeveledOptions::default() })),
        Arc::new(SizeTiered::default()),
        Arc::new(LazyLeveled::default()),
    ];
    for policy in policies {
        let world = World::new();
        let db = world.open();
        let users = db.keyspace("users", bounded().compaction(policy)).unwrap();
        let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
        fill(&users, "value");
        db.flush().unwrap();
        fill(&users, "newer");
        // Another keyspace shares the log, and has data in memory.
        other.put("stays", "here").unwrap();
        users.delete_range::<&str>(""..key(100).as_str()).unwrap();
        for number in 100..300 {
            users.delete(key(number)).unwrap();
        }
        let deleted = db.metrics().visible_sequence;
        assert!(!world.holders(SECRET).is_empty());
        assert!(db.purged_through() < deleted);
        world.pass(BOUND.as_secs());
        assert!(db.purged_through() >= deleted, "{} of {deleted}", db.purged_through());
        assert_eq!(world.holders(SECRET), [""; 0]);
        assert_eq!(world.holders("newer"), [""; 0]);
        assert_eq!(db.metrics().purge_lag_micros, 0);
        assert_eq!(users.count::<&str>(..).unwrap(), 0);
        assert_eq!(other.get("stays").unwrap().unwrap(), b"here");
        // Not after a power cut, either, and the number is known then.
        let purged = db.purged_through();
        drop((users, other, db));
        for cut in [world.fs.power_cut(&mut AllLost), world.fs.power_cut(&mut AllKept)] {
            assert_eq!(holders(&cut, SECRET), [""; 0]);
            let world = World::after(cut);
            let db = world.open();
            assert_eq!(db.purged_through(), purged);
            let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
            assert_eq!(other.get("stays").unwrap().unwrap(), b"here");
        }
    }
}

#[test]
fn what_was_overwritten_leaves_and_what_is_live_stays() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    fill(&users, SECRET);
    db.flush().unwrap();
    db.compact_range::<&str>(..).unwrap();
    for number in 0..300 {
        users.put(key(number), "public").unwrap();
    }
    let overwritten = db.metrics().visible_sequence;
    world.pass(BOUND.as_secs());
    assert!(db.purged_through() >= overwritten);
    // The keys are live, and hold the secret once; the values held it once more.
    assert_eq!(world.holders(&format!("{SECRET} 7")), [""; 0]);
    assert_eq!(users.get(key(7)).unwrap().unwrap(), b"public");
    assert_eq!(users.count::<&str>(..).unwrap(), 300);
    // With no further write there is no further work.
    let compactions = db.metrics().compactions;
    world.pass(3 * BOUND.as_secs());
    assert_eq!(db.metrics().compactions, compactions);
}

#[test]
fn keyspaces_without_a_bound_cost_nothing_and_keep_what_they_have() {
    let world = World::new();
    let db = world.open();
    db.put("key", SECRET).unwrap();
    db.delete("key").unwrap();
    world.pass(3 * BOUND.as_secs());
    assert_eq!((db.purged_through(), db.metrics().purge_lag_micros), (0, 0));
    assert_eq!(db.metrics().flushes, 0);
    assert!(!world.holders(SECRET).is_empty());
    // The bound can be set while the keyspace is open, and taken away.
    db.set_options(bounded()).unwrap();
    world.pass(BOUND.as_secs());
    assert_eq!(world.holders(SECRET), [""; 0]);
    assert_eq!(db.purged_through(), 2);
    db.set_options(KeyspaceOptions::new().purge_within(None)).unwrap();
    db.put("key", SECRET).unwrap();
    db.delete("key").unwrap();
    world.pass(3 * BOUND.as_secs());
    assert_eq!(db.purged_through(), 2);
}

#[test]
fn a_bound_is_stored_with_the_keyspace() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    fill(&users, "value");
    drop((users, db));
    let world = World::after(world.fs.process_crash());
    let db = world.open();
    let users = db.keyspace("users", KeyspaceOptions::new()).unwrap();
    for number in 0..300 {
        users.delete(key(number)).unwrap();
    }
    world.pass(BOUND.as_secs());
    assert_eq!(world.holders(SECRET), [""; 0]);
}

#[test]
fn a_snapshot_holds_back_what_it_sees_and_nothing_that_was_deleted_before() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    users.put("before", SECRET).unwrap();
    users.delete("before").unwrap();
    users.put("after", "a value that a snapshot sees").unwrap();
    let snapshot = db.snapshot().unwrap();
    users.delete("after").unwrap();
    let deleted = db.metrics().visible_sequence;
    world.pass(3 * BOUND.as_secs());
    assert_eq!(db.purged_through(), deleted - 1);
    assert_eq!(world.holders(SECRET), [""; 0]);
    assert!(!world.holders("a value that a snapshot sees").is_empty());
    assert_eq!(snapshot.get_in(&users, "after").unwrap().unwrap(), b"a value that a snapshot sees");
    // It is overdue, and who holds it can be seen.
    let lag = db.metrics().purge_lag_micros;
    assert!(lag > 2 * 3600 * SECOND, "{lag}");
    assert!(db.pins().iter().any(|pin| pin.kind == PinKind::Snapshot && pin.sequence == Some(deleted - 1)));
    drop(snapshot);
    world.pass(BOUND.as_secs());
    assert!(db.purged_through() >= deleted);
    assert_eq!(world.holders("a value that a snapshot sees"), [""; 0]);
}

#[test]
fn an_iterator_holds_back_the_files_that_it_reads() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    fill(&users, SECRET);
    db.flush().unwrap();
    let mut iter = users.iter();
    assert!(iter.next().is_some());
    users.delete_range::<&str>("".."a").unwrap();
    let deleted = db.metrics().visible_sequence;
    world.pass(3 * BOUND.as_secs());
    assert!(db.purged_through() < deleted);
    assert_eq!(iter.count(), 299);
    world.pass(60);
    assert!(db.purged_through() >= deleted, "it is looked at each second");
    assert_eq!(world.holders(SECRET), [""; 0]);
    // The file stays gone.
    assert_eq!(holders(&world.fs.power_cut(&mut AllLost), SECRET), [""; 0]);
}

#[test]
fn a_keyspace_that_is_dropped_leaves_all_files() {
    let world = World::new();
    let db = world.open();
    db.put("stays", "here").unwrap();
    let users = db.keyspace("users", bounded()).unwrap();
    fill(&users, SECRET);
    world.pass(60);
    users.put("last", SECRET).unwrap();
    world.pass(60);
    drop(users);
    db.drop_keyspace("users").unwrap();
    world.pass(BOUND.as_secs());
    assert_eq!(world.holders(SECRET), [""; 0]);
    // Then there is no bound any more.
    let purged = db.purged_through();
    db.put("more", "written").unwrap();
    world.pass(2 * BOUND.as_secs());
    assert_eq!((db.purged_through(), db.metrics().purge_lag_micros), (purged, 0));
    assert_eq!(db.get("stays").unwrap().unwrap(), b"here");
}

#[test]
fn large_values_leave_blob_files() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded().blobs_from(1024)).unwrap();
    let large =
        |number: u32| format!("{number} {SECRET} {}", "x".repeat(3000 + 300_000 * (number as usize % 2)));
    for number in 0..6 {
        users.put([number as u8], large(number)).unwrap();
    }
    db.flush().unwrap();
    // One is deleted, one overwritten, one never comes to a table.
    users.delete([0]).unwrap();
    users.put([1], "small").unwrap();
    users.put([7], large(7)).unwrap();
    users.delete([7]).unwrap();
    let deleted = db.metrics().visible_sequence;
    world.pass(BOUND.as_secs());
    assert!(db.purged_through() >= deleted);
    for number in [0, 1, 7] {
        assert_eq!(world.holders(&format!("{number} {SECRET}")), [""; 0]);
    }
    for number in 2..6 {
        assert_eq!(users.get([number as u8]).unwrap().unwrap(), large(number).as_bytes());
    }
}

#[test]
fn a_change_slot_holds_back_its_history() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    db.change_slot("audit", 1 << 30).unwrap();
    users.put("key", SECRET).unwrap();
    users.delete("key").unwrap();
    let deleted = db.metrics().visible_sequence;
    world.pass(3 * BOUND.as_secs());
    assert!(db.purged_through() < deleted);
    assert!(!world.holders(SECRET).is_empty());
    let held = db.pins().into_iter().find(|pin| pin.kind == PinKind::ChangeSlot).unwrap();
    assert_eq!(held.label.as_deref(), Some("audit"));
    db.drop_change_slot("audit").unwrap();
    world.pass(60);
    assert!(db.purged_through() >= deleted);
    assert_eq!(world.holders(SECRET), [""; 0]);
}

#[test]
fn parts_of_the_log_that_were_set_aside_leave() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    let aside = world.fs.create_new(Path::new("/db/000001.wal.dropped")).unwrap();
    aside.write_at(SECRET.as_bytes(), 0).unwrap();
    let foreign = world.fs.create_new(Path::new("/db/notes.txt")).unwrap();
    foreign.write_at(b"not ours", 0).unwrap();
    users.put("key", "value").unwrap();
    world.pass(BOUND.as_secs());
    assert_eq!(world.holders(SECRET), [""; 0]);
    assert_eq!(world.holders("not ours"), ["notes.txt"]);
}

#[test]
fn what_only_a_snapshot_kept_in_the_last_level_leaves() {
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    users.put("key", SECRET).unwrap();
    let snapshot = db.snapshot().unwrap();
    users.put("key", "newer").unwrap();
    // Both versions come to the last level, and no tombstone does.
    users.compact_range::<&str>(..).unwrap();
    drop(snapshot);
    assert!(!world.holders(SECRET).is_empty());
    world.pass(BOUND.as_secs());
    assert_eq!(world.holders(SECRET), [""; 0]);
    assert_eq!(users.get("key").unwrap().unwrap(), b"newer");
}

#[test]
fn a_purge_waits_while_background_work_is_paused_and_when_the_disk_fails() {
    use lsm_engine::vfs::{Fault, OperationKind};
    let world = World::new();
    let db = world.open();
    let users = db.keyspace("users", bounded()).unwrap();
    fill(&users, SECRET);
    users.put("a live key", "in the same table").unwrap();
    db.flush().unwrap();
    users.delete_range::<&str>("".."a").unwrap();
    db.flush().unwrap();
    let deleted = db.metrics().visible_sequence;
    db.pause_background_work().unwrap();
    world.pass(2 * BOUND.as_secs());
    assert!(db.purged_through() < deleted);
    // A merge that fails again and again is tried now and then, and not without end.
    let failed = Fault::on(OperationKind::Write, std::io::ErrorKind::Other).named(".sst").sticky();
    let failed = world.fs.inject(failed);
    db.resume_background_work().unwrap();
    world.pass(600);
    assert!((1..2000).contains(&failed.fired()), "{failed:?}");
    assert!(db.purged_through() < deleted);
    world.fs.clear_faults();
    // Whatever fails once, or for a while, is done later.
    let kinds = [OperationKind::Remove, OperationKind::SyncDir, OperationKind::ReadDir, OperationKind::Open];
    let faults = kinds.map(|kind| world.fs.inject(Fault::on(kind, std::io::ErrorKind::Other)));
    world.pass(2 * BOUND.as_secs());
    assert!(faults.iter().all(|fault| fault.fired() > 0), "{faults:?}");
    assert!(db.purged_through() >= deleted);
    assert_eq!(world.holders(SECRET), [""; 0]);
}

#[test]
fn bounds_that_cannot_be_kept_are_refused() {
    let world = World::new();
    let db = world.open();
    let refused = |options: KeyspaceOptions| {
        let error = db.keyspace("refused", options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("purge_within"), "{error}");
        assert!(db.existing_keyspace("refused").unwrap().is_none());
    };
    refused(KeyspaceOptions::new().purge_within(Duration::from_secs(9)));
    refused(KeyspaceOptions::new().purge_within(Duration::MAX));
    refused(bounded().compaction(Arc::new(Fifo::default())));
    let fifo = db.keyspace("fifo", KeyspaceOptions::new().compaction(Arc::new(Fifo::default()))).unwrap();
    let error = fifo.set_options(bounded()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    db.keyspace("shortest", KeyspaceOptions::new().purge_within(Duration::from_secs(10))).unwrap();
}

/// Random writes of several keys, with snapshots and crashes; whatever the database says is purged is in no file.
#[test]
fn what_is_said_to_be_purged_is_in_no_file() {
    lsm_dev::each_seed(3, |seed| {
        let mut random = Random(seed);
        let mut world = World::new();
        let mut db = world.open();
        let mut users = db.keyspace("users", bounded()).unwrap();
        // For each value that was overwritten or deleted, the number of the write that did it.
        let mut gone: Vec<(String, u64)> = Vec::new();
        let mut live: Vec<Option<String>> = vec![None; 8];
        let mut snapshots = Vec::new();
        for step in 0..250 {
            let at = random.below(live.len());
            match random.below(20) {
                0..8 => {
                    let value = format!("value {seed} {step} of {at} ends");
                    users.put([b'k', at as u8], &value).unwrap();
                    gone.extend(live[at].replace(value).map(|old| (old, db.metrics().visible_sequence)));
                }
                8..11 => {
                    users.delete([b'k', at as u8]).unwrap();
                    gone.extend(live[at].take().map(|old| (old, db.metrics().visible_sequence)));
                }
                11 => db.flush().unwrap(),
                12 => snapshots.push(db.snapshot().unwrap()),
                13 if !snapshots.is_empty() => drop(snapshots.swap_remove(random.below(snapshots.len()))),
                14 if random.one_in(3) => {
                    snapshots.clear();
                    drop((users, db));
                    world = World::after(world.fs.process_crash());
                    db = world.open();
                    users = db.keyspace("users", KeyspaceOptions::new()).unwrap();
                }
                15 => users.compact_range::<&str>(..).unwrap(),
                _ => world.pass(random.below(3000) as u64),
            }
            let purged = db.purged_through();
            for (value, _) in gone.extract_if(.., |(_, by)| *by <= purged) {
                assert_eq!(
                    world.holders(&value),
                    [""; 0],
                    "step {step}: {value:?} is purged through {purged}"
                );
            }
        }
        snapshots.clear();
        world.pass(2 * BOUND.as_secs());
        assert!(db.purged_through() >= gone.iter().map(|(_, by)| *by).max().unwrap_or(0));
        for (at, value) in live.iter().enumerate() {
            let found = users.get([b'k', at as u8]).unwrap();
            assert_eq!(found.as_deref(), value.as_ref().map(String::as_bytes));
        }
    });
}
