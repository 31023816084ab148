//! Whatever is done to a transaction or under it, calls return an error of their kind, and nothing is half written.

use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    BuiltInMerge, Db, Error, ErrorKind, Isolation, Keyspace, KeyspaceOptions, Options, Result, Transaction,
    TransactionOptions,
};

fn open(path: &str) -> (Db, Arc<SimEnv>) {
    // A database is known by a random number.
    let env = Arc::new(SimEnv::new(path.len() as u64));
    let options = Options::new().memory(2 << 20).vfs(Arc::new(SimFs::new()));
    let options = options.merge_operator(Arc::new(BuiltInMerge::append(",")));
    (options.env(Arc::clone(&env) as Arc<dyn Env>).open(path).unwrap(), env)
}

fn space(db: &Db, name: &str) -> Keyspace {
    db.keyspace(name, KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::append(",")))).unwrap()
}

const LOCKS: TransactionOptions =
    TransactionOptions { isolation: Isolation::Serializable, locks: Some(Duration::ZERO) };

/// Every call of a transaction that names a keyspace.
fn calls(transaction: &Transaction, keyspace: &Keyspace) -> Vec<(&'static str, Result<()>)> {
    let untracked = transaction.untracked();
    let all = |mut iter: lsm_engine::TransactionIter<'_>| iter.try_for_each(|entry| entry.map(drop));
    vec![
        ("get_in", transaction.get_in(keyspace, "key").map(drop)),
        ("contains_key_in", transaction.contains_key_in(keyspace, "key").map(drop)),
        ("multi_get_in", transaction.multi_get_in(keyspace, ["key"]).map(drop)),
        ("multi_get_in of nothing", transaction.multi_get_in::<&str>(keyspace, []).map(drop)),
        ("get_for_update_in", transaction.get_for_update_in(keyspace, "key").map(drop)),
        ("range_in", all(transaction.range_in(keyspace, "a".."z"))),
        ("prefix_in", all(transaction.prefix_in(keyspace, "k"))),
        ("iter_in", all(transaction.iter_in(keyspace))),
        ("first_in", transaction.first_in(keyspace).map(drop)),
        ("last_in", transaction.last_in(keyspace).map(drop)),
        ("is_empty_in", transaction.is_empty_in(keyspace).map(drop)),
        ("count_in", transaction.count_in::<&str>(keyspace, ..).map(drop)),
        ("cursor_in", transaction.cursor_in(keyspace).and_then(|mut cursor| cursor.first())),
        ("untracked get_in", untracked.get_in(keyspace, "key").map(drop)),
        ("untracked range_in", all(untracked.range_in(keyspace, "a".."z"))),
        ("untracked count_in", untracked.count_in::<&str>(keyspace, ..).map(drop)),
        ("untracked cursor_in", untracked.cursor_in(keyspace).and_then(|mut cursor| cursor.last())),
        ("put_in", transaction.put_in(keyspace, "key", "value")),
        ("put_expiring_in", transaction.put_expiring_in(keyspace, "key", "value", Duration::from_secs(1))),
        ("merge_in", transaction.merge_in(keyspace, "key", "value")),
        ("delete_in", transaction.delete_in(keyspace, "key")),
        ("single_delete_in", transaction.single_delete_in(keyspace, "key")),
        ("delete_range_in", transaction.delete_range_in(keyspace, "a".."z")),
        ("delete_range_in of nothing", transaction.delete_range_in(keyspace, "a".."a")),
    ]
}

/// The calls that only read. They may go on when writes cannot.
fn reads(name: &str) -> bool {
    !["put", "merge", "delete", "single"].iter().any(|write| name.starts_with(write))
}

#[test]
fn a_keyspace_of_another_database_is_foreign() {
    let ((db, env), (other, other_env)) = (open("/db"), open("/other"));
    for options in [TransactionOptions::default(), LOCKS] {
        let transaction = db.transaction_with(options).unwrap();
        transaction.put("mine", "1").unwrap();
        let before = transaction.memory_bytes();
        for (call, result) in calls(&transaction, &other.default_keyspace()) {
            let error = result.expect_err(call);
            assert_eq!(error.kind(), ErrorKind::Foreign, "{call}: {error}");
        }
        assert_eq!(transaction.memory_bytes(), before);
        transaction.commit().unwrap();
    }
    assert_eq!((db.iter().count(), other.iter().count()), (1, 0));
    drop((db, other));
    env.drop_jobs();
    other_env.drop_jobs();
}

