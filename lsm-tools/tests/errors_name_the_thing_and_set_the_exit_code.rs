//! Every kind of bad input to every command that it can reach: the message, the exit code, and nothing lost.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{Directory, files, lsm, lsm_with_input};
use lsm_core::vfs::{PosixFs, Vfs};

/// Commands that read a database, as arguments after its path.
const READERS: &[&[&str]] = &[&["get", "DB", "key"], &["scan", "DB"], &["count", "DB"], &["stats", "DB"]];

fn with_db<'a>(arguments: &[&'a str], db: &'a str) -> Vec<&'a str> {
    arguments.iter().map(|&argument| if argument == "DB" { db } else { argument }).collect()
}

#[test]
fn a_missing_directory_is_named_and_not_made() {
    let directory = Directory::new();
    let db = directory.arg("missing");
    for arguments in READERS.iter().chain(&[["delete", "DB", "key"].as_slice(), &["compact", "DB"]]) {
        let message = lsm(with_db(arguments, &db)).failure(4);
        assert!(message.contains("missing"), "{arguments:?}: {message}");
        assert!(!directory.path("missing").exists(), "{arguments:?} made it");
    }
    directory.write("a-file", "");
    let message = lsm(["put", &directory.arg("a-file/db"), "a", "b"]).failure(4);
    assert!(message.contains("a-file"), "{message}");
}

#[test]
fn a_file_in_the_place_of_the_directory_is_named() {
    let directory = Directory::new();
    let file = directory.write("a-file", "not a database");
    for arguments in READERS.iter().chain(&[["put", "DB", "key", "value"].as_slice(), &["compact", "DB"]]) {
        let message = lsm(with_db(arguments, &file)).failure(4);
        assert!(message.contains("a-file"), "{arguments:?}: {message}");
    }
}

#[test]
fn a_directory_of_other_files_does_not_become_a_database() {
    let directory = Directory::new();
    directory.write("thesis.tex", "precious");
    let home = directory.arg("");
    for arguments in [["put", &home, "key", "value"], ["load", &home, "-", "--sync"]] {
        let message = lsm(arguments).failure(2);
        assert!(message.contains("thesis.tex"), "{message}");
    }
    let message = lsm(["get", &home, "key"]).failure(4);
    assert!(message.contains("no database"), "{message}");
    assert_eq!(files(&directory.path("")).len(), 1);
}

#[test]
fn commands_that_read_change_nothing() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm(["put", &db, "key", "value"]).stdout();
    let before = files(&directory.path("db"));
    for arguments in READERS {
        lsm(with_db(arguments, &db)).stdout();
    }
    lsm(["get", &db, "no such key"]).failure(1);
    assert_eq!(files(&directory.path("db")), before);
}

#[test]
fn what_does_not_exist_is_exit_code_1() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm(["put", &db, "key", "value"]).stdout();
    assert!(lsm(["get", &db, "no\\tkey"]).failure(1).contains("there is no key \"no\\tkey\""));
    assert!(lsm(["delete", &db, "nokey"]).failure(1).contains("nokey"));
    for command in ["scan", "count"] {
        let message = lsm([command, &db, "--keyspace", "nowhere"]).failure(1);
        assert!(message.contains("there is no keyspace \"nowhere\""), "{message}");
    }
}

#[test]
fn every_command_tells_no_database_from_one_that_lost_a_file() {
    let directory = Directory::new();
    let (file, db) = (directory.write("file", "no database"), directory.arg("db"));
    lsm(["put", &db, "key", "value"]).stdout();
    let current = directory.path("db").join("CURRENT");
    PosixFs.remove_file(&current).expect("removed");
    for command in ["scan", "count", "stats", "verify", "compact"] {
        assert!(lsm([command, &file]).failure(4).contains("file is not a directory"), "{command}");
        let message = lsm([command, &db]).failure(3);
        assert!(
            message.contains("CURRENT is corrupt") && message.contains("missing"),
            "{command}: {message}"
        );
    }
    let message = lsm(["dump", &directory.arg("nothing")]).failure(4);
    assert!(message.contains("nothing: No such file"), "{message}");
}

