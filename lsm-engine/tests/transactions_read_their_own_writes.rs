//! A transaction reads its snapshot and its own writes like a `BTreeMap`, in both directions, and commits exactly those
//! writes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    BuiltInMerge, Db, ErrorKind, Isolation, Keyspace, KeyspaceOptions, MergeError, MergeOperator, Options,
    Result, Savepoint, Slice, Transaction, TransactionCursor, TransactionOptions,
};
use proptest::prelude::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    PutExpiring(u8, u8),
    Merge(u8, u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Savepoint,
    RollBack(usize),
    /// Others write, flush and compact. The transaction must not see that.
    Others(u8),
    Walk(u8, Vec<bool>),
    Range(Bound<u8>, Bound<u8>, Vec<bool>),
}

fn bound() -> impl Strategy<Value = Bound<u8>> {
    prop_oneof![
        (0_u8..24).prop_map(Bound::Included),
        (0_u8..24).prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0_u8..24, any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        2 => (0_u8..24, any::<u8>()).prop_map(|(key, value)| Op::PutExpiring(key, value)),
        4 => (0_u8..24, any::<u8>()).prop_map(|(key, operand)| Op::Merge(key, operand)),
        4 => (0_u8..24).prop_map(Op::Delete),
        3 => (0_u8..24, 0_u8..24).prop_map(|(a, b)| Op::DeleteRange(a.min(b), a.max(b))),
        2 => Just(Op::Savepoint),
        2 => any::<usize>().prop_map(Op::RollBack),
        2 => any::<u8>().prop_map(Op::Others),
        3 => (0_u8..24, prop::collection::vec(any::<bool>(), 0..20)).prop_map(|(key, steps)| Op::Walk(key, steps)),
        3 => (bound(), bound(), prop::collection::vec(any::<bool>(), 0..30))
            .prop_map(|(lower, upper, ends)| Op::Range(lower, upper, ends)),
    ]
}

fn key(number: u8) -> Vec<u8> {
    format!("key{number:02}").into_bytes()
}

fn open(seed: u64) -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(seed));
    let options = Options::new().memory(2 << 20).vfs(Arc::new(SimFs::new()));
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
    (env, db)
}

fn owned((key, value): (Slice, Slice)) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

