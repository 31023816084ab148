//! Calls that read a value, decide and write: no other write comes between, whoever makes it, and whatever flushes,
//! compactions, range deletes and clears happen meanwhile.

mod between;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use between::Between;
use lsm_engine::CompareAndSwap::{Found, Swapped};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    BuiltInMerge, Db, Durability, ErrorKind, KeyspaceOptions, Options, Slice, WaitReason, WriteBatch,
};

struct World {
    fs: SimFs,
    env: SimEnv,
}

impl World {
    fn new() -> Self {
        Self { fs: SimFs::new(), env: SimEnv::new(1) }
    }

    fn options(&self) -> Options {
        let env = Arc::new(self.env.clone()) as Arc<dyn Env>;
        Options::new().memory(8 << 20).vfs(Arc::new(self.fs.clone())).env(env)
    }

    fn open(&self) -> Db {
        self.options().open("/db").unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.env.drop_jobs();
    }
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap()))
}

#[expect(clippy::unnecessary_wraps, reason = "what an update wants")]
fn increment(old: Option<&[u8]>) -> Option<[u8; 8]> {
    Some((number(old) + 1).to_be_bytes())
}

fn text(entry: Option<(Slice, Slice)>) -> Option<(String, String)> {
    let text = |slice: Slice| String::from_utf8(slice.to_vec()).unwrap();
    entry.map(|(key, value)| (text(key), text(value)))
}

#[test]
fn each_call_does_what_it_says() {
    let world = World::new();
    let db = world.open();
    assert_eq!(db.update("n", increment).unwrap(), Some(1_u64.to_be_bytes()));
    assert_eq!(db.update("n", increment).unwrap(), Some(2_u64.to_be_bytes()));
    assert_eq!(db.update("n", |_| None::<&str>).unwrap(), None);
    assert_eq!(db.get("n").unwrap(), None);
    let sequence = || db.snapshot().unwrap().sequence();
    let before = sequence();
    assert_eq!(db.update("n", |_| None::<&str>).unwrap(), None);
    assert_eq!(sequence(), before, "no value needs no tombstone");

    assert_eq!(db.compare_and_swap("k", Some(b"1"), Some(b"2")).unwrap(), Found(None));
    assert_eq!(db.compare_and_swap("k", None, None).unwrap(), Swapped);
    assert_eq!(db.compare_and_swap("k", None, Some(b"1")).unwrap(), Swapped);
    assert_eq!(db.compare_and_swap("k", None, Some(b"2")).unwrap(), Found(Some("1".into())));
    assert_eq!(db.compare_and_swap("k", Some(b"1"), Some(b"2")).unwrap(), Swapped);
    assert_eq!(db.get("k").unwrap().unwrap(), b"2");
    assert!(db.compare_and_swap("k", Some(b"2"), None).unwrap().is_swapped());
    assert_eq!(db.get("k").unwrap(), None);

    assert_eq!(db.get_or_insert_with("k", || "made").unwrap(), b"made");
    assert_eq!(db.get_or_insert_with("k", || -> &str { panic!("it has a value") }).unwrap(), b"made");
    assert_eq!(db.take("k").unwrap().unwrap(), b"made");
    assert_eq!(db.take("k").unwrap(), None);
}

