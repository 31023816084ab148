//! `lsm events` prints what a database did last, `dump` one file of it, and `verify` only notes its damage.

#![expect(clippy::disallowed_methods, reason = "does to the files what a bad disk does")]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Directory, files, killed, lsm};

/// A database that was loaded, written to again, and closed both times.
fn database(directory: &Directory) -> String {
    let db = directory.arg("db");
    lsm(["load", &db, &directory.write("rows.tsv", "a\t1\nb\t2\n")]).stdout();
    lsm(["put", &db, "c", "3"]).stdout();
    db
}

/// The newest file of the flight recorder.
fn recorder_file(directory: &Directory) -> PathBuf {
    let names = files(&directory.path("db")).into_iter().map(|(name, _)| name);
    directory.path("db").join(names.filter(|name| name.starts_with("EVENTS-")).max().expect("a file"))
}

#[test]
fn events_are_printed_in_order_with_their_times() {
    let directory = Directory::new();
    let db = database(&directory);
    let before = files(&directory.path("db"));
    let events = lsm(["events", &db]).stdout();
    let lines: Vec<&str> = events.lines().collect();
    let position = |text: &str| lines.iter().position(|line| line.contains(text));
    let flushed = position("flush of \"default\" ends: 1 tables").expect(&events);
    assert!(
        position("  created").expect(&events) < flushed && flushed < position("  closed").unwrap(),
        "{events}"
    );
    assert_eq!(
        lines.iter().filter(|line| line.ends_with("Z  closed")).count(),
        2,
        "both processes: {events}"
    );
    assert!(lines.iter().all(|line| line.starts_with("20") && line[10..].starts_with('T')), "{events}");
    assert!(lines.is_sorted(), "by time: {events}");
    assert_eq!(files(&directory.path("db")), before, "nothing is changed");

    let json = lsm(["events", &db, "--format", "json"]).stdout();
    assert_eq!(json.lines().count(), lines.len());
    for line in json.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("each line is an object");
        assert!(
            object["what"] == "event" && object["time"].is_string() && object["event"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn a_file_of_the_recorder_is_dumped_like_any_other() {
    let directory = Directory::new();
    database(&directory);
    let dump = lsm(["dump", recorder_file(&directory).to_str().unwrap()]).stdout();
    assert!(dump.contains("  closed\n"), "{dump}");
}

#[test]
fn the_events_of_a_process_that_was_killed_are_found() {
    let directory = Directory::new();
    let db = killed(&directory);
    // There may be none, if it was killed within the first second.
    lsm(["events", &db]).stdout();
    lsm(["put", &db, "a", "1"]).stdout();
    assert!(lsm(["events", &db]).stdout().contains("opened without a clean close"));
}

#[test]
fn a_damaged_recorder_is_a_note_and_no_damage() {
    let directory = Directory::new();
    let db = database(&directory);
    assert!(lsm(["verify", &db]).stdout().contains("ok       EVENTS"));
    let path = recorder_file(&directory);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let verified = lsm(["verify", &db]).stdout();
    assert!(verified.contains("note     the flight recorder is damaged"), "{verified}");
    let printed = lsm(["events", &db]);
    assert_eq!(printed.code, Some(0));
    assert!(printed.stderr.contains("EVENTS-") && printed.stderr.contains("left out"), "{}", printed.stderr);
}

#[test]
fn a_directory_without_a_database_is_named() {
    let directory = Directory::new();
    let message = lsm(["events", &directory.arg("none")]).failure(4);
    assert!(message.contains("none"), "{message}");
}
