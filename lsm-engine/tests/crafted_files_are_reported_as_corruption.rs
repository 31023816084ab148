//! Files with valid checksums and impossible content. Each is refused as corruption that names the file, without a
//! panic and without allocating the memory that it claims to need.

use std::path::Path;
use std::sync::Arc;

use lsm_core::checksum::{crc32, crc64};
use lsm_core::{Entry, SEQUENCE_MAX, ValueKind};
use lsm_engine::env::{Env, SimEnv};
use lsm_engine::inspect::{AddedTable, KeyspaceRecord, LogStart, StoredOptions, VersionEdit};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_engine::{Compression, Db, Error, ErrorKind, KeyspaceOptions, Options, Result};
use lsm_sstable::{TableId, TableOptions, TableWriter};
use lsm_wal::{Log, RecordFile, Wal, WalOptions};

mod manifest;

const DIRECTORY: &str = "/db";

fn open(fs: &SimFs) -> Result<Db> {
    let env = Arc::new(SimEnv::new(1)) as Arc<dyn Env>;
    Options::new().memory(8 << 20).vfs(Arc::new(fs.clone())).env(env).open(DIRECTORY)
}

/// A database with a table and a record in its log, not closed.
fn make() -> SimFs {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    db.put("table", "1").unwrap();
    db.flush().unwrap();
    db.put("log", "2").unwrap();
    db.sync().unwrap();
    let fs = fs.process_crash();
    manifest::verify_log(&fs, Path::new(DIRECTORY), &|| "before anything is crafted".into());
    fs
}

#[track_caller]
fn check(fs: &SimFs, what: &str, is_sound: bool) {
    match open(fs) {
        Ok(db) => {
            assert!(is_sound, "{what}: opened");
            assert_eq!(db.get("table").unwrap().unwrap(), "1", "{what}");
            assert_eq!(db.get("log").unwrap().unwrap(), "2", "{what}");
        }
        Err(error) => {
            assert!(!is_sound, "{what}: {error}");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
            assert!(error.to_string().contains(DIRECTORY), "{what}: {error}");
        }
    }
}

/// Rewrites the manifest with one more edit at its end.
fn check_edit(what: &str, is_sound: bool, change: impl FnOnce(&mut VersionEdit)) {
    check(&craft(change), what, is_sound);
}

fn craft(change: impl FnOnce(&mut VersionEdit)) -> SimFs {
    let fs = make();
    let (current, edits) = manifest::edits(&fs, Path::new(DIRECTORY)).unwrap();
    let mut crafted = VersionEdit::default();
    crafted.added.extend(edits.iter().rev().flat_map(|edit| edit.added.clone()).take(1));
    for table in &mut crafted.added {
        crafted.removed.push((table.keyspace, table.number));
    }
    change(&mut crafted);
    let path = Path::new(DIRECTORY).join(format!("MANIFEST-{:06}", current.manifest));
    fs.remove_file(&path).unwrap();
    let mut file = RecordFile::create(&fs, &path, current.manifest, 77).unwrap();
    for edit in edits.iter().chain([&crafted]) {
        file.append(0, &edit.encode()).unwrap();
    }
    file.sync().unwrap();
    fs
}

#[test]
fn a_manifest_with_impossible_numbers_is_corrupt() {
    check_edit("nothing", true, |_| ());
    check_edit("the last level", true, |edit| edit.added[0].level = 255);
    for level in [256, u32::MAX] {
        check_edit("a level", false, |edit| edit.added[0].level = level);
    }
    for sequence in [SEQUENCE_MAX + 1, u64::MAX] {
        check_edit("last_sequence", false, |edit| edit.last_sequence = Some(sequence));
        check_edit("flushed", false, |edit| edit.flushed = vec![(0, sequence)]);
    }
    for number in [1 << 60, u64::MAX] {
        check_edit("next_number", false, |edit| edit.next_number = Some(number));
        check_edit("a run", false, |edit| edit.added[0].run = number);
        check_edit("log_begun", false, |edit| edit.log_begun = Some(number));
        check_log("segment", false, |log| log.segment = number);
    }
    check_log("nothing", true, |_| ());
    for position in [1 << 56, u64::MAX] {
        check_log("position", false, |log| log.position = position);
        check_log("synced", false, |log| log.synced = position);
    }
}

fn check_log(what: &str, is_sound: bool, change: impl FnOnce(&mut LogStart)) {
    let (_, edits) = manifest::edits(&make(), Path::new(DIRECTORY)).unwrap();
    let mut log = edits.iter().rev().find_map(|edit| edit.log).unwrap();
    change(&mut log);
    check_edit(what, is_sound, |edit| edit.log = Some(log));
}

