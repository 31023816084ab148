//! Measures a fill in random order with little memory: time, bytes written, and the write stalls.
//!
//! ```sh
//! cargo run --release -p lsm-engine --example small_memory -- /some/new/directory 4096 5000000 8
//! cargo run --release -p lsm-engine --example small_memory -- /some/new/directory 8192 5000000 16 1024 2048
//! ```
//!
//! The arguments: the directory of a new database, memory in KiB, number of keys, bytes of a key (8 or more) and,
//! optionally, KiB of a memtable and of the cache. Values have 100 bytes; half of each compresses to almost nothing.

#![expect(
    clippy::disallowed_methods,
    reason = "measures with a clock of its own, and the system's count of bytes"
)]

use std::time::Instant;

use lsm_engine::{Db, Metrics, Options, Result};

const VALUE_BYTES: usize = 100;
/// Number of puts between two reads of the metrics.
const PUTS_PER_LOOK: u64 = 2000;

struct Fill {
    count: u64,
    key_bytes: usize,
    filler: Vec<u8>,
}

impl Fill {
    fn new(count: u64, key_bytes: usize) -> Self {
        let filler = (0..1 << 18).map(|place| mix(place / 100 * 50 + place % 50).to_le_bytes()[0]).collect();
        Self { count, key_bytes: key_bytes.max(8), filler }
    }

    /// Puts all keys once. Returns the highest number of level 0 runs and the highest memory seen.
    fn run(&self, db: &Db) -> Result<(u64, u64)> {
        let mut key = vec![0; self.key_bytes];
        let (mut runs_max, mut memory_max) = (0, 0);
        for number in 0..self.count {
            // Each number gives a different key.
            key[..8].copy_from_slice(&mix(number).to_be_bytes());
            let start = mix(!number) as usize % (self.filler.len() - VALUE_BYTES);
            db.put(&key, &self.filler[start..start + VALUE_BYTES])?;
            if number % PUTS_PER_LOOK == 0 {
                let metrics = db.metrics();
                runs_max = runs_max.max(metrics.keyspaces[0].levels.first().map_or(0, |level| level.runs));
                memory_max = memory_max.max(metrics.memory_bytes());
            }
        }
        Ok((runs_max, memory_max))
    }
}

/// A permutation of all numbers: the mixing step of `SplitMix64`.
fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

/// Bytes that this process has written to the disk, if the system reports them.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn print(metrics: &Metrics, what: &str, seconds: f64) {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let seconds_of = |micros: u64| micros as f64 / 1e6;
    println!("{what}: {seconds:.1} s");
    println!("  MB written by {} flushes: {:.0}", metrics.flushes, mb(metrics.flush_bytes_out));
    println!("  MB written by {} merges: {:.0}", metrics.compactions, mb(metrics.compaction_bytes_out));
    let tables_bytes = metrics.flush_bytes_out + metrics.compaction_bytes_out;
    println!(
        "  MB written to log and manifest, about: {:.0}",
        mb(written_bytes().saturating_sub(tables_bytes))
    );
    println!("  tables written for each byte flushed: {:.2}", metrics.write_amplification());
    println!(
        "  seconds that writers waited: {:.1} for their rate, {:.1} for memory, {:.1} for room on the disk",
        seconds_of(metrics.stall_rate_micros),
        seconds_of(metrics.stall_memory_micros),
        seconds_of(metrics.stall_space_micros)
    );
    for (number, level) in metrics.keyspaces[0].levels.iter().enumerate().filter(|(_, level)| level.runs > 0)
    {
        println!("  level {number}: {} runs, {} tables, {:.1} MB", level.runs, level.tables, mb(level.bytes));
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().expect("give the directory of a new database");
    let mut numbers = arguments.map(|number| number.parse::<usize>().expect("a number"));
    let memory_bytes = numbers.next().unwrap_or(4096) << 10;
    let count = numbers.next().unwrap_or(5_000_000) as u64;
    let fill = Fill::new(count, numbers.next().unwrap_or(8));
    let mut options = Options::new().error_if_exists(true).memory(memory_bytes);
    if let Some(memtable_kib) = numbers.next() {
        options = options.memtable_bytes(memtable_kib << 10);
    }
    if let Some(cache_kib) = numbers.next() {
        options = options.cache_bytes(cache_kib << 10);
    }

    let db = options.open(&directory)?;
    let started = Instant::now();
    let (runs_max, memory_max) = fill.run(&db)?;
    print(&db.metrics(), "filled", started.elapsed().as_secs_f64());
    println!("  runs of level 0, at most: {runs_max}");
    println!("  MB of memory, at most: {:.2} of {:.2}", memory_max as f64 / 1e6, memory_bytes as f64 / 1e6);

    let started = Instant::now();
    db.flush()?;
    db.wait_for_compactions()?;
    print(&db.metrics(), "settled", started.elapsed().as_secs_f64());
    db.close()
}
