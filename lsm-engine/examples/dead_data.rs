//! Measures what deleted data costs readers that pass it.
//!
//! ```text
//! cargo run --release -p lsm-engine --example dead_data -- (range | single | queue | hot)
//!   range    2 million keys of 16 + 100 bytes, of which one range delete takes 95 %; finds the first key after it
//!   single   1 million single deletes; finds the first key after them
//!   queue    takes and deletes the head 1 million times by `iter().next()`, while another thread appends
//!   hot      2 million overwrites of one key with a live snapshot; scans past the key, and gets it by the snapshot
//! ```

#![expect(clippy::disallowed_methods, reason = "what it times is the clock of the user")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lsm_engine::{Db, Options};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn key(number: u64) -> [u8; 16] {
    let mut key = [b'k'; 16];
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Prints how long five calls took, in microseconds.
fn time<T>(what: &str, mut call: impl FnMut() -> Result<T>) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        call()?;
        took.push(format!("{:.1}", started.elapsed().as_secs_f64() * 1e6));
    }
    println!("{what}: {} µs", took.join(" "));
    Ok(())
}

fn first(entry: Option<lsm_engine::Result<(lsm_engine::Slice, lsm_engine::Slice)>>) -> Result<[u8; 16]> {
    Ok((*entry.ok_or("there is no key")??.0).try_into()?)
}

fn around(db: &Db, when: &str, from: u64, to: u64) -> Result<()> {
    time(&format!("{when}, forward"), || {
        let found = first(db.range(key(from)..).next())?;
        if found == key(to) { Ok(()) } else { Err("the wrong key".into()) }
    })?;
    time(&format!("{when}, backward"), || {
        let found = first(db.range(..key(to)).next_back())?;
        if found == key(from - 1) { Ok(()) } else { Err("the wrong key".into()) }
    })
}

fn fill(db: &Db, count: u64) -> Result<()> {
    (0..count).try_for_each(|number| Ok(db.put(key(number), [b'v'; 100])?))
}

fn range(options: &Options, dir: &std::path::Path) -> Result<()> {
    let db = options.clone().open(dir)?;
    fill(&db, 2_000_000)?;
    let (from, to) = (50_000, 1_950_000);
    db.delete_range(key(from)..key(to))?;
    around(&db, "after the range delete", from, to)?;
    db.flush()?;
    around(&db, "after a flush", from, to)?;
    db.close()?;
    let db = options.clone().open(dir)?;
    around(&db, "after opening anew", from, to)?;
    db.wait_for_compactions()?;
    around(&db, "after the compactions", from, to)?;
    Ok(db.close()?)
}

fn single(db: &Db) -> Result<()> {
    fill(db, 1_100_000)?;
    (50_000..1_050_000).try_for_each(|number| db.delete(key(number)))?;
    around(db, "after 1 M deletes", 50_000, 1_050_000)
}

fn queue(db: &Db) -> Result<()> {
    const POPS: u64 = 1_000_000;
    let appended = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| -> lsm_engine::Result<()> {
            (0..POPS + 1000).try_for_each(|number| {
                db.put(key(number), [b'v'; 100])?;
                appended.store(number + 1, Ordering::Release);
                Ok(())
            })
        });
        let mut started = Instant::now();
        for popped in 0..POPS {
            while appended.load(Ordering::Acquire) <= popped {
                std::thread::yield_now();
            }
            let head = first(db.iter().next())?;
            db.delete(head)?;
            if (popped + 1) % 200_000 == 0 {
                let micros = started.elapsed().as_secs_f64() * 1e6 / 200_000.0;
                println!("pops up to {}: {micros:.2} µs each", popped + 1);
                started = Instant::now();
            }
        }
        appending.join().map_err(|_| "the appending thread panicked")??;
        Ok(())
    })
}

fn hot(db: &Db) -> Result<()> {
    db.put("a", "before")?;
    db.put("hot", "old")?;
    db.put("z", "behind")?;
    let snapshot = db.snapshot()?;
    (0..2_000_000u64).try_for_each(|number| db.put("hot", number.to_be_bytes()))?;
    time("scan past it", || Ok(db.iter().count()))?;
    time("backward", || Ok(db.iter().rev().count()))?;
    time("scan of the snapshot", || Ok(snapshot.iter().count()))?;
    time("backward", || Ok(snapshot.iter().rev().count()))?;
    time("get of the snapshot", || Ok(snapshot.get("hot")?))
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let options = Options::new().memory(512 << 20);
    let open = || options.clone().open(dir.path());
    match std::env::args().nth(1).as_deref() {
        Some("range") => range(&options, dir.path()),
        Some("single") => single(&open()?),
        Some("queue") => queue(&open()?),
        Some("hot") => hot(&open()?),
        _ => Err("name one of range, single, queue, hot".into()),
    }
}
