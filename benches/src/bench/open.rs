//! The group of workloads that close and open a store.

use super::Bench;
use super::expected::Expected;
use super::streams::FILL;
use crate::dataset::key;
use crate::engine::Engine;
use crate::meter::Meter;
use crate::result::Result;
use crate::sample::Sample;

const OPENS: usize = 5;

impl Bench<'_> {
    pub(super) fn open<E: Engine>(&self, emit: &mut dyn FnMut(Sample)) -> Result {
        let num = u64::from(self.settings.open_num);
        let expected = Expected::FIRST;
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
        emit(meter.finish("close", 1, None, self.dir)?);

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
        samples.into_iter().nth(OPENS / 2).into_iter().for_each(emit);
        Ok(())
    }
}
