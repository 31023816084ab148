//! Transactions with locks wait for each other instead of failing at the commit. Waits end: with the lock, after the
//! timeout, with a deadlock that is named, or when the database closes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};

use lsm_engine::vfs::SimFs;
use lsm_engine::{
    Db, Error, ErrorKind, Isolation, Options, Result, Transaction, TransactionOptions, WaitReason,
};

const HOUR: Duration = Duration::from_secs(3600);
const LEVELS: [Isolation; 2] = [Isolation::Snapshot, Isolation::Serializable];

fn locking(isolation: Isolation, timeout: Duration) -> TransactionOptions {
    TransactionOptions { isolation, locks: Some(timeout) }
}

fn number(value: Option<lsm_engine::Slice>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
}

/// A database in a simulator, where a wait for a lock of the same thread ends by its timeout.
fn simulated() -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(4 << 20).vfs(Arc::new(SimFs::new()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    (env, db)
}

/// Waits until this many transactions wait for locks.
fn until_waiting(db: &Db, count: usize) {
    while db.waits().iter().filter(|wait| wait.why == WaitReason::TransactionLock).count() < count {
        thread::yield_now();
    }
}

/// What a transaction of another thread does while this one holds locks: it must wait.
fn assert_waits(db: &Db, one: &Transaction, what: &str, call: impl FnOnce(&Transaction) -> Result<()>) {
    let two = db.transaction_with(locking(Isolation::Serializable, Duration::from_millis(10))).unwrap();
    two.put("mine", "1").unwrap();
    let error = call(&two).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LockTimeout, "{what}: {error}");
    let message = error.to_string();
    let holder = format!("transaction {}", one.id());
    for part in [what, "keyspace \"default\"", "10ms", &holder] {
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
    }
    // The failed call did nothing, and the transaction can go on.
    assert_eq!(two.get("mine").unwrap().unwrap(), "1");
    two.put("mine", "2").unwrap();
    two.commit().unwrap();
}

#[test]
fn what_is_locked_makes_others_wait_until_their_timeout() {
    for level in LEVELS {
        let (env, db) = simulated();
        db.put("b", "1").unwrap();
        let one = db.transaction_with(locking(level, HOUR)).unwrap();
        one.get_for_update("b").unwrap();
        one.put("d", "").unwrap();
        one.delete_range("f".."h").unwrap();
        assert_waits(&db, &one, "key \"b\"", |two| two.get("b").map(drop));
        assert_waits(&db, &one, "key \"d\"", |two| two.delete("d"));
        assert_waits(&db, &one, "key \"g\"", |two| two.put("g", ""));
        assert_waits(&db, &one, "the range from \"a\" up to \"c\"", |two| {
            two.range("a".."c").next().unwrap().map(drop)
        });
        assert_waits(&db, &one, "the range from \"g\" up to \"z\"", |two| two.delete_range("g".."z"));
        assert_waits(&db, &one, "the range from \"\"", |two| two.cursor().map(drop));
        // Neither keys beside it, nor reads that are not checked, nor plain writes.
        let two = db.transaction_with(locking(level, Duration::from_millis(10))).unwrap();
        two.put("bb", "").unwrap();
        two.delete_range("h".."z").unwrap();
        assert_eq!(two.untracked().get("b").unwrap().unwrap(), "1");
        two.commit().unwrap();
        db.put("b", "plain").unwrap();
        let error = one.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("key \"b\""), "{error}");
        // Its locks are gone with it.
        let two = db.transaction_with(locking(level, Duration::from_millis(10))).unwrap();
        two.delete_range("a".."z").unwrap();
        two.commit().unwrap();
        drop(db);
        env.drop_jobs();
    }
}

