//! Ingests and bulk loads have one place in the order of writes, whatever is in memory, in tables, or read meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::{Kind, kind_of};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{
    BuiltInMerge, Db, Durability, ErrorKind, EventKind, Ingest, Keyspace, KeyspaceOptions, Options, Snapshot,
};

/// A database whose background work runs only while a call waits for it.
struct Process {
    env: Arc<SimEnv>,
    db: Db,
}

fn options(fs: &SimFs) -> Options {
    let operator = Arc::new(BuiltInMerge::append(","));
    Options::new().memory(4 << 20).vfs(Arc::new(fs.clone())).merge_operator(operator)
}

impl Process {
    fn open(fs: &SimFs) -> Self {
        Self::open_with(fs, options(fs))
    }

    fn open_with(fs: &SimFs, options: Options) -> Self {
        let env = Arc::new(SimEnv::new(fs.operations()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        Self { env, db }
    }

    /// Ends without closing the database.
    fn kill(self) {
        drop(self.db);
        self.env.drop_jobs();
    }
}

/// What an entry of a table is.
#[derive(Clone, Copy)]
enum Entry {
    Put(&'static str),
    Merge(&'static str),
    Delete,
    DeleteUpTo(&'static str),
}

use Entry::{Delete, DeleteUpTo, Merge, Put};

fn build(keyspace: &Keyspace, path: &str, entries: &[(&str, Entry)]) {
    let mut table = keyspace.table_builder(path).unwrap();
    for &(key, entry) in entries {
        match entry {
            Put(value) => table.put(key, value).unwrap(),
            Merge(operand) => table.merge(key, operand).unwrap(),
            Delete => table.delete(key).unwrap(),
            DeleteUpTo(end) => table.delete_range(key..end).unwrap(),
        }
    }
    table.finish().unwrap();
}

fn ingest(db: &Db, path: &str, entries: &[(&str, Entry)]) -> u64 {
    build(&db.default_keyspace(), path, entries);
    db.ingest(Ingest::new().table(path)).unwrap()
}

fn text(slice: impl AsRef<[u8]>) -> String {
    String::from_utf8(slice.as_ref().to_vec()).unwrap()
}

/// Everything, as a scan sees it; gets and a scan backward must agree.
fn all(db: &Db) -> BTreeMap<String, String> {
    let pair = |entry: lsm_engine::Result<_>| {
        let (key, value) = entry.unwrap();
        (text(key), text(value))
    };
    let forward: Vec<(String, String)> = db.iter().map(pair).collect();
    let mut backward: Vec<(String, String)> = db.iter().rev().map(pair).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let forward = BTreeMap::from_iter(forward);
    for key in "abcdefghijklmnopqrstuvwxyz".chars().map(String::from) {
        assert_eq!(db.get(&key).unwrap().map(text), forward.get(&key).cloned(), "{key}");
    }
    forward
}

fn expected(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn all_at(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let all: BTreeMap<_, _> =
        snapshot.iter().map(|entry| entry.unwrap()).map(|(k, v)| (text(k), text(v))).collect();
    for (key, value) in &all {
        assert_eq!(snapshot.get(key).unwrap().map(text).as_ref(), Some(value));
    }
    all
}

/// Checks what a database holds: now, after a crash of the process, read-only after that, after the flush, after a
/// compaction, and after another opening.
fn check_for_ever(fs: &SimFs, process: Process, expected: &BTreeMap<String, String>) {
    assert_eq!(&all(&process.db), expected, "at once");
    process.kill();
    let reader = Process::open_with(fs, options(fs).read_only(true));
    assert_eq!(&all(&reader.db), expected, "read-only");
    reader.kill();
    let process = Process::open(fs);
    assert_eq!(&all(&process.db), expected, "after a crash");
    process.db.flush().unwrap();
    assert_eq!(&all(&process.db), expected, "after a flush");
    process.db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(&all(&process.db), expected, "after a compaction");
    process.kill();
    let process = Process::open(fs);
    assert_eq!(&all(&process.db), expected, "in the end");
    process.kill();
}

#[test]
fn an_ingest_is_newer_than_what_is_in_memory_and_older_than_later_writes() {
    for flushed_before in [false, true] {
        for flushed_between in [false, true] {
            let fs = SimFs::new();
            let process = Process::open(&fs);
            let db = &process.db;
            for key in ["a", "b", "c", "d", "e", "f", "g"] {
                db.put(key, "old").unwrap();
            }
            db.merge("m", "old").unwrap();
            db.put("n", "old").unwrap();
            if flushed_before {
                db.flush().unwrap();
                db.merge("m", "newer").unwrap();
                db.put("b", "newer").unwrap();
            }
            let entries = [
                ("a", Put("ingested")),
                ("b", Delete),
                ("c", Put("ingested")),
                ("d", DeleteUpTo("h")),
                ("e", Put("ingested")),
                ("m", Merge("ingested")),
                ("n", Merge("ingested")),
                ("o", Put("ingested")),
            ];
            ingest(db, "/one.sst", &entries);
            if flushed_between {
                db.flush().unwrap();
            }
            db.put("c", "new").unwrap();
            db.single_delete("o").unwrap();
            db.merge("m", "new").unwrap();
            db.put("f", "new").unwrap();
            let m = if flushed_before { "old,newer,ingested,new" } else { "old,ingested,new" };
            let expected = expected(&[
                ("a", "ingested"),
                ("c", "new"),
                ("e", "ingested"),
                ("f", "new"),
                ("m", m),
                ("n", "old,ingested"),
            ]);
            check_for_ever(&fs, process, &expected);
        }
    }
}

#[test]
fn several_ingests_over_memtables_that_were_not_flushed_keep_their_order() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    let mut model = BTreeMap::new();
    for round in 0..5 {
        let written = ["1", "2", "3", "4", "5"][round];
        for key in ["a", "b", "c"] {
            db.put(key, written).unwrap();
            model.insert(key.to_owned(), written.to_owned());
        }
        db.put(["d", "e", "f", "g", "h"][round], written).unwrap();
        model.insert(["d", "e", "f", "g", "h"][round].to_owned(), written.to_owned());
        let value = ["one", "two", "three", "four", "five"][round];
        let path = format!("/{round}.sst");
        ingest(db, &path, &[("b", Put(value)), (["p", "q", "r", "s", "t"][round], Put(value))]);
        model.insert("b".to_owned(), value.to_owned());
        model.insert(["p", "q", "r", "s", "t"][round].to_owned(), value.to_owned());
        assert_eq!(all(db), model, "round {round}");
        // The last ones stay in memory.
        if round == 2 {
            db.wait_for_compactions().unwrap();
        }
    }
    db.delete_range("p".."r").unwrap();
    model.retain(|key, _| key != "p" && key != "q");
    check_for_ever(&fs, process, &model);
}

#[test]
fn compactions_leave_ingested_tables_alone_until_older_data_is_flushed() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    for number in 0..3 {
        db.put("a", format!("flushed {number}")).unwrap();
        db.flush().unwrap();
    }
    db.put("a", "in memory").unwrap();
    db.put("b", "in memory").unwrap();
    db.pause_background_work().unwrap();
    ingest(db, "/one.sst", &[("a", Put("ingested")), ("c", Put("ingested"))]);
    // A newer range delete covers the ingested table, which the manifest does not have.
    ingest(db, "/two.sst", &[("a", DeleteUpTo("d")), ("z", Put("ingested"))]);
    assert_eq!(all(db), expected(&[("z", "ingested")]));
    db.resume_background_work().unwrap();
    db.wait_for_compactions().unwrap();
    assert_eq!(all(db), expected(&[("z", "ingested")]));
    check_for_ever(&fs, process, &expected(&[("z", "ingested")]));
}

#[test]
fn snapshots_and_iterators_from_before_do_not_see_an_ingest() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    db.put("a", "flushed").unwrap();
    db.flush().unwrap();
    db.put("b", "old").unwrap();
    let before = db.snapshot().unwrap();
    let mut iterator = db.iter();
    let mut backward = db.iter().rev();
    assert_eq!(text(iterator.next().unwrap().unwrap().0), "a");
    assert_eq!(text(backward.next().unwrap().unwrap().0), "b");
    build(&db.default_keyspace(), "/one.sst", &[("a", Delete), ("b", Put("new")), ("c", Put("new"))]);
    let sequence = db.ingest(Ingest::new().table("/one.sst").replace("0".."zz")).unwrap();
    let after = db.snapshot().unwrap();
    assert_eq!((before.sequence() + 2, after.sequence()), (sequence, sequence));
    db.put("b", "newer").unwrap();
    let old = expected(&[("a", "flushed"), ("b", "old")]);
    let new = expected(&[("b", "new"), ("c", "new")]);
    for step in 0..3 {
        assert_eq!(all_at(&before), old, "step {step}");
        assert_eq!(all_at(&after), new, "step {step}");
        assert_eq!(all(db), expected(&[("b", "newer"), ("c", "new")]));
        match step {
            0 => db.flush().unwrap(),
            _ => db.compact_range::<&[u8]>(..).unwrap(),
        }
    }
    assert_eq!(text(iterator.next().unwrap().unwrap().1), "old");
    assert!(iterator.next().is_none());
    assert_eq!(text(backward.next().unwrap().unwrap().0), "a");
    assert!(backward.next().is_none());
    drop((iterator, backward, before, after));
    process.kill();
}

#[test]
fn a_replaced_range_is_deleted_in_the_same_step_apart_from_what_the_tables_bring() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    for key in ["a", "b", "c", "d"] {
        db.put(key, "flushed").unwrap();
    }
    db.flush().unwrap();
    for key in ["c", "d", "e"] {
        db.put(key, "in memory").unwrap();
    }
    build(&db.default_keyspace(), "/one.sst", &[("c", Put("new")), ("cc", Put("new"))]);
    build(&db.default_keyspace(), "/two.sst", &[("f", Put("new"))]);
    db.ingest(Ingest::new().table("/two.sst").table("/one.sst").replace("b".."e")).unwrap();
    check_for_ever(
        &fs,
        process,
        &expected(&[("a", "flushed"), ("c", "new"), ("cc", "new"), ("e", "in memory"), ("f", "new")]),
    );
}

#[test]
fn an_ingest_into_a_range_that_is_known_to_be_empty_is_seen() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    for number in 0..500 {
        let key = format!("k{number:04}");
        db.put(&key, "").unwrap();
        db.delete(&key).unwrap();
    }
    db.put("z", "last").unwrap();
    db.delete_range("l".."q").unwrap();
    // The scans learn that there is nothing before the last key.
    assert_eq!(db.iter().next().unwrap().unwrap().0, "z");
    assert_eq!(db.range(.."z").next_back().map(|entry| entry.unwrap().0), None);
    ingest(db, "/one.sst", &[("k0200", Put("1")), ("m", Put("2"))]);
    let keys: Vec<String> = db.iter().keys().map(|key| text(key.unwrap())).collect();
    assert_eq!(keys, ["k0200", "m", "z"]);
    assert_eq!(db.pop_first().unwrap().unwrap().0, "k0200");
    process.kill();
}

#[test]
fn an_ingest_conflicts_with_transactions_and_updates_that_depend_on_its_keys() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    db.put("a", "1").unwrap();
    db.put("x", "1").unwrap();
    let of_key = db.transaction().unwrap();
    of_key.get("b").unwrap();
    of_key.put("c", "").unwrap();
    let of_range = db.transaction().unwrap();
    assert_eq!(of_range.range("b".."d").count(), 0);
    of_range.put("z", "").unwrap();
    let beside = db.transaction().unwrap();
    assert_eq!(beside.range("d".."y").count(), 1);
    assert_eq!(beside.get("a").unwrap().unwrap(), "1");
    beside.put("w", "").unwrap();
    ingest(db, "/one.sst", &[("b", Put("2"))]);
    assert_eq!(of_key.commit().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(of_range.commit().unwrap_err().kind(), ErrorKind::Conflict);
    beside.commit().unwrap();
    // An update that reads before the ingest begins again.
    let mut calls = 0;
    let updated = db.update("b", |old| {
        calls += 1;
        if calls == 1 {
            ingest(db, "/two.sst", &[("b", Put("3"))]);
        }
        Some([old.map_or(&b""[..], |old| old), b"+"].concat())
    });
    assert_eq!((updated.unwrap().unwrap(), calls), (b"3+".to_vec(), 2));
    process.kill();
}

#[test]
fn a_clear_or_drop_takes_ingested_tables_along_and_their_files_leave() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    let tables = || {
        fs.read_dir(Path::new("/db"))
            .unwrap()
            .iter()
            .filter(|name| kind_of(name) == Some(Kind::Table))
            .count()
    };
    db.put("a", "in memory").unwrap();
    ingest(db, "/one.sst", &[("a", Put("ingested"))]);
    db.default_keyspace().clear().unwrap();
    assert_eq!(all(db), BTreeMap::new());
    ingest(db, "/two.sst", &[("b", Put("after"))]);
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    build(&other, "/three.sst", &[("c", Put("dropped"))]);
    other.ingest(Ingest::new().table("/three.sst")).unwrap();
    assert_eq!(other.get("c").unwrap().unwrap(), "dropped");
    db.drop_keyspace("other").unwrap();
    drop(other);
    db.wait_for_compactions().unwrap();
    process.env.run_until_idle();
    assert_eq!(tables(), 1);
    check_for_ever(&fs, process, &expected(&[("b", "after")]));
    assert!(tables() <= 1);
}

