//! Merge operators: what merges read like, which operator a keyspace has, and what happens when it fails.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lsm_engine::compaction_policies::{Leveled, LeveledOptions};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::vfs::SimFs;
use lsm_engine::{
    BuiltInMerge, Compression, Db, ErrorKind, EventKind, KeyspaceOptions, LevelMetrics, MergeError,
    MergeOperator, Options, Result, Slice, Snapshot, WriteBatch, decode_set, encode_set,
};

fn options() -> Options {
    Options::new().memory(8 << 20)
}

fn lists(path: &Path) -> Db {
    options().merge_operator(Arc::new(BuiltInMerge::append(","))).open(path).unwrap()
}

fn pairs(entries: impl Iterator<Item = Result<(Slice, Slice)>>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    entries.map(|entry| entry.map(|(key, value)| (text(&key), text(&value))).unwrap()).collect()
}

fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A get, both directions of a scan, and a cursor that turns at each key agree.
fn check(db: &Db, snapshot: Option<&Snapshot>, entries: &[(&str, &str)]) {
    let expected = expected(entries);
    let (forward, backward, mut cursor) = match snapshot {
        Some(snapshot) => (pairs(snapshot.iter()), pairs(snapshot.iter().rev()), snapshot.cursor()),
        None => (pairs(db.iter()), pairs(db.iter().rev()), db.cursor().unwrap()),
    };
    assert_eq!(forward, expected);
    assert!(backward.into_iter().rev().eq(expected.iter().cloned()));
    let entry = |index: usize| entries.get(index).map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    for (index, (key, value)) in entries.iter().enumerate() {
        let got = match snapshot {
            Some(snapshot) => snapshot.get(key),
            None => db.get(key),
        };
        assert_eq!(got.unwrap().unwrap(), value, "{key}");
        cursor.seek(key).unwrap();
        assert_eq!(cursor.entry(), entry(index));
        cursor.prev().unwrap();
        assert_eq!(cursor.entry(), entry(index.wrapping_sub(1)));
        cursor.seek_for_prev(key).unwrap();
        assert_eq!(cursor.entry(), entry(index));
        cursor.next().unwrap();
        assert_eq!(cursor.entry(), entry(index + 1));
        cursor.prev().unwrap();
        assert_eq!(cursor.entry(), entry(index).filter(|_| index + 1 < entries.len()));
    }
}

#[test]
fn operands_fold_the_same_wherever_they_lie() {
    let directory = tempfile::tempdir().unwrap();
    let db = lists(directory.path());
    db.put("a", "1").unwrap();
    db.merge("b", "1").unwrap();
    db.merge("c", "1").unwrap();
    db.put("d", "old").unwrap();
    let first = db.snapshot().unwrap();
    let at_first = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "old")];
    db.flush().unwrap();
    db.merge("a", "2").unwrap();
    db.merge("b", "2").unwrap();
    db.delete("c").unwrap();
    db.delete_range("d".."e").unwrap();
    db.flush().unwrap();
    let second = db.snapshot().unwrap();
    let at_second = [("a", "1,2"), ("b", "1,2")];
    let mut batch = WriteBatch::new();
    batch.merge("a", "3").merge("a", "4").merge("c", "3").merge("d", "3");
    db.write(batch).unwrap();
    let now = [("a", "1,2,3,4"), ("b", "1,2"), ("c", "3"), ("d", "3")];
    let check_all = |db: &Db| {
        check(db, None, &now);
        check(db, Some(&first), &at_first);
        check(db, Some(&second), &at_second);
    };
    check_all(&db);
    db.flush().unwrap();
    check_all(&db);
    db.compact_range::<&str>(..).unwrap();
    check_all(&db);
    let values = db.multi_get(["a", "x", "d"]).unwrap();
    assert_eq!(values, [Some("1,2,3,4".into()), None, Some("3".into())]);
    drop((first, second));
    db.compact_range::<&str>(..).unwrap();
    check(&db, None, &now);
    assert!(db.metrics().merge_operands_folded > 0);
    drop(db);
    // A built-in operator need not be given again.
    check(&options().open(directory.path()).unwrap(), None, &now);
}

