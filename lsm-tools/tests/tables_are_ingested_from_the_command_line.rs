//! `ingest`, and what `dump` and `verify` know of a table that only the log names.

#![expect(clippy::disallowed_methods, reason = "looks at the files, and does to them what a bad disk does")]

mod common;

use std::path::Path;

use common::{Directory, lsm};
use lsm_engine::inspect::{Kind, kind_of};
use lsm_engine::{Db, Ingest, TableBuilder};

fn build(path: impl AsRef<Path>, keys: &[&str]) {
    let mut table = TableBuilder::create(path).unwrap();
    for key in keys {
        table.put(key, "value").unwrap();
    }
    table.finish().unwrap();
}

#[test]
fn tables_become_part_of_a_database_in_one_step() {
    let directory = Directory::new();
    let (db, one, two) = (directory.arg("db"), directory.arg("one.sst"), directory.arg("two.sst"));
    build(&one, &["a", "b"]);
    build(&two, &["m", "n"]);
    assert_eq!(lsm(["put", &db, "c", "old"]).stdout(), "");
    let stdout = lsm(["ingest", &db, &two, &one, "--replace", "a", "--up-to", "d"]).stdout();
    assert!(stdout.starts_with("2 tables with "), "{stdout}");
    assert_eq!(lsm(["scan", &db]).stdout(), "a\tvalue\nb\tvalue\nm\tvalue\nn\tvalue\n");
    assert!(Path::new(&one).exists());
    let message = lsm(["ingest", &db, &one]).failure(2);
    assert!(message.contains("one.sst is in keyspace \"default\" already"), "{message}");
    let message = lsm(["ingest", &db, &directory.arg("none.sst")]).failure(4);
    assert!(message.contains("none.sst"), "{message}");
    let three = directory.arg("three.sst");
    build(&three, &["x"]);
    lsm(["ingest", &db, &three, "--move", "--keyspace", "other"]).stdout();
    assert!(!Path::new(&three).exists());
    assert_eq!(lsm(["scan", &db, "--keyspace", "other"]).stdout(), "x\tvalue\n");
    let file = std::fs::read(&two).unwrap();
    let damaged = directory.arg("damaged.sst");
    std::fs::write(&damaged, &file[..file.len() - 1]).unwrap();
    let message = lsm(["ingest", &db, &damaged]).failure(3);
    assert!(message.contains("damaged.sst"), "{message}");
    assert_eq!(lsm(["count", &db]).stdout(), "4\n");
}

#[test]
fn dump_and_verify_know_a_table_that_only_the_log_names() {
    let directory = Directory::new();
    let (path, table) = (directory.arg("db"), directory.arg("one.sst"));
    build(&table, &["a", "b"]);
    let db = Db::open(&path).unwrap();
    // The flush that puts the table into the manifest does not begin.
    db.pause_background_work().unwrap();
    db.put("a", "old").unwrap();
    db.ingest(Ingest::new().table(&table)).unwrap();
    let name = std::fs::read_dir(&path).unwrap().find_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        (kind_of(&name) == Some(Kind::Table)).then_some(name)
    });
    let name = name.unwrap();
    let stdout = lsm(["verify", &path]).stdout();
    assert!(stdout.contains(&format!("{name:<16}")) && stdout.contains("2 entries, ingested"), "{stdout}");
    assert!(!stdout.contains("not in use"), "{stdout}");
    let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let segments = entries.filter(|path| path.extension().is_some_and(|extension| extension == "wal"));
    let dumped: String = segments.map(|path| lsm(["dump".as_ref(), path.as_os_str()]).stdout()).collect();
    assert!(dumped.contains("ingest sequence=2 keyspace=0\n"), "{dumped}");
    assert!(dumped.contains("table_ingested number="), "{dumped}");
    // Damage is found, and a missing file.
    let file = Path::new(&path).join(&name);
    let bytes = std::fs::read(&file).unwrap();
    let mut damaged = bytes.clone();
    damaged[100] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let outcome = lsm(["verify", &path]);
    assert!(outcome.stdout.contains("DAMAGED") && outcome.stdout.contains(&name), "{outcome:?}");
    std::fs::remove_file(&file).unwrap();
    let outcome = lsm(["verify", &path]);
    assert!(outcome.stdout.contains(&format!("{name} is missing")), "{outcome:?}");
    std::fs::write(&file, &bytes).unwrap();
    db.close().unwrap();
    let stdout = lsm(["verify", &path]).stdout();
    assert!(stdout.contains(&name) && !stdout.contains("ingested"), "{stdout}");
    assert_eq!(lsm(["scan", &path]).stdout(), "a\tvalue\nb\tvalue\n");
}