#[test]
fn a_checkpoint_has_tables_that_only_the_log_names() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    process.db.put("a", "in memory").unwrap();
    ingest(&process.db, "/one.sst", &[("a", Put("ingested")), ("b", Put("ingested"))]);
    process.db.checkpoint("/copy").unwrap();
    process.kill();
    let env = Arc::new(SimEnv::new(1));
    let db = options(&fs).env(Arc::clone(&env) as Arc<dyn Env>).open("/copy").unwrap();
    assert_eq!(all(&db), expected(&[("a", "ingested"), ("b", "ingested")]));
    drop(db);
    env.drop_jobs();
}

#[test]
fn an_ingest_is_counted_and_reported() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let mut events = process.db.events();
    build(&process.db.default_keyspace(), "/one.sst", &[("a", Put("1"))]);
    build(&process.db.default_keyspace(), "/two.sst", &[("b", Put("2"))]);
    let bytes: u64 =
        ["/one.sst", "/two.sst"].iter().map(|path| fs.metadata(Path::new(path)).unwrap().len).sum();
    process.db.ingest(Ingest::new().tables(["/one.sst", "/two.sst"])).unwrap();
    let mut load = process.db.bulk_load().unwrap();
    load.put("c", "3").unwrap();
    assert_eq!(load.entry_count(), 1);
    load.finish().unwrap();
    let metrics = process.db.metrics();
    assert_eq!((metrics.ingests, metrics.ingested_tables), (2, 3));
    assert!(metrics.ingested_bytes > bytes);
    let seen = std::iter::from_fn(|| events.try_next()).find_map(|event| match event.kind {
        EventKind::Ingested { keyspace, tables, bytes } => Some((keyspace, tables, bytes)),
        _ => None,
    });
    assert_eq!(seen, Some(("default".into(), 2, bytes)));
    process.kill();
}

