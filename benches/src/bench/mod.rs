use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::Result;
use crate::dataset::{Dataset, Permutation, index_of, key, missing_key};
use crate::engine::Engine;
use crate::meter::{Latency, Meter, new_latency, percentiles, repeat, repeat_while};
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::{Group, Selection, Workload};

/// Runs what is selected of `group` on an empty store in `dir`; each sample goes to `sink`.
pub(crate) fn run<E: Engine>(
    group: Group,
    selection: &Selection,
    dir: &Path,
    settings: &Settings,
    sink: &mut dyn FnMut(Sample),
) -> Result {
    let dataset = Dataset::new(settings.seed, settings.value_bytes as usize);
    let bench = Bench { dir, settings, dataset };
    match group {
        Group::Sequential => bench.sequential::<E>(sink),
        Group::Random => bench.random::<E>(selection, sink),
        Group::Sync => bench.sync::<E>(sink),
        Group::Open => bench.open::<E>(sink),
    }
}

/// Streams of the permutations, so that no two workloads share an order.
const FILL: u64 = 1;
const READ_HOT: u64 = 2;
const READ: u64 = 3;
const MISSING: u64 = 4;
const SEEK: u64 = 5;
const OVERWRITE: u64 = 6;
const READ_BESIDE: u64 = 7;
const WRITE_BESIDE: u64 = 8;
const DELETE: u64 = 9;

const SEEK_ROWS: u64 = 10;
const SYNC_THREADS: u64 = 8;
const OPENS: usize = 5;

/// Which versions a value may have.
#[derive(Clone, Copy)]
struct Expected {
    version_min: u32,
    version_max: u32,
}

struct Bench<'a> {
    dir: &'a Path,
    settings: &'a Settings,
    dataset: Dataset,
}