#[test]
fn a_keyspace_with_an_id_not_yet_given_out_is_corrupt() {
    let record = |id| KeyspaceRecord { id, name: "another".into(), options: Arc::default() };
    check_edit("the next id", true, |edit| {
        edit.keyspaces = vec![record(1)];
        edit.next_keyspace = Some(2);
    });
    for id in [1, u32::MAX] {
        check_edit("an id", false, |edit| edit.keyspaces = vec![record(id)]);
    }
}

/// Sets a byte of the header of a file, and makes its checksum right.
fn with_header_byte(fs: &SimFs, path: &Path, at: usize, checksum: std::ops::Range<usize>) {
    let mut bytes = fs.read_all(path).unwrap();
    bytes[at] = 1;
    let covered = &bytes[..checksum.start];
    let sum = match checksum.len() {
        4 => crc32(0, covered).to_le_bytes().to_vec(),
        _ => crc64(0, covered).to_le_bytes().to_vec(),
    };
    bytes[checksum].copy_from_slice(&sum);
    fs.remove_file(path).unwrap();
    fs.create_new(path).unwrap().write_at(&bytes, 0).unwrap();
}

#[test]
fn an_encrypted_file_of_each_kind_is_refused_by_name_and_other_bytes_there_are_corruption() {
    for (kind, at, checksum) in [
        ("CURRENT", 64, 104..108),
        ("MANIFEST", 80, 120..128),
        (".wal", 80, 120..128),
        (".window", 32, 120..128),
        (".sst", 32, 76..80),
    ] {
        for (offset, expected) in
            [(0, ErrorKind::Unsupported), (4, ErrorKind::Corruption), (39, ErrorKind::Corruption)]
        {
            let fs = make();
            let names = fs.read_dir(Path::new(DIRECTORY)).unwrap();
            let name = names.iter().find(|name| name.contains(kind)).expect(kind);
            with_header_byte(&fs, &Path::new(DIRECTORY).join(name), at + offset, checksum.clone());
            let error = open(&fs).unwrap_err();
            assert_eq!(error.kind(), expected, "{name}, byte {offset}: {error}");
            assert!(error.to_string().contains(name.as_str()), "{name}: {error}");
            assert!(offset > 0 || error.to_string().contains("encrypted"), "{name}: {error}");
        }
    }
}

/// A later version may store what this one does not know.
#[test]
fn unknown_options_are_kept_and_known_ones_in_unknown_forms_have_their_defaults() {
    let later = [
        ("block_bytes", &b"automatic"[..]),
        ("compression", b"zip:9"),
        ("dictionary", &[0xff; 1000]),
        ("filter", b"ribbon:10"),
        ("prefix_extractor", b"words:2"),
    ];
    let fs = craft(|edit| {
        let mut options = StoredOptions::default();
        for (name, value) in later {
            options.set(name, value);
        }
        edit.keyspaces = vec![KeyspaceRecord { id: 1, name: "another".into(), options: options.into() }];
        edit.next_keyspace = Some(2);
    });
    let db = open(&fs).unwrap();
    let given = KeyspaceOptions::new().compression_above(Compression::None);
    let another = db.keyspace("another", given).unwrap();
    another.put("key", "value").unwrap();
    db.flush().unwrap();
    assert_eq!(another.prefix("k").count(), 1);
    drop((another, db));
    let (_, edits) = manifest::edits(&fs, Path::new(DIRECTORY)).unwrap();
    let records: Vec<_> = edits.into_iter().flat_map(|edit| edit.keyspaces).collect();
    let kept = &records.iter().rfind(|record| record.id == 1).unwrap().options;
    assert_eq!(kept.text("compression_above"), Some("none"));
    for (name, value) in later {
        assert_eq!(kept.get(name), Some(value), "{name}");
    }
}

