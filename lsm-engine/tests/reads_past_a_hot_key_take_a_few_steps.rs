//! A cursor passes thousands of versions of one key, kept for a snapshot, by a seek and not one by one.

mod counting;

use std::sync::Arc;

use counting::Counting;
use lsm_engine::{KeyspaceOptions, Options};

#[test]
fn a_cursor_seeks_past_the_versions_of_a_hot_key() {
    let dir = tempfile::tempdir().unwrap();
    let steps = Counting::default();
    let memtable = Arc::new(steps.clone()) as _;
    let options = Options::new().keyspace(KeyspaceOptions::new().memtable(memtable));
    let db = options.open(dir.path()).unwrap();
    db.put("a", "first").unwrap();
    db.put("z", "last").unwrap();
    let without = db.snapshot().unwrap();
    db.put("hot", "old").unwrap();
    let snapshot = db.snapshot().unwrap();
    for number in 0..5_000 {
        db.put("hot", number.to_string()).unwrap();
    }
    let before = steps.taken();
    for (mut cursor, hot) in [(snapshot.cursor(), "old"), (db.cursor().unwrap(), "4999")] {
        let expected = [("a", "first"), ("hot", hot), ("z", "last")];
        let expected = expected.map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        cursor.first().unwrap();
        for pair in expected {
            assert_eq!(cursor.entry(), Some(pair));
            cursor.next().unwrap();
        }
        cursor.last().unwrap();
        for pair in expected.into_iter().rev() {
            assert_eq!(cursor.entry(), Some(pair));
            cursor.prev().unwrap();
        }
    }
    // Versions that a reader does not see cost no more.
    let mut cursor = without.cursor();
    cursor.first().unwrap();
    cursor.next().unwrap();
    assert_eq!(cursor.key(), Some(&b"z"[..]));
    cursor.prev().unwrap();
    assert_eq!(cursor.key(), Some(&b"a"[..]));
    let taken = steps.taken() - before;
    assert!(taken < 100, "{taken} steps");
}
