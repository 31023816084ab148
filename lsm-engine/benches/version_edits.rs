//! What a flush of one entry costs in a tree of very many tables, and a merge of a few of them, with the look for the next
//! compaction: `TMPDIR=/dev/shm cargo bench -p lsm-engine --bench version_edits -- [tables]...`. All work is done by one
//! thread; in memory, syncs cost nothing. Each table takes three pages.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use lsm_core::env::{Env, SimEnv};
use lsm_engine::compaction_policies::{Leveled, LeveledOptions};
use lsm_engine::{Db, Error, Options};

/// Runs of level 0 that are merged into the last level.
const RUNS: usize = 4;
const ROUNDS: usize = 25;

fn key(number: usize) -> String {
    format!("{number:016}")
}

/// Of four tables side by side one is larger than the others together, so that they are not merged for being small.
/// Nothing can be compressed.
fn value(number: usize) -> Vec<u8> {
    let bytes = if number.is_multiple_of(4) { 8000_u32 } else { 10 };
    (0..bytes).map(|index| (index.wrapping_mul(0x9e37_79b9) >> 23) as u8).collect()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn measure(tables: usize) -> Result<(), Error> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let env = Arc::new(SimEnv::new(1));
    // A table for each key.
    let options =
        LeveledOptions { target_table_bytes: 1, level0_runs_max: RUNS, ..LeveledOptions::default() };
    let db: Db = Options::new()
        .memory(4 << 30)
        .compaction(Arc::new(Leveled::new(options)))
        .env(Arc::clone(&env) as Arc<dyn Env>)
        .open(directory.path())?;
    for run in 0..RUNS {
        for number in (run..tables).step_by(RUNS) {
            db.put(key(number), value(number))?;
        }
        db.flush()?;
    }
    db.wait_for_compactions()?;
    let found: u64 = db.metrics().keyspaces[0].levels.iter().map(|level| level.tables).sum();
    let (mut flushes, mut merges) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for run in 1..=RUNS {
            db.put(key(tables / 2 + 1), value(1))?;
            let started = Instant::now();
            db.flush()?;
            env.run_until_idle();
            let times = if run < RUNS { &mut flushes } else { &mut merges };
            times.push(started.elapsed());
        }
    }
    println!(
        "{found} tables: {:.0?} a flush, {:.0?} with a merge",
        median(&mut flushes),
        median(&mut merges)
    );
    db.close()?;
    env.drop_jobs();
    Ok(())
}

fn main() -> Result<(), Error> {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let tables = if given.is_empty() { vec![1_600, 16_000, 160_000] } else { given };
    tables.into_iter().try_for_each(measure)
}
