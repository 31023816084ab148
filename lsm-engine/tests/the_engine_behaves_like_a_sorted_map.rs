//! Random histories of writes, flushes, compactions, snapshots and reopens, compared with a `BTreeMap`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lsm_engine::{
    Backup, BuiltInMerge, CheckpointOptions, CompareAndSwap, Db, DirectoryStore, Ingest, KeyspaceOptions,
    Options, Result, Snapshot, WriteBatch,
};
use proptest::prelude::*;

const DECADE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys with a value to put or to merge (`true`), or to delete.
type Writes = Vec<(Vec<u8>, Option<Vec<u8>>, bool)>;

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Vec<u8>),
    Merge(Vec<u8>, Vec<u8>),
    /// A value that expires after the test, or at once.
    PutExpiring(Vec<u8>, Vec<u8>, bool),
    Delete(Vec<u8>),
    SingleDelete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    /// Deletes a range, and removes the tables that lie in it.
    DeleteFiles(Vec<u8>, Vec<u8>),
    /// Puts, merges and deletes.
    Batch(Writes),
    /// A put and a delete that return tickets.
    Submit(Vec<u8>, Vec<u8>, Vec<u8>),
    /// Puts, merges and deletes in a transaction, with what it writes after a savepoint taken back. Commits or not.
    Transaction(Writes, usize, bool),
    /// Appends to the value, or deletes one that is long.
    Update(Vec<u8>, Vec<u8>),
    CompareAndSwap(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    GetOrInsert(Vec<u8>, Vec<u8>),
    Take(Vec<u8>),
    PopFirst,
    PopLast,
    /// Tables built elsewhere, two of them or one with range deletes, and what they replace.
    Ingest(BTreeMap<Vec<u8>, Built>, Vec<(Vec<u8>, Vec<u8>)>, Option<(Vec<u8>, Vec<u8>)>, bool),
    BulkLoad(Model),
    Snapshot,
    DropSnapshot,
    Flush,
    Compact,
    Settle,
    Clear,
    Reopen,
    DropAndReopen,
    /// Goes on in a checkpoint, made with or without a flush.
    Branch(bool),
    /// Makes a backup, and goes on in what is restored of it.
    Restore,
}

/// An entry of a table that is built elsewhere.
#[derive(Clone, Debug)]
enum Built {
    Put(Vec<u8>),
    Merge(Vec<u8>),
    PutExpiring(Vec<u8>, bool),
    Delete,
}

fn built() -> impl Strategy<Value = Built> {
    prop_oneof![
        4 => value().prop_map(Built::Put),
        2 => value().prop_map(Built::Merge),
        1 => (value(), any::<bool>()).prop_map(|(value, stays)| Built::PutExpiring(value, stays)),
        2 => Just(Built::Delete),
    ]
}

fn range() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (key(), key()).prop_map(|(a, b)| (a.clone().min(b.clone()), a.max(b)))
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0_u8..40).prop_map(|number| format!("key{number:02}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    // The longer ones go to blob files when they are flushed, the longest when they are written.
    prop_oneof![
        16 => prop::collection::vec(any::<u8>(), 0..8),
        4 => prop::collection::vec(any::<u8>(), 0..3000),
        1 => any::<u8>().prop_map(|byte| vec![byte; 66_000]),
    ]
}

/// A value that may be there already.
fn small() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..3).prop_map(|byte| vec![byte; usize::from(byte)])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => (key(), value()).prop_map(|(key, value)| Op::Put(key, value)),
        12 => (key(), value()).prop_map(|(key, operand)| Op::Merge(key, operand)),
        8 => (key(), value(), any::<bool>()).prop_map(|(key, value, stays)| Op::PutExpiring(key, value, stays)),
        8 => key().prop_map(Op::Delete),
        4 => key().prop_map(Op::SingleDelete),
        3 => (key(), key()).prop_map(|(a, b)| Op::DeleteRange(a.clone().min(b.clone()), a.max(b))),
        2 => range().prop_map(|(start, end)| Op::DeleteFiles(start, end)),
        4 => prop::collection::vec((key(), prop::option::of(value()), any::<bool>()), 0..10).prop_map(Op::Batch),
        4 => (
            prop::collection::vec((key(), prop::option::of(value()), any::<bool>()), 0..10),
            0..10_usize,
            prop::bool::weighted(0.8)
        )
            .prop_map(|(writes, kept, commits)| Op::Transaction(writes, kept, commits)),
        3 => (key(), value(), key()).prop_map(|(put, value, deleted)| Op::Submit(put, value, deleted)),
        3 => (key(), value()).prop_map(|(key, value)| Op::Update(key, value)),
        2 => (key(), prop::option::of(small()), prop::option::of(small()))
            .prop_map(|(key, expected, new)| Op::CompareAndSwap(key, expected, new)),
        2 => (key(), small()).prop_map(|(key, value)| Op::GetOrInsert(key, value)),
        2 => key().prop_map(Op::Take),
        2 => Just(Op::PopFirst),
        2 => Just(Op::PopLast),
        4 => (
            prop::collection::btree_map(key(), built(), 0..20),
            prop::collection::vec(range(), 0..2),
            prop::option::weighted(0.3, range()),
            any::<bool>()
        )
            .prop_map(|(entries, deleted, replaced, two)| Op::Ingest(entries, deleted, replaced, two)),
        2 => prop::collection::btree_map(key(), value(), 0..30).prop_map(Op::BulkLoad),
        3 => Just(Op::Snapshot),
        2 => Just(Op::DropSnapshot),
        4 => Just(Op::Flush),
        2 => Just(Op::Compact),
        1 => Just(Op::Settle),
        1 => Just(Op::Clear),
        1 => Just(Op::Reopen),
        1 => Just(Op::DropAndReopen),
        1 => any::<bool>().prop_map(Op::Branch),
        1 => Just(Op::Restore),
    ]
}

