//! Watched ranges: a transaction that is about to commit learns of writes into the ranges that it has read, without
//! searching them under the commit lock.

use std::sync::OnceLock;

use lsm_core::{SequenceNumber, Slice, ValueKind};

use crate::read::KeyRange;
use crate::write::payload::Operation;

/// Ranges, and whether a write went into one since they are watched.
#[derive(Debug)]
pub(crate) struct RangeWatch {
    /// Keyspace and range, in this order. The ranges of a keyspace do not overlap.
    ranges: Vec<(u32, KeyRange)>,
    /// The first such write.
    hit: OnceLock<Hit>,
}

/// A write into a watched range.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) keyspace: u32,
    pub(crate) range: KeyRange,
    pub(crate) sequence: SequenceNumber,
}

impl RangeWatch {
    pub(super) fn new(mut ranges: Vec<(u32, KeyRange)>) -> Self {
        ranges.sort_by(|(keyspace, range), (other, another)| {
            keyspace.cmp(other).then_with(|| range.start.cmp(&another.start))
        });
        ranges.dedup_by(|(keyspace, range), (last_keyspace, last)| {
            let joins = keyspace == last_keyspace && !last.ends_by(&range.start);
            if joins {
                last.widen(range);
            }
            joins
        });
        Self { ranges, hit: OnceLock::new() }
    }

    /// The first write into one of the ranges. The caller holds the commit lock.
    pub(crate) fn hit(&self) -> Option<&Hit> {
        self.hit.get()
    }

    /// Notes an operation that is about to be written with the number `sequence` or a later one.
    pub(super) fn note(&self, operation: &Operation<'_>, sequence: SequenceNumber) {
        if let Some((keyspace, range)) = self.covered(operation) {
            let (keyspace, range) = (*keyspace, range.clone());
            self.hit.get_or_init(|| Hit { keyspace, range, sequence });
        }
    }

    /// The range that an operation writes into.
    fn covered(&self, operation: &Operation<'_>) -> Option<&(u32, KeyRange)> {
        let Operation { keyspace, kind, key, value, .. } = *operation;
        let is_before = |(other, range): &(u32, KeyRange)| (*other, &*range.start) <= (keyspace, key);
        let after = self.ranges.partition_point(is_before);
        let around = after.checked_sub(1).and_then(|index| self.ranges.get(index));
        let next = self.ranges.get(after).filter(|_| kind == ValueKind::RangeDelete);
        let deleted = || KeyRange { start: Slice::copy_from(key), end: Some(Slice::copy_from(value)) };
        let around = around.filter(|(other, range)| *other == keyspace && !range.ends_by(key));
        around.or_else(|| next.filter(|(other, range)| *other == keyspace && range.overlaps(&deleted())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use super::*;
    use crate::{Db, Options, Result, WriteBatch};

    fn watch(ranges: &[(u32, &str, &str)]) -> RangeWatch {
        let range = |(keyspace, start, end): &(u32, &str, &str)| {
            let end = (!end.is_empty()).then(|| Slice::from(*end));
            (*keyspace, KeyRange { start: Slice::from(*start), end })
        };
        RangeWatch::new(ranges.iter().map(range).collect())
    }

    #[test]
    fn a_write_into_a_watched_range_is_noted() {
        let watch = watch(&[(2, "m", ""), (1, "d", "f"), (1, "a", "c"), (1, "b", "c\0"), (1, "x", "z")]);
        let covers = |keyspace, kind, key: &str, value: &str| {
            let (key, value) = (key.as_bytes(), value.as_bytes());
            watch.covered(&Operation { sequence: 0, keyspace, kind, key, value }).is_some()
        };
        for (keyspace, key, expected) in [
            (1, "a", true),
            (1, "c", true),
            (1, "c\0", false),
            (1, "d", true),
            (1, "f", false),
            (1, "xyz", true),
            (1, "z", false),
            (2, "a", false),
            (2, "zzz", true),
            (0, "b", false),
            (3, "z", false),
        ] {
            assert_eq!(covers(keyspace, ValueKind::Put, key, ""), expected, "{keyspace} {key}");
            assert_eq!(covers(keyspace, ValueKind::Delete, key, ""), expected, "{keyspace} {key}");
        }
        for (keyspace, from, to, expected) in [
            (1, "f", "x", false),
            (1, "f", "x\0", true),
            (1, "e", "w", true),
            (1, "0", "a", false),
            (1, "0", "a\0", true),
            (2, "a", "m", false),
            (2, "a", "n", true),
            (3, "a", "z", false),
        ] {
            assert_eq!(
                covers(keyspace, ValueKind::RangeDelete, from, to),
                expected,
                "{keyspace} {from} {to}"
            );
        }
    }

    #[test]
    fn every_write_path_tells_the_watches_and_forgets_dropped_ones() {
        type Write = fn(&Db) -> Result<()>;
        let writes: [Write; 4] = [
            |db| db.put("b", ""),
            |db| db.delete("b"),
            |db| db.delete_range("a".."m"),
            |db| {
                let mut batch = WriteBatch::new();
                db.write(batch.put("z", "").put("b", "").clone())
            },
        ];
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        let committer = || db.database.write_path().unwrap().committer.lock();
        for write in writes {
            let range = KeyRange { start: "b".into(), end: Some("c".into()) };
            let watch = committer().watch(vec![(0, range.clone())]);
            db.put("a", "").unwrap();
            db.delete_range("c".."d").unwrap();
            assert!(watch.hit().is_none());
            let before = db.snapshot().unwrap().sequence();
            write(&db).unwrap();
            let hit = watch.hit().unwrap();
            assert_eq!((hit.keyspace, &hit.range, hit.sequence), (0, &range, before + 1));
            drop(watch);
            db.put("a", "").unwrap();
            assert!(committer().watches.is_empty());
        }
        drop(db);
        env.drop_jobs();
    }
}