#[test]
fn what_was_ingested_expires_and_folds_like_what_was_written() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    let time = |seconds: u64| {
        std::time::UNIX_EPOCH + Duration::from_micros(process.env.unix_micros() + seconds * 1_000_000)
    };
    db.put("a", "base").unwrap();
    db.put("b", "base").unwrap();
    let mut table = db.default_keyspace().table_builder("/one.sst").unwrap();
    table.put_expiring_at("a", "soon", time(60)).unwrap();
    table.put_expiring_at("b", "late", time(3600)).unwrap();
    table.finish().unwrap();
    db.ingest(Ingest::new().table("/one.sst")).unwrap();
    db.merge("a", "more").unwrap();
    db.merge("b", "more").unwrap();
    assert_eq!(all(db), expected(&[("a", "soon,more"), ("b", "late,more")]));
    process.env.advance(100_000_000);
    assert_eq!(all(db), expected(&[("a", "more"), ("b", "late,more")]));
    db.compact_range::<&[u8]>(..).unwrap();
    assert_eq!(all(db), expected(&[("a", "more"), ("b", "late,more")]));
    process.kill();
}

#[test]
fn a_bulk_load_in_a_keyspace_with_a_time_to_live_expires() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let short = process.db.keyspace("short", KeyspaceOptions::new().ttl(Duration::from_secs(60))).unwrap();
    let mut load = short.bulk_load().unwrap();
    load.put("a", "1").unwrap();
    load.finish().unwrap();
    assert_eq!(short.get("a").unwrap().unwrap(), "1");
    process.env.advance(100_000_000);
    assert_eq!(short.get("a").unwrap(), None);
    process.kill();
}