#[test]
fn a_savepoint_of_another_transaction_or_database_changes_nothing() {
    let ((db, env), (other, other_env)) = (open("/db"), open("/other"));
    // Numbers of transactions and savepoints are the same in both databases.
    let (mine, next, foreign) =
        (db.transaction().unwrap(), db.transaction().unwrap(), other.transaction().unwrap());
    let savepoints = [next.savepoint(), foreign.savepoint()];
    mine.savepoint();
    mine.put("key", "1").unwrap();
    for savepoint in &savepoints {
        let error = mine.rollback_to(savepoint).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
    }
    assert_eq!(mine.get("key").unwrap().unwrap(), "1");
    mine.commit().unwrap();
    drop((next, foreign, db, other));
    env.drop_jobs();
    other_env.drop_jobs();
}

#[test]
fn a_dropped_keyspace_fails_all_calls_and_the_commit() {
    let (db, env) = open("/db");
    for options in [TransactionOptions::default(), LOCKS] {
        let keyspace = space(&db, "dropped");
        keyspace.put("key", "value").unwrap();
        let transaction = db.transaction_with(options).unwrap();
        transaction.put("elsewhere", "1").unwrap();
        transaction.put_in(&keyspace, "key", "2").unwrap();
        let mut iterator = transaction.iter_in(&keyspace);
        assert!(iterator.next().unwrap().is_ok());
        db.drop_keyspace("dropped").unwrap();
        drop(iterator);
        for (call, result) in calls(&transaction, &keyspace) {
            let error = result.expect_err(call);
            assert!(matches!(error, Error::KeyspaceDropped(_)), "{call}: {error}");
        }
        // Another keyspace of that name is another keyspace.
        let again = space(&db, "dropped");
        assert_eq!(transaction.get_in(&again, "key").unwrap(), None);
        let error = transaction.commit().unwrap_err();
        assert!(matches!(error, Error::KeyspaceDropped(_)), "{error}");
        assert_eq!((db.get("elsewhere").unwrap(), again.get("key").unwrap()), (None, None));
        drop((keyspace, again));
        db.drop_keyspace("dropped").unwrap();
    }
    drop(db);
    env.drop_jobs();
}

#[test]
fn a_keyspace_that_is_cleared_meanwhile_reads_as_before_and_conflicts() {
    type Use = fn(&Transaction, &Keyspace) -> Result<()>;
    let uses: [(Use, bool); 6] = [
        (|transaction, keyspace| transaction.get_in(keyspace, "key").map(drop), true),
        (|transaction, keyspace| transaction.get_in(keyspace, "absent").map(drop), true),
        (|transaction, keyspace| transaction.count_in(keyspace, "k".."l").map(drop), true),
        (|transaction, keyspace| transaction.put_in(keyspace, "key", "mine"), true),
        (|transaction, keyspace| transaction.delete_range_in(keyspace, "k".."l"), true),
        // Operands add up whatever others write.
        (|transaction, keyspace| transaction.merge_in(keyspace, "key", "mine"), false),
    ];
    for (index, (act, conflicts)) in uses.into_iter().enumerate() {
        for flushes in [false, true] {
            let (db, env) = open("/db");
            let keyspace = space(&db, "cleared");
            keyspace.put("key", "value").unwrap();
            let transaction = db.transaction().unwrap();
            keyspace.clear().unwrap();
            if flushes {
                db.put("any", "1").unwrap();
                db.flush().unwrap();
            }
            let seen = transaction.untracked().get_in(&keyspace, "key").unwrap();
            assert_eq!(seen.unwrap(), "value", "{index}");
            act(&transaction, &keyspace).unwrap();
            transaction.put("elsewhere", "1").unwrap();
            let result = transaction.commit();
            assert_eq!(result.is_err(), conflicts, "{index}: {result:?}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{index}: {error}");
                assert_eq!((db.get("elsewhere").unwrap(), keyspace.iter().count()), (None, 0), "{index}");
            } else {
                assert_eq!(keyspace.get("key").unwrap().unwrap(), "mine", "{index}");
            }
            drop((keyspace, db));
            env.drop_jobs();
        }
    }
}