#[test]
fn counters_and_sets_count_and_collect() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path()).unwrap();
    let of = |operator| KeyspaceOptions::new().merge_operator(Arc::new(operator));
    let counters = db.keyspace("counters", of(BuiltInMerge::add_i64())).unwrap();
    let tags = db.keyspace("tags", of(BuiltInMerge::set_union())).unwrap();
    let highest = db.keyspace("highest", of(BuiltInMerge::max_u64())).unwrap();
    for number in 0..100_u32 {
        counters.merge("count", 1_i64.to_le_bytes()).unwrap();
        let mut batch = WriteBatch::new();
        batch
            .merge_in(&counters, "sum", (i64::from(number) - 10).to_le_bytes())
            .merge_in(&tags, "tags", encode_set([format!("tag{}", number % 3)]))
            .merge_in(&highest, "highest", (u64::from(number) * 7 % 64).to_le_bytes());
        db.write(batch).unwrap();
        if number % 30 == 0 {
            db.flush().unwrap();
        }
    }
    assert_eq!(counters.get("count").unwrap().unwrap(), 100_i64.to_le_bytes());
    assert_eq!(counters.get("sum").unwrap().unwrap(), (4950_i64 - 1000).to_le_bytes());
    assert_eq!(highest.get("highest").unwrap().unwrap(), 63_u64.to_le_bytes());
    let found = tags.get("tags").unwrap().unwrap();
    assert_eq!(decode_set(&found).unwrap(), [&b"tag0"[..], b"tag1", b"tag2"]);
}

#[test]
fn a_counter_with_very_many_operands_takes_little_memory_and_one_entry() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().merge_operator(Arc::new(BuiltInMerge::add_u64())).open(directory.path()).unwrap();
    let snapshot = db.snapshot().unwrap();
    let in_tables = || {
        let levels = &db.metrics().keyspaces[0].levels;
        let sum = |count: fn(&LevelMetrics) -> u64| levels.iter().map(count).sum::<u64>();
        (sum(|level| level.entries), sum(|level| level.merge_operands))
    };
    for _ in 0..3 {
        db.merge("count", 0_u64.to_le_bytes()).unwrap();
    }
    db.flush().unwrap();
    assert_eq!(in_tables(), (1, 1), "a flush does not know whether there is a base");
    for _ in 0..200 {
        let mut batch = WriteBatch::new();
        for _ in 0..1000 {
            batch.merge("count", 1_u64.to_le_bytes());
        }
        db.write(batch).unwrap();
    }
    assert_eq!(db.get("count").unwrap().unwrap(), 200_000_u64.to_le_bytes());
    db.flush().unwrap();
    db.compact_range::<&str>(..).unwrap();
    assert_eq!(db.get("count").unwrap().unwrap(), 200_000_u64.to_le_bytes());
    assert_eq!(snapshot.get("count").unwrap(), None);
    assert_eq!(in_tables(), (1, 0));
}

/// Makes lists, and panics if told to. An operand `bad` never fits, and `none` deletes.
#[derive(Debug, Default)]
struct Fickle {
    panics: AtomicBool,
}

impl MergeOperator for Fickle {
    fn name(&self) -> &'static str {
        "test.fickle"
    }

    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Option<Vec<u8>>, MergeError> {
        assert!(!self.panics.load(Ordering::Relaxed), "told to");
        if operands.contains(&&b"bad"[..]) {
            return Err(MergeError::new("it is bad"));
        }
        let mut list = base.map(<[u8]>::to_vec);
        for operand in operands {
            list = match list {
                _ if operand == b"none" => None,
                None => Some(operand.to_vec()),
                Some(list) => Some([&list[..], operand].join(&b',')),
            };
        }
        Ok(list)
    }
}

