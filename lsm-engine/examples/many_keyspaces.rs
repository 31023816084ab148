//! Measures the cost of many keyspaces: creating them, opening a database with them, flushing some of them at once.
//!
//! ```sh
//! cargo run --release -p lsm-engine --example many_keyspaces -- /some/new/directory 20000
//! ```

#![expect(clippy::disallowed_methods, reason = "measures with a clock of its own")]

use std::time::Instant;

use lsm_engine::{Db, KeyspaceOptions, Options, Result};

/// Number of keyspaces that are written to, and number of records in each.
const WRITTEN: usize = 1000;
const RECORDS: usize = 100;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("give the directory of a new database");
    let count: usize = arguments.next().map_or(20_000, |count| count.parse().expect("a number of keyspaces"));

    let started = Instant::now();
    let db = Db::open(&directory)?;
    let before = db.metrics().memory_bytes();
    for number in 0..count {
        db.keyspace(&format!("space{number}"), KeyspaceOptions::new())?;
    }
    println!("{count} keyspaces made in {:?}", started.elapsed());
    println!("{} bytes of memory for each", (db.metrics().memory_bytes() - before) / count.max(1) as u64);
    db.close()?;

    let started = Instant::now();
    let db = Options::new().create_if_missing(false).open(&directory)?;
    println!("opened in {:?}", started.elapsed());

    let spaces = (0..count.min(WRITTEN))
        .map(|number| db.keyspace(&format!("space{number}"), KeyspaceOptions::new()))
        .collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    for record in 0..RECORDS {
        for space in &spaces {
            space.put(format!("key{record:03}"), "a value of twenty bytes")?;
        }
    }
    println!("{RECORDS} records put into each of {} of them in {:?}", spaces.len(), started.elapsed());
    let started = Instant::now();
    db.flush()?;
    println!("flushed in {:?}", started.elapsed());
    db.close()
}
