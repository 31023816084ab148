//! `lsm demo` runs to its end, twice, and leaves a database worth looking into.

mod common;

use common::{Directory, files, lsm};

#[test]
fn the_demo_recovers_every_acknowledged_write_and_can_run_again() {
    let directory = Directory::new();
    let dir = directory.arg("demo");
    for _ in 0..2 {
        let story = lsm(["demo", "--dir", &dir]).stdout();
        for expected in [
            "34,006 cities",
            "\"name\":\"Reykjavík\"",
            "São Paulo",
            "snapshot  {\"name\":\"Reykjavík\"",
            "risen: 2 cities, 1 in the index",
            "sunk:  0 cities, 0 in the index",
            "acknowledged writes are there, 0 missing",
            "keyspace default",
            "Figures of this run",
        ] {
            assert!(story.contains(expected), "{expected:?} is missing in:\n{story}");
        }
    }
    assert_eq!(lsm(["count", &dir]).stdout(), "34006\n");
    assert_eq!(lsm(["count", &dir, "--keyspace", "by-population"]).stdout(), "34006\n");
    let value = lsm(["get", &dir, "Iceland/Reykjavík/3413829"]).stdout();
    assert!(value.starts_with("{\"name\":\"Reykjavík\",\"population\":118918,"), "{value}");
}

#[test]
fn the_demo_clears_only_what_a_demo_made() {
    let directory = Directory::new();
    let db = directory.arg("db");
    lsm(["put", &db, "precious", "data"]).stdout();
    let before = files(&directory.path("db"));
    let message = lsm(["demo", "--dir", &db]).failure(2);
    assert!(message.contains("was not made by a demo"), "{message}");
    assert_eq!(files(&directory.path("db")), before);

    // Even in a directory that a demo made, a stranger's file is safe.
    directory.write("db/LSM-DEMO.txt", "");
    directory.write("db/notes.txt", "mine");
    let message = lsm(["demo", "--dir", &db]).failure(2);
    assert!(message.contains("notes.txt"), "{message}");
    assert_eq!(lsm(["get", &db, "precious"]).stdout(), "data\n");

    let message = lsm(["demo", "--dir", &directory.write("a-file", "")]).failure(4);
    assert!(message.contains("a-file"), "{message}");
    lsm(["demo", "--dir", &directory.arg("no/parent")]).failure(4);
}
