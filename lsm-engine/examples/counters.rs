//! Counters that many threads add to. A merge operator adds, so no thread reads, waits for another or tries again.
//!
//! Run it with `cargo run -p lsm-engine --example counters`.

use std::sync::Arc;
use std::thread;

use lsm_engine::{BuiltInMerge, Db, KeyspaceOptions, Result, Slice, WriteBatch};

const THREADS: u64 = 4;
const VISITS: u64 = 2000;
const PAGES: [&str; 3] = ["/", "/guide", "/news"];

/// Integers of the built-in operators are little-endian.
fn number(value: &Slice) -> u64 {
    value.as_ref().try_into().map_or(0, u64::from_le_bytes)
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path())?;
    let sums = || KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::add_u64()));
    let highest = KeyspaceOptions::new().merge_operator(Arc::new(BuiltInMerge::max_u64()));
    let (visits, slowest) = (db.keyspace("visits", sums())?, db.keyspace("slowest", highest)?);

    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (db, visits, slowest) = (&db, &visits, &slowest);
            scope.spawn(move || {
                for visit in 0..VISITS {
                    let page = PAGES[(visit % 3) as usize];
                    let micros = (visit * 7 + thread) % 1000;
                    // One batch: both counters change together.
                    let mut batch = WriteBatch::new();
                    batch.merge_in(visits, page, 1_u64.to_le_bytes());
                    batch.merge_in(slowest, page, micros.to_le_bytes());
                    db.write(batch).expect("the counters are written");
                }
            });
        }
    });

    let mut sum = 0;
    for entry in &visits {
        let (page, count) = entry?;
        let slowest = slowest.get(&page)?.map_or(0, |micros| number(&micros));
        println!("{page:?}: {} visits, the slowest took {slowest} microseconds", number(&count));
        assert!(slowest > 990);
        sum += number(&count);
    }
    assert_eq!(sum, THREADS * VISITS);

    // A compaction makes one value of all operands. The database knows the operator of each keyspace.
    visits.compact_range::<&[u8]>(..)?;
    assert_eq!(visits.len_estimate()?, PAGES.len() as u64);
    drop((visits, slowest));
    db.close()?;
    let db = Db::open(dir.path())?;
    let visits = db.existing_keyspace("visits")?.expect("it was made above");
    let sum: u64 =
        visits.iter().values().map(|count| count.map(|count| number(&count))).sum::<Result<_>>()?;
    assert_eq!(sum, THREADS * VISITS);
    drop(visits);
    db.close()
}

#[test]
fn it_runs() {
    main().unwrap();
}