/// What an update makes of a value.
fn updated(old: Option<&[u8]>, more: &[u8]) -> Option<Vec<u8>> {
    let old = old.unwrap_or_default();
    (old.len() < 5000).then(|| [old, more].concat())
}

fn pair((key, value): (lsm_engine::Slice, lsm_engine::Slice)) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    (key.clone(), value.clone())
}

fn open(path: &Path) -> Result<Db> {
    let operator = Arc::new(BuiltInMerge::append(","));
    let keyspace = KeyspaceOptions::new().merge_operator(operator).blobs_from(1024).blob_garbage_max(0.1);
    let options = Options::new().memory(2 << 20).memtable_bytes(100_000).keyspace(keyspace);
    // Reads take another way with statistics.
    options.statistics(true).open(path)
}

fn merge(model: &mut Model, key: Vec<u8>, operand: &[u8]) {
    let value = match model.get(&key) {
        Some(value) => [value, operand].join(&b','),
        None => operand.to_vec(),
    };
    model.insert(key, value);
}

fn collect(
    entries: impl Iterator<Item = Result<(lsm_engine::Slice, lsm_engine::Slice)>>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn check_snapshot(snapshot: &Snapshot, model: &Model) {
    let expected: Vec<_> = model.clone().into_iter().collect();
    assert_eq!(collect(snapshot.iter()), expected);
    assert_eq!(collect(snapshot.iter().rev()), expected.into_iter().rev().collect::<Vec<_>>());
    assert_eq!(snapshot.first().unwrap().map(pair), model.first_key_value().map(owned));
    assert_eq!(snapshot.last().unwrap().map(pair), model.last_key_value().map(owned));
    assert_eq!(snapshot.is_empty().unwrap(), model.is_empty());
    assert_eq!(snapshot.count::<&[u8]>(..).unwrap(), model.len() as u64);
    for (key, value) in model {
        assert_eq!(snapshot.get(key).unwrap().as_deref(), Some(&**value));
        assert!(snapshot.contains_key(key).unwrap());
    }
    let values = snapshot.multi_get(model.keys()).unwrap().into_iter().flatten().map(|value| value.to_vec());
    assert!(values.eq(model.values().cloned()));
}

fn check(db: &Db, model: &Model) {
    let expected: Vec<_> = model.clone().into_iter().collect();
    assert_eq!(collect(db.iter()), expected);
    let mut reversed = collect(db.iter().rev());
    reversed.reverse();
    assert_eq!(reversed, expected);
    for number in 0..40_u8 {
        let key = format!("key{number:02}").into_bytes();
        assert_eq!(db.get(&key).unwrap().as_deref(), model.get(&key).map(|value| &**value), "{key:?}");
    }
    let (from, to) = (b"key05".to_vec(), b"key25".to_vec());
    let part: Vec<_> =
        model.range(from.clone()..to.clone()).map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(collect(db.range(from.clone()..to.clone())), part);
    // Steps from both ends in turn meet in the middle.
    let (mut both, mut front, mut back) = (db.range(from..to), Vec::new(), Vec::new());
    loop {
        match both.next() {
            Some(entry) => front.push(entry.unwrap()),
            None => break,
        }
        match both.next_back() {
            Some(entry) => back.push(entry.unwrap()),
            None => break,
        }
    }
    front.extend(back.into_iter().rev());
    let met: Vec<_> = front.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(met, part);
    assert_eq!(db.first().unwrap().map(pair), model.first_key_value().map(owned));
    assert_eq!(db.last().unwrap().map(pair), model.last_key_value().map(owned));
    assert_eq!(db.is_empty().unwrap(), model.is_empty());
    assert_eq!(db.count("key05".."key25").unwrap(), part.len() as u64);
    let prefixed: Vec<_> =
        model.iter().filter(|(key, _)| key.starts_with(b"key1")).map(|(key, _)| key.clone()).collect();
    let found: Vec<_> = collect(db.prefix("key1")).into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, prefixed);
}

