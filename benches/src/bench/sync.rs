//! The group of workloads whose writes survive a power cut.

use std::thread;

use super::Bench;
use super::expected::Expected;
use super::streams::FILL;
use crate::dataset::key;
use crate::engine::Engine;
use crate::meter::{Latency, Meter, new_latency, repeat};
use crate::result::Result;
use crate::sample::Sample;

const SYNC_THREADS: u64 = 8;

impl Bench<'_> {
    pub(super) fn sync<E: Engine>(&self, emit: &mut dyn FnMut(Sample)) -> Result {
        let db = E::open(self.dir, self.settings)?;
        let ops = u64::from(self.settings.sync_num);
        let order = self.permutation(ops, FILL);
        let put = |index: u64| {
            let mut value = Vec::new();
            self.dataset.fill_value(&mut value, index, 0);
            db.put_sync(&key(index), &value)
        };
        let meter = Meter::start();
        let latency = repeat(ops, 1, |at| put(order.at(at)))?;
        emit(meter.finish("fillsync", ops, Some(&latency), self.dir)?);

        let ops_each = ops / 2;
        let ops_all = ops_each * SYNC_THREADS;
        let order = self.permutation(ops_all, FILL);
        let meter = Meter::start();
        let latencies: Vec<Result<Latency>> = thread::scope(|scope| {
            let start = |thread| {
                scope.spawn(move || repeat(ops_each, 1, |at| put(ops + order.at(thread * ops_each + at))))
            };
            let threads: Vec<_> = (0..SYNC_THREADS).map(start).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a writer panicked".into())))
                .collect()
        });
        let seconds = meter.seconds();
        let mut latency = new_latency()?;
        for part in latencies {
            latency.add(part?)?;
        }
        let mut sample = meter.finish("fillsync8", ops_all, Some(&latency), self.dir)?;
        sample.seconds = seconds;
        emit(sample);
        self.check_scan(&db, ops + ops_all, Expected::FIRST, |_| true)?;
        db.close()
    }
}