#[test]
fn a_request_that_means_nothing_is_exit_code_2() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm(["put", &db, "key", "value"]).stdout();
    for (arguments, expected) in [
        (
            vec!["scan", &db, "--from", "b", "--to", "a"],
            "the range from \"b\" to \"a\" ends before it starts",
        ),
        (vec!["get", &db, "\\q"], "is no escape"),
        (vec!["get", &db, "--hex", "abc"], "3 hex digits"),
        (vec!["get", &db], "<KEY>"),
        (vec!["scan", &db, "--limit", "many"], "--limit"),
        (vec!["load", &db, "-", "--batch", "0"], "--batch"),
        (vec!["load", &db, "-", "--memory", "lots"], "--memory"),
        (vec!["load", &db, "-", "--memory", "1"], "memory"),
        (vec!["simulate", "leveled", "--exponent", "nan"], "--exponent"),
        (vec!["simulate", "leveled", "--memtable", "0"], "--memtable"),
        (vec!["dump", &db], "is a directory"),
        (vec!["frobnicate"], "frobnicate"),
    ] {
        let message = lsm(&arguments).failure(2);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    let long_key = "k".repeat(65_536);
    let message = lsm(["put", &db, &long_key, "v"]).failure(2);
    assert!(message.contains("key of 65536 bytes") && message.contains("65535"), "{message}");
    lsm(["put", &db, &long_key[1..], "the longest key"]).stdout();
    assert_eq!(lsm(["count", &db]).stdout(), "2\n");
}

#[test]
fn a_database_that_another_process_has_open_is_locked() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm(["put", &db, "key", "value"]).stdout();
    // The demo's writer says when it has written, which it can do only with the database open.
    let mut holder =
        common::command(["demo-writer", &db]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut acknowledgement = [0; 8];
    holder.stdout.as_mut().expect("piped").read_exact(&mut acknowledgement).expect("a first write");
    for arguments in [
        ["put", &db, "key", "other"].as_slice(),
        &["get", &db, "key"],
        &["scan", &db],
        &["count", &db],
        &["stats", &db],
        &["delete", &db, "key"],
        &["compact", &db],
        &["load", &db, "-"],
    ] {
        let message = lsm(arguments).failure(4);
        assert!(message.contains("db is locked"), "{arguments:?}: {message}");
    }
    // What only reads can do so beside it.
    assert_eq!(lsm(["get", &db, "key", "--follow"]).stdout(), "value\n");
    let count: u64 = lsm(["count", &db, "--follow"]).stdout().trim().parse().expect("a number");
    assert!(count >= 2);
    let scanned = lsm(["scan", &db, "--keys", "--follow"]).stdout();
    assert!(scanned.lines().count() as u64 >= count && scanned.lines().any(|key| key == "key"));
    assert!(lsm(["stats", &db, "--follow"]).stdout().contains("leases"));
    assert!(!directory.path("db/FOLLOWER-00").exists(), "each has removed its lease");
    holder.kill().expect("killed");
    holder.wait().expect("it ends");
    assert_eq!(lsm(["get", &db, "key"]).stdout(), "value\n");
}

#[test]
fn commands_that_read_run_side_by_side_and_keep_writers_out() {
    let directory = Directory::new();
    let db = directory.arg("db");
    // More than fits into a pipe: the scan is in the middle of it until somebody reads.
    let lines =
        (0..20_000).map(|number| format!("key{number:05}\tvalue")).collect::<Vec<_>>().join("\n") + "\n";
    lsm_with_input(["load", &db, "-"], lines.as_bytes()).stdout();
    let mut scan = common::command(["scan", &db]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut first = [0; 9];
    scan.stdout.as_mut().expect("piped").read_exact(&mut first).expect("a first line");
    assert_eq!(lsm(["scan", &db]).stdout(), lines);
    assert_eq!(lsm(["get", &db, "key00007"]).stdout(), "value\n");
    let message = lsm(["put", &db, "key", "value"]).failure(4);
    assert!(message.contains("db is locked"), "{message}");
    let mut rest = String::new();
    scan.stdout.take().expect("piped").read_to_string(&mut rest).expect("the rest");
    assert_eq!(format!("{}{rest}", String::from_utf8_lossy(&first)), lines);
    assert!(scan.wait().expect("it ends").success());
    lsm(["put", &db, "key", "value"]).stdout();
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_system_that_cannot_be_written_is_an_io_error() {
    for arguments in [["put", "/proc/lsm-db", "key", "value"].as_slice(), &["demo", "--dir", "/proc/lsm-db"]]
    {
        let message = lsm(arguments).failure(4);
        assert!(message.contains("/proc/lsm-db"), "{message}");
    }
}

#[test]
fn a_value_from_standard_input_that_is_too_large_for_the_memory_is_refused() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm(["put", &db, "key", "value"]).stdout();
    let large = vec![b'x'; (512 << 20) / 4 + 1];
    let message = lsm_with_input(["put", &db, "key"], &large).failure(2);
    assert!(message.contains("over the limit"), "{message}");
    assert_eq!(lsm(["get", &db, "key"]).stdout(), "value\n");
}
