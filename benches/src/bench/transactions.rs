//! The group of workloads of optimistic transactions.

use std::thread;
use std::time::Duration;

use super::Bench;
use super::streams::TRANSACTIONS;
use crate::dataset::{Key, key};
use crate::engine::transactional::Transactional;
use crate::meter::Meter;
use crate::result::Result;
use crate::sample::Sample;

const THREADS: [u64; 3] = [1, 2, 8];
/// Number of keys under high contention.
const HOT_KEYS: u64 = 16;
/// Keys of a transaction whose commit is timed.
const COMMIT_KEYS: u64 = 10;

impl Bench<'_> {
    pub(super) fn transactions<T: Transactional>(&self, emit: &mut dyn FnMut(Sample)) -> Result {
        let db = T::open(self.dir, self.settings)?;
        let ops = u64::from(self.settings.num) / 8;
        let order = self.permutation(2 * ops, TRANSACTIONS);
        let (mut low, mut high) = (0, 0);
        for threads in THREADS {
            let spread = |at: u64| [key(order.at(2 * at)), key(order.at(2 * at + 1))];
            low += self.add(&db, &format!("txn{threads}"), threads, ops, &spread, emit)?;
            let hot = |at: u64| {
                let (one, other) = (order.at(2 * at) % HOT_KEYS, 1 + order.at(2 * at + 1) % (HOT_KEYS - 1));
                [one, (one + other) % HOT_KEYS].map(|index| key(2 * ops + index))
            };
            high += self.add(&db, &format!("txnhot{threads}"), threads, ops, &hot, emit)?;
        }
        let sum =
            |range: std::ops::Range<u64>| -> Result<u64> { range.map(|index| db.number(&key(index))).sum() };
        let found = (sum(0..2 * ops)?, sum(2 * ops..2 * ops + HOT_KEYS)?);
        if found != (2 * low, 2 * high) {
            return Err(format!("{low} and {high} transactions of two keys left the sums {found:?}").into());
        }
        self.commits(&db, 2 * ops + HOT_KEYS, ops, emit)
    }

    /// Runs transactions in several threads, each until it commits. Returns how many.
    fn add<T: Transactional>(
        &self,
        db: &T,
        workload: &str,
        threads: u64,
        ops: u64,
        keys: &(impl Fn(u64) -> [Key; 2] + Sync),
        emit: &mut dyn FnMut(Sample),
    ) -> Result<u64> {
        let ops_each = ops / threads;
        let meter = Meter::start();
        let done: Result<Vec<()>> = thread::scope(|scope| {
            let start = |thread: u64| {
                scope.spawn(move || -> Result {
                    for at in thread * ops_each..(thread + 1) * ops_each {
                        while db.add_one(&keys(at))?.is_none() {
                            thread::yield_now();
                        }
                    }
                    Ok(())
                })
            };
            let threads: Vec<_> = (0..threads).map(start).collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|done| done.unwrap_or_else(|_| Err("a transaction panicked".into()))).collect()
        });
        done?;
        let count = ops_each * threads;
        emit(meter.finish(workload, count, None, self.dir)?);
        Ok(count)
    }

    /// The commit of a transaction with ten reads and ten writes, and a plain batch of ten puts.
    fn commits<T: Transactional>(
        &self,
        db: &T,
        first: u64,
        ops: u64,
        emit: &mut dyn FnMut(Sample),
    ) -> Result {
        let ops = ops / COMMIT_KEYS;
        let order = self.permutation(ops * COMMIT_KEYS, TRANSACTIONS);
        let keys = |at: u64| -> Vec<Key> {
            (0..COMMIT_KEYS).map(|each| key(first + order.at(at * COMMIT_KEYS + each))).collect()
        };
        let (meter, mut in_commits) = (Meter::start(), Duration::ZERO);
        for at in 0..ops {
            in_commits += db.add_one(&keys(at))?.ok_or("a conflict of a transaction that runs alone")?;
        }
        let mut sample = meter.finish("txncommit", ops, None, self.dir)?;
        sample.seconds = in_commits.as_secs_f64();
        emit(sample);
        let batches: Vec<_> = (0..ops).map(keys).collect();
        let meter = Meter::start();
        for keys in &batches {
            db.put_batch(keys, &2_u64.to_le_bytes())?;
        }
        emit(meter.finish("txnbatch", ops, None, self.dir)?);
        Ok(())
    }
}