#[test]
fn an_operator_that_nobody_gave_is_named_and_its_operands_stay() {
    let directory = tempfile::tempdir().unwrap();
    let own = || options().merge_operator(Arc::new(Fickle::default()));
    let db = own().open(directory.path()).unwrap();
    db.put("plain", "1").unwrap();
    db.merge("merged", "1").unwrap();
    db.merge("merged", "2").unwrap();
    drop(db);

    let db = options().open(directory.path()).unwrap();
    for compact in [false, true] {
        if compact {
            db.put("merged2", "0").unwrap();
            db.compact_range::<&str>(..).unwrap();
        }
        assert_eq!(db.get("plain").unwrap().unwrap(), "1");
        let error = db.get("merged").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OperatorMissing);
        assert_eq!(
            error.to_string(),
            "keyspace \"default\" uses merge operator \"test.fickle\", which is not built in, so key \"merged\" has no \
             value; give it with KeyspaceOptions::merge_operator when the keyspace is first opened"
        );
        assert_eq!(db.iter().next().unwrap().unwrap_err().kind(), ErrorKind::OperatorMissing);
        assert_eq!(pairs(db.range("n"..)), expected(&[("plain", "1")]));
        assert_eq!(db.iter().rev().count(), if compact { 3 } else { 2 });
    }
    let error = db.merge("merged", "3").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OperatorMissing);
    drop(db);
    assert_eq!(own().open(directory.path()).unwrap().get("merged").unwrap().unwrap(), "1,2");

    let other = options().merge_operator(Arc::new(BuiltInMerge::add_i64())).open(directory.path());
    let error = other.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OptionsMismatch);
    assert_eq!(
        error.to_string(),
        "keyspace \"default\" uses merge operator \"test.fickle\", but the options give \"lsm.add-i64\", to which the \
         stored operands mean something else; give the same, or none if it is built in"
    );
}

#[test]
fn a_keyspace_without_an_operator_takes_no_operands() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let lists = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::append(",")));
    let lists = db.keyspace("lists", lists).unwrap();
    let (mut own, mut both) = (WriteBatch::new(), WriteBatch::new());
    own.put("a", "1").merge("b", "1");
    both.merge_in(&lists, "a", "1").merge_in(&db.default_keyspace(), "b", "1");
    for error in [
        db.merge("a", "1").unwrap_err(),
        db.submit_merge("a", "1").unwrap_err(),
        db.write(own).unwrap_err(),
        db.write(both).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::OperatorMissing);
        assert_eq!(
            error.to_string(),
            "keyspace \"default\" has no merge operator; give it with KeyspaceOptions::merge_operator when the keyspace is \
             first opened"
        );
    }
    assert_eq!((db.iter().count(), lists.iter().count()), (0, 0));
    assert_eq!(db.metrics().visible_sequence, 0, "nothing was written");

    // An operator may be given to a keyspace that has none, and is kept.
    db.put("a", "0").unwrap();
    drop((db, lists));
    let db = self::lists(directory.path());
    db.merge("a", "1").unwrap();
    drop(db);
    check(&options().open(directory.path()).unwrap(), None, &[("a", "0,1")]);
}

#[test]
fn names_of_operators_are_checked() {
    #[derive(Debug)]
    struct Named(String);
    impl MergeOperator for Named {
        fn name(&self) -> &str {
            &self.0
        }
        fn full(&self, _: &[u8], _: Option<&[u8]>, _: &[&[u8]]) -> Result<Option<Vec<u8>>, MergeError> {
            Ok(None)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    for (name, message) in [
        (String::new(), "the name of a merge operator must have 1 to 255 bytes; this one has 0"),
        ("x".repeat(256), "the name of a merge operator must have 1 to 255 bytes; this one has 256"),
        (
            "lsm.own".to_owned(),
            "merge operator \"lsm.own\" is not built in, so its name must not begin with \"lsm.\"",
        ),
    ] {
        let error = options().merge_operator(Arc::new(Named(name))).open(directory.path()).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::InvalidArgument, message));
    }
}

