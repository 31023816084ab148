//! Files cut, scribbled on, exchanged or missing: named, exit code 3, never a panic, nothing removed.

#![expect(clippy::disallowed_methods, reason = "does to the files what a bad disk does")]

mod common;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use common::{Directory, files, killed, lsm, lsm_with_input};
use lsm_engine::{Db, KeyspaceOptions};

/// Where the records of a window begin.
const WINDOW_AREA: usize = 4096;

/// A database that was closed cleanly, with tables and a blob file.
fn closed(directory: &Directory) -> String {
    let db = directory.arg("db");
    let opened = Db::open(&db).unwrap();
    let large = opened.keyspace("large", KeyspaceOptions::new().blobs_from(1024)).unwrap();
    for number in 0..3 {
        large.put(format!("key {number}"), vec![number; 20_000]).unwrap();
    }
    drop(large);
    opened.close().unwrap();
    let lines: Vec<_> = (0..2000).map(|number| format!("key{number:05}\tvalue of {number}\n")).collect();
    lsm_with_input(["load", &db, "-"], lines.concat().as_bytes()).stdout();
    lsm(["verify", &db]).stdout();
    db
}

/// Whether a file is of a kind.
fn is(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some()
}

/// Segments are long: writing all of one for each byte would take long, too.
fn put_byte(path: &Path, at: usize, byte: u8) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte]).unwrap();
}

/// Files that hold data, with their contents.
fn data_files(db: &str) -> Vec<(String, Vec<u8>)> {
    let holds_data = |name: &str| name != "LOCK" && name != "RESERVE" && !name.starts_with("EVENTS-");
    files(Path::new(db)).into_iter().filter(|(name, _)| holds_data(name)).collect()
}

/// A database whose writer was killed while records were in the window of the log, the name of that window, and the offset
/// at which the newest of them ends. A writer may be killed just when the window is empty: then another one is.
fn killed_with_window() -> (Directory, String, String, usize) {
    for _ in 0..50 {
        let directory = Directory::new();
        let db = killed(&directory);
        let (name, _) = data_files(&db).into_iter().find(|(name, _)| is(name, ".window")).unwrap();
        let path = Path::new(&db).join(&name);
        let dump = lsm(["dump", path.to_str().unwrap(), "--format", "json"]).stdout();
        let items: Vec<serde_json::Value> =
            dump.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = |what: &str, field: &str| {
            let numbers = items.iter().filter(|item| item["what"] == what).map(|item| item[field].as_u64());
            numbers.max().flatten()
        };
        let base = last("slot", "base").unwrap();
        if let Some(end) = last("record", "end") {
            return (directory, db, name, WINDOW_AREA + usize::try_from(end - base).unwrap());
        }
    }
    panic!("all writers were killed with an empty window");
}

#[test]
fn a_log_that_ends_early_is_reported() {
    let (_directory, db, name, end) = killed_with_window();
    lsm(["get", &db, "first"]).stdout();
    let path = Path::new(&db).join(&name);
    let mut bytes = fs::read(&path).unwrap();
    // A power cut may lose the page in which the records end. They are longer than this.
    bytes[end - 24..end].fill(0);
    fs::write(&path, &bytes).unwrap();
    let outcome = lsm(["count", &db]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.starts_with("lsm: warning: the log ends early"), "{outcome:?}");
    assert!(outcome.stderr.contains(&name), "{outcome:?}");
}

