//! A queue of jobs. Producers append jobs and promise each one when it survives a power cut, without waiting for the disk;
//! workers take the oldest one.
//!
//! A worker that crashes loses the job that it has taken. If that must not happen, move the job to a second keyspace in a
//! transaction, and delete it from there when it is done.
//!
//! Run it with `cargo run -p lsm-engine --example job_queue`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use lsm_engine::{Db, Keyspace, KeyspaceOptions, Result, Ticket};

const PRODUCERS: u64 = 2;
const WORKERS: u64 = 3;
/// Jobs of each producer.
const JOBS: u64 = 1000;

/// Appends a job. Numbers are big-endian, so that their order is that of the keys.
fn append(db: &Db, jobs: &Keyspace, job: &str) -> Result<Ticket> {
    let number = db.update("last job", |last| {
        let last = last.and_then(|last| last.try_into().ok()).map_or(0, u64::from_be_bytes);
        Some((last + 1).to_be_bytes())
    })?;
    jobs.submit_put(number.unwrap_or_default(), job)
}

fn produce(db: &Db, jobs: &Keyspace, producer: u64, promised: &Arc<AtomicU64>) -> Result<()> {
    for number in 0..JOBS {
        let promised = Arc::clone(promised);
        append(db, jobs, &format!("letter {number} of {producer}"))?.on_durable(move |result| match result {
            // Here a server would reply to its client.
            Ok(()) => drop(promised.fetch_add(1, Ordering::Relaxed)),
            Err(error) => eprintln!("the job may be lost: {error}"),
        });
    }
    Ok(())
}

/// Takes jobs until none is left to come. Returns how many.
fn work(jobs: &Keyspace, left: &AtomicU64) -> Result<u64> {
    let mut done = 0;
    while left.load(Ordering::Relaxed) > 0 {
        match jobs.pop_first()? {
            Some((_number, _letter)) => {
                left.fetch_sub(1, Ordering::Relaxed);
                done += 1;
            }
            None => thread::yield_now(),
        }
    }
    Ok(done)
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path())?;
    let jobs = db.keyspace("jobs", KeyspaceOptions::new())?;
    let (promised, left) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(PRODUCERS * JOBS));
    let done = thread::scope(|scope| {
        let (db, jobs, promised, left) = (&db, &jobs, &promised, &left);
        for producer in 0..PRODUCERS {
            scope.spawn(move || produce(db, jobs, producer, promised).expect("the jobs are appended"));
        }
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(jobs, left))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum::<Result<u64>>()
    })?;
    drop(jobs);
    // This returns after all callbacks have run.
    db.close()?;
    assert_eq!((done, promised.load(Ordering::Relaxed)), (PRODUCERS * JOBS, PRODUCERS * JOBS));

    let db = Db::open(dir.path())?;
    assert!(db.keyspace("jobs", KeyspaceOptions::new())?.is_empty()?);
    assert_eq!(db.get("last job")?.unwrap_or_default(), (PRODUCERS * JOBS).to_be_bytes());
    println!("{done} jobs were promised and done");
    db.close()
}

#[test]
fn it_runs() {
    main().unwrap();
}