#[test]
fn operands_that_do_not_fit_fail_their_key_alone_and_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().merge_operator(Arc::new(BuiltInMerge::add_i64())).open(directory.path()).unwrap();
    let mut events = db.events();
    let one = 1_i64.to_le_bytes();
    for key in ["a", "b", "c"] {
        db.merge(key, one).unwrap();
    }
    db.merge("b", "bad").unwrap();
    db.merge("b", one).unwrap();
    for round in 0..3 {
        let error = db.get("b").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OperatorFailed);
        assert_eq!(
            error.to_string(),
            "merge operator \"lsm.add-i64\" refuses key \"b\" of keyspace \"default\" with 3 operands: a number takes 8 \
             bytes, little-endian; one has 3; put or delete the key to go on",
            "round {round}"
        );
        assert_eq!(db.get("a").unwrap().unwrap(), one);
        assert_eq!(db.iter().map(|entry| entry.is_ok()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(db.iter().rev().map(|entry| entry.is_ok()).collect::<Vec<_>>(), [true, false]);
        let mut cursor = db.cursor().unwrap();
        cursor.seek("b").unwrap_err();
        assert_eq!(cursor.entry(), None);
        cursor.seek("c").unwrap();
        assert_eq!(cursor.value(), Some(&one[..]));
        if round == 0 {
            db.flush().unwrap();
        } else {
            // So that there is something to rewrite.
            db.merge("c", 0_i64.to_le_bytes()).unwrap();
            db.compact_range::<&str>(..).unwrap();
        }
    }
    assert!(db.metrics().merges_refused > 0);
    assert_eq!(db.metrics().background_error, None);
    db.merge("0", "bad").unwrap();
    db.merge("z", "bad").unwrap();
    for popped in [db.pop_first(), db.pop_last()] {
        assert_eq!(popped.unwrap_err().kind(), ErrorKind::OperatorFailed);
    }
    db.delete("0").unwrap();
    assert_eq!(db.pop_first().unwrap().unwrap().0, "a");
    let errors = std::iter::from_fn(|| events.try_next()).filter_map(|event| match event.kind {
        EventKind::Error { during, message, .. } => Some((during.to_string(), message.to_string())),
        _ => None,
    });
    let message = "merge operator \"lsm.add-i64\" refuses key \"b\", among others perhaps: a number takes 8 bytes, \
                   little-endian; one has 3; its operands are kept";
    assert_eq!(errors.collect::<Vec<_>>(), [("merge".to_owned(), message.to_owned())], "reported once");
    db.put("b", one).unwrap();
    db.merge("b", one).unwrap();
    assert_eq!(db.get("b").unwrap().unwrap(), 2_i64.to_le_bytes());
    db.compact_range::<&str>(..).unwrap();
    assert_eq!(db.get("b").unwrap().unwrap(), 2_i64.to_le_bytes());
}

#[test]
fn an_operator_that_panics_fails_reads_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let fickle = Arc::new(Fickle::default());
    let db = options().merge_operator(Arc::clone(&fickle) as _).open(directory.path()).unwrap();
    db.put("a", "0").unwrap();
    db.merge("a", "1").unwrap();
    db.put("b", "0").unwrap();
    fickle.panics.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let error = db.get("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Callback);
        let message = "a panic during a merge: told to (merge operator \"test.fickle\", key \"a\" of keyspace \
                       \"default\")";
        assert_eq!(error.to_string(), message);
        assert_eq!(db.iter().next().unwrap().unwrap_err().kind(), ErrorKind::Callback);
        assert_eq!(db.get("b").unwrap().unwrap(), "0");
        db.merge("a", "2").unwrap();
        db.compact_range::<&str>(..).unwrap();
        db.wait_for_compactions().unwrap();
    }
    fickle.panics.store(false, Ordering::Relaxed);
    check(&db, None, &[("a", "0,1,2,2"), ("b", "0")]);
    db.compact_range::<&str>(..).unwrap();
    check(&db, None, &[("a", "0,1,2,2"), ("b", "0")]);
}

