//! Keys with merge operands: what `get`, `scan` and `dump` print with the merge operator and without.

mod common;

use std::sync::Arc;

use common::lsm;
use lsm_engine::{BuiltInMerge, Db, MergeError, MergeOperator, Options};

/// An operator that `lsm` does not know.
#[derive(Debug)]
struct Own;

impl MergeOperator for Own {
    fn name(&self) -> &'static str {
        "test.own"
    }

    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Option<Vec<u8>>, MergeError> {
        Ok(Some(base.iter().chain(operands).copied().collect::<Vec<_>>().concat()))
    }
}

fn fill(db: &Db) {
    db.put("key", "a").unwrap();
    db.flush().unwrap();
    db.merge("key", "b").unwrap();
    db.merge("key", "c").unwrap();
    db.put("plain", "value").unwrap();
}

#[test]
fn a_built_in_operator_needs_no_option() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let db = Options::new().merge_operator(Arc::new(BuiltInMerge::append("-"))).open(path).unwrap();
    fill(&db);
    drop(db);
    assert_eq!(lsm(["get", path, "key"]).stdout(), "a-b-c\n");
    assert_eq!(lsm(["get", path, "key", "--raw"]).stdout(), "a-b-c");
    assert_eq!(lsm(["scan", path]).stdout(), "key\ta-b-c\nplain\tvalue\n");
    assert_eq!(
        lsm(["get", path, "key", "--versions"]).stdout(),
        "merge sequence=3 value=\"c\"\nmerge sequence=2 value=\"b\"\nput sequence=1 value=\"a\"\n"
    );
    lsm(["verify", path]).stdout();
    assert!(
        lsm(["stats", path])
            .stdout()
            .contains("keyspace default (leveled)\n  merge operator lsm.append:2d\n")
    );
    lsm(["compact", path]).stdout();
    assert_eq!(lsm(["get", path, "key", "--versions", "--format", "json"]).stdout().lines().count(), 1);
    assert_eq!(lsm(["get", path, "key"]).stdout(), "a-b-c\n");
}

#[test]
fn without_its_operator_a_key_is_named_and_raw_shows_the_operands() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let db = Options::new().merge_operator(Arc::new(Own)).open(path).unwrap();
    fill(&db);
    drop(db);
    let missing = "keyspace \"default\" uses merge operator \"test.own\", which is not built in, so key \"key\" has no \
                   value; give it with KeyspaceOptions::merge_operator when the keyspace is first opened";
    assert_eq!(lsm(["get", path, "key"]).failure(4), format!("lsm: {missing}\n"));
    assert_eq!(lsm(["get", path, "plain"]).stdout(), "value\n");
    assert!(lsm(["scan", path]).failure(4).contains("test.own"));
    let raw = lsm(["get", path, "key", "--raw"]);
    assert_eq!(raw.code, Some(0));
    assert_eq!(
        raw.stdout,
        "merge sequence=3 value=\"c\"\nmerge sequence=2 value=\"b\"\nput sequence=1 value=\"a\"\n"
    );
    assert_eq!(raw.stderr, format!("lsm: warning: {missing}; this is what is stored, the newest first\n"));
    lsm(["verify", path]).stdout();
    lsm(["compact", path]).stdout();
    let db = Options::new().merge_operator(Arc::new(Own)).open(path).unwrap();
    assert_eq!(db.get("key").unwrap().unwrap(), "abc");
}
