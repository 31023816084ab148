//! A table of cities that is replaced every night: built beside the database, checked, and swapped in one step, while
//! readers go on.
//!
//! Run it with `cargo run -p lsm-engine --example bulk_import`.

use lsm_engine::{Db, ErrorKind, Ingest, Result, TableBuilder};

fn main() -> Result<()> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(directory.path().join("db"))?;

    // The first import: a sorted stream, straight to tables.
    let mut load = db.bulk_load()?;
    for number in 0..200_000 {
        load.put(format!("city/{number:06}"), format!("{} inhabitants", number * 7 % 90_000))?;
    }
    let entries = load.entry_count();
    load.finish()?;
    println!("loaded {entries} cities");

    // Every night: a new table, built without the database. Another machine could do it.
    let path = directory.path().join("cities.sst");
    let mut table = TableBuilder::create(&path)?;
    for number in (0..200_000).step_by(2) {
        table.put(format!("city/{number:06}"), "counted again")?;
    }
    println!("built a table of {} cities", table.finish()?);

    // A reader that began before keeps its view.
    let before = db.snapshot()?;
    db.ingest(Ingest::new().table(&path).replace("city/".."city0"))?;
    println!("before: {} cities, now: {}", before.count::<&str>(..)?, db.count::<&str>(..)?);

    // The same table again is a mistake, and changes nothing.
    let error = db.ingest(Ingest::new().table(&path)).expect_err("it is in the database");
    assert_eq!(error.kind(), ErrorKind::RefusedTable);
    println!("again: {error}");
    drop(before);
    db.close()
}