#[test]
fn the_ends_can_be_seen_and_taken() {
    let world = World::new();
    let db = world.open();
    let space = db.keyspace("space", KeyspaceOptions::new()).unwrap();
    let empty = db.snapshot().unwrap();
    assert_eq!((db.first().unwrap(), db.last().unwrap()), (None, None));
    assert_eq!((db.pop_first().unwrap(), db.pop_last().unwrap()), (None, None));
    assert!(db.is_empty().unwrap() && space.is_empty().unwrap());
    for key in ["a", "b", "c", "d", "e"] {
        db.put(key, key.to_uppercase()).unwrap();
        space.put(key, "in space").unwrap();
    }
    db.flush().unwrap();
    let full = db.snapshot().unwrap();
    let entry = |key: &str| Some((key.to_owned(), key.to_uppercase()));
    assert_eq!(text(db.first().unwrap()), entry("a"));
    assert_eq!(text(db.last().unwrap()), entry("e"));
    assert_eq!(text(db.pop_first().unwrap()), entry("a"));
    assert_eq!(text(db.pop_last().unwrap()), entry("e"));
    db.delete_range("b".."c").unwrap();
    assert_eq!(text(db.pop_first().unwrap()), entry("c"));
    assert_eq!(text(db.pop_last().unwrap()), entry("d"));
    assert!(db.is_empty().unwrap() && !space.is_empty().unwrap());
    assert_eq!(space.count("b".."d").unwrap(), 2);
    assert_eq!(space.count::<&str>(..).unwrap(), 5);
    assert_eq!(space.count("d".."b").unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(space.len_estimate().unwrap(), 5);

    assert!(empty.is_empty().unwrap() && empty.is_empty_in(&space).unwrap());
    assert_eq!((empty.first().unwrap(), empty.last_in(&space).unwrap()), (None, None));
    assert_eq!(text(full.first().unwrap()), entry("a"));
    assert_eq!(text(full.last().unwrap()), entry("e"));
    assert_eq!(full.first_in(&space).unwrap(), space.first().unwrap());
    assert_eq!(full.last_in(&space).unwrap(), space.last().unwrap());
    assert_eq!((full.count("b".."d").unwrap(), full.count_in(&space, "b"..).unwrap()), (2, 4));
}

#[test]
fn keys_and_values_of_an_iterator_come_from_both_ends() {
    let world = World::new();
    let db = world.open();
    for key in ["a", "b", "c", "d"] {
        db.put(key, key.to_uppercase()).unwrap();
    }
    let mut keys = db.iter().keys();
    assert_eq!(keys.next().unwrap().unwrap(), b"a");
    assert_eq!(keys.next_back().unwrap().unwrap(), b"d");
    assert_eq!(keys.map(Result::unwrap).collect::<Vec<_>>(), ["b", "c"]);
    let values = db.range("b"..).values().rev();
    assert_eq!(values.map(Result::unwrap).collect::<Vec<_>>(), ["D", "C", "B"]);
    let transaction = db.transaction().unwrap();
    transaction.put("e", "E").unwrap();
    transaction.delete("a").unwrap();
    let keys = transaction.iter().keys().rev().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(keys, ["e", "d", "c", "b"]);
    let values = transaction.range("d"..).values().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(values, ["D", "E"]);
    let mut inverted = db.range("b".."a").keys();
    assert_eq!(inverted.next().unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(inverted.next().is_none());
}

#[test]
fn an_estimate_of_the_keys_is_exact_after_a_compaction() {
    let world = World::new();
    let db = world.open();
    for round in 0..3 {
        for key in 0..1000_u32 {
            db.put(key.to_be_bytes(), [round; 20]).unwrap();
        }
        db.flush().unwrap();
    }
    for key in 0..300_u32 {
        db.delete(key.to_be_bytes()).unwrap();
    }
    db.delete_range(900_u32.to_be_bytes()..2000_u32.to_be_bytes()).unwrap();
    assert!(db.len_estimate().unwrap() >= 600);
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(db.len_estimate().unwrap(), 600);
    assert_eq!(db.count::<&[u8]>(..).unwrap(), 600);
}

/// Whatever is done between the read of an update and its write, the update sees it.
#[test]
fn an_update_sees_every_change_made_meanwhile() {
    type Change = fn(&Db);
    let changes: [(Change, &str); 10] = [
        (|db| db.put("key", "other").unwrap(), "other"),
        (|db| db.delete("key").unwrap(), "none"),
        (|db| db.delete_range("k".."l").unwrap(), "none"),
        (|db| db.default_keyspace().clear().unwrap(), "none"),
        (|db| assert!(db.update("key", |_| Some("nested")).unwrap().is_some()), "nested"),
        (|db| drop(db.pop_first().unwrap()), "none"),
        (|db| db.flush().unwrap(), "old"),
        (|db| db.write(&*WriteBatch::new().put("key", "a").put("key", "b")).unwrap(), "b"),
        (
            |db| {
                db.put("key", "flushed").unwrap();
                db.compact_range::<&[u8]>(..).unwrap();
            },
            "flushed",
        ),
        (
            // It leaves no trace.
            |db| {
                db.delete("key").unwrap();
                db.compact_range::<&[u8]>(..).unwrap();
            },
            "none",
        ),
    ];
    for (index, (change, seen)) in changes.into_iter().enumerate() {
        for flushed in [false, true] {
            let world = World::new();
            let db = world.open();
            db.put("key", "old").unwrap();
            if flushed {
                db.flush().unwrap();
            }
            let calls = Cell::new(0);
            let new = db.update("key", |old| {
                calls.set(calls.get() + 1);
                let old = old.map_or("none", |old| std::str::from_utf8(old).unwrap());
                let new = format!("{old} and new");
                if calls.get() == 1 {
                    change(&db);
                }
                Some(new)
            });
            assert_eq!(new.unwrap().unwrap(), format!("{seen} and new"), "change {index}, {flushed}");
            assert_eq!(db.get("key").unwrap().unwrap(), format!("{seen} and new").as_bytes());
            assert!(calls.get() == 2 || seen == "old", "change {index}, {flushed}");
        }
    }
}

#[test]
fn a_change_of_another_key_does_not_make_an_update_run_again() {
    let world = World::new();
    let db = world.open();
    db.put("key", "old").unwrap();
    let mut calls = 0;
    db.update("key", |_| {
        calls += 1;
        db.put("other", "value").unwrap();
        db.delete_range("l".."m").unwrap();
        Some("new")
    })
    .unwrap();
    assert_eq!(calls, 1);
}

/// A key is put before the first one, or behind the last one, after a pop has read and before it writes.
#[test]
fn a_pop_takes_what_is_outermost_when_it_writes() {
    for last in [false, true] {
        for dead in [0, 10, 1000] {
            let world = World::new();
            let between = Between::default();
            let options = KeyspaceOptions::new().memtable(Arc::new(between.clone()) as _);
            let db = world.options().keyspace(options).open("/db").unwrap();
            let key = move |number: u32| {
                let number = if last { 100_000 - number } else { number };
                number.to_be_bytes()
            };
            let pop = || {
                let popped = if last { db.pop_last() } else { db.pop_first() };
                popped.unwrap().map(|(key, _)| key.to_vec())
            };
            for number in 0..dead + 3 {
                db.put(key(10_000 + number), "value").unwrap();
            }
            // Dead entries, with an empty span if there are enough.
            for number in 0..dead {
                assert_eq!(pop(), Some(key(10_000 + number).to_vec()));
            }
            let inner = db.clone();
            between.once_after_a_read(move || inner.put(key(5), "value").unwrap());
            assert_eq!(pop(), Some(key(5).to_vec()), "{dead} dead entries");
            // The first live one itself is taken by somebody else.
            let inner = db.clone();
            between.once_after_a_read(move || inner.delete(key(10_000 + dead)).unwrap());
            assert_eq!(pop(), Some(key(10_001 + dead).to_vec()));
            // A change of the rest does not matter.
            let inner = db.clone();
            between.once_after_a_read(move || inner.put(key(20_000), "value").unwrap());
            let reads = between.reads();
            assert_eq!(pop(), Some(key(10_002 + dead).to_vec()));
            assert_eq!(pop(), Some(key(20_000).to_vec()));
            assert_eq!(pop(), None);
            // Each passes a few dead entries, when it reads and before it writes.
            let steps = between.reads() - reads;
            assert!(steps < 150, "{steps} steps past {dead} dead entries");
        }
    }
}

#[test]
fn a_panic_in_a_closure_fails_the_call_and_changes_nothing() {
    let world = World::new();
    let db = world.open();
    db.put("key", "old").unwrap();
    let calls = [
        db.update("key", |_| -> Option<&str> { panic!("of a closure") }).map(drop),
        db.get_or_insert_with("none", || -> &str { panic!("of a closure") }).map(drop),
    ];
    for result in calls {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Callback);
        assert!(error.to_string().contains("of a closure"), "{error}");
    }
    assert_eq!(db.get("key").unwrap().unwrap(), b"old");
    assert_eq!(db.count::<&str>(..).unwrap(), 1);
    assert_eq!(db.update("key", |_| Some("new")).unwrap(), Some("new"));
}

#[test]
fn an_update_that_always_changes_its_own_key_fails_and_blocks_nobody() {
    let world = World::new();
    let db = world.open();
    let mut calls = 0_u32;
    let result = db.update("key", |_| {
        calls += 1;
        db.put("key", calls.to_be_bytes()).unwrap();
        // Also while it has its turn.
        db.update("counter", increment).unwrap();
        db.update("key", increment_any).unwrap();
        Some("never")
    });
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("key \"key\" of keyspace \"default\""), "{error}");
    assert!(calls >= 1000);
    assert_eq!(number(db.get("counter").unwrap().as_deref()), u64::from(calls));
}

