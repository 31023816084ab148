//! The workloads, a file for each group, and the check of every answer.

mod check;
mod expected;
mod open;
mod random;
mod streams;
mod sync;
#[cfg(test)]
mod tests;
mod transactions;

use std::path::Path;

use self::expected::Expected;
use crate::dataset::{Dataset, Permutation, key};
use crate::engine::Engine;
use crate::engine::transactional::Transactional;
use crate::meter::{Meter, repeat};
use crate::result::Result;
use crate::sample::Sample;
use crate::settings::Settings;
use crate::workload::{Group, Selection};

/// Runs what is selected of `group` on an empty store in `dir`; each sample goes to `emit`.
pub(crate) fn run<E: Engine>(
    group: Group,
    selection: &Selection,
    dir: &Path,
    settings: &Settings,
    emit: &mut dyn FnMut(Sample),
) -> Result {
    let dataset = Dataset::new(settings.seed, settings.value_bytes as usize);
    let bench = Bench { dir, settings, dataset };
    match group {
        Group::Sequential => bench.sequential::<E>(emit),
        Group::Bulk => bench.bulk::<E>(emit),
        Group::Random => bench.random::<E>(selection, emit),
        Group::Sync => bench.sync::<E>(emit),
        Group::Open => bench.open::<E>(emit),
        Group::Transactions => Err("transactions run on a store of their own".into()),
    }
}

/// Runs the workloads of transactions on an empty store in `dir`.
pub(crate) fn run_transactions<T: Transactional>(
    dir: &Path,
    settings: &Settings,
    emit: &mut dyn FnMut(Sample),
) -> Result {
    let dataset = Dataset::new(settings.seed, settings.value_bytes as usize);
    Bench { dir, settings, dataset }.transactions::<T>(emit)
}

struct Bench<'a> {
    dir: &'a Path,
    settings: &'a Settings,
    dataset: Dataset,
}

impl Bench<'_> {
    fn sequential<E: Engine>(&self, emit: &mut dyn FnMut(Sample)) -> Result {
        let db = E::open(self.dir, self.settings)?;
        let num = u64::from(self.settings.num);
        self.put(&db, "fillseq", num, 0, |at| at, emit)?;
        self.check_scan(&db, num, Expected::FIRST, |_| true)?;
        db.close()
    }

    /// As fast as the engine takes in a sorted stream; it is durable in the end.
    fn bulk<E: Engine>(&self, emit: &mut dyn FnMut(Sample)) -> Result {
        let db = E::open(self.dir, self.settings)?;
        let num = u64::from(self.settings.num);
        let meter = Meter::start();
        let (mut index, mut value) = (0, Vec::new());
        let is_loaded = db.load_sorted(|put| {
            if index < num {
                self.dataset.fill_value(&mut value, index, 0);
                put(&key(index), &value)?;
                index += 1;
            }
            Ok(index < num)
        })?;
        if is_loaded {
            emit(meter.finish("bulkload", num, None, self.dir)?);
            self.check_scan(&db, num, Expected::FIRST, |_| true)?;
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
        emit: &mut dyn FnMut(Sample),
    ) -> Result {
        let mut value = Vec::new();
        let meter = Meter::start();
        let latency = repeat(ops, self.settings.sample, |at| {
            let index = order(at);
            self.dataset.fill_value(&mut value, index, version);
            db.put(&key(index), &value)
        })?;
        emit(meter.finish(workload, ops, Some(&latency), self.dir)?);
        Ok(())
    }
}