#[test]
fn readers_share_what_they_lock_and_keep_writers_out() {
    let (env, db) = simulated();
    let begin = || db.transaction_with(locking(Isolation::Serializable, Duration::from_millis(10))).unwrap();
    let (one, two) = (begin(), begin());
    for reader in [&one, &two] {
        assert_eq!(reader.get("a").unwrap(), None);
        assert_eq!(reader.range("m".."p").count(), 0);
    }
    let writer = begin();
    for key in ["a", "n"] {
        assert_eq!(writer.put(key, "").unwrap_err().kind(), ErrorKind::LockTimeout);
    }
    // A reader cannot become a writer while the other reads.
    assert_eq!(one.put("a", "").unwrap_err().kind(), ErrorKind::LockTimeout);
    two.rollback();
    one.put("a", "").unwrap();
    one.commit().unwrap();
    writer.put("n", "").unwrap();
    writer.commit().unwrap();
    drop(db);
    env.drop_jobs();
}

/// Without a conflict or another try, since each transaction waits for the others before it reads.
#[test]
fn increments_of_many_threads_wait_and_all_commit_at_the_first_try() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path()).unwrap();
    for level in LEVELS {
        db.delete("count").unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let transaction = db.transaction_with(locking(level, HOUR)).unwrap();
                        let count = number(transaction.get_for_update("count").unwrap()) + 1;
                        transaction.put("count", count.to_string()).unwrap();
                        transaction.commit().unwrap();
                    }
                });
            }
        });
        assert_eq!(number(db.get("count").unwrap()), 200);
    }
}

#[test]
fn a_lock_shows_what_its_last_holder_wrote_if_nothing_read_before_has_changed() {
    for level in LEVELS {
        let (env, db) = simulated();
        db.put("a", "1").unwrap();
        db.put("b", "1").unwrap();
        let (first, second, third) = (
            db.transaction_with(locking(level, HOUR)).unwrap(),
            db.transaction_with(locking(level, HOUR)).unwrap(),
            db.transaction_with(locking(level, HOUR)).unwrap(),
        );
        second.put("own", "kept").unwrap();
        assert_eq!(third.get("b").unwrap().unwrap(), "1");
        first.put("a", "2").unwrap();
        first.commit().unwrap();
        db.put("b", "2").unwrap();
        // It has read nothing yet, so it sees the present state.
        assert_eq!(second.get_for_update("a").unwrap().unwrap(), "2");
        assert_eq!(
            (second.get("b").unwrap().unwrap(), second.get("own").unwrap().unwrap()),
            ("2".into(), "kept".into())
        );
        second.put("a", "3").unwrap();
        second.commit().unwrap();
        // It has read what was changed meanwhile, so it fails now rather than at the commit.
        let error = third.get_for_update("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        drop((third, db));
        env.drop_jobs();
    }
}

#[test]
fn a_deadlock_fails_the_call_that_closes_the_cycle_and_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path()).unwrap();
    let (one, two) = (
        db.transaction_with(locking(Isolation::Snapshot, HOUR)).unwrap(),
        db.transaction_with(locking(Isolation::Snapshot, HOUR)).unwrap(),
    );
    one.put("a", "one").unwrap();
    two.put("b", "two").unwrap();
    let (first, second) = (one.id(), two.id());
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            one.put("b", "one")?;
            one.commit()
        });
        until_waiting(&db, 1);
        let wait = db.waits().into_iter().find(|wait| wait.why == WaitReason::TransactionLock).unwrap();
        assert_eq!(wait.keyspace.as_deref(), Some("default"));
        let error = two.put("a", "two").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Deadlock);
        assert_eq!(
            error.to_string(),
            format!(
                "deadlock: transaction {second} waits for key \"a\" of keyspace \"default\", locked by transaction {first}; \
                 transaction {first} waits for key \"b\" of keyspace \"default\", locked by transaction {second}. Roll back \
                 transaction {second} and repeat it"
            )
        );
        two.rollback();
        waiting.join().unwrap().unwrap();
    });
    let counts = db.metrics().transactions;
    assert_eq!((counts.deadlocks, counts.lock_waits, counts.lock_timeouts, counts.commits), (1, 1, 0, 1));
    assert_eq!((db.get("a").unwrap().unwrap(), db.get("b").unwrap().unwrap()), ("one".into(), "one".into()));
    assert!(db.waits().is_empty());
}