/// The calls that read, decide and write, and those that return tickets.
fn read_and_write(db: &Db, model: &mut Model, op: Op) {
    match op {
        Op::Submit(key, value, deleted) => {
            let first = db.submit_put(&key, &value).unwrap();
            let second = db.submit_delete(&deleted).unwrap();
            second.wait().unwrap();
            assert!(first.is_durable() && second.is_durable());
            model.insert(key, value);
            model.remove(&deleted);
        }
        Op::Update(key, more) => {
            let new = updated(model.get(&key).map(|old| &**old), &more);
            assert_eq!(db.update(&key, |old| updated(old, &more)).unwrap(), new);
            model.remove(&key);
            model.extend(new.map(|new| (key, new)));
        }
        Op::CompareAndSwap(key, expected, new) => {
            let found = model.get(&key).cloned();
            let is_swapped = found == expected;
            let result = db.compare_and_swap(&key, expected.as_deref(), new.as_deref()).unwrap();
            let expected = CompareAndSwap::Found(found.map(Into::into));
            assert_eq!(result, if is_swapped { CompareAndSwap::Swapped } else { expected });
            if is_swapped {
                model.remove(&key);
                model.extend(new.map(|new| (key, new)));
            }
        }
        Op::GetOrInsert(key, value) => {
            let found = db.get_or_insert_with(&key, || value.clone()).unwrap();
            assert_eq!(&*found, &**model.entry(key).or_insert(value));
        }
        Op::Take(key) => {
            assert_eq!(db.take(&key).unwrap().map(|value| value.to_vec()), model.remove(&key));
        }
        Op::PopFirst => assert_eq!(db.pop_first().unwrap().map(pair), model.pop_first()),
        Op::PopLast => assert_eq!(db.pop_last().unwrap().map(pair), model.pop_last()),
        other => unreachable!("{other:?}"),
    }
}

/// Runs a transaction, and takes back its writes from number `kept` on. Returns the model after it, if it commits.
fn transact(db: &Db, model: &Model, writes: Writes, kept: usize, commits: bool) -> Option<Model> {
    let transaction = db.transaction().unwrap();
    let mut inside = model.clone();
    let mut savepoint = None;
    for (index, (key, value, merges)) in writes.into_iter().enumerate() {
        if index == kept {
            savepoint = Some((transaction.savepoint(), inside.clone()));
        }
        assert_eq!(transaction.get(&key).unwrap().as_deref(), inside.get(&key).map(|value| &**value));
        match value {
            Some(operand) if merges => {
                transaction.merge(&key, &operand).unwrap();
                merge(&mut inside, key, &operand);
            }
            Some(value) => {
                transaction.put(&key, &value).unwrap();
                inside.insert(key, value);
            }
            None => {
                transaction.delete(&key).unwrap();
                inside.remove(&key);
            }
        }
    }
    let all: Vec<_> = inside.clone().into_iter().collect();
    assert_eq!(collect(transaction.iter()), all);
    assert_eq!(transaction.first().unwrap().map(pair), inside.first_key_value().map(owned));
    assert_eq!(transaction.last().unwrap().map(pair), inside.last_key_value().map(owned));
    assert_eq!(transaction.is_empty().unwrap(), inside.is_empty());
    assert_eq!(transaction.count::<&[u8]>(..).unwrap(), inside.len() as u64);
    let values =
        transaction.multi_get(inside.keys()).unwrap().into_iter().flatten().map(|value| value.to_vec());
    assert!(values.eq(inside.values().cloned()));
    assert_eq!(collect(transaction.untracked().iter()), all);
    if let Some((savepoint, then)) = savepoint {
        transaction.rollback_to(&savepoint).unwrap();
        inside = then;
    }
    commits.then(|| {
        transaction.commit().unwrap();
        inside
    })
}