fn check(transaction: &Transaction, keyspace: &Keyspace, model: &Model) {
    for number in 0..24 {
        let found = transaction.get_in(keyspace, key(number)).unwrap();
        assert_eq!(found.as_deref(), model.get(&key(number)).map(Vec::as_slice), "key {number}");
    }
    let all: Vec<_> =
        transaction.range_in::<&[u8]>(keyspace, ..).map(|entry| owned(entry.unwrap())).collect();
    assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
    let prefixed = transaction.prefix_in(keyspace, "key1").rev().map(|entry| owned(entry.unwrap()).0);
    let expected = model.keys().rev().filter(|key| key.starts_with(b"key1")).cloned();
    assert_eq!(prefixed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// Moves a cursor from a key on, and compares each position.
fn walk(transaction: &Transaction, keyspace: &Keyspace, model: &Model, from: u8, steps: &[bool]) {
    let mut cursor = transaction.cursor_in(keyspace).unwrap();
    cursor.seek_for_prev(key(from)).unwrap();
    assert_eq!(cursor.key(), model.range(..=key(from)).next_back().map(|(key, _)| &**key));
    cursor.seek(key(from)).unwrap();
    let mut position = model.range(key(from)..).next();
    for forward in steps {
        assert_eq!(cursor.entry(), position.map(|(key, value)| (&**key, &**value)));
        let Some((at, _)) = position else { break };
        if *forward {
            cursor.next().unwrap();
            position = model.range((Bound::Excluded(at.clone()), Bound::Unbounded)).next();
        } else {
            cursor.prev().unwrap();
            position = model.range(..at.clone()).next_back();
        }
    }
    assert_eq!(cursor.entry(), position.map(|(key, value)| (&**key, &**value)));
}

/// Takes entries from both ends of a range.
fn range(
    transaction: &Transaction,
    keyspace: &Keyspace,
    model: &Model,
    (lower, upper): (Bound<u8>, Bound<u8>),
    ends: &[bool],
) {
    let bounds = (lower.map(key), upper.map(key));
    let mut found = transaction.range_in(keyspace, bounds.clone());
    if let (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) = (lower, upper)
    {
        if a > b {
            assert_eq!(found.next().unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
            return;
        }
        if a == b && (lower, upper) == (Bound::Excluded(a), Bound::Excluded(b)) {
            assert!(found.next().is_none());
            return;
        }
    }
    let mut expected = model.range(bounds).map(|(key, value)| (key.clone(), value.clone()));
    for front in ends {
        let (found, expected) =
            if *front { (found.next(), expected.next()) } else { (found.next_back(), expected.next_back()) };
        assert_eq!(found.map(|entry| owned(entry.unwrap())), expected);
    }
}

fn run(ops: Vec<Op>, locks: bool) {
    let (env, db) = open(1);
    let operator = Arc::new(BuiltInMerge::append(","));
    let side = db.keyspace("side", KeyspaceOptions::new().merge_operator(operator)).unwrap();
    let mut model = Model::new();
    for number in (0..24).step_by(2) {
        side.put(key(number), [number]).unwrap();
        model.insert(key(number), vec![number]);
        if number == 12 {
            db.flush().unwrap();
        }
    }
    // Snapshot isolation: the writes of the others below conflict with nothing that is only read.
    let locks = locks.then_some(Duration::from_secs(1));
    let options = TransactionOptions { isolation: Isolation::Snapshot, locks };
    let transaction = db.transaction_with(options).unwrap();
    let mut savepoints: Vec<(Savepoint, Model)> = Vec::new();
    for op in ops {
        match op {
            Op::Put(number, value) => {
                transaction.put_in(&side, key(number), [value]).unwrap();
                model.insert(key(number), vec![value]);
            }
            Op::PutExpiring(number, value) => {
                transaction.put_expiring_in(&side, key(number), [value], Duration::from_secs(3600)).unwrap();
                model.insert(key(number), vec![value]);
            }
            Op::Merge(number, operand) => {
                transaction.merge_in(&side, key(number), [operand]).unwrap();
                let value = model.entry(key(number)).or_default();
                if !value.is_empty() {
                    value.push(b',');
                }
                value.push(operand);
            }
            Op::Delete(number) => {
                transaction.delete_in(&side, key(number)).unwrap();
                model.remove(&key(number));
            }
            Op::DeleteRange(start, end) => {
                transaction.delete_range_in(&side, key(start)..key(end)).unwrap();
                model.retain(|other, _| *other < key(start) || *other >= key(end));
            }
            Op::Savepoint => savepoints.push((transaction.savepoint(), model.clone())),
            Op::RollBack(index) => {
                if !savepoints.is_empty() {
                    let index = index % savepoints.len();
                    for (taken_back, _) in savepoints.drain(index + 1..).collect::<Vec<_>>() {
                        transaction.rollback_to(&savepoints[index].0).unwrap();
                        let refused = transaction.rollback_to(&taken_back).unwrap_err();
                        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
                    }
                    transaction.rollback_to(&savepoints[index].0).unwrap();
                    model = savepoints[index].1.clone();
                }
            }
            Op::Others(value) => {
                db.put(key(value % 24), [value]).unwrap();
                if value % 3 == 0 {
                    db.flush().unwrap();
                    side.compact_range::<&[u8]>(..).unwrap();
                }
            }
            Op::Walk(from, steps) => walk(&transaction, &side, &model, from, &steps),
            Op::Range(lower, upper, ends) => range(&transaction, &side, &model, (lower, upper), &ends),
        }
        check(&transaction, &side, &model);
    }
    transaction.commit().unwrap();
    let found: Vec<_> = side.iter().map(|entry| owned(entry.unwrap())).collect();
    assert_eq!(found, model.into_iter().collect::<Vec<_>>());
    drop((savepoints, side, db));
    env.drop_jobs();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_transaction_reads_like_a_sorted_map(ops in prop::collection::vec(op(), 1..40)) {
        run(ops, false);
    }
}

/// A put after an own single delete is written with that delete: otherwise the key would have two puts, of which a later
/// single delete removes one.
#[test]
fn single_deletes_of_a_transaction_count_with_those_around_it() -> Result<()> {
    let (env, db) = open(1);
    db.put("a", "1")?;
    db.put("b", "1")?;
    db.flush()?;
    let transaction = db.transaction()?;
    transaction.single_delete("a")?;
    assert_eq!(transaction.get("a")?, None);
    transaction.put("a", "2")?;
    transaction.put("c", "1")?;
    transaction.single_delete("c")?;
    transaction.single_delete("b")?;
    transaction.commit()?;
    db.flush()?;
    db.single_delete("a")?;
    for _ in 0..2 {
        assert_eq!(db.iter().count(), 0);
        db.compact_range::<&[u8]>(..)?;
    }
    drop(db);
    env.drop_jobs();
    Ok(())
}

#[test]
fn merges_conflict_only_with_reads() -> Result<()> {
    let env = Arc::new(SimEnv::new(1));
    let keyspace = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::add_u64()));
    let options = Options::new().memory(2 << 20).vfs(Arc::new(SimFs::new())).keyspace(keyspace);
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db")?;
    let add = |transaction: &Transaction| transaction.merge("count", 1_u64.to_le_bytes());
    let (one, two, reader) = (db.transaction()?, db.transaction()?, db.transaction()?);
    for transaction in [&one, &two, &reader] {
        add(transaction)?;
    }
    assert_eq!(reader.get("count")?.unwrap(), 1_u64.to_le_bytes());
    one.commit()?;
    two.commit()?;
    assert_eq!(reader.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(db.get("count")?.unwrap(), 2_u64.to_le_bytes());
    let other = db.keyspace("other", KeyspaceOptions::new())?;
    let refused = db.transaction()?.merge_in(&other, "a", "1").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OperatorMissing);
    drop((other, db));
    env.drop_jobs();
    Ok(())
}

/// The work per merge must not grow with the operands before it.
#[test]
fn a_transaction_takes_many_merges_into_one_key_and_takes_them_back() -> Result<()> {
    let env = Arc::new(SimEnv::new(1));
    let keyspace = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::add_u64()));
    let options = Options::new().memory(256 << 20).vfs(Arc::new(SimFs::new())).keyspace(keyspace);
    let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db")?;
    let transaction = db.transaction()?;
    let empty = transaction.memory_bytes();
    let before = transaction.savepoint();
    for _ in 0..100_000 {
        transaction.merge("count", 1_u64.to_le_bytes())?;
    }
    assert_eq!(transaction.get("count")?.unwrap(), 100_000_u64.to_le_bytes());
    transaction.rollback_to(&before)?;
    assert_eq!(transaction.get("count")?, None);
    transaction.delete("count")?;
    let deleted = transaction.savepoint();
    let with_delete = transaction.memory_bytes();
    transaction.merge("count", 2_u64.to_le_bytes())?;
    transaction.rollback_to(&deleted)?;
    assert_eq!(transaction.memory_bytes(), with_delete);
    assert_eq!(transaction.get("count")?, None);
    transaction.rollback_to(&before)?;
    assert!(transaction.memory_bytes() < empty + 1000, "the key that was read is tracked");
    drop((transaction, db));
    env.drop_jobs();
    Ok(())
}

