//! Opens and reads a database of very many small tables:
//! `cargo bench -p lsm-engine --bench many_tables -- [directory] [tables]`. The database is made at the first run; the
//! directory is kept, so that the next one, under another `ulimit -n` say, finds it.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lsm_engine::compaction_policies::{
    Action, Compaction, CompactionPolicy, InputLevel, OutputRun, Reason, TableShape, TreeShape,
};
use lsm_engine::{Db, Error, Options};

/// Keys per table. Keys have 16 bytes, values 100.
const KEYS: usize = 16;
const ROUNDS: usize = 7;

/// A policy that splits flushed data into tables of a few blocks, once, and then leaves them alone.
#[derive(Debug)]
struct Small;

impl CompactionPolicy for Small {
    fn name(&self) -> &'static str {
        "small"
    }

    fn level_count(&self) -> usize {
        1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        let large = |table: &&Arc<TableShape>| table.entries > 2 * KEYS as u64;
        let input = InputLevel::new(0, shape.levels.first()?.free_tables().filter(large));
        (!input.tables.is_empty()).then(|| Compaction {
            inputs: vec![input],
            output_level: 0,
            output_run: OutputRun::NewRun,
            action: Action::Merge,
            target_table_bytes: KEYS as u64 * 120,
            reason: Reason::Level0,
        })
    }

    fn debt_bytes(&self, _: &TreeShape) -> u64 {
        0
    }
}

fn open(directory: &Path, memory: usize) -> Result<(Db, Duration), Error> {
    let started = Instant::now();
    let db = Options::new().memory(memory).compaction(Arc::new(Small)).open(directory)?;
    Ok((db, started.elapsed()))
}

fn key(number: usize) -> String {
    format!("{number:016}")
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(db: &Db) {
    let metrics = db.metrics();
    let levels = metrics.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
    let (tables, unpinned) =
        levels.fold((0, 0), |(all, unpinned), level| (all + level.tables, unpinned + level.unpinned_tables));
    println!(
        "  {tables} tables, {unpinned} not pinned, {} KiB; {} of {} files open, opened {} times",
        metrics.pinned_bytes >> 10,
        metrics.open_files,
        metrics.open_files_max,
        metrics.file_opens
    );
}

/// Opens the database several times, and reads keys from all of it.
fn measure(directory: &Path, memory: usize, keys: usize) -> Result<(), Error> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (db, time) = open(directory, memory)?;
        times.push(time);
        db.close()?;
    }
    println!("memory of {} MiB: opened in {:.1?}", memory >> 20, median(times));
    let (db, _) = open(directory, memory)?;
    for what in ["first", "second"] {
        let started = Instant::now();
        let count = keys / 8;
        for number in 0..count {
            let found = db.get(key(number * 7919 % keys))?;
            assert!(found.is_some(), "key {number} is gone");
        }
        println!("  {what} read of {count} keys: {:.1?} each", started.elapsed() / count as u32);
    }
    report(&db);
    db.close()
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let temporary = std::env::temp_dir().join("lsm-many-tables");
    let directory = arguments.first().map_or(temporary, PathBuf::from);
    let tables: usize = arguments.get(1).and_then(|count| count.parse().ok()).unwrap_or(10_000);
    let keys = tables * KEYS;
    let (db, _) = open(&directory, 512 << 20)?;
    if db.get(key(keys - 1))?.is_none() {
        for number in 0..keys {
            db.put(key(number), format!("{number:0100}"))?;
        }
        db.flush()?;
        db.wait_for_compactions()?;
    }
    report(&db);
    db.close()?;
    measure(&directory, 512 << 20, keys)?;
    measure(&directory, 32 << 20, keys)
}