/// The last id is never given out.
#[test]
fn creating_a_keyspace_fails_when_all_ids_are_used() {
    let fs = craft(|edit| edit.next_keyspace = Some(u32::MAX));
    let db = open(&fs).unwrap();
    let error = db.keyspace("another", KeyspaceOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(db.get("log").unwrap().unwrap(), "2");
}

/// Appends one more record to the log, a batch of `puts`.
fn check_record(what: &str, is_sound: bool, tag: u64, puts: u32) {
    let fs = make();
    let mut payload = puts.to_le_bytes().to_vec();
    for _ in 0..puts {
        payload.extend_from_slice(&[ValueKind::Put as u8, 0, 3]);
        payload.extend_from_slice(b"key");
        payload.extend_from_slice(&[1, b'v']);
    }
    let env = Arc::new(SimEnv::new(2)) as Arc<dyn Env>;
    let vfs = Arc::new(fs.clone()) as Arc<dyn Vfs>;
    let (mut log, _) = Wal::open(vfs, env, Path::new(DIRECTORY), WalOptions::default()).unwrap();
    log.append(tag, &payload).unwrap();
    log.sync_handle().wait_durable(lsm_wal::Position(0)).unwrap();
    drop(log);
    check(&fs, &format!("{what}: {tag}, {puts} operations"), is_sound);
}

#[test]
fn a_log_with_impossible_sequence_numbers_is_corrupt() {
    check_record("as the engine writes it", true, 3, 2);
    // The first two writes have lower numbers. Memtables take the versions of a key in ascending order.
    for (tag, puts) in
        [(2, 2), (1, 2), (0, 1), (SEQUENCE_MAX, 2), (SEQUENCE_MAX + 1, 1), (u64::MAX, 1), (u64::MAX, 2)]
    {
        check_record("a tag", false, tag, puts);
    }
}

/// The error used to name the directory, and to give a log position as the offset.
#[test]
fn a_malformed_record_is_reported_with_file_and_offset() {
    for tag in [0, 3] {
        let fs = make();
        let env = Arc::new(SimEnv::new(2)) as Arc<dyn Env>;
        let vfs = Arc::new(fs.clone()) as Arc<dyn Vfs>;
        let (mut log, _) = Wal::open(vfs, env, Path::new(DIRECTORY), WalOptions::default()).unwrap();
        log.append(tag, b"no batch of writes").unwrap();
        log.sync_handle().wait_durable(log.end()).unwrap();
        drop(log);
        let error = open(&fs).unwrap_err().to_string();
        let (path, rest) = error.split_once(" is corrupt at offset ").unwrap();
        let (offset, _) = rest.split_once(':').unwrap();
        let offset = offset.parse::<usize>().unwrap();
        assert_eq!(Path::new(path).extension().unwrap(), "wal", "{error}");
        let bytes = fs.read_all(Path::new(path)).unwrap();
        assert_eq!(bytes[offset + 32..][..18], *b"no batch of writes", "{error}");
    }
}

/// When the numbers are used up, the write fails and the data stays readable.
#[test]
fn a_write_after_the_last_sequence_number_fails() {
    let fs = make();
    {
        let (current, edits) = manifest::edits(&fs, Path::new(DIRECTORY)).unwrap();
        let path = Path::new(DIRECTORY).join(format!("MANIFEST-{:06}", current.manifest));
        fs.remove_file(&path).unwrap();
        let mut file = RecordFile::create(&fs, &path, current.manifest, 77).unwrap();
        let mut last = VersionEdit::default();
        last.last_sequence = Some(SEQUENCE_MAX - 1);
        for edit in edits.iter().chain([&last]) {
            file.append(0, &edit.encode()).unwrap();
        }
        file.sync().unwrap();
    }
    let db = open(&fs).unwrap();
    db.put("the last", "3").unwrap();
    let error = db.put("too many", "4").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(db.get("the last").unwrap().unwrap(), "3");
    assert!(db.get("too many").unwrap().is_none());
}

/// A value that expires begins with eight bytes of its time.
#[test]
fn a_value_that_expires_without_a_whole_time_is_reported_by_each_read() {
    let write = |fs: &SimFs| {
        let path = Path::new(DIRECTORY).join("005000.sst");
        let mut writer = TableWriter::create(fs, &path, TableId(7), &TableOptions::default()).unwrap();
        for (key, value) in [(b"e1", &b"12345678value"[..]), (b"e2", b"1234567"), (b"e3", b"12345678value")] {
            writer.add(Entry { key, sequence: 1, kind: ValueKind::PutWithExpiry, value }).unwrap();
        }
        writer.finish().unwrap()
    };
    let scratch = SimFs::new();
    scratch.create_dir(Path::new(DIRECTORY)).unwrap();
    let meta = write(&scratch);
    let fs = craft(|edit| {
        let (level, run, number) = (6, 1, 5000);
        edit.next_number = Some(6000);
        edit.added.push(AddedTable { level, run, number, meta, ..edit.added[0].clone() });
    });
    write(&fs);
    let db = open(&fs).unwrap();
    let check = |error: Error, what: &str| {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
        assert!(
            error.to_string().contains("005000.sst") && error.to_string().contains("e2"),
            "{what}: {error}"
        );
    };
    check(db.get("e2").unwrap_err(), "get");
    check(db.iter().find_map(Result::err).unwrap(), "forward");
    check(db.iter().rev().find_map(Result::err).unwrap(), "backward");
    let mut cursor = db.cursor().unwrap();
    check(cursor.seek("e2").unwrap_err(), "seek");
    assert_eq!(cursor.key(), None);
    assert_eq!(db.get("e1").unwrap().unwrap(), "value");
    assert_eq!(db.get("table").unwrap().unwrap(), "1");
    // A merge keeps what it cannot read.
    db.compact_range::<&[u8]>(..).unwrap();
    check(db.get("e2").unwrap_err(), "after a merge");
}