#[test]
fn an_iterator_does_not_see_what_is_written_after_it_was_made() -> Result<()> {
    let (env, db) = open(1);
    db.put("a", "1")?;
    db.put("c", "3")?;
    let transaction = db.transaction()?;
    transaction.put("b", "2")?;
    let mut entries = transaction.range("a"..);
    assert_eq!(entries.next().unwrap()?.0, "a");
    // Deletes and inserts while iterating, as a program does that moves entries.
    for entry in transaction.range("a".."d") {
        let (key, value) = entry?;
        transaction.delete(&key)?;
        transaction.put([b"moved/", &*key].concat(), value)?;
    }
    let rest: Vec<_> = entries.map(|entry| entry.unwrap().0).collect();
    assert_eq!(rest, ["b", "c"]);
    let keys: Vec<_> = transaction.iter().map(|entry| entry.unwrap().0).collect();
    assert_eq!(keys, ["moved/a", "moved/b", "moved/c"]);
    transaction.commit()?;
    assert_eq!(db.iter().map(|entry| entry.unwrap().0).collect::<Vec<_>>(), keys);
    drop(db);
    env.drop_jobs();
    Ok(())
}

#[test]
fn the_writes_of_a_transaction_are_bounded_and_the_refused_one_leaves_no_trace() -> Result<()> {
    let (env, db) = open(1);
    let transaction = db.transaction()?;
    let value = vec![b'v'; 10_000];
    let mut count = 0;
    let refused = loop {
        match transaction.put(format!("key{count:04}"), &value) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!((40..60).contains(&count), "{count} values of 10 kB fit a quarter of 2 MiB");
    assert!(refused.to_string().starts_with("transaction of"), "{refused}");
    assert_eq!(transaction.iter().count(), count);
    assert!(transaction.memory_bytes() <= 512 << 10);
    // A delete of everything takes the place of all that.
    transaction.delete_range("key".."kez")?;
    transaction.put("key", &value)?;
    transaction.commit()?;
    assert_eq!(db.iter().count(), 1);
    drop(db);
    env.drop_jobs();
    Ok(())
}

/// Takes no operand that is "!".
#[derive(Debug)]
struct Picky;

impl MergeOperator for Picky {
    fn name(&self) -> &'static str {
        "picky"
    }

    fn full(&self, _: &[u8], _: Option<&[u8]>, operands: &[&[u8]]) -> Result<Option<Vec<u8>>, MergeError> {
        if operands.contains(&&b"!"[..]) {
            return Err(MergeError::new("refused"));
        }
        Ok(operands.last().map(|operand| operand.to_vec()))
    }

    fn partial(&self, _: &[u8], _: &[&[u8]]) -> Option<Vec<u8>> {
        None
    }
}