/// Builds tables and ingests them.
fn ingest(db: &Db, model: &mut Model, op: Op) {
    let Op::Ingest(entries, deleted, replaced, two) = op else { unreachable!("{op:?}") };
    let directory = tempfile::tempdir().unwrap();
    let paths = [directory.path().join("one.sst"), directory.path().join("two.sst")];
    let keyspace = db.default_keyspace();
    let mut one = keyspace.table_builder(&paths[0]).unwrap();
    let mut request = Ingest::new().table(&paths[0]);
    // The range deletes of one table may overlap the other table.
    let deleted = if two { Vec::new() } else { deleted };
    for (start, end) in deleted.into_iter().inspect(|(start, end)| one.delete_range(start..end).unwrap()) {
        model.retain(|key, _| *key < start || *key >= end);
    }
    if let Some((start, end)) = replaced {
        request = request.replace(&start..&end);
        model.retain(|key, _| *key < start || *key >= end);
    }
    let mut tables = vec![one];
    let middle = if two { entries.len() / 2 } else { usize::MAX };
    for (index, (key, entry)) in entries.into_iter().enumerate() {
        if index == middle {
            tables.push(keyspace.table_builder(&paths[1]).unwrap());
            request = request.table(&paths[1]);
        }
        let table = tables.last_mut().unwrap();
        model.remove(&key).into_iter().for_each(|old| {
            // What a merge needs.
            if let Built::Merge(_) = entry {
                model.insert(key.clone(), old);
            }
        });
        match entry {
            Built::Put(value) => {
                table.put(&key, &value).unwrap();
                model.insert(key, value);
            }
            Built::Merge(operand) => {
                table.merge(&key, &operand).unwrap();
                merge(model, key, &operand);
            }
            Built::PutExpiring(value, stays) => {
                // In the year 2070 or so, or long ago.
                let time = SystemTime::UNIX_EPOCH + if stays { 10 * DECADE } else { Duration::ZERO };
                table.put_expiring_at(&key, &value, time).unwrap();
                model.extend(stays.then_some((key, value)));
            }
            Built::Delete => table.delete(&key).unwrap(),
        }
    }
    for table in tables {
        table.finish().unwrap();
    }
    db.ingest(if two { request.link() } else { request }).unwrap();
}

fn bulk_load(db: &Db, model: &mut Model, entries: Model) {
    let mut load = db.bulk_load().unwrap();
    for (key, value) in &entries {
        load.put(key, value).unwrap();
    }
    load.finish().unwrap();
    model.extend(entries);
}

/// Makes a copy of the database in `path` beside it. Returns its path.
fn copied(db: &Db, path: &Path, op: Op) -> PathBuf {
    let number: u64 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let target = path.with_file_name((number + 1).to_string());
    match op {
        Op::Branch(flushes) => {
            let above = if flushes { 0 } else { u64::MAX };
            db.checkpoint_with(&target, &CheckpointOptions::new().flush_above(above)).unwrap();
        }
        Op::Restore => {
            // A store takes one database, and a branch is another.
            let store = path.with_file_name(format!("store of {number}"));
            let backup = Backup::open(DirectoryStore::create(store).unwrap()).unwrap();
            backup.create(db).unwrap();
            let last = backup.create_with(db, &CheckpointOptions::new().flush_above(u64::MAX)).unwrap();
            backup.prune(1).unwrap();
            assert!(backup.verify().unwrap().damage.is_empty());
            backup.restore(last.number, &target).unwrap();
        }
        op => unreachable!("{op:?}"),
    }
    target
}

fn write_batch(db: &Db, model: &mut Model, writes: Writes) {
    let mut batch = WriteBatch::new();
    for (key, value, merges) in writes {
        match value {
            Some(operand) if merges => {
                batch.merge(&key, &operand);
                merge(model, key, &operand);
            }
            Some(value) => {
                batch.put(&key, &value);
                model.insert(key, value);
            }
            None => {
                batch.delete(&key);
                model.remove(&key);
            }
        }
    }
    db.write(batch).unwrap();
}

