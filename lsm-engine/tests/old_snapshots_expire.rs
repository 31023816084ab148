//! Snapshots, transactions and iterators are listed with their age. Old ones expire, if the options say so: their reads
//! fail and never return other data, and the disk gets its space back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Db, ErrorKind, EventKind, Iter, KeyspaceOptions, Options, PinKind, Result, Snapshot};

/// A small random generator (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const MINUTE: u64 = 60_000_000;

struct World {
    fs: SimFs,
    env: Arc<SimEnv>,
    db: Db,
}

impl World {
    fn new(age_max: Option<Duration>) -> Self {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let mut options = Options::new().memory(4 << 20).vfs(Arc::new(fs.clone()));
        if let Some(age_max) = age_max {
            options = options.snapshot_age_max(age_max);
        }
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        Self { fs, env, db }
    }

    fn with_minute() -> Self {
        Self::new(Some(Duration::from_secs(60)))
    }

    /// Lets time pass, and background work see it.
    fn pass(&self, micros: u64) {
        self.env.advance(micros);
        for _ in 0..3 {
            self.env.advance(1_100_000);
            self.env.run_until_idle();
        }
    }

    /// Writes a megabyte that cannot be compressed to tables.
    fn fill(&self, seed: u64) {
        let mut random = Random(seed);
        for key in 0..1000 {
            let value: Vec<u8> = (0..1000).map(|_| random.below(256) as u8).collect();
            self.db.put(format!("key{key:03}"), value).unwrap();
        }
        self.db.flush().unwrap();
        self.db.compact_range::<&str>(..).unwrap();
    }

    fn table_bytes(&self) -> u64 {
        let tables =
            self.fs.paths().into_iter().filter(|path| path.extension().is_some_and(|sst| sst == "sst"));
        tables.map(|path| self.fs.metadata(&path).unwrap().len).sum()
    }

    fn end(self) {
        drop(self.db);
        self.env.drop_jobs();
    }
}

#[track_caller]
fn assert_expired<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotExpired, "{error}");
    assert!(error.to_string().contains("snapshot_age_max"), "{error}");
}

#[test]
fn a_leaked_snapshot_expires_and_the_disk_gets_its_space_back() {
    let world = World::with_minute();
    world.fill(1);
    let leaked = world.db.snapshot().unwrap().labeled("leaked");
    world.db.default_keyspace().clear().unwrap();
    let kept = world.table_bytes();
    world.pass(50 * 1_000_000);
    assert_eq!(world.table_bytes(), kept, "the snapshot still reads it");
    assert_eq!(leaked.iter().count(), 1000);
    world.pass(MINUTE);
    assert_eq!(world.table_bytes(), 0);
    assert_expired(leaked.get("key001"));
    assert_eq!((world.db.pins(), world.db.metrics().snapshots), (Vec::new(), 0));
    let mut events = world.db.events();
    let event = std::iter::from_fn(|| events.try_next())
        .find_map(|event| match event.kind {
            EventKind::SnapshotExpired { label, sequence, age_micros } => Some((label, sequence, age_micros)),
            _ => None,
        })
        .expect("it is an event");
    assert_eq!((event.0.as_deref(), event.1), (Some("leaked"), leaked.sequence()));
    assert!(event.2 > MINUTE);
    drop(leaked);
    world.end();
}

#[test]
fn versions_that_only_an_expired_snapshot_sees_are_compacted_away() {
    let world = World::with_minute();
    world.fill(1);
    let single = world.table_bytes();
    let leaked = world.db.snapshot().unwrap();
    world.fill(2);
    assert!(world.table_bytes() > single * 3 / 2, "both versions are kept");
    world.pass(2 * MINUTE);
    // This merges the tables with both versions.
    world.fill(3);
    world.pass(0);
    assert!(world.table_bytes() < single * 5 / 4, "{} of {single}", world.table_bytes());
    assert_expired(leaked.get("key001"));
    drop(leaked);
    world.end();
}