fn open_picky() -> (Arc<SimEnv>, Db) {
    let env = Arc::new(SimEnv::new(1));
    let options = Options::new().memory(2 << 20).vfs(Arc::new(SimFs::new())).merge_operator(Arc::new(Picky));
    (Arc::clone(&env), options.env(env as Arc<dyn Env>).open("/db").unwrap())
}

/// What an iterator returns up to its end. A refused merge is "!".
fn shown(entries: impl Iterator<Item = Result<(Slice, Slice)>>) -> Vec<String> {
    let shown = entries.map(|entry| match entry {
        Ok((key, value)) => format!("{}={}", key.escape_ascii(), value.escape_ascii()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::OperatorFailed);
            "!".to_owned()
        }
    });
    shown.collect()
}

fn at(cursor: &TransactionCursor<'_>) -> String {
    cursor.key().unwrap_or(b"none").escape_ascii().to_string()
}

type Change = fn(&Transaction) -> Result<()>;

#[test]
fn a_scan_passes_a_refused_merge_that_the_transaction_replaced() -> Result<()> {
    let (env, db) = open_picky();
    db.put("a", "1")?;
    db.merge("p", "!")?;
    db.put("q", "1")?;
    db.put("z", "1")?;
    let changes: [(Change, &[&str]); 5] = [
        (|t| t.delete("p"), &["a=1", "q=1", "z=1"]),
        (|t| t.put("p", "2"), &["a=1", "p=2", "q=1", "z=1"]),
        (|t| t.delete_range("b".."q"), &["a=1", "q=1", "z=1"]),
        (|t| t.delete_range("p".."r"), &["a=1", "z=1"]),
        (|t| t.delete("p").and_then(|()| t.merge("p", "3")), &["a=1", "p=3", "q=1", "z=1"]),
    ];
    for (number, (change, expected)) in changes.into_iter().enumerate() {
        for flushed in [false, true] {
            if flushed {
                db.flush()?;
            }
            let transaction = db.transaction()?;
            change(&transaction)?;
            assert_eq!(shown(transaction.iter()), expected, "change {number}");
            let backward = shown(transaction.iter().rev());
            assert!(backward.iter().rev().eq(expected), "change {number}: {backward:?}");
            let mut cursor = transaction.cursor()?;
            for (from, forward) in [("p", true), ("p", false), ("o", true), ("q", false)] {
                if forward {
                    cursor.seek(from)?;
                } else {
                    cursor.seek_for_prev(from)?;
                }
                let index = expected.iter().position(|entry| entry[..1] == at(&cursor)).unwrap();
                cursor.prev()?;
                cursor.next()?;
                assert_eq!(at(&cursor), if index > 0 { &expected[index][..1] } else { "none" });
            }
        }
    }
    drop(db);
    env.drop_jobs();
    Ok(())
}