#[test]
fn transact_repeats_what_a_deadlock_or_conflict_ended() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path()).unwrap();
    for options in [TransactionOptions::default(), locking(Isolation::Serializable, HOUR)] {
        db.delete_range("".."z").unwrap();
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for thread in 0..4_u32 {
                let (db, barrier) = (&db, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for round in 0..30 {
                        // Half of them take the keys in the other order.
                        let mut keys = [format!("{}", round % 3), format!("{}", (round + 1) % 3)];
                        if thread.is_multiple_of(2) {
                            keys.reverse();
                        }
                        db.transact_with(options, |transaction| {
                            for key in &keys {
                                let count = number(transaction.get(key)?) + 1;
                                transaction.put(key, count.to_string())?;
                            }
                            Ok(())
                        })
                        .unwrap();
                    }
                });
            }
        });
        let sum: u64 = (0..3).map(|key| number(db.get(key.to_string()).unwrap())).sum();
        assert_eq!(sum, 4 * 30 * 2, "{options:?}");
    }
    // Errors of the work, and conflicts that never end, are returned.
    let mut tries = 0;
    let failed = db.transact(|transaction| {
        tries += 1;
        transaction.put("x", "")?;
        transaction.delete_range("b".."a")
    });
    assert_eq!((failed.unwrap_err().kind(), tries), (ErrorKind::InvalidArgument, 1));
    assert_eq!(db.get("x").unwrap(), None);
    let mut tries = 0;
    let failed = db.transact(|transaction| {
        tries += 1;
        transaction.put("x", "")?;
        db.put("x", "plain")
    });
    assert_eq!((failed.unwrap_err().kind(), tries), (ErrorKind::Conflict, 64));
}

#[test]
fn a_panic_in_transact_unwinds_to_its_caller_and_leaves_no_lock_and_no_pin() {
    let (env, db) = simulated();
    let options = locking(Isolation::Serializable, Duration::from_millis(10));
    let mut tries = 0;
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        db.transact_with(options, |transaction| -> Result<()> {
            tries += 1;
            transaction.put("a", "1")?;
            assert_eq!(db.pins().len(), 1);
            resume_unwind(Box::new("a panic of the user"));
        })
    }));
    assert_eq!(*unwound.unwrap_err().downcast::<&str>().unwrap(), "a panic of the user");
    assert_eq!((tries, db.pins().len(), db.get("a").unwrap()), (1, 0, None));
    db.transact_with(options, |transaction| transaction.put("a", "2")).unwrap();
    drop(db);
    env.drop_jobs();
}

#[test]
fn closing_the_database_ends_the_wait_for_a_lock() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path()).unwrap();
    let (one, two) = (
        db.transaction_with(locking(Isolation::Snapshot, HOUR)).unwrap(),
        db.transaction_with(locking(Isolation::Snapshot, HOUR)).unwrap(),
    );
    one.put("a", "one").unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || two.put("a", "two").unwrap_err());
        until_waiting(&db, 1);
        db.clone().close().unwrap();
        assert!(matches!(waiting.join().unwrap(), Error::Closed));
    });
    assert!(matches!(one.commit().unwrap_err(), Error::Closed));
}

#[test]
fn locks_count_as_memory_of_their_transaction() {
    let (env, db) = simulated();
    let transaction = db.transaction_with(locking(Isolation::Serializable, HOUR)).unwrap();
    let refused = (0..100_000).find_map(|number| transaction.get(format!("key{number}")).err()).unwrap();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    assert!(transaction.memory_bytes() < 2 << 20);
    drop((transaction, db));
    env.drop_jobs();
}
