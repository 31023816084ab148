//! `scan` and `count` with every flag; keyspaces apart from one another.

mod common;

use common::{Directory, lsm, lsm_with_input};

fn fruit() -> (Directory, String) {
    let directory = Directory::new();
    let db = directory.arg("db");
    let lines = "apple\t1\nbanana\t2\nblackberry\t3\nblueberry\t4\ncherry\t5\n";
    lsm_with_input(["load", &db, "-"], lines.as_bytes()).stdout();
    (directory, db)
}

fn keys(db: &str, flags: &[&str]) -> String {
    let arguments = ["scan", db, "--keys"].into_iter().chain(flags.iter().copied());
    lsm(arguments).stdout().lines().collect::<Vec<_>>().join(" ")
}

#[test]
fn ranges_are_half_open_and_narrow_prefixes() {
    let (_directory, db) = fruit();
    assert_eq!(keys(&db, &[]), "apple banana blackberry blueberry cherry");
    assert_eq!(keys(&db, &["--prefix", "bl"]), "blackberry blueberry");
    assert_eq!(keys(&db, &["--from", "banana", "--to", "cherry"]), "banana blackberry blueberry");
    assert_eq!(keys(&db, &["--from", "banana", "--to", "banana"]), "");
    assert_eq!(keys(&db, &["--prefix", "b", "--from", "bb"]), "blackberry blueberry");
    assert_eq!(keys(&db, &["--prefix", "b", "--to", "bb"]), "banana");
    assert_eq!(keys(&db, &["--prefix", "b", "--from", "x"]), "");
    assert_eq!(keys(&db, &["--hex", "--prefix", "626c"]), "blackberry blueberry");
    assert_eq!(keys(&db, &["--prefix", "nothing"]), "");
}

#[test]
fn limit_counts_from_the_end_that_the_scan_begins_at() {
    let (_directory, db) = fruit();
    assert_eq!(keys(&db, &["--limit", "2"]), "apple banana");
    assert_eq!(keys(&db, &["--reverse", "--limit", "2"]), "cherry blueberry");
    assert_eq!(keys(&db, &["--prefix", "b", "--reverse", "--limit", "1"]), "blueberry");
    assert_eq!(keys(&db, &["--limit", "0"]), "");
}

#[test]
fn count_takes_the_ranges_of_scan() {
    let (_directory, db) = fruit();
    assert_eq!(lsm(["count", &db]).stdout(), "5\n");
    assert_eq!(lsm(["count", &db, "--prefix", "b", "--to", "blb"]).stdout(), "2\n");
}

#[test]
fn keyspaces_are_apart() {
    let (_directory, db) = fruit();
    lsm(["put", &db, "carrot", "6", "--keyspace", "vegetables"]).stdout();
    lsm_with_input(["load", &db, "-", "--keyspace", "vegetables"], b"leek\t7\n").stdout();
    assert_eq!(keys(&db, &["--keyspace", "vegetables"]), "carrot leek");
    assert_eq!(lsm(["count", &db]).stdout(), "5\n");
    assert_eq!(lsm(["count", &db, "--keyspace", "default"]).stdout(), "5\n");
    lsm(["get", &db, "carrot"]).failure(1);
    lsm(["delete", &db, "carrot", "--keyspace", "vegetables"]).stdout();
    assert_eq!(keys(&db, &["--keyspace", "vegetables"]), "leek");
}

#[test]
fn prefixes_bounds_and_keyspaces_may_begin_with_a_dash() {
    let (_directory, db) = fruit();
    lsm(["put", &db, "--keyspace", "-x", "--", "--key", "-value"]).stdout();
    let dash = |flags: &[&str]| keys(&db, &[&["--keyspace", "-x"], flags].concat());
    assert_eq!(dash(&[]), "--key");
    assert_eq!(dash(&["--prefix", "--k"]), "--key");
    assert_eq!(dash(&["--from", "-", "--to", "-a"]), "--key");
    assert_eq!(dash(&["--prefix", "-k", "--reverse"]), "");
}

#[test]
fn the_name_of_a_keyspace_cannot_steer_the_terminal() {
    let (_directory, db) = fruit();
    lsm(["put", &db, "carrot", "6", "--keyspace", "a\n\u{1b}[31m"]).stdout();
    let shown = lsm(["stats", &db]).stdout();
    assert!(shown.contains(r"keyspace a\n\x1b[31m (leveled)"), "{shown}");
}

#[test]
fn a_deleted_key_is_gone_and_compaction_changes_nothing_else() {
    let (_directory, db) = fruit();
    lsm(["delete", &db, "banana"]).stdout();
    lsm(["delete", &db, "banana"]).failure(1);
    lsm(["get", &db, "banana"]).failure(1);
    lsm(["compact", &db]).stdout();
    assert_eq!(keys(&db, &[]), "apple blackberry blueberry cherry");
}

#[test]
fn a_key_that_is_put_with_a_time_is_there_until_then() {
    let (_directory, db) = fruit();
    lsm(["put", &db, "apple", "later", "--expires-in", "3600"]).stdout();
    lsm(["put", &db, "cherry", "at once", "--expires-in", "0"]).stdout();
    assert_eq!(lsm(["get", &db, "apple"]).stdout().trim_end(), "later");
    assert_eq!(keys(&db, &[]), "apple banana blackberry blueberry");
}
