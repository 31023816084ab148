//! Measures how much space of deleted data the engine frees by itself, and what that costs.
//!
//! ```text
//! cargo run --release -p lsm-engine --example reclaim -- [range | points]
//!   range    2 million keys of 16 + 100 bytes, of which one range delete takes 95 %
//!   points   500,000 values of 1 KB, deleted one by one
//! ```

use lsm_engine::{Db, Options, Result};

fn main() -> Result<()> {
    let which = std::env::args().nth(1);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Options::new().open(dir.path())?;
    if which.as_deref() == Some("points") {
        load(&db, 500_000, 1000)?;
        report(&db, "loaded");
        delete_and_report(&db, |db| (0..500_000).try_for_each(|number| db.delete(key(number, 500_000))))?;
    } else {
        load(&db, 2_000_000, 100)?;
        report(&db, "loaded");
        delete_and_report(&db, |db| db.delete_range(sorted(50_000)..sorted(1_950_000)))?;
    }
    db.close()
}

fn delete_and_report(db: &Db, delete: impl Fn(&Db) -> Result<()>) -> Result<()> {
    delete(db)?;
    db.flush()?;
    report(db, "deleted and flushed");
    db.wait_for_compactions()?;
    report(db, "settled");
    db.compact_range::<&[u8]>(..)?;
    report(db, "by hand");
    Ok(())
}

fn sorted(number: u64) -> Vec<u8> {
    format!("{number:016}").into_bytes()
}

/// Each key once, in a pseudo-random order.
fn key(step: u64, keys: u64) -> Vec<u8> {
    sorted(step * 7_919_333 % keys)
}

fn load(db: &Db, keys: u64, value_bytes: usize) -> Result<()> {
    let mut state = 1_u64;
    let mut value = vec![0; value_bytes];
    for step in 0..keys {
        // The second half of a value compresses to almost nothing.
        for byte in &mut value[..value_bytes / 2] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        db.put(key(step, keys), &value)?;
    }
    db.flush()?;
    db.wait_for_compactions()
}

fn report(db: &Db, moment: &str) {
    let metrics = db.metrics();
    let levels = metrics.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
    let bytes: u64 = levels.map(|level| level.bytes).sum();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{moment:<20} {:>7.1} MB of tables; so far {:.1} MB flushed, {:.1} MB merged, {} tables dropped unread",
        megabytes(bytes),
        megabytes(metrics.flush_bytes_out),
        megabytes(metrics.compaction_bytes_out),
        metrics.covered_tables_dropped,
    );
}
