//! `lsm checkpoint` and `lsm backup`, with their exit codes.

#![expect(clippy::disallowed_methods, reason = "the test damages real files")]

mod common;

use common::{Directory, files, lsm};

fn scan(db: &str) -> String {
    lsm(["scan", db]).stdout()
}

#[test]
fn a_checkpoint_holds_what_the_database_held() {
    let directory = Directory::new();
    let (db, copy) = (directory.arg("db"), directory.arg("copy"));
    lsm(["put", &db, "key", "then"]).stdout();
    lsm(["put", &db, "key", "value", "--keyspace", "users"]).stdout();
    let before = files(&directory.path("db"));
    let told = lsm(["checkpoint", &db, &copy]).stdout();
    assert!(told.starts_with("sequence     2\nlinked       2 files"), "{told}");
    assert_eq!(files(&directory.path("db")), before);
    lsm(["put", &db, "key", "now"]).stdout();
    assert_eq!((scan(&copy), scan(&db)), ("key\tthen\n".into(), "key\tnow\n".into()));
    lsm(["verify", &copy]).stdout();
    let message = lsm(["checkpoint", &db, &copy]).failure(4);
    assert!(message.contains("copy already exists"), "{message}");
    let message = lsm(["checkpoint", &db, &directory.arg("db/copy")]).failure(2);
    assert!(message.contains("inside of the database"), "{message}");
    let users = directory.arg("users");
    lsm(["checkpoint", &db, &users, "--keyspace", "users"]).stdout();
    assert_eq!(scan(&users), "");
    assert_eq!(lsm(["get", &users, "key", "--keyspace", "users"]).stdout(), "value\n");
    let message = lsm(["checkpoint", &db, &directory.arg("other"), "--keyspace", "none"]).failure(2);
    assert!(message.contains("\"none\""), "{message}");
    assert!(!directory.path("other").exists());
}

#[test]
fn backups_are_made_listed_checked_deleted_and_restored() {
    let directory = Directory::new();
    let (db, store) = (directory.arg("db"), directory.arg("store"));
    for value in ["1", "2", "3"] {
        lsm(["put", &db, "key", value]).stdout();
        let told = lsm(["backup", "create", &db, &store]).stdout();
        assert!(told.starts_with(&format!("backup number={value} created=2")), "{told}");
    }
    let listed = lsm(["backup", "list", &store]).stdout();
    assert_eq!(listed.lines().count(), 3);
    let listed = lsm(["backup", "list", &store, "--format", "json"]).stdout();
    assert!(listed.starts_with("{\"what\":\"backup\",\"number\":1,"), "{listed}");
    let told = lsm(["backup", "verify", &store]).stdout();
    assert!(told.starts_with("read     3 backups, "), "{told}");

    let (second, newest) = (directory.arg("second"), directory.arg("newest"));
    lsm(["backup", "restore", &store, &second, "--generation", "2"]).stdout();
    lsm(["backup", "restore", &store, &newest]).stdout();
    assert_eq!((scan(&second), scan(&newest)), ("key\t2\n".into(), "key\t3\n".into()));
    lsm(["verify", &newest]).stdout();

    let told = lsm(["backup", "prune", &store, "--keep", "1"]).stdout();
    assert!(told.starts_with("deleted  2 backups, "), "{told}");
    let message = lsm(["backup", "restore", &store, &directory.arg("old"), "--generation", "2"]).failure(4);
    assert!(message.contains("no backup of number 2"), "{message}");
    assert!(!directory.path("old").exists());
}

#[test]
fn bad_stores_are_named() {
    let directory = Directory::new();
    let (db, store) = (directory.arg("db"), directory.arg("store"));
    lsm(["put", &db, "key", "value"]).stdout();
    lsm(["backup", "create", &db, &store]).stdout();
    for command in ["list", "verify"] {
        let message = lsm(["backup", command, &directory.arg("missing")]).failure(4);
        assert!(message.contains("missing: there is no store of backups"), "{message}");
    }
    lsm(["backup", "prune", &store]).failure(2);
    lsm(["backup", "prune", &store, "--keep", "0"]).failure(2);
    let other = directory.arg("other");
    lsm(["put", &other, "key", "value"]).stdout();
    let message = lsm(["backup", "create", &other, &store]).failure(4);
    assert!(message.contains("other is database"), "{message}");
    directory.write("thesis.tex", "precious");
    let message = lsm(["backup", "create", &db, &directory.arg("")]).failure(2);
    assert!(message.contains("no store of backups"), "{message}");
    lsm(["checkpoint", &db, &directory.arg("copy")]).stdout();
    let message = lsm(["backup", "create", &directory.arg("copy"), &store]).failure(4);
    assert!(message.contains("use another store"), "{message}");
    let message = lsm(["backup", "restore", &store, &db]).failure(4);
    assert!(message.contains("already exists"), "{message}");
}

#[test]
fn damage_of_a_backup_is_found_and_named() {
    let directory = Directory::new();
    let (db, store) = (directory.arg("db"), directory.arg("store"));
    lsm(["put", &db, "key", "value"]).stdout();
    lsm(["backup", "create", &db, &store]).stdout();
    let table = files(&directory.path("store")).into_iter().find(|(name, _)| name.starts_with("table-"));
    let (name, mut bytes) = table.unwrap();
    bytes[100] ^= 1;
    std::fs::write(directory.path("store").join(&name), bytes).unwrap();
    let outcome = lsm(["backup", "verify", &store]);
    assert!(outcome.stdout.starts_with("DAMAGED"), "{outcome:?}");
    assert!(outcome.stdout.contains("backups that need it: 1\n"), "{outcome:?}");
    let message = outcome.failure(3);
    assert!(message.contains(&name), "{message}");
    let message = lsm(["backup", "restore", &store, &directory.arg("restored")]).failure(3);
    assert!(message.contains(&name), "{message}");
    assert!(!directory.path("restored").exists());
    let generation = directory.path("store").join("generation-0000000001");
    std::fs::write(generation, "nonsense").unwrap();
    let message = lsm(["backup", "list", &store]).failure(3);
    assert!(message.contains("backup 1: ") && message.contains("generation-0000000001"), "{message}");
}