fn run(ops: Vec<Op>) {
    let directory = tempfile::tempdir().unwrap();
    let mut path = directory.path().join("0");
    let mut db = open(&path).unwrap();
    let mut model = Model::new();
    let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
    for op in ops {
        match op {
            Op::Put(key, value) => {
                db.put(&key, &value).unwrap();
                model.insert(key, value);
            }
            Op::Merge(key, operand) => {
                db.merge(&key, &operand).unwrap();
                merge(&mut model, key, &operand);
            }
            Op::PutExpiring(key, value, stays) => {
                let after = if stays { DECADE } else { Duration::ZERO };
                db.put_expiring(&key, &value, after).unwrap();
                if stays {
                    model.insert(key, value);
                } else {
                    model.remove(&key);
                }
            }
            Op::Delete(key) => {
                db.delete(&key).unwrap();
                model.remove(&key);
            }
            Op::SingleDelete(key) => {
                db.single_delete(&key).unwrap();
                model.remove(&key);
            }
            Op::DeleteRange(start, end) => {
                db.delete_range(start.clone()..end.clone()).unwrap();
                model.retain(|key, _| *key < start || *key >= end);
            }
            Op::DeleteFiles(start, end) => {
                db.delete_range(start.clone()..end.clone()).unwrap();
                // The last key of a table may be the end, which stays.
                db.delete_files_in_range(start.clone()..end.clone()).unwrap();
                model.retain(|key, _| *key < start || *key >= end);
            }
            Op::Batch(writes) => write_batch(&db, &mut model, writes),
            Op::Transaction(writes, kept, commits) => {
                if let Some(after) = transact(&db, &model, writes, kept, commits) {
                    model = after;
                }
            }
            op @ Op::Ingest(..) => ingest(&db, &mut model, op),
            Op::BulkLoad(entries) => bulk_load(&db, &mut model, entries),
            Op::Snapshot => snapshots.push((db.snapshot().unwrap(), model.clone())),
            Op::DropSnapshot => {
                if !snapshots.is_empty() {
                    snapshots.remove(0);
                }
            }
            Op::Flush => db.flush().unwrap(),
            Op::Compact => db.compact_range::<&[u8]>(..).unwrap(),
            Op::Settle => db.wait_for_compactions().unwrap(),
            Op::Clear => {
                db.default_keyspace().clear().unwrap();
                model.clear();
            }
            Op::Reopen => {
                snapshots.clear();
                db.close().unwrap();
                db = open(&path).unwrap();
                assert!(db.recovery().was_clean);
            }
            Op::DropAndReopen => {
                snapshots.clear();
                drop(db);
                db = open(&path).unwrap();
                assert!(!db.recovery().was_clean);
            }
            op @ (Op::Branch(_) | Op::Restore) => {
                snapshots.clear();
                path = copied(&db, &path, op);
                db = open(&path).unwrap();
            }
            op => read_and_write(&db, &mut model, op),
        }
        for (snapshot, then) in &snapshots {
            check_snapshot(snapshot, then);
        }
        check(&db, &model);
    }
    drop(snapshots);
    db.close().unwrap();
    check(&open(&path).unwrap(), &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_like_the_model(ops in prop::collection::vec(op(), 1..80)) {
        run(ops);
    }
}

/// A program that purges its oldest keys again and again writes such deletes. A list of the fragments of all
/// overlapping deletes would take quadratic memory: gigabytes for each scan.
#[test]
fn a_scan_past_thousands_of_nested_range_deletes_in_a_memtable_is_cheap() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(256 << 20).open(directory.path()).unwrap();
    let keys = 20_000_u32;
    for number in 0..keys {
        db.put(number.to_be_bytes(), "value").unwrap();
        db.delete_range(0_u32.to_be_bytes()..number.to_be_bytes()).unwrap();
        if number % 100 == 0 {
            assert_eq!(collect(db.iter()), [(number.to_be_bytes().to_vec(), b"value".to_vec())]);
            assert_eq!(collect(db.iter().rev()).len(), 1);
        }
    }
    let snapshot = db.snapshot().unwrap();
    db.delete_range(0_u32.to_be_bytes()..keys.to_be_bytes()).unwrap();
    assert_eq!(collect(db.iter()), []);
    assert_eq!(collect(snapshot.iter()).len(), 1);
}

#[test]
fn a_flush_keeps_a_range_delete_that_only_a_snapshot_sees() {
    let directory = tempfile::tempdir().unwrap();
    let db = open(directory.path()).unwrap();
    db.put("key", "value").unwrap();
    db.flush().unwrap();
    let before = db.snapshot().unwrap();
    db.delete_range("a".."z").unwrap();
    let between = db.snapshot().unwrap();
    db.delete_range("b".."y").unwrap();
    db.flush().unwrap();
    for _ in 0..2 {
        assert_eq!(before.get("key").unwrap().unwrap(), b"value");
        assert_eq!(between.get("key").unwrap(), None);
        assert_eq!(collect(between.iter()), []);
        assert_eq!(db.get("key").unwrap(), None);
        db.compact_range::<&[u8]>(..).unwrap();
    }
}