#[test]
fn a_scan_fails_at_a_refused_merge_and_not_before() -> Result<()> {
    let (env, db) = open_picky();
    for key in ["a", "c", "x", "z"] {
        db.put(key, "1")?;
    }
    let own = db.transaction()?;
    own.merge("r", "!")?;
    own.put("b", "2")?;
    own.put("y", "2")?;
    let of_others = {
        db.merge("p", "!")?;
        let transaction = db.transaction()?;
        transaction.put("b", "2")?;
        transaction.put("y", "2")?;
        transaction
    };
    for transaction in [&own, &of_others] {
        assert_eq!(shown(transaction.iter()), ["a=1", "b=2", "c=1", "!"]);
        assert_eq!(shown(transaction.iter().rev()), ["z=1", "y=2", "x=1", "!"]);
        assert_eq!(shown(transaction.range("d"..)), ["!"]);
        assert_eq!(shown(transaction.range("s"..)), ["x=1", "y=2", "z=1"]);
        assert_eq!(shown(transaction.range(.."d")), ["a=1", "b=2", "c=1"]);
        let mut cursor = transaction.cursor()?;
        cursor.seek("b")?;
        cursor.next()?;
        assert_eq!(at(&cursor), "c");
        cursor.prev()?;
        assert_eq!(at(&cursor), "b");
        cursor.seek_for_prev("y")?;
        cursor.prev()?;
        assert_eq!(at(&cursor), "x");
        cursor.next()?;
        assert_eq!(at(&cursor), "y");
        cursor.seek("c")?;
        // After the error there is no position, and no move that would hide the key.
        assert_eq!(cursor.next().unwrap_err().kind(), ErrorKind::OperatorFailed);
        assert_eq!(at(&cursor), "none");
        cursor.next()?;
        assert_eq!(at(&cursor), "none");
        assert_eq!(cursor.seek("d").unwrap_err().kind(), ErrorKind::OperatorFailed);
        assert_eq!(at(&cursor), "none");
        cursor.last()?;
        assert_eq!(at(&cursor), "z");
    }
    assert_eq!(shown(db.iter()), ["a=1", "c=1", "!"]);
    assert_eq!(shown(db.iter().rev()), ["z=1", "x=1", "!"]);
    drop((own, of_others, db));
    env.drop_jobs();
    Ok(())
}

#[test]
fn a_get_of_no_keys_fails_for_a_foreign_keyspace_too() -> Result<()> {
    let (env, db) = open(1);
    let (other_env, other) = open(2);
    let foreign = other.keyspace("side", KeyspaceOptions::new())?;
    let transaction = db.transaction()?;
    let none: [&str; 0] = [];
    assert_eq!(transaction.multi_get_in(&foreign, none).unwrap_err().kind(), ErrorKind::Foreign);
    assert_eq!(transaction.untracked().multi_get_in(&foreign, none).unwrap_err().kind(), ErrorKind::Foreign);
    let dropped = db.keyspace("side", KeyspaceOptions::new())?;
    assert_eq!(transaction.multi_get_in(&dropped, none)?.len(), 0);
    db.drop_keyspace("side")?;
    let with_key = transaction.multi_get_in(&dropped, ["a"]).unwrap_err().kind();
    assert_eq!(transaction.multi_get_in(&dropped, none).unwrap_err().kind(), with_key);
    drop((transaction, dropped, foreign, db, other));
    env.drop_jobs();
    other_env.drop_jobs();
    Ok(())
}

