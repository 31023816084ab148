//! `lsm scan db | head` ends quietly.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use common::{Directory, lsm_with_input};

#[test]
fn a_reader_may_close_the_pipe_early() {
    let directory = Directory::new();
    let db = directory.arg("db");
    let value = "v".repeat(1000);
    let lines: Vec<_> = (0..5000).map(|number| format!("{number:08}\t{value}\n")).collect();
    lsm_with_input(["load", &db, "-"], lines.concat().as_bytes()).stdout();

    let mut scan = common::command(["scan", &db])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut first = String::new();
    BufReader::new(scan.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    assert!(first.starts_with("00000000\t"), "{first}");
    // The reader is dropped: most of the five megabytes have nowhere to go.
    let mut stderr = String::new();
    scan.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!((scan.wait().expect("it ends").code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_command_whose_output_nobody_reads_still_does_its_work() {
    let directory = Directory::new();
    let db = directory.arg("db");
    let file = directory.write("a.tsv", "a\t1\n");
    let mut load =
        common::command(["load", &db, &file]).stdout(Stdio::piped()).spawn().expect("the binary starts");
    drop(load.stdout.take());
    assert_eq!(load.wait().expect("it ends").code(), Some(0));
    assert_eq!(common::lsm(["get", &db, "a"]).stdout(), "1\n");
}

#[cfg(target_os = "linux")]
#[test]
#[expect(clippy::disallowed_methods, reason = "a device, not a file of the store")]
fn a_full_output_is_an_error() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm_with_input(["load", &db, "-"], b"a\t1\n").stdout();
    for arguments in [["scan", &db].as_slice(), &["--help"], &["help", "scan"], &["--version"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let output = common::command(arguments).stdout(full).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(4), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{output:?}");
    }
}
