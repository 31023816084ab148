//! Deleted data costs readers few steps, however much it is: queues, range deletes, emptied ranges.

mod counting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, DbCursor, KeyspaceOptions, Options, Slice, Snapshot};

use counting::Counting;

/// Number of keys taken from a queue.
const COUNT: u32 = 20_000;
/// Number of keys in a random history.
const KEYS: u64 = 3000;

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn number(entry: Option<lsm_engine::Result<(Slice, Slice)>>) -> Option<u32> {
    entry.map(|entry| u32::from_be_bytes((*entry.unwrap().0).try_into().unwrap()))
}

/// A simulated database. Its memtables count the steps of their cursors.
fn open(steps: &Counting) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let memtable = Arc::new(steps.clone()) as _;
    let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
    let db =
        options.memory(64 << 20).keyspace(KeyspaceOptions::new().memtable(memtable)).open("/db").unwrap();
    (env, db)
}

fn end(env: &SimEnv, db: Db) {
    drop(db);
    env.drop_jobs();
}

#[test]
fn taking_the_head_of_a_queue_stays_cheap_from_both_ends() {
    for backward in [false, true] {
        let steps = Counting::default();
        let (env, db) = open(&steps);
        // One key is appended for each key taken.
        for appended in 0..100 {
            db.put(key(if backward { 2 * COUNT - appended } else { appended }), b"value").unwrap();
        }
        for taken in 0..COUNT {
            let expected = if backward { 2 * COUNT - taken } else { taken };
            let mut iterator = db.iter();
            let head = number(if backward { iterator.next_back() } else { iterator.next() });
            assert_eq!(head, Some(expected));
            db.delete(key(expected)).unwrap();
            let appended = taken + 100;
            db.put(key(if backward { 2 * COUNT - appended } else { appended }), b"value").unwrap();
        }
        let taken = steps.taken();
        // Half of what lengthens a known span, and the second walk.
        assert!(taken < 12 * u64::from(COUNT), "{taken} steps");
        end(&env, db);
    }
}

/// A pop also looks for newer keys beyond the one that it takes.
#[test]
fn popping_a_queue_stays_cheap_from_both_ends() {
    for backward in [false, true] {
        let steps = Counting::default();
        let (env, db) = open(&steps);
        let place = |at: u32| key(if backward { 2 * COUNT - at } else { at });
        for appended in 0..100 {
            db.put(place(appended), b"value").unwrap();
        }
        for taken in 0..COUNT {
            let popped = if backward { db.pop_last() } else { db.pop_first() };
            assert_eq!(popped.unwrap().unwrap().0, place(taken));
            db.put(place(taken + 100), b"value").unwrap();
        }
        let taken = steps.taken();
        assert!(taken < 25 * u64::from(COUNT), "{taken} steps");
        end(&env, db);
    }
}

/// The queue was emptied by single deletes, and nobody has read since.
#[test]
fn the_first_pop_behind_many_dead_entries_makes_the_later_ones_cheap() {
    for backward in [false, true] {
        let steps = Counting::default();
        let (env, db) = open(&steps);
        let place = |at: u32| key(if backward { 2 * COUNT - at } else { at });
        for at in 0..COUNT + 100 {
            db.put(place(at), b"value").unwrap();
        }
        for at in 0..COUNT {
            db.delete(place(at)).unwrap();
        }
        let pop = |at| {
            let before = steps.taken();
            let popped = if backward { db.pop_last() } else { db.pop_first() };
            assert_eq!(popped.unwrap().unwrap().0, place(at));
            steps.taken() - before
        };
        pop(COUNT);
        for at in COUNT + 1..COUNT + 100 {
            let taken = pop(at);
            assert!(taken < 60, "{taken} steps");
        }
        end(&env, db);
    }
}

#[test]
fn a_second_scan_seeks_past_many_deleted_keys() {
    let steps = Counting::default();
    let (env, db) = open(&steps);
    for i in 0..50_000 {
        db.put(key(i), b"value").unwrap();
    }
    for i in (100..49_900).rev() {
        db.delete(key(i)).unwrap();
    }
    let look = |taken_max| {
        let before = steps.taken();
        let mut cursor = db.cursor().unwrap();
        cursor.seek(key(200)).unwrap();
        assert_eq!(cursor.key(), Some(&key(49_900)[..]));
        cursor.prev().unwrap();
        assert_eq!(cursor.key(), Some(&key(99)[..]));
        cursor.next().unwrap();
        assert_eq!(cursor.key(), Some(&key(49_900)[..]));
        assert_eq!(number(db.range(key(100)..).next()), Some(49_900));
        assert_eq!(number(db.range(..key(49_900)).next_back()), Some(99));
        let taken = steps.taken() - before;
        assert!(taken < taken_max, "{taken} steps");
    };
    look(500_000);
    look(100);
    // A key that is put again is seen, and the rest of the span stays known.
    db.put(key(25_000), b"back").unwrap();
    assert_eq!(number(db.range(key(200)..).next()), Some(25_000));
    assert_eq!(number(db.range(..key(49_000)).next_back()), Some(25_000));
    let before = steps.taken();
    assert_eq!(number(db.range(key(25_001)..).next()), Some(49_900));
    assert_eq!(number(db.range(..key(25_000)).next_back()), Some(99));
    assert!(steps.taken() - before < 100, "{} steps", steps.taken() - before);
    end(&env, db);
}