#[test]
fn a_key_that_an_operator_deletes_is_absent_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().merge_operator(Arc::new(Fickle::default())).open(directory.path()).unwrap();
    for key in ["a", "b", "c", "d"] {
        db.put(key, key).unwrap();
    }
    db.flush().unwrap();
    let before = db.snapshot().unwrap();
    for key in ["a", "b", "d"] {
        db.merge(key, "none").unwrap();
    }
    for round in 0..3 {
        check(&db, None, &[("c", "c")]);
        check(&db, Some(&before), &[("a", "a"), ("b", "b"), ("c", "c"), ("d", "d")]);
        assert_eq!(db.get("a").unwrap(), None);
        assert!(!db.contains_key("d").unwrap());
        match round {
            0 => db.flush().unwrap(),
            _ => db.compact_range::<&str>(..).unwrap(),
        }
    }
    drop(before);
    db.merge("a", "new").unwrap();
    check(&db, None, &[("a", "new"), ("c", "c")]);
    db.compact_range::<&str>(..).unwrap();
    check(&db, None, &[("a", "new"), ("c", "c")]);
}

#[test]
fn merges_into_a_deleted_range_are_found_by_scans_that_skip_it() {
    let directory = tempfile::tempdir().unwrap();
    let db = lists(directory.path());
    for number in 0..1000 {
        db.put(format!("key{number:03}"), "old").unwrap();
    }
    for number in 0..1000 {
        db.delete(format!("key{number:03}")).unwrap();
    }
    // These scans note that the range is empty.
    for _ in 0..4 {
        assert_eq!((db.iter().count(), db.iter().rev().count()), (0, 0));
    }
    let before = db.snapshot().unwrap();
    db.merge("key500", "new").unwrap();
    for _ in 0..4 {
        check(&db, None, &[("key500", "new")]);
        check(&db, Some(&before), &[]);
    }
    db.delete_range("key000".."key999").unwrap();
    for _ in 0..4 {
        assert_eq!((db.iter().count(), db.iter().rev().count()), (0, 0));
    }
    db.merge("key500", "newer").unwrap();
    for _ in 0..2 {
        check(&db, None, &[("key500", "newer")]);
        db.compact_range::<&str>(..).unwrap();
    }
}

#[test]
fn a_reader_between_many_operands_sees_those_before_it_in_both_directions() {
    let directory = tempfile::tempdir().unwrap();
    let db = lists(directory.path());
    let digits =
        |count: usize| (0..count).map(|digit| (digit % 10).to_string()).collect::<Vec<_>>().join(",");
    db.put("a", "a").unwrap();
    db.put("c", "c").unwrap();
    let mut snapshots = Vec::new();
    for count in 0..60 {
        snapshots.push((count, db.snapshot().unwrap()));
        db.merge("b", (count % 10).to_string()).unwrap();
    }
    for round in 0..3 {
        for (count, snapshot) in &snapshots {
            let value = digits(*count);
            let entries = [("a", "a"), ("b", &*value), ("c", "c")];
            let without = [entries[0], entries[2]];
            check(&db, Some(snapshot), if *count == 0 { &without } else { &entries });
        }
        check(&db, None, &[("a", "a"), ("b", &digits(60)), ("c", "c")]);
        match round {
            0 => db.flush().unwrap(),
            _ => db.compact_range::<&str>(..).unwrap(),
        }
        snapshots.retain(|(count, _)| count % (round + 2) == 0);
    }
}

/// Whatever a compaction does before or after that time, a reader at a time sees the same.
#[test]
fn operands_apply_to_an_expiring_value_until_it_expires_and_then_to_none() {
    const SECOND: u64 = 1_000_000;
    for compact_before in [false, true] {
        let env = Arc::new(SimEnv::new(1));
        let options = options().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
        let db = options.merge_operator(Arc::new(BuiltInMerge::append(","))).open("/db").unwrap();
        db.put("a", "older").unwrap();
        db.flush().unwrap();
        db.put_expiring("a", "1", Duration::from_secs(10)).unwrap();
        db.flush().unwrap();
        db.merge("a", "2").unwrap();
        db.merge("a", "3").unwrap();
        let alive = db.snapshot().unwrap();
        let compact = || {
            db.flush().unwrap();
            db.compact_range::<&str>(..).unwrap();
        };
        if compact_before {
            compact();
        }
        check(&db, None, &[("a", "1,2,3")]);
        env.advance(11 * SECOND);
        for _ in 0..2 {
            check(&db, None, &[("a", "2,3")]);
            check(&db, Some(&alive), &[("a", "1,2,3")]);
            compact();
        }
        drop(alive);
        db.merge("a", "4").unwrap();
        compact();
        check(&db, None, &[("a", "2,3,4")]);
        assert_eq!(db.metrics().keyspaces[0].levels.iter().map(|level| level.entries).sum::<u64>(), 1);
        drop(db);
        env.drop_jobs();
    }
}