impl Bench<'_> {
    fn sequential<E: Engine>(&self, sink: &mut dyn FnMut(Sample)) -> Result {
        let db = E::open(self.dir, self.settings)?;
        let num = u64::from(self.settings.num);
        self.put(&db, "fillseq", num, 0, |at| at, sink)?;
        self.check_scan(&db, num, Expected { version_min: 0, version_max: 0 }, |_| true)?;
        db.close()
    }

    fn random<E: Engine>(&self, selection: &Selection, sink: &mut dyn FnMut(Sample)) -> Result {
        let has = |workload| selection.has(workload);
        let num = u64::from(self.settings.num);
        let mut expected = Expected { version_min: 0, version_max: 0 };
        let db = E::open(self.dir, self.settings)?;

        let order = self.permutation(num, FILL);
        self.put(&db, "fillrandom", num, 0, |at| order.at(at), sink)?;
        if has(Workload::ReadHot) {
            self.read(&db, "readhot", READ_HOT, expected, sink)?;
        }
        let meter = Meter::start();
        let idle = db.settle()?;
        let mut sample = meter.finish("settle", 1, None, self.dir)?;
        sample.seconds -= idle.as_secs_f64();
        sink(sample);

        if has(Workload::ReadRandom) {
            self.read(&db, "readrandom", READ, expected, sink)?;
        }
        if has(Workload::ReadMissing) {
            self.read_missing(&db, sink)?;
        }
        if has(Workload::Scan) {
            self.scan(&db, "scan", num, expected, |_| true, sink)?;
        }
        if has(Workload::Seek10) {
            self.seek(&db, expected, sink)?;
        }
        if has(Workload::Overwrite) {
            let order = self.permutation(num, OVERWRITE);
            self.put(&db, "overwrite", num, 1, |at| order.at(at), sink)?;
            expected = Expected { version_min: 1, version_max: 1 };
            db.settle()?;
        }
        if has(Workload::ReadWhileWriting) {
            expected.version_max = 2;
            self.read_while_writing(&db, expected, sink)?;
            db.settle()?;
        }
        if has(Workload::DeleteRandom) || has(Workload::ScanDeleted) {
            self.delete_and_scan(&db, expected, sink)?;
        }
        db.close()
    }

    fn permutation(&self, len: u64, stream: u64) -> Permutation {
        Permutation::new(len, self.settings.seed ^ stream << 56)
    }

    fn put<E: Engine>(
        &self,
        db: &E,
        workload: &str,
        ops: u64,
        version: u32,
        order: impl Fn(u64) -> u64,
        sink: &mut dyn FnMut(Sample),
    ) -> Result {
        let mut value = Vec::new();
        let meter = Meter::start();
        let latency = repeat(ops, self.settings.sample, |at| {
            let index = order(at);
            self.dataset.fill_value(&mut value, index, version);
            db.put(&key(index), &value)
        })?;
        sink(meter.finish(workload, ops, Some(&latency), self.dir)?);
        Ok(())
    }

    fn read<E: Engine>(
        &self,
        db: &E,
        workload: &str,
        stream: u64,
        expected: Expected,
        sink: &mut dyn FnMut(Sample),
    ) -> Result {
        let num = u64::from(self.settings.num);
        let order = self.permutation(num, stream);
        let meter = Meter::start();
        let latency = repeat(num, self.settings.sample, |at| self.check_get(db, order.at(at), expected))?;
        sink(meter.finish(workload, num, Some(&latency), self.dir)?);
        Ok(())
    }

    fn read_missing<E: Engine>(&self, db: &E, sink: &mut dyn FnMut(Sample)) -> Result {
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
        sink(meter.finish("readmissing", num, Some(&latency), self.dir)?);
        Ok(())
    }

    fn seek<E: Engine>(&self, db: &E, expected: Expected, sink: &mut dyn FnMut(Sample)) -> Result {
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
        sink(meter.finish("seek10", ops, Some(&latency), self.dir)?);
        Ok(())
    }

    fn read_while_writing<E: Engine>(
        &self,
        db: &E,
        expected: Expected,
        sink: &mut dyn FnMut(Sample),
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
        sink(sample);
        sink(writes);
        Ok(())
    }

    fn delete_and_scan<E: Engine>(&self, db: &E, expected: Expected, sink: &mut dyn FnMut(Sample)) -> Result {
        let num = u64::from(self.settings.num);
        let deletes = num / 2;
        let order = self.permutation(num, DELETE);
        let meter = Meter::start();
        let latency = repeat(deletes, self.settings.sample, |at| db.delete(&key(order.at(at))))?;
        sink(meter.finish("deleterandom", deletes, Some(&latency), self.dir)?);

        let mut alive = vec![true; num as usize];
        for at in 0..deletes {
            alive[order.at(at) as usize] = false;
        }
        let alive = |index: u64| alive.get(index as usize).is_some_and(|alive| *alive);
        self.scan(db, "scandeleted", num - deletes, expected, alive, sink)
    }

    fn sync<E: Engine>(&self, sink: &mut dyn FnMut(Sample)) -> Result {
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
        sink(meter.finish("fillsync", ops, Some(&latency), self.dir)?);

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
        sink(sample);
        self.check_scan(&db, ops + ops_all, Expected { version_min: 0, version_max: 0 }, |_| true)?;
        db.close()
    }

    fn open<E: Engine>(&self, sink: &mut dyn FnMut(Sample)) -> Result {
        let num = u64::from(self.settings.open_num);
        let expected = Expected { version_min: 0, version_max: 0 };
        let order = self.permutation(num, FILL);
        let db = E::open(self.dir, self.settings)?;
        let mut value = Vec::new();
        for at in 0..num {
            self.dataset.fill_value(&mut value, order.at(at), 0);
            db.put(&key(order.at(at)), &value)?;
        }
        db.settle()?;
        let meter = Meter::start();
        db.close()?;
        sink(meter.finish("close", 1, None, self.dir)?);

        let mut samples = Vec::new();
        for at in 0..OPENS as u64 {
            let meter = Meter::start();
            let db = E::open(self.dir, self.settings)?;
            self.check_get(&db, order.at(at), expected)?;
            samples.push(meter.finish("open", 1, None, self.dir)?);
            if samples.len() == OPENS {
                self.check_scan(&db, num, expected, |_| true)?;
            }
            db.close()?;
        }
        samples.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        samples.into_iter().nth(OPENS / 2).into_iter().for_each(sink);
        Ok(())
    }

    #[inline]
    fn check_get<E: Engine>(&self, db: &E, index: u64, expected: Expected) -> Result {
        let version =
            db.get(&key(index), |value| value.map(|value| self.dataset.version_of(value, index)))?;
        match version {
            Some(version) if expected.has(version) => Ok(()),
            Some(version) => {
                Err(format!("the key of index {index} has a wrong value, version {version:?}").into())
            }
            None => Err(format!("the key of index {index} is lost").into()),
        }
    }

    /// Times an iteration over everything, which must show the same as the check of every byte after it.
    fn scan<E: Engine>(
        &self,
        db: &E,
        workload: &str,
        rows: u64,
        expected: Expected,
        alive: impl Fn(u64) -> bool,
        sink: &mut dyn FnMut(Sample),
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
        sink(sample);
        Ok(())
    }

    /// Iterates over everything and fails unless exactly `rows` rows come, in order, each right and `alive`.
    fn check_scan<E: Engine>(
        &self,
        db: &E,
        rows: u64,
        expected: Expected,
        alive: impl Fn(u64) -> bool,
    ) -> Result<Sum> {
        let mut sum = Sum::default();
        let mut wrong = None;
        db.scan(b"", |key, value| {
            let right = sum.add(key, value)
                && index_of(key)
                    .is_some_and(|index| alive(index) && expected.has(self.dataset.version_of(value, index)));
            if !right {
                wrong = Some(format!("row {} of a scan, key \"{}\", is wrong", sum.rows, key.escape_ascii()));
            }
            right
        })?;
        match wrong {
            Some(wrong) => Err(wrong.into()),
            None if sum.rows != rows => Err(format!("a scan has {} rows, not {rows}", sum.rows).into()),
            None => Ok(sum),
        }
    }
}