#[test]
fn the_ends_and_the_number_of_keys_include_own_writes() -> Result<()> {
    let (env, db) = open(1);
    let other = db.keyspace("other", KeyspaceOptions::new())?;
    for key in ["b", "c", "d"] {
        db.put(key, key)?;
        other.put(key, key)?;
    }
    let transaction = db.transaction()?;
    transaction.put("a", "own")?;
    transaction.delete_range("c".."e")?;
    transaction.delete_range_in(&other, "a".."z")?;
    let untracked = transaction.untracked();
    let pair = |key: &str, value: &str| Some((Slice::from(key.as_bytes()), Slice::from(value.as_bytes())));
    assert_eq!((transaction.first()?, transaction.last()?), (pair("a", "own"), pair("b", "b")));
    assert_eq!((untracked.first()?, untracked.last()?), (pair("a", "own"), pair("b", "b")));
    assert_eq!((transaction.first_in(&other)?, transaction.last_in(&other)?), (None, None));
    assert_eq!((untracked.first_in(&other)?, untracked.last_in(&other)?), (None, None));
    assert_eq!((transaction.count::<&str>(..)?, untracked.count("b"..)?), (2, 1));
    assert_eq!((transaction.count_in::<&str>(&other, ..)?, untracked.count_in::<&str>(&other, ..)?), (0, 0));
    assert_eq!((transaction.is_empty()?, transaction.is_empty_in(&other)?), (false, true));
    assert_eq!((untracked.is_empty()?, untracked.is_empty_in(&other)?), (false, true));
    assert_eq!((transaction.contains_key("a")?, transaction.contains_key_in(&other, "b")?), (true, false));
    assert_eq!((untracked.contains_key("c")?, untracked.contains_key_in(&other, "b")?), (false, false));
    assert_eq!((untracked.iter().count(), transaction.iter_in(&other).count()), (2, 0));
    let snapshot = db.snapshot()?;
    transaction.commit()?;
    assert_eq!((snapshot.contains_key("c")?, snapshot.contains_key_in(&other, "b")?), (true, true));
    assert_eq!(snapshot.multi_get(["a", "b"])?, [None, pair("", "b").map(|(_, value)| value)]);
    assert_eq!(snapshot.multi_get_in(&other, ["b", "x"])?, [pair("", "b").map(|(_, value)| value), None]);
    assert_eq!((snapshot.iter_in(&other).count(), other.count::<&str>(..)?), (3, 0));
    drop((snapshot, other, db));
    env.drop_jobs();
    Ok(())
}

/// Whoever saw that there was nothing must not miss a key that another writer puts.
#[test]
fn the_ends_and_the_number_of_keys_count_as_read() {
    type Read = fn(&Transaction) -> Result<()>;
    let tracked: [(Read, &str); 4] = [
        (|transaction| transaction.is_empty().map(drop), "a"),
        (|transaction| transaction.first().map(drop), "a"),
        (|transaction| transaction.last().map(drop), "z"),
        (|transaction| transaction.count("k".."n").map(drop), "mm"),
    ];
    let untracked: [(Read, &str); 2] = [
        (|transaction| transaction.untracked().is_empty().map(drop), "a"),
        (|transaction| transaction.untracked().count("k".."n").map(drop), "mm"),
    ];
    // Behind the first key nothing was read, before the last neither.
    let elsewhere: [(Read, &str); 2] = [
        (|transaction| transaction.first().map(drop), "z"),
        (|transaction| transaction.last().map(drop), "a"),
    ];
    let conflicts = |read: Read, key: &str| {
        let (env, db) = open(1);
        db.put("m", "1").unwrap();
        let transaction = db.transaction().unwrap();
        read(&transaction).unwrap();
        transaction.put("own", "1").unwrap();
        db.put(key, "of another").unwrap();
        let result = transaction.commit();
        drop(db);
        env.drop_jobs();
        result.is_err_and(|error| error.kind() == ErrorKind::Conflict)
    };
    assert!(tracked.into_iter().all(|(read, key)| conflicts(read, key)));
    assert!(!untracked.into_iter().chain(elsewhere).any(|(read, key)| conflicts(read, key)));
}