/// The operator fails, or panics, at its n-th call, for each n: in a read, a flush or a compaction.
#[test]
fn an_operator_that_fails_at_any_one_call_loses_nothing() {
    /// Appends, but not at one call.
    #[derive(Debug)]
    struct OnceBad {
        calls_left: AtomicUsize,
        panics: bool,
    }
    impl OnceBad {
        fn is_bad(&self) -> bool {
            let is_bad = self.calls_left.fetch_sub(1, Ordering::Relaxed) == 1;
            assert!(!(is_bad && self.panics), "at this call");
            is_bad
        }
    }
    impl MergeOperator for OnceBad {
        fn name(&self) -> &'static str {
            "test.once-bad"
        }
        fn full(
            &self,
            key: &[u8],
            base: Option<&[u8]>,
            operands: &[&[u8]],
        ) -> Result<Option<Vec<u8>>, MergeError> {
            if self.is_bad() {
                return Err(MergeError::new("not now"));
            }
            BuiltInMerge::append(",").full(key, base, operands)
        }
        fn partial(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
            if self.is_bad() { None } else { BuiltInMerge::append(",").partial(key, operands) }
        }
    }
    let run = |call: usize, panics: bool| {
        let env = Arc::new(SimEnv::new(1));
        let operator = Arc::new(OnceBad { calls_left: AtomicUsize::new(call), panics });
        let options = options().vfs(Arc::new(SimFs::new())).env(Arc::clone(&env) as Arc<dyn Env>);
        let db = options.merge_operator(Arc::clone(&operator) as _).open("/db").unwrap();
        let mut failed_reads = 0;
        for round in 0..4 {
            for key in ["a", "b", "c"] {
                db.merge(key, format!("{round}")).unwrap();
                db.merge(key, "x").unwrap();
                failed_reads += usize::from(db.get(key).is_err());
            }
            db.put("b", format!("{round}")).unwrap();
            failed_reads += db.iter().filter(Result::is_err).count();
            failed_reads += db.iter().rev().filter(Result::is_err).count();
            db.flush().unwrap();
            if round % 2 == 1 {
                db.compact_range::<&str>(..).unwrap();
            }
        }
        assert!(failed_reads <= 1);
        let calls = call.wrapping_sub(operator.calls_left.load(Ordering::Relaxed));
        operator.calls_left.store(0, Ordering::Relaxed);
        let appended = "0,x,1,x,2,x,3,x";
        check(&db, None, &[("a", appended), ("b", "3"), ("c", appended)]);
        db.compact_range::<&str>(..).unwrap();
        check(&db, None, &[("a", appended), ("b", "3"), ("c", appended)]);
        assert_eq!(db.metrics().background_error, None);
        drop(db);
        env.drop_jobs();
        (calls, failed_reads)
    };
    let (calls, _) = run(0, false);
    assert!(calls > 20, "{calls}");
    for panics in [false, true] {
        let outcomes: Vec<_> = (1..=calls).map(|call| run(call, panics).1).collect();
        assert!(outcomes.contains(&0) && outcomes.contains(&1), "reads and background work failed");
    }
}