#[expect(clippy::unnecessary_wraps, reason = "what an update wants")]
fn increment_any(old: Option<&[u8]>) -> Option<Vec<u8>> {
    Some(old.unwrap_or_default().iter().map(|byte| byte.wrapping_add(1)).collect())
}

#[test]
fn updates_of_what_cannot_be_written_fail_by_name() {
    let world = World::new();
    let db = world.open();
    let space = db.keyspace("space", KeyspaceOptions::new()).unwrap();
    db.drop_keyspace("space").unwrap();
    assert_eq!(space.update("key", increment).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(space.pop_first().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(space.is_empty().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(space.len_estimate().unwrap_err().kind(), ErrorKind::Closed);
    let long = vec![0; 65_536];
    assert_eq!(db.update(&long, increment).unwrap_err().kind(), ErrorKind::InvalidArgument);
    db.put("key", "value").unwrap();
    drop(space);
    db.clone().close().unwrap();
    assert_eq!(db.take("key").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(db.pop_last().unwrap_err().kind(), ErrorKind::Closed);
    drop(db);
    let db = world.options().read_only(true).open("/db").unwrap();
    assert_eq!(db.take("key").unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(db.pop_last().unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(db.count::<&str>(..).unwrap(), 1);
}

fn threaded() -> Db {
    let options = Options::new().memory(2 << 20).memtable_bytes(70_000);
    options.vfs(Arc::new(SimFs::new())).open("/db").unwrap()
}

#[test]
fn no_increment_of_many_threads_is_lost() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 2000;
    let db = threaded();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let db = &db;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    db.update("hot", increment).unwrap();
                    db.update(["warm", "also warm"][round as usize % 2], increment).unwrap();
                    // Flushes and compactions come between.
                    db.put([thread, round].map(u64::to_be_bytes).concat(), [7; 100]).unwrap();
                    if round % 500 == 250 {
                        db.flush().unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(number(db.get("hot").unwrap().as_deref()), THREADS * ROUNDS);
    let warm = ["warm", "also warm"].map(|key| number(db.get(key).unwrap().as_deref()));
    assert_eq!(warm, [THREADS * ROUNDS / 2; 2]);
    db.close().unwrap();
}

#[test]
fn no_entry_is_popped_twice_or_lost() {
    const PRODUCERS: u32 = 2;
    const JOBS: u32 = 3000;
    let db = threaded();
    let (taken, done) = (Mutex::new(BTreeSet::new()), AtomicU32::new(0));
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (db, done) = (&db, &done);
            scope.spawn(move || {
                for job in 0..JOBS {
                    db.put([job, producer].map(u32::to_be_bytes).concat(), [7; 100]).unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        for consumer in 0..4 {
            let (db, taken, done) = (&db, &taken, &done);
            scope.spawn(move || {
                loop {
                    let are_done = done.load(Ordering::SeqCst) == PRODUCERS;
                    let popped = if consumer == 0 { db.pop_last() } else { db.pop_first() }.unwrap();
                    match popped {
                        Some((key, _)) => {
                            assert!(taken.lock().unwrap().insert(key.to_vec()), "{key:?} is popped twice");
                        }
                        None if are_done => return,
                        None => thread::yield_now(),
                    }
                }
            });
        }
    });
    assert_eq!(taken.into_inner().unwrap().len(), (PRODUCERS * JOBS) as usize);
    assert!(db.is_empty().unwrap());
    db.close().unwrap();
}

#[test]
fn one_thread_of_many_inserts_and_one_swaps() {
    let db = threaded();
    let made = AtomicU32::new(0);
    for round in 0..300_u32 {
        let key = round.to_be_bytes();
        let (inserted, swapped) = (Mutex::new(BTreeSet::new()), AtomicU32::new(0));
        thread::scope(|scope| {
            for thread in 0..4_u32 {
                let (db, made, inserted, swapped) = (&db, &made, &inserted, &swapped);
                scope.spawn(move || {
                    let value = db.get_or_insert_with(key, || {
                        made.fetch_add(1, Ordering::Relaxed);
                        thread.to_be_bytes()
                    });
                    let value = value.unwrap().to_vec();
                    if db.compare_and_swap(key, Some(&value), Some(b"swapped")).unwrap().is_swapped() {
                        swapped.fetch_add(1, Ordering::Relaxed);
                        inserted.lock().unwrap().insert(value);
                    }
                });
            }
        });
        // Somebody may read what somebody else has swapped already, and swap it for the same.
        let inserted = inserted.into_inner().unwrap();
        assert_eq!(inserted.iter().filter(|value| *value != b"swapped").count(), 1);
        assert!(swapped.into_inner() >= 1);
    }
    assert!(made.into_inner() >= 300);
    db.close().unwrap();
}

#[test]
fn what_an_update_wrote_survives_like_any_write() {
    let world = World::new();
    let db = world.open();
    for _ in 0..5 {
        db.update("counter", increment).unwrap();
    }
    for key in ["a", "b", "c"] {
        db.put(key, "value").unwrap();
    }
    db.pop_first().unwrap();
    db.put_with("z", "value", Durability::Sync).unwrap();
    let after = World { fs: world.fs.power_cut(&mut lsm_engine::vfs::AllLost), env: SimEnv::new(2) };
    let keys = after.open().iter().keys().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(keys, ["b", "c", "counter", "z"]);
    assert_eq!(number(after.open().get("counter").unwrap().as_deref()), 5);
}

#[test]
fn updates_see_what_operands_make_of_a_value() {
    let world = World::new();
    let operator = Arc::new(BuiltInMerge::append(","));
    let db = world.options().merge_operator(operator).open("/db").unwrap();
    for (round, flush) in [(0, false), (1, true)] {
        let key = [round];
        let put = |operand: &str| {
            db.merge(key, operand).unwrap();
            if flush {
                db.flush().unwrap();
            }
        };
        put("a");
        put("b");
        let mut calls = 0;
        let new = db.update(key, |old| {
            calls += 1;
            if calls == 1 {
                // A merge is a change like any other.
                db.merge(key, "c").unwrap();
            }
            old.map(|old| [b"(", old, b")"].concat())
        });
        assert_eq!((new.unwrap().unwrap(), calls), (b"(a,b,c)".to_vec(), 2));
        put("d");
        assert_eq!(db.first().unwrap().unwrap().1, b"(a,b,c),d");
        assert!(db.compare_and_swap(key, Some(b"(a,b,c),d"), Some(b"e")).unwrap().is_swapped());
        put("f");
        assert_eq!(db.get_or_insert_with(key, || "g").unwrap(), b"e,f");
        assert_eq!(db.count::<&[u8]>(..).unwrap(), 1);
        assert_eq!(db.pop_last().unwrap().unwrap().1, b"e,f");
        put("h");
        assert_eq!(db.take(key).unwrap().unwrap(), b"h");
        assert!(db.is_empty().unwrap());
    }
}

#[test]
fn updates_see_nothing_of_what_has_expired() {
    const HOUR: Duration = Duration::from_secs(3600);
    let world = World::new();
    let db = world.open();
    let pass = |time: Duration| world.env.advance(time.as_micros() as u64);
    for key in ["a", "b", "c"] {
        db.put_expiring(key, "expires", HOUR).unwrap();
    }
    db.put("m", "stays").unwrap();
    db.put_expiring("z", "expires", HOUR).unwrap();
    assert_eq!(text(db.pop_first().unwrap()).unwrap().0, "a");
    pass(HOUR);
    assert_eq!(text(db.first().unwrap()).unwrap().0, "m");
    assert_eq!(text(db.last().unwrap()).unwrap().0, "m");
    assert_eq!(db.count::<&str>(..).unwrap(), 1);
    assert_eq!(db.take("b").unwrap(), None);
    assert_eq!(db.update("b", |old| old.map(<[u8]>::to_vec)).unwrap(), None);
    assert!(db.compare_and_swap("b", None, Some(b"new")).unwrap().is_swapped());
    assert_eq!(db.get_or_insert_with("c", || "new").unwrap(), b"new");
    for key in ["b", "c", "m"] {
        assert_eq!(text(db.pop_first().unwrap()).unwrap().0, key);
    }
    assert_eq!(db.pop_last().unwrap(), None);
}

/// What an update writes has the time to live of its keyspace.
#[test]
fn an_updated_value_expires_as_a_put_one_does() {
    const HOUR: Duration = Duration::from_secs(3600);
    let world = World::new();
    let db = world.open();
    let space = db.keyspace("space", KeyspaceOptions::new().ttl(Some(HOUR))).unwrap();
    space.update("key", increment).unwrap();
    world.env.advance(HOUR.as_micros() as u64 / 2);
    space.update("key", increment).unwrap();
    world.env.advance(HOUR.as_micros() as u64 / 2);
    assert_eq!(number(space.get("key").unwrap().as_deref()), 2);
    world.env.advance(HOUR.as_micros() as u64 / 2);
    assert_eq!(space.update("key", increment).unwrap(), Some(1_u64.to_be_bytes()));
}

#[test]
fn an_update_that_waits_for_its_turn_says_so() {
    let (db, was_seen) = (threaded(), AtomicBool::new(false));
    let waits = || db.waits().iter().any(|wait| wait.why == WaitReason::Update);
    let mut calls = 0;
    thread::scope(|scope| {
        let new = db.update("key", |_| {
            calls += 1;
            match calls {
                // It queues up after some conflicts.
                1..5 => db.put("key", "other").unwrap(),
                5 => {
                    scope.spawn(|| {
                        while !was_seen.load(Ordering::Relaxed) {
                            db.update("key", |old| old.map(<[u8]>::to_vec)).unwrap();
                        }
                    });
                    while !waits() {
                        thread::yield_now();
                    }
                    was_seen.store(true, Ordering::Relaxed);
                }
                _ => {}
            }
            Some("new")
        });
        assert_eq!(new.unwrap(), Some("new"));
    });
    assert!(!waits());
    db.close().unwrap();
}
