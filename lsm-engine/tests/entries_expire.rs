//! An entry that expires is there until its time, and then it is as if it had been deleted: for gets, scans in both
//! directions, snapshots, after flushes, compactions, reopening and jumps of the wall clock. Its value leaves the disk.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use lsm_dev::Random;
use lsm_engine::compaction_policies::{
    CompactionPolicy, Fifo, FifoOptions, LazyLeveled, LazyLeveledOptions, Leveled, LeveledOptions,
    SizeTiered, SizeTieredOptions,
};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, ErrorKind, KeyspaceOptions, Options, Snapshot, WriteBatch};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;
/// A time in 2023.
const START: u64 = 1_700_000_000_000_000;

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
    /// What the clock of expiry should show, and the monotonic time when it did.
    clock: Cell<(u64, u64)>,
}

impl World {
    fn new() -> Self {
        let env = Arc::new(SimEnv::new(1));
        env.set_unix_micros(START);
        Self { fs: SimFs::new(), clock: Cell::new((START, env.monotonic_micros())), env }
    }

    /// The highest wall clock so far, plus the time that passed since. Work takes time, too.
    fn now(&self) -> u64 {
        let (before, then) = self.clock.get();
        let monotonic = self.env.monotonic_micros();
        let now = (before + monotonic - then).max(self.env.unix_micros());
        self.clock.set((now, monotonic));
        now
    }

    /// Lets time pass up to just before `micros`.
    fn pass_until(&self, micros: u64) {
        self.pass(micros - 1 - self.now());
    }

    fn options(&self) -> Options {
        let options =
            Options::new().vfs(Arc::new(self.fs.clone())).env(Arc::clone(&self.env) as Arc<dyn Env>);
        options.memory(1 << 20)
    }

    fn open(&self) -> Db {
        self.options().open("/db").unwrap()
    }

    fn open_with(&self, policy: Arc<dyn CompactionPolicy>) -> Db {
        self.options().compaction(policy).open("/db").unwrap()
    }

