//! Real threads and real files: readers see whole batches, iterators keep their view, and writes acknowledged to
//! another process survive the death of the writing process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lsm_engine::{Db, Durability, Keyspace, KeyspaceOptions, Options, Slice, WriteBatch};

const KEYS: u32 = 20;

fn options() -> Options {
    Options::new().memory(1 << 20).memtable_bytes(100_000).log_segment_bytes(64 << 10)
}

fn mirror(db: &Db) -> Keyspace {
    db.keyspace("mirror", KeyspaceOptions::new()).unwrap()
}

fn key(writer: u32, number: u32) -> Vec<u8> {
    format!("writer{writer}/key{number:02}").into_bytes()
}

fn value(round: u32) -> Vec<u8> {
    let mut value = format!("{round:06}").into_bytes();
    value.resize(100, b'.');
    value
}

/// Sets all keys of a writer to the value of a round, in both keyspaces. Every third round deletes them first.
fn batch_of(db: &Db, mirror: &Keyspace, writer: u32, round: u32) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let default = db.default_keyspace();
    for keyspace in [&default, mirror] {
        if round.is_multiple_of(3) {
            batch.delete_range_in(keyspace, format!("writer{writer}/")..format!("writer{writer}0"));
        }
        for number in 0..KEYS {
            batch.put_in(keyspace, key(writer, number), value(round));
        }
    }
    batch
}

/// Checks that all entries of a writer have the same value, and returns that value for each writer.
fn rounds(entries: impl Iterator<Item = lsm_engine::Result<(Slice, Slice)>>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rounds = BTreeMap::new();
    let mut counts: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for entry in entries {
        let (key, value) = entry.unwrap();
        let writer = key[..7].to_vec();
        let seen = rounds.entry(writer.clone()).or_insert_with(|| value.to_vec());
        assert_eq!(value, seen[..], "a batch was seen in part: {:?}", key.escape_ascii().to_string());
        *counts.entry(writer).or_insert(0) += 1;
    }
    assert!(counts.values().all(|&count| count == KEYS), "a batch was seen in part: {counts:?}");
    rounds
}

#[test]
fn readers_see_whole_batches_during_writes_and_compactions() {
    const WRITERS: u32 = 3;
    const ROUNDS: u32 = 120;
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let mirror = mirror(&db);
    let (db, mirror) = (&db, &mirror);
    let writing = &AtomicBool::new(true);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        db.write(batch_of(db, mirror, writer, round)).unwrap();
                        // Only this writer changes these keys, so it must read what it wrote.
                        let at = key(writer, round % KEYS);
                        assert_eq!(db.get(&at).unwrap().unwrap(), value(round)[..]);
                        assert_eq!(mirror.get(&at).unwrap().unwrap(), value(round)[..]);
                    }
                })
            })
            .collect();
        // Readers of snapshots: both keyspaces must show the same moment.
        scope.spawn(move || {
            while writing.load(Ordering::Relaxed) {
                let snapshot = db.snapshot().unwrap();
                let first = rounds(snapshot.iter());
                assert_eq!(first, rounds(snapshot.range_in::<&[u8]>(mirror, ..).rev()));
                assert_eq!(first, rounds(snapshot.iter().rev()), "a snapshot changed");
                for (writer, value) in first {
                    let at = [&*writer, b"/key07"].concat();
                    assert_eq!(snapshot.get_in(mirror, at).unwrap().unwrap(), value[..]);
                }
            }
        });
        // Readers without a snapshot: each iterator shows one moment, and a later iterator a later one.
        scope.spawn(move || {
            let mut before = BTreeMap::new();
            while writing.load(Ordering::Relaxed) {
                let now = rounds(db.iter());
                for (writer, value) in &before {
                    assert!(now.get(writer) >= Some(value), "a later iterator shows an earlier moment");
                }
                let all = db.multi_get((0..KEYS).map(|number| key(0, number))).unwrap();
                assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "a batch was seen in part");
                before = now;
            }
        });
        scope.spawn(move || {
            while writing.load(Ordering::Relaxed) {
                db.flush().unwrap();
                mirror.compact_range::<&[u8]>(..).unwrap();
                db.compact_range::<&[u8]>(..).unwrap();
            }
        });
        let results: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        // Stop the other threads before a panic is passed on. Otherwise they would never end.
        writing.store(false, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    let last: BTreeMap<_, _> =
        (0..WRITERS).map(|writer| (format!("writer{writer}").into_bytes(), value(ROUNDS - 1))).collect();
    assert_eq!(rounds(db.iter()), last);
    assert_eq!(rounds(mirror.iter()), last);
    assert!(db.metrics().compactions > 0 && db.metrics().flushes > 2);
}