#[test]
fn a_transaction_that_outlives_its_database_writes_nothing() {
    for options in [TransactionOptions::default(), LOCKS] {
        let (db, env) = open("/db");
        let keyspace = space(&db, "other");
        let written = db.transaction_with(options).unwrap();
        written.put("key", "1").unwrap();
        let savepoint = written.savepoint();
        let empty = db.transaction_with(options).unwrap();
        db.clone().close().unwrap();
        for (call, result) in calls(&written, &keyspace).into_iter().filter(|(call, _)| !reads(call)) {
            let error = result.expect_err(call);
            assert!(matches!(error, Error::Closed), "{call}: {error}");
        }
        written.rollback_to(&savepoint).unwrap();
        for (call, result) in calls(&empty, &keyspace).into_iter().filter(|(call, _)| reads(call)) {
            assert!(result.is_ok() || matches!(result, Err(Error::Closed)), "{call}: {result:?}");
        }
        for transaction in [written, empty] {
            let error = transaction.commit().unwrap_err();
            assert!(matches!(error, Error::Closed), "{error}");
        }
        assert!(matches!(db.transaction().unwrap_err(), Error::Closed));
        let error = db.transact(|_| -> Result<()> { unreachable!("no transaction began") }).unwrap_err();
        assert!(matches!(error, Error::Closed), "{error}");
        drop((keyspace, db));
        env.drop_jobs();
    }
}

#[test]
fn a_read_only_database_has_transactions_that_only_read() {
    let fs = Arc::new(SimFs::new());
    let env = Arc::new(SimEnv::new(1));
    let options = || {
        let options = Options::new().memory(2 << 20).vfs(Arc::clone(&fs) as _);
        options.merge_operator(Arc::new(BuiltInMerge::append(","))).env(Arc::clone(&env) as Arc<dyn Env>)
    };
    let db = options().open("/db").unwrap();
    db.put("key", "value").unwrap();
    db.close().unwrap();
    let db = options().read_only(true).open("/db").unwrap();
    let keyspace = db.default_keyspace();
    for options in [TransactionOptions::default(), LOCKS] {
        let transaction = db.transaction_with(options).unwrap();
        for (call, result) in calls(&transaction, &keyspace) {
            match result {
                Ok(()) => assert!(reads(call), "{call}"),
                Err(error) => assert!(!reads(call) && error.kind() == ErrorKind::ReadOnly, "{call}: {error}"),
            }
        }
        transaction.commit().unwrap();
    }
    assert_eq!(db.get("key").unwrap().unwrap(), "value");
    drop((keyspace, db));
    env.drop_jobs();
}

#[test]
fn arguments_that_are_not_valid_change_nothing() {
    let (db, env) = open("/db");
    let transaction = db.transaction().unwrap();
    transaction.put("key", "1").unwrap();
    let (long_key, before) = (vec![b'k'; 1 << 17], transaction.memory_bytes());
    let refused = [
        transaction.put(&long_key, "value").unwrap_err(),
        transaction.merge(&long_key, "value").unwrap_err(),
        transaction.delete(&long_key).unwrap_err(),
        transaction.delete_range("b".."a").unwrap_err(),
        transaction.put_expiring("key", "2", Duration::MAX).unwrap_err(),
        transaction.range("b".."a").next().unwrap().unwrap_err(),
        transaction.count("b".."a").unwrap_err(),
        transaction.put("key", vec![b'v'; 1 << 20]).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    assert_eq!(transaction.memory_bytes(), before);
    assert_eq!(transaction.get("key").unwrap().unwrap(), "1");
    transaction.commit().unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "1");
    drop(db);
    env.drop_jobs();
}