#[test]
fn verify_finds_every_damaged_byte_of_a_closed_database() {
    let directory = Directory::new();
    let db = closed(&directory);
    for (name, bytes) in data_files(&db) {
        let path = Path::new(&db).join(&name);
        let step = (bytes.len() / 12).max(1);
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let message = lsm(["verify", &db, "--quiet"]).failure(3);
            assert!(message.contains(&name), "byte {at} of {name}: {message}");
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(lsm(["verify", &db, "--quiet"]).stdout(), "");
}

#[test]
fn a_file_that_is_cut_or_missing_is_corruption_to_every_command() {
    let directory = Directory::new();
    let db = closed(&directory);
    for (name, bytes) in data_files(&db) {
        let path = Path::new(&db).join(&name);
        // A log's last bytes say that it was closed; CURRENT says so too, and what they follow is all there.
        let almost_all = if is(&name, ".wal") { bytes.len() - 100 } else { bytes.len() - 1 };
        for keep in [0, bytes.len() / 2, almost_all] {
            fs::write(&path, &bytes[..keep]).unwrap();
            let before = files(Path::new(&db));
            lsm(["verify", &db]).failure(3);
            for arguments in [["scan", &db].as_slice(), &["stats", &db], &["put", &db, "key", "value"]] {
                let message = lsm(arguments).failure(3);
                // A log that lost its only segment is named by its directory.
                let named =
                    message.contains(&name) || (is(&name, ".wal") && message.contains("db is corrupt"));
                assert!(named, "{arguments:?} with {keep} bytes of {name}: {message}");
            }
            assert_eq!(files(Path::new(&db)), before, "nothing was changed or removed");
        }
        fs::remove_file(&path).unwrap();
        // Without CURRENT there may never have been a database here: that is exit code 4, or 3 where files say so.
        let code = lsm(["verify", &db]).code;
        assert!(code == Some(3) || name == "CURRENT" && code == Some(4), "{name} is missing: {code:?}");
        let code = lsm(["scan", &db]).code;
        assert!(matches!(code, Some(3 | 4)), "{name} is missing: {code:?}");
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(lsm(["count", &db]).stdout(), "2000\n");
}

#[test]
fn verify_does_not_call_sound_what_no_command_can_open() {
    let directory = Directory::new();
    let (open, db) = (directory.path("open"), directory.arg("db"));
    let writer = Db::open(&open).unwrap();
    for name in ["users", "orders"] {
        writer.keyspace(name, KeyspaceOptions::default()).unwrap().put("key", "value").unwrap();
    }
    // As a crash would leave it: nothing says how long the manifest was.
    fs::create_dir(&db).unwrap();
    for (name, bytes) in files(&open) {
        fs::write(Path::new(&db).join(name), bytes).unwrap();
    }
    let (name, bytes) = data_files(&db).into_iter().find(|(name, _)| name.starts_with("MANIFEST")).unwrap();
    let mut messages = String::new();
    for length in 0..bytes.len() {
        fs::write(Path::new(&db).join(&name), &bytes[..length]).unwrap();
        let (count, verify) = (lsm(["count", &db]), lsm(["verify", &db]));
        assert_eq!(verify.code, count.code, "{length} bytes of {name}: {verify:?}\n{count:?}");
        messages += &verify.stderr;
    }
    assert!(messages.contains(&name) && messages.contains("keyspace 1, which never existed"), "{messages}");
}

#[test]
fn a_scan_prints_what_it_read_before_the_damage() {
    let directory = Directory::new();
    let db = closed(&directory);
    let (name, mut bytes) = data_files(&db).into_iter().rev().find(|(name, _)| is(name, ".sst")).unwrap();
    let at = bytes.len() / 4;
    bytes[at] ^= 1;
    fs::write(Path::new(&db).join(&name), bytes).unwrap();
    for arguments in [vec!["scan".to_owned(), db.clone()], vec!["dump".to_owned(), format!("{db}/{name}")]] {
        let outcome = lsm(&arguments);
        assert!(outcome.stdout.contains("key00000"), "{outcome:?}");
        let message = outcome.failure(3);
        assert!(message.contains(&name) && message.contains("offset"), "{message}");
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let directory = Directory::new();
    let db = closed(&directory);
    for (name, bytes) in data_files(&db) {
        let path = Path::new(&db).join(&name);
        let mut newer = bytes.clone();
        newer[8] = 99; // the version stands behind the eight bytes of the magic number, everywhere
        fs::write(&path, &newer).unwrap();
        let message = lsm(["verify", &db]).failure(3);
        assert!(message.contains(&name), "{name}: {message}");
        // The header of a table or blob file is believed only as a whole: a version that its checksum does not cover is damage.
        assert!(
            message.contains("version 99") || is(&name, ".sst") || is(&name, ".blob"),
            "{name}: {message}"
        );
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn a_log_that_is_gone_is_corruption_to_every_command() {
    let directory = Directory::new();
    let db = killed(&directory);
    let mut log = data_files(&db);
    log.retain(|(name, _)| is(name, ".wal") || is(name, ".window"));
    for (name, _) in &log {
        fs::remove_file(Path::new(&db).join(name)).unwrap();
    }
    let first = log[0].0.replace("window", "wal");
    for arguments in [["verify", &db].as_slice(), &["count", &db], &["put", &db, "key", "value"]] {
        let message = lsm(arguments).failure(3);
        assert!(message.contains(&first) && message.contains("missing"), "{message}");
    }
    // The spare segment, which has no header yet, is not all that may have been lost.
    let (spare, zeros) = log.iter().rfind(|(name, _)| is(name, ".wal")).unwrap();
    fs::write(Path::new(&db).join(spare), zeros).unwrap();
    let message = lsm(["verify", &db]).failure(3);
    assert!(message.contains(spare) && message.contains("an earlier segment is lost"), "{message}");
    for (name, bytes) in &log {
        fs::write(Path::new(&db).join(name), bytes).unwrap();
    }
    lsm(["verify", &db]).stdout();
}

#[test]
fn a_window_that_is_gone_is_corruption_to_every_command() {
    let directory = Directory::new();
    let db = killed(&directory);
    let (name, bytes) = data_files(&db).into_iter().find(|(name, _)| is(name, ".window")).unwrap();
    let path = Path::new(&db).join(&name);
    let log = format!("{db}/{}", name.replace("window", "wal"));
    for damage in ["removed", "emptied", "overwritten"] {
        match damage {
            "removed" => fs::remove_file(&path).unwrap(),
            "emptied" => fs::write(&path, "").unwrap(),
            _ => fs::write(&path, &bytes[32..]).unwrap(),
        }
        for arguments in
            [["verify", &db].as_slice(), &["count", &db], &["put", &db, "key", "value"], &["dump", &log]]
        {
            let message = lsm(arguments).failure(3);
            assert!(message.contains(&name), "{damage}: {message}");
        }
    }
    fs::write(&path, &bytes).unwrap();
    lsm(["verify", &db]).stdout();
}

#[test]
fn a_dump_of_a_damaged_log_names_it_and_not_only_the_window_that_closing_removed() {
    let directory = Directory::new();
    let db = closed(&directory);
    let (name, bytes) = data_files(&db).into_iter().find(|(name, _)| is(name, ".wal")).unwrap();
    let log = Path::new(&db).join(&name);
    put_byte(&log, 2000, bytes[2000] ^ 1);
    let message = lsm(["dump", &log.to_string_lossy()]).failure(3);
    assert!(message.contains(&name), "{message}");
    // Without the record that says so, nobody can tell that the log was closed.
    fs::write(&log, &bytes[..bytes.len() - 8]).unwrap();
    let message = lsm(["dump", &log.to_string_lossy()]).failure(3);
    assert!(
        message.contains(&format!("missing, and {name} does not end as a log that was closed")),
        "{message}"
    );
}

#[test]
fn bytes_after_the_end_of_a_manifest_are_reported() {
    let directory = Directory::new();
    let db = closed(&directory);
    let (name, mut bytes) =
        data_files(&db).into_iter().find(|(name, _)| name.starts_with("MANIFEST")).unwrap();
    bytes.extend([0xa5; 1000]);
    fs::write(Path::new(&db).join(&name), bytes).unwrap();
    let report = lsm(["verify", &db]).stdout();
    assert!(report.contains("note     torn tail, promised to nobody: 1000 bytes"), "{report}");
    assert!(report.contains(&format!("{name}: ")), "{report}");
}

#[test]
fn what_cannot_be_read_is_told_from_damage() {
    let directory = Directory::new();
    let db = closed(&directory);
    let first = |suffix| data_files(&db).into_iter().find(|(name, _)| is(name, suffix)).unwrap();
    let ((name, _), (log, mut log_bytes)) = (first(".sst"), first(".wal"));
    let path = Path::new(&db).join(&name);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let outcome = lsm(["verify", &db, "--quiet"]);
    assert!(outcome.stdout.starts_with("UNREADABLE  ") && outcome.stdout.contains(&name), "{outcome:?}");
    outcome.failure(4);
    // Damage elsewhere is the worse news, whichever is met first.
    log_bytes[130] ^= 1;
    fs::write(Path::new(&db).join(&log), &log_bytes).unwrap();
    let outcome = lsm(["verify", &db, "--quiet"]);
    assert!(outcome.stdout.contains("UNREADABLE  ") && outcome.stdout.contains("DAMAGED  "), "{outcome:?}");
    let message = outcome.failure(3);
    assert!(message.starts_with("lsm: 2 errors") && message.contains(&log), "{message}");
}

#[test]
fn what_was_not_checked_because_of_damage_is_not_called_sound() {
    let directory = Directory::new();
    let db = killed(&directory);
    let (name, bytes) = data_files(&db).into_iter().find(|(name, _)| is(name, ".wal")).unwrap();
    let (path, window) = (Path::new(&db).join(&name), name.replace(".wal", ".window"));
    put_byte(&path, 40, bytes[40] ^ 1);
    let outcome = lsm(["verify", &db]);
    assert!(
        outcome.stdout.contains(&format!("note     {window}: window, whose records were not")),
        "{outcome:?}"
    );
    assert_eq!(outcome.stdout.matches("DAMAGED  ").count(), 1, "{outcome:?}");
    outcome.failure(3);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let outcome = lsm(["verify", &db]);
    assert_eq!(outcome.stdout.matches("UNREADABLE  ").count(), 1, "{outcome:?}");
    assert!(outcome.failure(4).contains(&name));
}

#[test]
fn a_directory_in_the_place_of_a_file_is_not_dumped() {
    let directory = Directory::new();
    let db = closed(&directory);
    for (name, _) in files(Path::new(&db)) {
        let path = Path::new(&db).join(&name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let message = lsm(["dump", &path.to_string_lossy()]).failure(4);
        assert!(message.contains(&name) && message.contains("directory"), "{message}");
    }
}

#[test]
fn what_a_killed_process_wrote_is_there_and_its_log_verifies() {
    let directory = Directory::new();
    let db = killed(&directory);
    let report = lsm(["verify", &db]).stdout();
    assert!(report.contains("records to replay"), "{report}");
    for (name, _) in data_files(&db) {
        assert!(report.contains(&format!("ok       {name} ")), "{name}: {report}");
    }
    let mut dump = String::new();
    for (name, _) in data_files(&db).iter().filter(|(name, _)| is(name, ".wal")) {
        dump += &lsm(["dump", &format!("{db}/{name}"), "--format", "json"]).stdout();
    }
    assert!(dump.contains("\"key\":\"written-by-the-child/0000000099\""), "{dump}");
    let count: u64 = lsm(["count", &db]).stdout().trim().parse().unwrap();
    assert!(count > 100, "{count}");
}

#[test]
fn damage_in_a_log_that_was_not_closed_is_found_and_never_gives_wrong_data() {
    let directory = Directory::new();
    let db = killed(&directory);
    let sound = lsm(["scan", &db]).stdout();
    for (name, bytes) in data_files(&db).into_iter().filter(|(name, _)| !is(name, ".sst")) {
        let path = Path::new(&db).join(&name);
        // The last two are where nothing was written yet, or an earlier round of the window left something.
        let places = [2, 17, 100, 140, 200, 1000, 4200, bytes.len() / 2, bytes.len() - 1];
        for at in places.into_iter().filter(|&at| at < bytes.len()) {
            put_byte(&path, at, bytes[at] ^ 4);
            let outcome = lsm(["scan", &db]);
            match outcome.code {
                Some(0) => assert!(sound.starts_with(&outcome.stdout), "byte {at} of {name}: wrong data"),
                Some(3) => {}
                _ => panic!("byte {at} of {name}: {outcome:?}"),
            }
            // Records stand in the segment and in the window; either copy counts.
            let message = lsm(["verify", &db, "--quiet"]).failure(3);
            assert!(message.contains(&name), "byte {at} of {name}: {message}");
            put_byte(&path, at, bytes[at]);
        }
    }
    assert_eq!(lsm(["scan", &db]).stdout(), sound);
}