    fn pass(&self, micros: u64) {
        self.env.advance(micros);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn keys(db: &Db) -> Vec<String> {
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    let forward: Vec<_> = db.iter().map(|entry| text(&entry.unwrap().0)).collect();
    let mut backward: Vec<_> = db.iter().rev().map(|entry| text(&entry.unwrap().0)).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let mut cursor = db.cursor().unwrap();
    cursor.last().unwrap();
    assert_eq!(cursor.key().map(text), forward.last().cloned());
    forward
}

fn keys_of(snapshot: &Snapshot) -> Vec<Vec<u8>> {
    snapshot.iter().map(|entry| entry.unwrap().0.to_vec()).collect()
}

#[test]
fn a_value_is_there_until_its_time_in_memory_and_on_disk() {
    for flushed in [false, true] {
        let world = World::new();
        let db = world.open();
        db.put("b", "stays").unwrap();
        db.put_expiring("a", "one", seconds(10)).unwrap();
        let until = world.now() + 10 * SECOND;
        let mut batch = WriteBatch::new();
        batch.put_expiring("c", "three", seconds(20)).put("d", "four");
        db.write(batch).unwrap();
        if flushed {
            db.flush().unwrap();
        }
        world.pass_until(until);
        assert_eq!(db.get("a").unwrap().unwrap(), b"one");
        assert_eq!(db.multi_get(["a", "c"]).unwrap()[0].as_deref(), Some(&b"one"[..]));
        assert_eq!(keys(&db), ["a", "b", "c", "d"]);
        let first = db.iter().next().unwrap().unwrap();
        assert_eq!(first.1, b"one", "without its time");
        assert_eq!(db.iter().next_back().unwrap().unwrap().1, b"four");
        world.pass(1);
        assert_eq!(db.get("a").unwrap(), None);
        assert!(!db.contains_key("a").unwrap());
        assert_eq!(keys(&db), ["b", "c", "d"]);
        assert_eq!(db.prefix("c").next().unwrap().unwrap().1, b"three");
        world.pass(10 * SECOND);
        assert_eq!(keys(&db), ["b", "d"]);
        assert_eq!(db.range("c"..="c").count(), 0);
    }
}

#[test]
fn what_has_expired_never_uncovers_what_it_hid() {
    let world = World::new();
    let db = world.open();
    db.put("a", "old").unwrap();
    db.flush().unwrap();
    db.put_expiring("a", "new", seconds(5)).unwrap();
    world.pass(5 * SECOND);
    for step in 0..4 {
        assert_eq!(db.get("a").unwrap(), None, "step {step}");
        assert!(keys(&db).is_empty(), "step {step}");
        match step {
            0 => db.flush().unwrap(),
            1 => db.wait_for_compactions().unwrap(),
            _ => db.compact_range::<&[u8]>(..).unwrap(),
        }
    }
    // A later put counts again, also one that does not expire.
    db.put("a", "newer").unwrap();
    world.pass(DAY);
    assert_eq!(db.get("a").unwrap().unwrap(), b"newer");
}

#[test]
fn nothing_expires_under_a_snapshot_or_an_iterator() {
    let world = World::new();
    let db = world.open();
    for number in 0..60 {
        db.put_expiring(format!("key{number:02}"), "value", seconds(10)).unwrap();
    }
    db.flush().unwrap();
    db.put_expiring("z", "memtable", seconds(10)).unwrap();
    let snapshot = db.snapshot().unwrap();
    let (mut forward, mut backward) = (db.iter(), db.iter());
    let mut cursor = db.cursor().unwrap();
    world.pass(10 * SECOND);
    // Others walk over the expired entries and note empty spans, and compactions drop what they may.
    for _ in 0..4 {
        assert!(keys(&db).is_empty());
    }
    db.flush().unwrap();
    db.compact_range::<&[u8]>(..).unwrap();
    db.wait_for_compactions().unwrap();
    for _ in 0..2 {
        assert_eq!(keys_of(&snapshot).len(), 61);
        assert_eq!(snapshot.get("key00").unwrap().unwrap(), b"value");
        assert_eq!(snapshot.get("z").unwrap().unwrap(), b"memtable");
        assert_eq!(snapshot.iter().rev().count(), 61);
    }
    assert_eq!(forward.by_ref().count(), 61);
    assert_eq!(backward.by_ref().rev().count(), 61);
    cursor.seek("key30").unwrap();
    assert_eq!(cursor.value(), Some(&b"value"[..]));
    cursor.prev().unwrap();
    assert_eq!(cursor.entry(), Some((&b"key29"[..], &b"value"[..])));
    drop(snapshot);
    assert!(keys(&db).is_empty());
    assert!(keys_of(&db.snapshot().unwrap()).is_empty());
}

#[test]
fn a_keyspace_with_a_time_to_live_applies_it_to_each_put_and_keeps_it() {
    let world = World::new();
    let db = world.open();
    let short = db.keyspace("short", KeyspaceOptions::new().ttl(seconds(10))).unwrap();
    short.put("a", "one").unwrap();
    let mut batch = WriteBatch::new();
    batch.put_in(&short, "b", "two").put("b", "stays").put_expiring_in(&short, "c", "three", seconds(30));
    batch.delete_in(&short, "d").single_delete_in(&short, "e").delete_range_in(&short, "x".."z");
    db.write(batch).unwrap();
    let count = |keyspace: &lsm_engine::Keyspace| keyspace.iter().count();
    assert_eq!((count(&short), db.iter().count()), (3, 1));
    assert_eq!(short.get("b").unwrap().unwrap(), b"two");
    world.pass(10 * SECOND);
    assert_eq!((count(&short), db.iter().count()), (1, 1));
    world.pass(20 * SECOND);
    assert_eq!((count(&short), db.iter().count()), (0, 1));
    db.close().unwrap();

    // Opened by name alone, it is as it was.
    let db = world.open();
    let short = db.keyspace("short", KeyspaceOptions::new()).unwrap();
    short.put("a", "one").unwrap();
    world.pass(10 * SECOND);
    assert_eq!(count(&short), 0);
    short.put("a", "before").unwrap();
    db.close().unwrap();

    // A changed time to live is for later writes.
    let db = world.open();
    let long = db.keyspace("short", KeyspaceOptions::new().ttl(None)).unwrap();
    long.put("b", "after").unwrap();
    world.pass(10 * SECOND);
    assert_eq!((long.get("a").unwrap(), long.get("b").unwrap().is_some()), (None, true));
    db.close().unwrap();
    let db = world.open();
    let long = db.keyspace("short", KeyspaceOptions::new()).unwrap();
    long.put("c", "after").unwrap();
    world.pass(DAY);
    assert_eq!(count(&long), 2);
}

#[test]
fn time_counts_while_the_database_is_closed_and_never_runs_back() {
    let world = World::new();
    let db = world.open();
    db.put_expiring("a", "1", seconds(100)).unwrap();
    db.put_expiring("b", "2", seconds(300)).unwrap();
    db.put_expiring("c", "3", seconds(900)).unwrap();
    db.close().unwrap();
    // Closed, time passes by the wall clock.
    world.pass(100 * SECOND);
    let db = world.open();
    assert_eq!(keys(&db), ["b", "c"]);
    // A wall clock that is set back has no effect while the database is open,
    world.env.set_unix_micros(START - DAY);
    assert_eq!(keys(&db), ["b", "c"]);
    world.pass(200 * SECOND);
    assert_eq!(keys(&db), ["c"]);
    db.close().unwrap();
    // nor when it is opened: the time of the closed database is unknown then, so the clock goes on where it stood.
    let db = world.open();
    assert_eq!(keys(&db), ["c"]);
    db.put_expiring("d", "4", seconds(50)).unwrap();
    world.pass(50 * SECOND);
    assert_eq!(keys(&db), ["c"]);
    // One that is set ahead expires what it passes, for good.
    world.env.set_unix_micros(START + 400 * DAY);
    assert!(keys(&db).is_empty());
    world.env.set_unix_micros(START);
    assert!(keys(&db).is_empty());
    // What is written now still expires in time.
    db.put_expiring("e", "5", seconds(50)).unwrap();
    assert_eq!(keys(&db), ["e"]);
    db.close().unwrap();
    let db = world.open();
    assert_eq!(keys(&db), ["e"]);
    world.pass(50 * SECOND);
    assert!(keys(&db).is_empty());
}

#[test]
fn a_crash_and_a_clock_that_is_set_back_undo_a_minute_at_most() {
    let world = World::new();
    let db = world.open();
    db.put_expiring("a", "1", seconds(10)).unwrap();
    db.put_expiring("b", "2", seconds(200)).unwrap();
    db.sync().unwrap();
    // Nothing is written; time passes in small steps, as jobs see it.
    for _ in 0..150 {
        world.pass(SECOND);
        world.env.run_until_idle();
    }
    assert_eq!(keys(&db), ["b"]);
    let fs = world.fs.process_crash();
    drop(db);
    let mut after = World::new();
    after.fs = fs;
    after.env.set_unix_micros(START - DAY);
    let db = after.open();
    assert_eq!(keys(&db), ["b"], "a expired more than a minute before the crash");
    after.pass(130 * SECOND);
    assert!(keys(&db).is_empty());
}

#[test]
fn a_read_only_database_knows_the_time_too() {
    let world = World::new();
    let db = world.open();
    db.put_expiring("a", "1", seconds(10)).unwrap();
    db.put_expiring("b", "2", seconds(20)).unwrap();
    db.close().unwrap();
    world.pass(10 * SECOND);
    let db = world.options().read_only(true).open("/db").unwrap();
    assert_eq!(keys(&db), ["b"]);
    world.pass(10 * SECOND);
    assert!(keys(&db).is_empty());
}

#[test]
fn times_that_cannot_be_are_refused_by_name() {
    let world = World::new();
    let db = world.open();
    let error = db.put_expiring("session", "x", Duration::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("key \"session\" cannot expire after"), "{error}");
    let mut batch = WriteBatch::new();
    batch.put("a", "1").put_expiring("session", "x", Duration::MAX);
    assert!(db.write(batch).unwrap_err().to_string().contains("session"));
    assert_eq!(db.get("a").unwrap(), None, "nothing half done");
    for ttl in [Duration::MAX, Duration::from_nanos(1)] {
        let error = db.keyspace("k", KeyspaceOptions::new().ttl(ttl)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("KeyspaceOptions::ttl"), "{error}");
    }
    // The longest times are no problem, and the shortest is over at once.
    db.put_expiring("long", "x", Duration::from_secs(9_000_000_000_000)).unwrap();
    db.put_expiring("short", "x", Duration::ZERO).unwrap();
    assert_eq!(keys(&db), ["long"]);
}

fn policies() -> [Arc<dyn CompactionPolicy>; 3] {
    let (base_bytes, target_table_bytes) = (128 << 10, 32 << 10);
    let leveled = LeveledOptions { base_bytes, target_table_bytes, ..LeveledOptions::default() };
    let lazy = LazyLeveledOptions { base_bytes, target_table_bytes, ..LazyLeveledOptions::default() };
    let tiered = SizeTieredOptions { target_table_bytes, ..SizeTieredOptions::default() };
    [Arc::new(Leveled::new(leveled)), Arc::new(LazyLeveled::new(lazy)), Arc::new(SizeTiered::new(tiered))]
}

fn table_bytes(db: &Db) -> u64 {
    db.metrics().keyspaces[0].levels.iter().map(|level| level.bytes).sum()
}

#[test]
fn expired_values_leave_the_disk_by_themselves() {
    for policy in policies() {
        let world = World::new();
        let db = world.open_with(policy);
        let name = db.default_keyspace();
        let value = [7; 100];
        // Below, what was there before; above, values that expire at different times and some that stay.
        for number in 0..2000_u32 {
            db.put(number.to_be_bytes(), value).unwrap();
        }
        db.compact_range::<&[u8]>(..).unwrap();
        for number in 0..8000_u32 {
            if number % 10 == 0 {
                db.put(number.to_be_bytes(), value).unwrap();
            } else {
                db.put_expiring(number.to_be_bytes(), value, seconds(u64::from(number % 100))).unwrap();
            }
        }
        db.flush().unwrap();
        db.wait_for_compactions().unwrap();
        // A snapshot that sees them keeps them.
        let snapshot = db.snapshot().unwrap();
        let seen = snapshot.iter().count();
        assert!(seen > 700, "{seen}");
        world.pass(100 * SECOND);
        db.wait_for_compactions().unwrap();
        assert_eq!(snapshot.iter().count(), seen);
        let with_snapshot = table_bytes(&db);
        drop(snapshot);
        // Nobody writes or asks for a compaction; time passes.
        for _ in 0..20 {
            world.pass(MINUTE);
            db.wait_for_compactions().unwrap();
        }
        let left = table_bytes(&db);
        assert!(left < with_snapshot / 3, "{name:?}: {left} bytes of {with_snapshot} are left");
        assert_eq!(db.iter().count(), 800);
    }
}

#[test]
fn a_single_expired_entry_leaves_the_disk_within_eight_days() {
    for policy in policies() {
        let world = World::new();
        let db = world.open_with(policy);
        db.put_expiring("a", [b'x'; 5000], seconds(1)).unwrap();
        for number in 0..100 {
            db.put(format!("key{number}"), "value").unwrap();
        }
        db.flush().unwrap();
        let size = || {
            db.wait_for_compactions().unwrap();
            db.metrics().keyspaces[0].levels.iter().map(|level| level.raw_bytes).sum::<u64>()
        };
        world.pass(DAY);
        assert!(size() > 5000, "a table is not rewritten for every entry");
        world.pass(7 * DAY);
        assert!(size() < 2000);
        assert_eq!(db.iter().count(), 100);
    }
}

#[test]
fn fifo_hides_expired_entries_and_keeps_its_own_bounds() {
    let world = World::new();
    let options = FifoOptions { time_to_live_micros: 2 * DAY, ..FifoOptions::default() };
    let db = world.open_with(Arc::new(Fifo::new(options)));
    db.put_expiring("a", "1", seconds(10)).unwrap();
    db.put("b", "2").unwrap();
    db.flush().unwrap();
    world.pass(DAY);
    db.wait_for_compactions().unwrap();
    assert_eq!(keys(&db), ["b"]);
    // Set back, neither clock runs back; rewriting the table would have made it young again.
    world.env.set_unix_micros(START);
    assert_eq!(keys(&db), ["b"]);
    world.pass(DAY);
    db.wait_for_compactions().unwrap();
    assert!(keys(&db).is_empty());
    // A run of which all has expired need not wait for the bounds.
    db.put_expiring("c", "3", seconds(10)).unwrap();
    db.flush().unwrap();
    db.wait_for_compactions().unwrap();
    let snapshot = db.snapshot().unwrap();
    world.pass(10 * SECOND);
    db.wait_for_compactions().unwrap();
    assert_eq!(snapshot.get("c").unwrap().unwrap(), b"3");
    assert!(table_bytes(&db) > 0, "a snapshot sees it");
    drop(snapshot);
    world.pass(MINUTE);
    db.wait_for_compactions().unwrap();
    assert_eq!(table_bytes(&db), 0);
}

/// What a key has: a value, and until when.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;
/// What a reader sees.
type Seen = Vec<(Vec<u8>, Vec<u8>)>;

fn seen(model: &Model, now: u64) -> Seen {
    let live = model.iter().filter(|(_, (_, until))| *until > now);
    live.map(|(key, (value, _))| (key.clone(), value.clone())).collect()
}

fn check(snapshot: &Snapshot, expected: &[(Vec<u8>, Vec<u8>)], random: &mut Random, context: &str) {
    let entries = |iter: lsm_engine::Iter| -> Seen {
        iter.map(|entry| entry.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    };
    assert_eq!(entries(snapshot.iter()), expected, "{context}");
    let mut backward: Vec<_> = snapshot.iter().rev().map(|entry| entry.unwrap().0.to_vec()).collect();
    backward.reverse();
    assert!(backward.iter().eq(expected.iter().map(|(key, _)| key)), "{context}");
    for _ in 0..10 {
        let key = vec![random.below(40) as u8];
        let wanted = expected.iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone());
        assert_eq!(snapshot.get(&key).unwrap().map(|value| value.to_vec()), wanted, "{context}: {key:?}");
        let mut cursor = snapshot.cursor();
        cursor.seek(&key).unwrap();
        let next = expected.iter().find(|(other, _)| *other >= key).map(|(key, _)| &**key);
        assert_eq!(cursor.key(), next, "{context}: seek {key:?}");
        cursor.seek_for_prev(&key).unwrap();
        let before = expected.iter().rev().find(|(other, _)| *other <= key).map(|(key, _)| &**key);
        assert_eq!(cursor.key(), before, "{context}: seek_for_prev {key:?}");
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Excluded(&*key), Bound::Unbounded);
        let count = expected.iter().filter(|(other, _)| *other > key).count();
        assert_eq!(snapshot.range::<&[u8]>(range).count(), count, "{context}");
    }
}

#[test]
fn random_histories_agree_with_a_map_whose_entries_have_times() {
    let seeds = std::env::var("LSM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(12);
    for seed in 0..seeds {
        let mut random = Random(seed);
        let world = World::new();
        let mut policy = policies()[random.below(3)].clone();
        let mut db = world.open_with(policy.clone());
        let mut model = Model::new();
        let mut snapshots: Vec<(Snapshot, Seen)> = Vec::new();
        for step in 0..1500 {
            let context = format!("seed {seed}, step {step}");
            let key = vec![random.below(40) as u8];
            let value = step.to_string().into_bytes();
            match random.below(40) {
                0..8 => {
                    db.put(&key, &value).unwrap();
                    model.insert(key, (value, u64::MAX));
                }
                8..20 => {
                    let micros = random.below(100) as u64 * SECOND;
                    db.put_expiring(&key, &value, Duration::from_micros(micros)).unwrap();
                    model.insert(key, (value, world.now() + micros));
                }
                20..23 => {
                    db.delete(&key).unwrap();
                    model.remove(&key);
                }
                23 => {
                    // Misuse included: a key may have been put more than once.
                    db.single_delete(&key).unwrap();
                    model.remove(&key);
                }
                24 => {
                    let end = vec![key[0] + random.below(10) as u8];
                    db.delete_range(&key..&end).unwrap();
                    model.retain(|other, _| *other < key || *other >= end);
                }
                25..27 => {
                    let mut batch = WriteBatch::new();
                    for offset in 0..4 {
                        let key = vec![key[0] + offset];
                        let micros = random.below(100) as u64 * SECOND;
                        batch.put_expiring(&key, &value, Duration::from_micros(micros));
                        model.insert(key, (value.clone(), world.now() + micros));
                    }
                    db.write(batch).unwrap();
                }
                27..31 => {
                    world.pass(random.below(20) as u64 * SECOND);
                }
                31 => {
                    // A wall clock that is set back has no effect.
                    world.env.set_unix_micros(world.now() - random.next() % DAY);
                }
                32 => {
                    world.env.set_unix_micros(world.now() + random.below(50) as u64 * SECOND);
                    // The database looks at its clock.
                    drop(db.snapshot().unwrap());
                }
                33 => db.flush().unwrap(),
                34 => db.wait_for_compactions().unwrap(),
                35 => db.compact_range(..key).unwrap(),
                36 if snapshots.len() < 4 => {
                    snapshots.push((db.snapshot().unwrap(), seen(&model, world.now())));
                }
                37 if !snapshots.is_empty() => {
                    snapshots.swap_remove(random.below(snapshots.len()));
                }
                38 => {
                    snapshots.clear();
                    // Closed, only the wall clock tells what passes.
                    world.env.set_unix_micros(world.now());
                    db.close().unwrap();
                    policy = policies()[random.below(3)].clone();
                    let keyspace = KeyspaceOptions::new().compaction(policy.clone()).change_compaction(true);
                    db = world.options().keyspace(keyspace).open("/db").unwrap();
                }
                _ => {
                    let expected = seen(&model, world.now());
                    check(&db.snapshot().unwrap(), &expected, &mut random, &context);
                    let entries: Vec<_> = db.iter().map(|entry| entry.unwrap().0.to_vec()).collect();
                    assert!(entries.iter().eq(expected.iter().map(|(key, _)| key)), "{context}");
                    for (snapshot, expected) in &snapshots {
                        check(snapshot, expected, &mut random, &context);
                    }
                }
            }
        }
        drop((snapshots, db));
        world.env.drop_jobs();
    }
}