#[test]
fn the_first_scan_already_seeks_past_a_range_delete() {
    let steps = Counting::default();
    let (env, db) = open(&steps);
    for i in 0..20_000 {
        db.put(key(i), b"value").unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    db.delete_range(key(10)..key(19_990)).unwrap();
    let before = steps.taken();
    for _ in 0..10 {
        assert_eq!(number(db.range(key(10)..).next()), Some(19_990));
        assert_eq!(number(db.range(..key(19_990)).next_back()), Some(9));
        assert_eq!(db.iter().count(), 20);
    }
    assert!(steps.taken() - before < 1000, "{} steps", steps.taken() - before);
    assert_eq!(snapshot.iter().count(), 20_000, "the snapshot sees what was there");
    assert_eq!(snapshot.iter().rev().count(), 20_000);
    drop(snapshot);
    end(&env, db);
}

/// Checks the empty spans against random puts, deletes and range deletes, with readers of all ages.
#[test]
fn cursors_agree_with_a_sorted_map_around_long_dead_ranges() {
    for seed in 0..15 {
        let env = Arc::new(SimEnv::new(seed));
        let options = Options::new().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
        let db = options.memory(4 << 20).open("/db").unwrap();
        let keyspace = db.keyspace("k", KeyspaceOptions::new()).unwrap();
        let mut model: BTreeMap<[u8; 4], u64> = BTreeMap::new();
        let mut old: Vec<(Snapshot, BTreeMap<[u8; 4], u64>)> = Vec::new();
        let random = |below: u64| env.random() % below;
        for step in 0..400 {
            let (at, length) = (random(KEYS) as u32, random(500) as u32);
            match random(14) {
                0..=2 => (at..at + length).for_each(|i| {
                    keyspace.put(key(i), step.to_string()).unwrap();
                    model.insert(key(i), step);
                }),
                3..=6 => (at..at + length).for_each(|i| {
                    keyspace.delete(key(i)).unwrap();
                    model.remove(&key(i));
                }),
                7 => {
                    keyspace.delete_range(key(at)..key(at + length)).unwrap();
                    model.retain(|k, _| !(key(at)..key(at + length)).contains(k));
                }
                8 => {
                    keyspace.put(key(at), step.to_string()).unwrap();
                    model.insert(key(at), step);
                }
                9 => old.push((db.snapshot().unwrap(), model.clone())),
                10 if old.len() > 3 => drop(old.swap_remove(random(old.len() as u64) as usize)),
                11 if random(4) == 0 => db.flush().unwrap(),
                12 if random(10) == 0 => {
                    keyspace.clear().unwrap();
                    model.clear();
                }
                _ => {}
            }
            let reader = random(1 + old.len() as u64) as usize;
            match old.get(reader) {
                Some((snapshot, model)) => agree(snapshot.cursor_in(&keyspace).unwrap(), model, &random),
                None => agree(keyspace.cursor().unwrap(), &model, &random),
            }
        }
        drop((old, keyspace));
        end(&env, db);
    }
}

/// A few moves of a cursor, each compared with the model.
fn agree(mut cursor: DbCursor, model: &BTreeMap<[u8; 4], u64>, random: &impl Fn(u64) -> u64) {
    let mut here: Option<[u8; 4]> = None;
    for _ in 0..8 {
        let at = key(random(3600) as u32);
        let first = |found: Option<(&[u8; 4], &u64)>| found.map(|(key, _)| *key);
        here = match random(6) {
            0 => {
                cursor.first().unwrap();
                first(model.iter().next())
            }
            1 => {
                cursor.last().unwrap();
                first(model.iter().next_back())
            }
            2 => {
                cursor.seek(at).unwrap();
                first(model.range(at..).next())
            }
            3 => {
                cursor.seek_for_prev(at).unwrap();
                first(model.range(..=at).next_back())
            }
            4 => {
                cursor.next().unwrap();
                here.and_then(|here| first(model.range(here..).nth(1)))
            }
            _ => {
                cursor.prev().unwrap();
                here.and_then(|here| first(model.range(..here).next_back()))
            }
        };
        assert_eq!(cursor.key(), here.as_ref().map(|key| &key[..]));
        let value = here.map(|here| model[&here].to_string());
        assert_eq!(cursor.value(), value.as_ref().map(String::as_bytes));
    }
}

/// One thread appends, one puts keys back into the emptied range, one takes from the head. A reader must see every key
/// that was there before it began.
#[test]
fn keys_put_into_an_empty_span_are_seen_by_later_readers() {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(dir.path()).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut appended = 1_000_000;
            while !ended.load(Ordering::Relaxed) {
                db.put(key(appended), b"tail").unwrap();
                appended += 1;
            }
        });
        scope.spawn(|| {
            // Empties the range again and again, and walks over it so that a span is added.
            while !ended.load(Ordering::Relaxed) {
                for i in 0..200 {
                    db.delete(key(2 * i)).unwrap();
                }
                for _ in 0..20 {
                    number(db.iter().next());
                    number(db.range(..key(1_000_000)).next_back());
                }
            }
        });
        for round in 0..4_000u32 {
            // This thread writes the odd keys.
            let own = 2 * (round * 7 % 200) + 1;
            db.put(key(own), b"own").unwrap();
            assert!(number(db.iter().next()).is_some_and(|first| first <= own), "{own} is missed, {round}");
            let last = number(db.range(..key(1_000_000)).next_back());
            assert!(last.is_some_and(|last| last >= own), "{own} is missed backward, {round}");
            db.delete(key(own)).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    db.close().unwrap();
}