/// What a scan showed, summed up so cheaply that the sum may be taken while the scan is timed.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    rows: u64,
    keys: u128,
    marks: u128,
    last: u128,
}

impl Sum {
    /// Adds a row; `false` if it is not after the last, or too short.
    #[inline]
    fn add(&mut self, key: &[u8], value: &[u8]) -> bool {
        let (Ok(key), Some(mark)) = (key.try_into(), value.first_chunk()) else { return false };
        let key = u128::from_be_bytes(key);
        let ordered = key > self.last || self.rows == 0;
        self.rows += 1;
        self.keys = self.keys.wrapping_add(key);
        self.marks = self.marks.wrapping_add(u128::from_be_bytes(*mark));
        self.last = key;
        ordered
    }
}

impl Expected {
    #[inline]
    fn has(self, version: Option<u32>) -> bool {
        version.is_some_and(|version| (self.version_min..=self.version_max).contains(&version))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::engine::model::{
        FINDS_EVERYTHING, FORGETS_AT_CLOSE, HONEST, IGNORES_DELETES, KEEPS_OLD_VALUES, LOSES_A_PUT, Model,
        SCRIBBLES, SKIPS_A_ROW,
    };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings() -> Settings {
        let line = ["", "--num", "1000", "--open-num", "500", "--sync-num", "100", "--value-bytes", "64"];
        Line::parse_from(line).settings
    }

    fn run<const FAULT: u8>(group: Group, workloads: &[Workload]) -> Result<Vec<Sample>> {
        let dir = tempfile::tempdir()?;
        let mut samples = Vec::new();
        let selection = Selection::new(workloads.to_vec());
        super::run::<Model<FAULT>>(group, &selection, dir.path(), &settings(), &mut |sample| {
            samples.push(sample);
        })?;
        Ok(samples)
    }

    fn names(samples: &[Sample]) -> Vec<&str> {
        samples.iter().map(|sample| sample.workload.as_str()).collect()
    }

    #[test]
    fn every_workload_runs_and_tells_its_operations() {
        let samples = run::<HONEST>(Group::Random, &[]).unwrap();
        assert_eq!(
            names(&samples),
            [
                "fillrandom",
                "readhot",
                "settle",
                "readrandom",
                "readmissing",
                "scan",
                "seek10",
                "overwrite",
                "readwhilewriting",
                "writewhilereading",
                "deleterandom",
                "scandeleted",
            ]
        );
        let ops = |name| samples.iter().find(|sample| sample.workload == name).map(|sample| sample.ops);
        assert_eq!((ops("scan"), ops("seek10"), ops("scandeleted")), (Some(1000), Some(250), Some(500)));
        assert_eq!(names(&run::<HONEST>(Group::Sequential, &[]).unwrap()), ["fillseq"]);
        assert_eq!(names(&run::<HONEST>(Group::Sync, &[]).unwrap()), ["fillsync", "fillsync8"]);
        assert_eq!(names(&run::<HONEST>(Group::Open, &[]).unwrap()), ["close", "open"]);
    }

    #[test]
    fn only_what_was_asked_for_and_what_that_needs_runs() {
        let samples = run::<HONEST>(Group::Random, &[Workload::Scan]).unwrap();
        assert_eq!(names(&samples), ["fillrandom", "settle", "scan"]);
        let selection = Selection::new(vec![Workload::Scan, Workload::Open]);
        assert!(
            selection.needs(Group::Random) && selection.needs(Group::Open) && !selection.needs(Group::Sync)
        );
    }

    #[test]
    fn no_engine_can_cheat() {
        use Workload::{
            DeleteRandom, FillSeq, FillSync, Open, Overwrite, ReadMissing, ReadRandom, Scan, Seek10,
        };
        for result in [
            run::<LOSES_A_PUT>(Group::Sequential, &[FillSeq]),
            run::<LOSES_A_PUT>(Group::Random, &[ReadRandom]),
            run::<LOSES_A_PUT>(Group::Sync, &[FillSync]),
            run::<SCRIBBLES>(Group::Random, &[ReadRandom]),
            run::<SCRIBBLES>(Group::Random, &[Scan]),
            run::<KEEPS_OLD_VALUES>(Group::Random, &[Overwrite, DeleteRandom]),
            run::<IGNORES_DELETES>(Group::Random, &[DeleteRandom]),
            run::<SKIPS_A_ROW>(Group::Random, &[Scan]),
            run::<SKIPS_A_ROW>(Group::Random, &[Seek10]),
            run::<FINDS_EVERYTHING>(Group::Random, &[ReadMissing]),
            run::<FORGETS_AT_CLOSE>(Group::Open, &[Open]),
        ] {
            assert!(result.is_err(), "only {:?}", names(&result.unwrap_or_default()));
        }
    }

    #[test]
    fn settings_survive_the_way_to_a_child_process() {
        let settings = Settings { seed: 77, ..settings() };
        let line = std::iter::once(String::new()).chain(settings.arguments());
        assert_eq!(format!("{:?}", Line::parse_from(line).settings), format!("{settings:?}"));
    }
}
