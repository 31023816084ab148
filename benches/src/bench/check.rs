//! Checks of what an engine answers: no figure counts if a row is wrong.

use super::Bench;
use super::expected::Expected;
use crate::dataset::{index_of, key};
use crate::engine::Engine;
use crate::result::Result;

impl Bench<'_> {
    #[inline]
    pub(super) fn check_get<E: Engine>(&self, db: &E, index: u64, expected: Expected) -> Result {
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

    /// Iterates over everything and fails unless exactly `rows` rows come, in order, each right and `alive`.
    pub(super) fn check_scan<E: Engine>(
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
pub(super) struct Sum {
    rows: u64,
    keys: u128,
    marks: u128,
    last: u128,
}

impl Sum {
    /// Adds a row; `false` if it is not after the last, or too short.
    #[inline]
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) -> bool {
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
