//! Adds to counters by merges, and by a get and a put of each: `cargo bench -p lsm-engine --bench merges -- [counters]`.
//! Rounds of both take turns, on two keyspaces of one database. Each round is measured twice: the calls alone, and with
//! the flushes and compactions that they cause.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the real clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use lsm_dev::Random;
use lsm_engine::{BuiltInMerge, Db, Error, Keyspace, KeyspaceOptions, Options};

const ROUNDS: u64 = 7;
/// A round adds to one counter in so many.
const PART: u64 = 10;

fn key(number: u64) -> [u8; 16] {
    let mut key = *b"counter 00000000";
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn merge(counters: &Keyspace, key: [u8; 16]) -> Result<(), Error> {
    counters.merge(key, 1_u64.to_le_bytes())
}

fn get_and_put(counters: &Keyspace, key: [u8; 16]) -> Result<(), Error> {
    let count = counters
        .get(key)?
        .map_or(0, |value| value.first_chunk().map_or(0, |count| u64::from_le_bytes(*count)));
    counters.put(key, (count + 1).to_le_bytes())
}

type Add = fn(&Keyspace, [u8; 16]) -> Result<(), Error>;

/// Nanoseconds for each addition: of the calls, and with the background work.
fn round(db: &Db, counters: &Keyspace, count: u64, seed: u64, add: Add) -> Result<[f64; 2], Error> {
    let mut random = Random(seed);
    let started = Instant::now();
    let operations = count / PART;
    for _ in 0..operations {
        add(counters, key(random.next() % count))?;
    }
    let calls = started.elapsed();
    db.flush()?;
    db.wait_for_compactions()?;
    let nanos = |time: Duration| time.as_nanos() as f64 / operations as f64;
    Ok([nanos(calls), nanos(started.elapsed())])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let count: u64 = arguments.first().and_then(|count| count.parse().ok()).unwrap_or(4_000_000);
    let directory = std::env::temp_dir().join(format!("lsm-merges-{}", std::process::id()));
    let db = Options::new().memory(64 << 20).open(&directory)?;
    let options = || KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::add_u64()));
    let spaces: [(Keyspace, Add); 2] =
        [(db.keyspace("merged", options())?, merge), (db.keyspace("got and put", options())?, get_and_put)];
    for (counters, _) in &spaces {
        for number in 0..count {
            counters.put(key(number), 0_u64.to_le_bytes())?;
        }
    }
    db.flush()?;
    db.wait_for_compactions()?;
    let mut times = [const { [const { Vec::new() }; 2] }; 2];
    for number in 0..ROUNDS {
        for ((counters, add), times) in spaces.iter().zip(&mut times) {
            let each = round(&db, counters, count, number, *add)?;
            times.iter_mut().zip(each).for_each(|(times, time)| times.push(time));
        }
    }
    for (counters, _) in &spaces {
        let mut sum = 0;
        for entry in counters {
            sum += entry?.1.first_chunk().map_or(0, |count| u64::from_le_bytes(*count));
        }
        assert_eq!(sum, ROUNDS * (count / PART), "additions were lost");
    }
    for (what, place) in [("calls", 0), ("with background work", 1)] {
        let [merged, got] = times.each_mut().map(|times| median(std::mem::take(&mut times[place])));
        println!("{what}: merge {merged:.0} ns, get and put {got:.0} ns, {:.2} times as long", got / merged);
    }
    drop(spaces);
    db.close()?;
    let _ = std::fs::remove_dir_all(directory);
    Ok(())
}
