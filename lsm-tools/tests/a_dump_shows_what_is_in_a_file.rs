//! `dump` of every kind of file, as text and as JSON.

mod common;

use common::{Directory, files, killed, lsm};

fn names(db: &Directory) -> Vec<String> {
    files(&db.path("db")).into_iter().map(|(name, _)| name).collect()
}

/// The newest file of a kind.
fn newest(directory: &Directory, belongs: impl Fn(&str) -> bool) -> String {
    let name = names(directory).into_iter().filter(|name| belongs(name)).max().expect("there is one");
    directory.arg(&format!("db/{name}"))
}

#[test]
fn every_file_of_a_database_can_be_dumped() {
    let directory = Directory::new();
    let db = directory.arg("db");
    // So much that no merge is worth it for one that is deleted.
    let rows: Vec<String> =
        (0..5000).map(|number| format!("{number:04}z\tvalue\nz{number}\tvalue\n")).collect();
    lsm(["load", &db, &directory.write("rows.tsv", rows.concat())]).stdout();
    lsm(["put", &db, "tab\\there", "\\xff \"quoted\""]).stdout();
    lsm(["delete", &db, "tab\\there"]).stdout();

    let dump = lsm(["dump", &newest(&directory, |name| name == "CURRENT")]).stdout();
    assert!(dump.starts_with("current manifest=") && dump.contains(" closed=cleanly\n"), "{dump}");

    let dump = lsm(["dump", &newest(&directory, |name| name.starts_with("MANIFEST"))]).stdout();
    assert!(dump.contains("keyspace id=0 name=\"default\"\n"), "{dump}");
    assert!(dump.contains("keyspace_option keyspace=0 name=policy value=\"leveled\"\n"), "{dump}");
    assert!(dump.contains("table_added keyspace=0 level=0"), "{dump}");

    let dump = lsm(["dump", &newest(&directory, |name| name.strip_suffix(".wal").is_some())]).stdout();
    assert!(dump.contains("delete sequence=10002 keyspace=0 key=\"tab\\there\"\n"), "{dump}");
    assert!(dump.contains("closed=yes"), "{dump}");

    let table = newest(&directory, |name| name.strip_suffix(".sst").is_some());
    let dump = lsm(["dump", &table]).stdout();
    assert!(
        dump.starts_with("table id=") && dump.contains("\ndelete sequence=10002 key=\"tab\\there\"\n"),
        "{dump}"
    );
    let json = lsm(["dump", &table, "--format", "json"]).stdout();
    for line in json.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("each line is an object");
        assert!(object["what"].is_string(), "{line}");
    }
}

#[test]
fn a_window_shows_the_end_of_the_log() {
    let directory = Directory::new();
    killed(&directory);
    let window = newest(&directory, |name| name.strip_suffix(".window").is_some());
    let dump = lsm(["dump", &window]).stdout();
    assert!(dump.starts_with("window number="), "{dump}");
    assert!(dump.contains("key=\"written-by-the-child/"), "{dump}");
    // Its records are the last of the log, as the segment shows them.
    let log = lsm(["dump", &window.replace(".window", ".wal")]).stdout();
    let last = |dump: &str| {
        let mut lines = dump.lines().filter(|line| line.starts_with("record ") || line.starts_with("put "));
        (lines.next_back().map(str::to_owned), lines.next_back().map(str::to_owned))
    };
    assert_eq!(last(&dump), last(&log));
    for line in lsm(["dump", &window, "--format", "json"]).stdout().lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("each line is an object");
        assert!(object["what"].is_string(), "{line}");
    }
}

#[test]
fn values_can_be_left_out_and_a_table_can_be_dumped_anywhere() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm(["put", &db, "key", "\\xff \"quoted\""]).stdout();
    let table = newest(&directory, |name| name.strip_suffix(".sst").is_some());
    let bytes = files(&directory.path("db")).into_iter().find(|(name, _)| table.ends_with(name)).unwrap().1;
    let copy = directory.write("evidence", bytes);

    let message = lsm(["dump", &copy]).failure(2);
    assert!(message.contains("--type"), "{message}");
    let dump = lsm(["dump", &copy, "--type", "sst"]).stdout();
    assert!(dump.ends_with("put sequence=1 key=\"key\" value=\"\\xff \\\"quoted\\\"\"\n"), "{dump}");
    let dump = lsm(["dump", &copy, "--type", "sst", "--no-values"]).stdout();
    assert!(dump.ends_with("put sequence=1 key=\"key\" value_bytes=10\n"), "{dump}");
    let dump = lsm(["dump", &copy, "--type", "sst", "--format", "json"]).stdout();
    assert!(dump.contains("\"value_hex\":\"ff202271"), "{dump}");
}

#[test]
fn a_dump_of_a_foreign_file_says_so() {
    let directory = Directory::new();
    let noise = directory.write("000001.sst", "this is not a table, whatever its name says");
    for file_type in ["sst", "wal", "window", "manifest", "current"] {
        let message = lsm(["dump", &noise, "--type", file_type]).failure(3);
        assert!(message.contains("000001.sst"), "{file_type}: {message}");
    }
    lsm(["dump", &directory.arg("000002.wal")]).failure(4);
    lsm(["dump", &directory.arg("000002.window")]).failure(4);
    lsm(["dump", &directory.arg("LOCK")]).failure(4);
    assert!(lsm(["dump", &directory.write("LOCK", "")]).stdout().contains("no content"));
    assert!(lsm(["dump", &directory.write("RESERVE", "")]).stdout().contains("holds back"));
}
