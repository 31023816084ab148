//! All open transactions together take a bounded part of `Options::memory`, and metrics tell what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{Db, Error, ErrorKind, Options, Transaction, TransactionOptions};

const MEMORY: usize = 4 << 20;

fn open() -> (Db, Arc<SimEnv>) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(MEMORY).vfs(Arc::new(SimFs::new()));
    (options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap(), env)
}

fn check_memory(db: &Db) {
    let metrics = db.metrics();
    assert!(metrics.memory_bytes() <= MEMORY as u64, "{metrics:?}");
}

/// A database whose block cache is full.
fn filled() -> (Db, Arc<SimEnv>) {
    let (db, env) = open();
    for number in 0..4000 {
        db.put(format!("key{number:05}"), vec![b'v'; 1000]).unwrap();
    }
    db.flush().unwrap();
    for number in 0..4000 {
        db.get(format!("key{number:05}")).unwrap();
    }
    let metrics = db.metrics();
    assert!(metrics.cache_bytes > metrics.cache_capacity_bytes / 2, "{metrics:?}");
    (db, env)
}

/// Writes until there is no memory left for transactions.
fn fill(db: &Db, open: &[Transaction]) -> Error {
    let value = vec![b'n'; 3000];
    for number in 0.. {
        for transaction in open {
            if let Err(error) = transaction.put(format!("new{number:05}"), &value) {
                return error;
            }
            check_memory(db);
        }
    }
    unreachable!("there is no bound")
}

#[test]
fn all_transactions_together_are_bounded_and_the_rest_goes_on() {
    let (db, env) = filled();
    let open: Vec<_> = (0..8).map(|_| db.transaction().unwrap()).collect();
    let refused = fill(&db, &open);
    assert!(matches!(refused, Error::TooLarge { what: "memory of all transactions", .. }), "{refused}");
    assert!(refused.to_string().contains("Options::memory"), "{refused}");
    let held = db.metrics().transaction_bytes;
    assert!(held > MEMORY as u64 / 8 && held <= MEMORY as u64 / 4, "{held}");
    // Whoever has memory keeps what it has, others read and write, and background work goes on.
    assert_eq!(open[0].get("new00000").unwrap().unwrap(), vec![b'n'; 3000]);
    for number in 0..3000 {
        db.put(format!("key{number:05}"), vec![b'w'; 1000]).unwrap();
        check_memory(&db);
    }
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(db.iter().count(), 4000);
    check_memory(&db);
    // One that ends makes room for others.
    let mut open = open.into_iter();
    open.next().unwrap().commit().unwrap();
    open.next().unwrap().put("room", vec![b'r'; 3000]).unwrap();
    drop(open);
    assert_eq!(db.metrics().transaction_bytes, 0);
    check_memory(&db);
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn what_is_read_without_memory_for_it_still_conflicts() {
    let (db, env) = filled();
    let reader = db.transaction().unwrap();
    let open: Vec<_> = (0..8).map(|_| db.transaction().unwrap()).collect();
    fill(&db, &open);
    for number in (0..4000).step_by(3) {
        reader.get(format!("key{number:05}")).unwrap();
        check_memory(&db);
    }
    assert!(reader.memory_bytes() < 64 << 10, "{}", reader.memory_bytes());
    db.put("key03003", "of another").unwrap();
    drop(open);
    reader.put("key00000", "mine").unwrap();
    assert_eq!(reader.commit().unwrap_err().kind(), ErrorKind::Conflict);
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn savepoints_are_counted() {
    let (db, env) = open();
    let transaction = db.transaction().unwrap();
    transaction.put("key", "1").unwrap();
    let first = transaction.savepoint();
    let before = transaction.memory_bytes();
    let many: Vec<_> = (0..100_000).map(|_| transaction.savepoint()).collect();
    assert_eq!(transaction.memory_bytes(), before, "without a write between them they take nothing");
    transaction.put("key", "2").unwrap();
    transaction.rollback_to(&many[500]).unwrap();
    assert_eq!(transaction.get("key").unwrap().unwrap(), "1");
    transaction.rollback_to(&many[499]).unwrap();
    let gone = transaction.rollback_to(&many[500]).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::InvalidArgument, "{gone}");
    let later = transaction.savepoint();
    assert_eq!(transaction.rollback_to(&many[501]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    transaction.rollback_to(&later).unwrap();
    transaction.rollback_to(&first).unwrap();
    let refused = loop {
        transaction.savepoint();
        if let Err(error) = transaction.put("key", "another") {
            break error;
        }
    };
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    transaction.rollback_to(&first).unwrap();
    transaction.commit().unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "1");
    db.close().unwrap();
    env.drop_jobs();
}

/// An iterator keeps the writes as they were when it was made, so the next write copies them.
#[test]
fn what_iterators_hold_of_the_writes_is_counted() {
    let (db, env) = open();
    let transaction = db.transaction().unwrap();
    transaction.put("key", vec![b'v'; 100_000]).unwrap();
    let before = transaction.memory_bytes();
    let mut iterators = Vec::new();
    let refused = loop {
        let mut iterator = transaction.iter();
        assert_eq!(iterator.next().unwrap().unwrap().1, vec![b'v'; 100_000]);
        iterators.push(iterator);
        assert!(iterators.len() < 15, "what iterators hold is not counted");
        if let Err(error) = transaction.put("short", iterators.len().to_string()) {
            break error;
        }
        check_memory(&db);
    };
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");
    assert!(iterators.len() > 5, "{}", iterators.len());
    drop(iterators);
    transaction.put("short", "room again").unwrap();
    assert!(transaction.memory_bytes() < before + 2000, "{} after {before}", transaction.memory_bytes());
    transaction.commit().unwrap();
    db.close().unwrap();
    env.drop_jobs();
}

#[test]
fn metrics_count_transactions() {
    let (db, env) = open();
    db.put("key", "0").unwrap();
    let (one, two) = (db.transaction().unwrap(), db.transaction().unwrap());
    assert_eq!(db.metrics().transactions.open, 2);
    for transaction in [&one, &two] {
        transaction.get("key").unwrap();
        transaction.put("key", "1").unwrap();
    }
    one.commit().unwrap();
    two.commit().unwrap_err();
    let options =
        TransactionOptions { locks: Some(Duration::from_micros(50)), ..TransactionOptions::default() };
    let (holder, waiter) = (db.transaction_with(options).unwrap(), db.transaction_with(options).unwrap());
    holder.put("key", "2").unwrap();
    assert_eq!(waiter.put("key", "3").unwrap_err().kind(), ErrorKind::LockTimeout);
    drop((holder, waiter));
    let mut tries = 0;
    db.transact(|transaction| {
        tries += 1;
        transaction.get("key")?;
        if tries < 3 {
            db.put("key", "of another")?;
        }
        transaction.put("key", "4")
    })
    .unwrap();
    let metrics = db.metrics();
    let found = metrics.transactions;
    assert_eq!((found.open, found.commits, found.conflicts, found.retries), (0, 2, 3, 2), "{found:?}");
    assert_eq!((found.lock_waits, found.lock_timeouts, found.deadlocks), (1, 1, 0), "{found:?}");
    let text = metrics.to_prometheus();
    for line in ["lsm_transactions 0", "lsm_transaction_conflicts_total 3", "lsm_transaction_retries_total 2"]
    {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    db.close().unwrap();
    env.drop_jobs();
}