#[test]
fn every_read_of_an_expired_snapshot_fails() {
    let world = World::with_minute();
    let other = world.db.keyspace("other", KeyspaceOptions::new()).unwrap();
    world.db.put("key", "value").unwrap();
    other.put("key", "value").unwrap();
    let snapshot = world.db.snapshot().unwrap();
    let (mut before, mut before_iter) = (snapshot.cursor(), snapshot.iter());
    world.pass(2 * MINUTE);
    assert_expired(snapshot.get("key"));
    assert_expired(snapshot.get_in(&other, "key"));
    assert_expired(snapshot.iter().collect::<Result<Vec<_>>>());
    assert_expired(snapshot.range("a".."z").rev().collect::<Result<Vec<_>>>());
    assert_expired(snapshot.prefix("k").collect::<Result<Vec<_>>>());
    assert_expired(snapshot.range_in(&other, "a".."z").collect::<Result<Vec<_>>>());
    assert_expired(snapshot.prefix_in(&other, "k").collect::<Result<Vec<_>>>());
    assert_expired(snapshot.count("a".."z"));
    assert_expired(snapshot.first());
    assert_expired(snapshot.is_empty_in(&other));
    assert_expired(snapshot.cursor_in(&other).map(drop));
    let mut cursor = snapshot.cursor();
    assert_expired(cursor.first());
    assert_expired(cursor.last());
    assert_expired(cursor.seek("key"));
    assert_expired(cursor.seek_for_prev("key"));
    assert_eq!(cursor.key(), None);
    // What was begun before is right, since nothing that it reads is out of date.
    before.first().unwrap();
    assert_eq!(before.key(), Some(&b"key"[..]));
    assert_eq!(before_iter.next().unwrap().unwrap().1, "value");
    assert_eq!(world.db.get("key").unwrap().unwrap(), "value");
    drop((before, before_iter, cursor, snapshot, other));
    world.end();
}

#[test]
fn an_iterator_over_data_that_is_out_of_date_expires_and_releases_it() {
    let world = World::with_minute();
    world.fill(1);
    let (mut iter, mut cursor) = (world.db.iter(), world.db.cursor().unwrap());
    assert!(iter.next().unwrap().is_ok());
    cursor.last().unwrap();
    world.pass(2 * MINUTE);
    assert!(iter.next().unwrap().is_ok(), "nothing is out of date");
    world.db.default_keyspace().clear().unwrap();
    world.pass(50 * 1_000_000);
    let pins = world.db.pins();
    let [pin] = &pins[..] else { panic!("{pins:?}") };
    assert_eq!((pin.kind, pin.keyspace.as_deref()), (PinKind::Iterators, Some("default")));
    assert!(pin.age >= Duration::from_secs(50) && pin.readers >= 2, "{pin:?}");
    assert_eq!(pin.table_bytes, world.table_bytes());
    assert!(iter.next().unwrap().is_ok());
    cursor.prev().unwrap();
    world.pass(MINUTE);
    assert!(world.table_bytes() > 0, "nobody has moved them");
    assert_expired(iter.next().unwrap());
    assert!(iter.next().is_none());
    assert_expired(cursor.prev());
    assert_eq!(cursor.key(), None);
    assert_expired(cursor.first());
    world.pass(0);
    assert_eq!(world.table_bytes(), 0, "although neither is dropped");
    assert_eq!(world.db.pins(), []);
    drop((iter, cursor));
    world.end();
}

#[test]
fn a_transaction_that_is_too_old_fails_and_writes_nothing() {
    let world = World::with_minute();
    world.db.put("key", "value").unwrap();
    let reading = world.db.transaction().unwrap();
    let writing = world.db.transaction().unwrap().labeled("forgotten");
    assert_eq!(writing.get("key").unwrap().unwrap(), "value");
    writing.put("key", "changed").unwrap();
    let pins = world.db.pins();
    assert!(pins.iter().all(|pin| pin.kind == PinKind::Transaction), "{pins:?}");
    assert!(pins.iter().any(|pin| pin.label.as_deref() == Some("forgotten")));
    world.db.put("other", "value").unwrap();
    world.pass(2 * MINUTE);
    assert_expired(reading.get("key"));
    assert_expired(reading.range("a".."z").collect::<Result<Vec<_>>>());
    assert_expired(writing.commit().map(drop));
    assert_eq!(world.db.get("key").unwrap().unwrap(), "value");
    drop(reading);
    world.end();
}

