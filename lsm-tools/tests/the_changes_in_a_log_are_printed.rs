//! `lsm changes`: the writes that the log of a database has, with the positions between them.

mod common;

use std::path::Path;

use common::lsm;
use lsm_engine::vfs::{PosixFs, Vfs};
use lsm_engine::{Db, KeyspaceOptions, WriteBatch};

#[test]
fn changes_are_printed_in_order_and_from_a_position_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let db = Db::open(&path).unwrap();
    db.change_slot("kept", 1 << 20).unwrap();
    db.put("before", "1").unwrap();
    let other = db.keyspace("other", KeyspaceOptions::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put_in(&other, "a", "2").delete("before");
    db.write(batch).unwrap();
    db.sync().unwrap();
    let position = db.change_position().unwrap();
    db.delete_range("x".."z").unwrap();
    drop(other);
    db.close().unwrap();

    let path = path.to_str().unwrap();
    let all = lsm(["changes", path]).stdout();
    let kinds = |text: &str| -> Vec<String> {
        let words = text.lines().filter_map(|line| line.split_whitespace().next());
        words.filter(|word| *word != "position").map(str::to_owned).collect()
    };
    assert_eq!(kinds(&all), ["put", "keyspace_created", "put", "delete", "delete_range"], "{all}");
    assert!(all.contains(&position.to_string()), "{position}\n{all}");
    let later = lsm(["changes", path, "--from", &position.to_string(), "--format", "json"]).stdout();
    assert!(later.contains("delete_range") && !later.contains("keyspace_created"), "{later}");
    assert!(lsm(["changes", path, "--from", "nonsense"]).failure(2).contains("nonsense"));
    let strange = "1.2.3.4.5.6";
    assert!(lsm(["changes", path, "--from", strange]).failure(4).contains("another database"));
}

#[test]
fn verify_and_dump_know_a_log_that_keeps_history() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    for round in 0..4 {
        let db = Db::open(&path).unwrap();
        db.change_slot("kept", 64 << 20).unwrap();
        for number in 0..40 {
            db.put(format!("{round}/{number}"), vec![b'v'; 40_000]).unwrap();
        }
        db.flush().unwrap();
        // In turn: a clean close, and the end of the process.
        if round % 2 == 0 {
            db.close().unwrap();
        }
    }
    let path = path.to_str().unwrap();
    lsm(["verify", path]).stdout();
    let told = lsm(["changes", path]).stdout();
    assert_eq!(told.lines().filter(|line| line.starts_with("put")).count(), 160);
    let names = PosixFs.read_dir(Path::new(path)).unwrap();
    let manifest = names.iter().find(|name| name.starts_with("MANIFEST")).unwrap();
    let manifest = format!("{path}/{manifest}");
    let dump = lsm(["dump", &manifest]).stdout();
    assert!(dump.contains("change_slot") && dump.contains("epoch"), "{dump}");
}