#[test]
fn an_iterator_keeps_its_view_while_its_tables_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    let mut model = BTreeMap::new();
    for number in 0..400 {
        db.put(format!("key{number:04}"), value(0)).unwrap();
        model.insert(format!("key{number:04}").into_bytes(), value(0));
        if number % 150 == 0 {
            db.flush().unwrap();
        }
    }
    let mut running = db.iter();
    let mut seen: BTreeMap<_, _> = BTreeMap::new();
    for _ in 0..10 {
        let (key, value) = running.next().unwrap().unwrap();
        seen.insert(key.to_vec(), value.to_vec());
    }
    thread::scope(|scope| {
        for writer in 0..2_u32 {
            let db = &db;
            scope.spawn(move || {
                for number in (writer..400).step_by(2) {
                    let key = format!("key{number:04}");
                    if number % 3 == 0 { db.delete(key).unwrap() } else { db.put(key, value(9)).unwrap() }
                }
                db.delete_range("key0100".."key0200").unwrap();
                db.compact_range::<&[u8]>(..).unwrap();
            });
        }
        for entry in running.by_ref().take(200) {
            let (key, value) = entry.unwrap();
            seen.insert(key.to_vec(), value.to_vec());
        }
    });
    let handle = db.clone();
    db.close().unwrap();
    seen.extend(running.map(|entry| entry.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())));
    assert_eq!(seen, model);
    drop(handle);
}

#[test]
fn writes_of_several_threads_that_sync_together_are_all_recovered() {
    const WRITES: u32 = 60;
    let directory = tempfile::tempdir().unwrap();
    let db = options().open(directory.path()).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let db = &db;
            scope.spawn(move || {
                for round in 0..WRITES {
                    db.put_with(key(writer, round), value(round), Durability::Sync).unwrap();
                }
            });
        }
    });
    assert_eq!(db.metrics().unsynced_log_bytes, 0);
    drop(db);
    let db = options().open(directory.path()).unwrap();
    assert_eq!(db.iter().count(), 4 * WRITES as usize);
    for writer in 0..4 {
        for round in 0..WRITES {
            assert_eq!(db.get(key(writer, round)).unwrap().unwrap(), value(round)[..]);
        }
    }
}

const CHILD_DIRECTORY: &str = "LSM_ENGINE_TEST_CHILD_DIRECTORY";
const CHILD_WRITERS: u32 = 2;

/// Runs in the process that is killed: writes, and reports acknowledged writes on standard error. Does nothing without
/// a parent.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let db = options().open(Path::new(&directory)).unwrap();
    let mirror = mirror(&db);
    let first = db
        .get("next")
        .unwrap()
        .map_or(0, |next| std::str::from_utf8(&next).unwrap().parse::<u32>().unwrap() + 1);
    thread::scope(|scope| {
        for writer in 0..CHILD_WRITERS {
            let (db, mirror) = (&db, &mirror);
            scope.spawn(move || {
                for round in first.. {
                    let mut batch = batch_of(db, mirror, writer, round);
                    if writer == 0 {
                        batch.put_in(&db.default_keyspace(), "next", round.to_string());
                    }
                    let durability = if round % 8 == 7 { Durability::Sync } else { Durability::Buffered };
                    db.write_with(batch, durability).unwrap();
                    // Write each line with one call. The loop ends when the parent is gone.
                    let said = format!("acknowledged {writer} {round}\n");
                    if std::io::stderr().write_all(said.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn a_killed_process_loses_no_acknowledged_write() {
    let directory = tempfile::tempdir().unwrap();
    for acknowledgements in [3, 150, 400] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut last = [None; CHILD_WRITERS as usize];
        let mut note = |line: String| {
            // The last line may be torn. Any other malformed line is an error of the child.
            let Some(rest) = line.strip_prefix("acknowledged ") else { panic!("the child says: {line}") };
            let mut numbers = rest.split(' ').map(|number| number.parse::<u32>().unwrap());
            let (writer, round) = (numbers.next().unwrap(), numbers.next().unwrap());
            last[writer as usize] = Some(round);
        };
        for _ in 0..acknowledgements {
            note(lines.next().unwrap().unwrap());
        }
        // SIGKILL: the child cannot handle it.
        child.kill().unwrap();
        lines.for_each(|line| note(line.unwrap()));
        child.wait().unwrap();

        let db = options().open(directory.path()).unwrap();
        assert!(!db.recovery().was_clean);
        let mirror = mirror(&db);
        let found = rounds(db.prefix("writer"));
        assert_eq!(found, rounds(mirror.iter()));
        for (writer, last) in last.iter().enumerate() {
            let Some(last) = last else { continue };
            let found = &found[format!("writer{writer}").as_bytes()];
            assert!(*found >= value(*last), "writer {writer}: round {last} was acknowledged and is lost");
        }
    }
}