#[test]
fn threads_that_merge_into_the_same_keys_lose_no_update() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 2000;
    let directory = tempfile::tempdir().unwrap();
    let options = || Options::new().memory(2 << 20).memtable_bytes(70_000);
    let db = options().merge_operator(Arc::new(BuiltInMerge::add_u64())).open(directory.path()).unwrap();
    let sum = |entries: &mut dyn Iterator<Item = Result<(Slice, Slice)>>| {
        entries.map(|entry| u64::from_le_bytes((*entry.unwrap().1).try_into().unwrap())).sum::<u64>()
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let db = &db;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let mut batch = WriteBatch::new();
                        let key = (round * (thread + 1)) % 10;
                        batch.merge(format!("key{key}"), 1_u64.to_le_bytes());
                        batch.merge(format!("key{}", 9 - key), 1_u64.to_le_bytes());
                        db.write(batch).unwrap();
                    }
                })
            })
            .collect();
        let mut before = 0;
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let snapshot = db.snapshot().unwrap();
            let (forward, backward) = (sum(&mut snapshot.iter()), sum(&mut snapshot.iter().rev()));
            assert!(forward == backward && forward.is_multiple_of(2) && forward >= before);
            before = forward;
        }
    });
    for _ in 0..2 {
        assert_eq!(sum(&mut db.iter()), 2 * THREADS * ROUNDS);
        db.compact_range::<&str>(..).unwrap();
    }
    drop(db);
    assert_eq!(sum(&mut options().open(directory.path()).unwrap().iter()), 2 * THREADS * ROUNDS);
}

/// A keyspace that is found on the disk is not opened by its user yet, but recovery and tools read it.
#[test]
fn other_keyspaces_find_an_operator_that_is_given_for_the_default_one() {
    let directory = tempfile::tempdir().unwrap();
    let own = || -> Arc<dyn MergeOperator> { Arc::new(Fickle::default()) };
    let db = options().merge_operator(own()).open(directory.path()).unwrap();
    let lists = db.keyspace("lists", KeyspaceOptions::new().merge_operator(own())).unwrap();
    lists.merge("a", "1").unwrap();
    lists.merge("a", "2").unwrap();
    drop((db, lists));
    let open = |options: Options| {
        let db = options.open(directory.path()).unwrap();
        db.existing_keyspace("lists").unwrap().unwrap().get("a")
    };
    assert_eq!(open(options().read_only(true)).unwrap_err().kind(), ErrorKind::OperatorMissing);
    assert_eq!(open(options().read_only(true).merge_operator(own())).unwrap().unwrap(), "1,2");
    assert_eq!(
        open(options()).unwrap_err().kind(),
        ErrorKind::OperatorMissing,
        "recovery keeps the operands"
    );
    assert_eq!(open(options().merge_operator(own())).unwrap().unwrap(), "1,2");
}

/// A lookup asks one table of a run, so a key must not be cut in two, however many operands it has.
#[test]
fn operands_of_one_key_stay_in_one_table_whatever_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let small = LeveledOptions { target_table_bytes: 1000, base_bytes: 4000, ..LeveledOptions::default() };
    // It has no parts, and snapshots keep the operands apart, so that none can be folded.
    let keyspace = KeyspaceOptions::new().compaction(Arc::new(Leveled::new(small))).block_bytes(256);
    let keyspace = keyspace.compression(Compression::None).merge_operator(Arc::new(Fickle::default()));
    let options = options().memory(2 << 20).memtable_bytes(70_000).keyspace(keyspace);
    let db = options.open(directory.path()).unwrap();
    let keys = ["a", "b", "c"];
    let mut snapshots = Vec::new();
    for round in 0..40 {
        for key in keys {
            for _ in 0..20 {
                db.merge(key, format!("{round:010}")).unwrap();
            }
        }
        snapshots.push(db.snapshot().unwrap());
        if round % 4 == 3 {
            db.flush().unwrap();
            db.wait_for_compactions().unwrap();
        }
    }
    let metrics = db.metrics();
    let levels = || metrics.keyspaces[0].levels.iter();
    assert!(levels().map(|level| level.merge_operands).sum::<u64>() > 2000, "most operands are still there");
    assert_eq!(
        levels().map(|level| (level.runs, level.tables)).max().unwrap(),
        (1, 3),
        "a table for each key"
    );
    for (round, snapshot) in snapshots.iter().enumerate() {
        let expected =
            (0..=round).flat_map(|round| vec![format!("{round:010}"); 20]).collect::<Vec<_>>().join(",");
        for key in keys {
            assert_eq!(snapshot.get(key).unwrap().unwrap(), expected.as_bytes());
        }
        assert_eq!(pairs(snapshot.iter().rev()).len(), 3);
    }
}