#[test]
fn writes_of_other_threads_go_on_during_ingests_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let db = Options::new().memory(8 << 20).open(directory.path().join("db")).unwrap();
    let keyspace = db.default_keyspace();
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let db = &db;
            scope.spawn(move || {
                for number in 0..3000 {
                    db.put(format!("w{writer}/{number:05}"), "x".repeat(100)).unwrap();
                    // Both write this key; ingests write its neighbours.
                    db.put("shared", number.to_string()).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for round in 0..30 {
                let path = directory.path().join(format!("{round}.sst"));
                let mut table = keyspace.table_builder(&path).unwrap();
                table.put("round", round.to_string()).unwrap();
                table.put(format!("t/{round:02}"), "x").unwrap();
                table.put(format!("w0/{round:05}"), "ingested").unwrap();
                table.finish().unwrap();
                db.ingest(Ingest::new().table(&path).move_files()).unwrap();
                // Nobody else writes these keys.
                assert_eq!(db.get("round").unwrap().unwrap(), round.to_string().as_bytes());
                assert_eq!(db.count("t/".."t0").unwrap(), round + 1);
            }
        });
    });
    let check = |db: &Db| {
        assert_eq!(db.count("w0/".."w2").unwrap(), 6000);
        assert_eq!(db.count("t/".."t0").unwrap(), 30);
        assert_eq!(db.get("shared").unwrap().unwrap(), "2999");
    };
    check(&db);
    db.put_with("end", "", Durability::Sync).unwrap();
    drop((keyspace, db));
    let db = Options::new().memory(8 << 20).open(directory.path().join("db")).unwrap();
    check(&db);
    db.close().unwrap();
}

#[test]
fn a_bulk_load_beside_other_data_is_moved_down_and_never_rewritten() {
    let fs = SimFs::new();
    let process = Process::open(&fs);
    let db = &process.db;
    for round in 0..6 {
        let mut load = db.bulk_load().unwrap();
        for number in 0..2000 {
            load.put(format!("{round}/{number:05}"), "value").unwrap();
        }
        load.finish().unwrap();
        db.wait_for_compactions().unwrap();
    }
    let metrics = db.metrics();
    assert_eq!((metrics.compactions, metrics.compaction_bytes_out), (0, 0));
    let runs: u64 = metrics.keyspaces[0].levels.iter().map(|level| level.runs).sum();
    assert!(runs <= 4, "{:?}", metrics.keyspaces[0].levels);
    assert_eq!(db.count::<&str>(..).unwrap(), 12_000);
    process.kill();
}