#[test]
fn pins_are_listed_with_age_and_label_the_oldest_first() {
    let world = World::new(None);
    world.db.put("key", "value").unwrap();
    let oldest = world.db.snapshot().unwrap().labeled("oldest");
    world.env.advance(5_000_000);
    let young = world.db.snapshot().unwrap();
    world.env.advance(1_000_000);
    let pins = world.db.pins();
    let seen: Vec<_> =
        pins.iter().map(|pin| (pin.label.as_deref(), pin.age.as_secs(), pin.sequence)).collect();
    assert_eq!(seen, [(Some("oldest"), 6, Some(1)), (None, 1, Some(1))]);
    drop(oldest);
    assert_eq!(world.db.pins().len(), 1);
    world.pass(1000 * MINUTE);
    assert_eq!(young.get("key").unwrap().unwrap(), "value", "without the option nothing expires");
    drop(young);
    assert_eq!(world.db.pins(), []);
    world.end();
}

#[test]
fn an_age_of_less_than_a_second_is_refused_by_name() {
    let options = Options::new().snapshot_age_max(Duration::from_millis(999));
    let error = options.vfs(Arc::new(SimFs::new())).open("/db").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("snapshot_age_max"), "{error}");
}

/// Whatever a snapshot answers is what was there when it was taken.
#[test]
fn a_snapshot_answers_rightly_until_it_expires() {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (mut expired_count, mut expired_walks) = (0, 0);
    for seed in 0..20 {
        let world = World::new(Some(Duration::from_secs(10)));
        let mut random = Random(seed * 2 + 1);
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        let mut snapshots: Vec<(Snapshot, BTreeMap<String, String>)> = Vec::new();
        // Iterators, and what they still have to return.
        let mut walks: Vec<(Iter, BTreeMap<String, String>)> = Vec::new();
        for step in 0..300 {
            let key = format!("key{:02}", random.below(30));
            if random.below(10) == 0 {
                walks.retain_mut(|(iter, left)| match (iter.next(), left.pop_first()) {
                    (Some(Ok((key, value))), Some(expected)) => {
                        assert_eq!((text(&key), text(&value)), expected, "seed {seed}, step {step}");
                        true
                    }
                    (None, None) => false,
                    (Some(Err(error)), _) if error.kind() == ErrorKind::SnapshotExpired => {
                        expired_walks += 1;
                        false
                    }
                    other => panic!("seed {seed}, step {step}: {other:?}"),
                });
            }
            match random.below(14) {
                0..=3 => {
                    world.db.put(&key, format!("{step}")).unwrap();
                    model.insert(key, format!("{step}"));
                }
                4 => {
                    world.db.delete(&key).unwrap();
                    model.remove(&key);
                }
                5 => world.db.flush().unwrap(),
                6 if random.below(4) == 0 => {
                    world.db.default_keyspace().clear().unwrap();
                    model.clear();
                }
                6 => world.db.compact_range::<&str>(..).unwrap(),
                7 | 8 => snapshots.push((world.db.snapshot().unwrap(), model.clone())),
                12 => {
                    let end = format!("key{:02}", random.below(30));
                    if key < end {
                        world.db.delete_range(&key..&end).unwrap();
                        model.retain(|found, _| *found < key || *found >= end);
                    }
                }
                13 => walks.push((world.db.iter(), model.clone())),
                9 => {
                    world.env.advance(random.below(4_000_000));
                    world.env.run_until_idle();
                }
                _ => {
                    let count = snapshots.len() as u64;
                    if let Some((snapshot, expected)) = snapshots.get(random.below(count.max(1)) as usize) {
                        match snapshot.iter().collect::<Result<Vec<_>>>() {
                            Ok(found) => {
                                let found: BTreeMap<_, _> =
                                    found.iter().map(|(key, value)| (text(key), text(value))).collect();
                                assert_eq!(found, *expected, "seed {seed}, step {step}");
                                let got = snapshot.get(&key).unwrap().map(|value| text(&value));
                                assert_eq!(got.as_ref(), expected.get(&key), "seed {seed}, step {step}");
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::SnapshotExpired, "{error}");
                                assert_expired(snapshot.get(&key));
                                expired_count += 1;
                            }
                        }
                    }
                }
            }
        }
        drop((snapshots, walks));
        world.end();
    }
    assert!(expired_walks > 10, "only {expired_walks} iterators expired");
    assert!(expired_count > 50, "only {expired_count} reads met an expired snapshot");
}
