//! The group of workloads on a store that was filled in random order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Bench;
use super::check::Sum;
use super::expected::Expected;
use super::streams::{DELETE, FILL, MISSING, OVERWRITE, READ, READ_BESIDE, READ_HOT, SEEK, WRITE_BESIDE};
use crate::dataset::{key, missing_key};
use crate::engine::Engine;
use crate::meter::{Meter, percentiles, repeat, repeat_while};
use crate::result::Result;
use crate::sample::Sample;
use crate::workload::{Selection, Workload};

const SEEK_ROWS: u64 = 10;

impl Bench<'_> {
    pub(super) fn random<E: Engine>(&self, selection: &Selection, emit: &mut dyn FnMut(Sample)) -> Result {
        let has = |workload| selection.has(workload);
        let num = u64::from(self.settings.num);
        let mut expected = Expected::FIRST;
        let db = E::open(self.dir, self.settings)?;

        let order = self.permutation(num, FILL);
        self.put(&db, "fillrandom", num, 0, |at| order.at(at), emit)?;
        if has(Workload::ReadHot) {
            self.read(&db, "readhot", READ_HOT, expected, emit)?;
        }
        let meter = Meter::start();
        let idle = db.settle()?;
        let mut sample = meter.finish("settle", 1, None, self.dir)?;
        sample.seconds -= idle.as_secs_f64();
        emit(sample);

        if has(Workload::ReadRandom) {
            self.read(&db, "readrandom", READ, expected, emit)?;
        }
        if has(Workload::ReadMissing) {
            self.read_missing(&db, emit)?;
        }
        if has(Workload::Scan) {
            self.scan(&db, "scan", num, expected, |_| true, emit)?;
        }
        if has(Workload::Seek10) {
            self.seek(&db, expected, emit)?;
        }
        if has(Workload::Overwrite) {
            let order = self.permutation(num, OVERWRITE);
            self.put(&db, "overwrite", num, 1, |at| order.at(at), emit)?;
            expected = Expected { version_min: 1, version_max: 1 };
            db.settle()?;
        }
        if has(Workload::ReadWhileWriting) {
            expected.version_max = 2;
            self.read_while_writing(&db, expected, emit)?;
            db.settle()?;
        }
        if has(Workload::DeleteRandom) || has(Workload::ScanDeleted) {
            self.delete_and_scan(&db, expected, emit)?;
        }
        db.close()
    }

    fn read<E: Engine>(
        &self,
        db: &E,
        workload: &str,
        stream: u64,
        expected: Expected,
        emit: &mut dyn FnMut(Sample),
    ) -> Result {
        let num = u64::from(self.settings.num);
        let order = self.permutation(num, stream);
        let meter = Meter::start();
        let latency = repeat(num, self.settings.sample, |at| self.check_get(db, order.at(at), expected))?;
        emit(meter.finish(workload, num, Some(&latency), self.dir)?);
        Ok(())
    }

    fn read_missing<E: Engine>(&self, db: &E, emit: &mut dyn FnMut(Sample)) -> Result {
        let num = u64::from(self.settings.num);
        let order = self.permutation(num, MISSING);
        let meter = Meter::start();
        let latency = repeat(num, self.settings.sample, |at| {
            let index = order.at(at);
            if db.get(&missing_key(index), |value| value.is_some())? {
                return Err(format!("a key after index {index} is found, but was never written").into());
            }
            Ok(())
        })?;
        emit(meter.finish("readmissing", num, Some(&latency), self.dir)?);
        Ok(())
    }

    fn seek<E: Engine>(&self, db: &E, expected: Expected, emit: &mut dyn FnMut(Sample)) -> Result {
        let num = u64::from(self.settings.num);
        let ops = num / 4;
        let order = self.permutation(num, SEEK);
        let meter = Meter::start();
        let latency = repeat(ops, self.settings.sample, |at| {
            let start = order.at(at);
            let end = num.min(start + SEEK_ROWS);
            let mut next = start;
            let mut right = true;
            db.scan(&key(start), |row_key, value| {
                right &= row_key == key(next) && expected.has(self.dataset.version_of(value, next));
                next += 1;
                right && next < end
            })?;
            if right && next == end {
                return Ok(());
            }
            Err(format!("rows from index {start}: row {} is wrong or missing", next - start).into())
        })?;
        emit(meter.finish("seek10", ops, Some(&latency), self.dir)?);
        Ok(())
    }

    fn read_while_writing<E: Engine>(
        &self,
        db: &E,
        expected: Expected,
        emit: &mut dyn FnMut(Sample),
    ) -> Result {
        let num = u64::from(self.settings.num);
        let order = self.permutation(num, WRITE_BESIDE);
        let reading = AtomicBool::new(true);
        let meter = Meter::start();
        let write = || -> Result<Sample> {
            let mut value = Vec::new();
            let mut ops = 0;
            let go_on = || reading.load(Ordering::Relaxed);
            let latency = repeat_while(u64::MAX, self.settings.sample, go_on, |at| {
                let index = order.at(at % num);
                self.dataset.fill_value(&mut value, index, 2);
                ops += 1;
                db.put(&key(index), &value)
            })?;
            Ok(Sample {
                workload: "writewhilereading".to_owned(),
                ops,
                seconds: meter.seconds(),
                percentiles_nanos: Some(percentiles(&latency)),
                cost: None,
            })
        };
        let order = self.permutation(num, READ_BESIDE);
        let (reads, writes) = thread::scope(|scope| {
            let writer = scope.spawn(write);
            let latency = repeat(num, self.settings.sample, |at| self.check_get(db, order.at(at), expected));
            let seconds = meter.seconds();
            reading.store(false, Ordering::Relaxed);
            (latency.map(|latency| (latency, seconds)), writer.join())
        });
        let writes = writes.map_err(|_| "the writer panicked")??;
        let (latency, seconds) = reads?;
        let mut sample = meter.finish("readwhilewriting", num, Some(&latency), self.dir)?;
        sample.seconds = seconds;
        emit(sample);
        emit(writes);
        Ok(())
    }

    fn delete_and_scan<E: Engine>(&self, db: &E, expected: Expected, emit: &mut dyn FnMut(Sample)) -> Result {
        let num = u64::from(self.settings.num);
        let deletes = num / 2;
        let order = self.permutation(num, DELETE);
        let meter = Meter::start();
        let latency = repeat(deletes, self.settings.sample, |at| db.delete(&key(order.at(at))))?;
        emit(meter.finish("deleterandom", deletes, Some(&latency), self.dir)?);

        let mut alive = vec![true; num as usize];
        for at in 0..deletes {
            alive[order.at(at) as usize] = false;
        }
        let alive = |index: u64| alive.get(index as usize).is_some_and(|alive| *alive);
        self.scan(db, "scandeleted", num - deletes, expected, alive, emit)
    }

    /// Times an iteration over everything, which must show the same as the check of every byte after it.
    fn scan<E: Engine>(
        &self,
        db: &E,
        workload: &str,
        rows: u64,
        expected: Expected,
        alive: impl Fn(u64) -> bool,
        emit: &mut dyn FnMut(Sample),
    ) -> Result {
        let mut sum = Sum::default();
        let mut ordered = true;
        let meter = Meter::start();
        db.scan(b"", |key, value| {
            ordered &= sum.add(key, value);
            true
        })?;
        let sample = meter.finish(workload, rows, None, self.dir)?;
        if !ordered || sum != self.check_scan(db, rows, expected, alive)? {
            return Err(format!("{workload}: rows are wrong, missing or out of order").into());
        }
        emit(sample);
        Ok(())
    }
}
