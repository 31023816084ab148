//! The search for changes of a key or a range after a sequence number.
//!
//! No table of past commits is needed. While a snapshot at that number lives, flushes and compactions keep the sequence
//! numbers above it, so a change is there as a newer version or as a newer range tombstone. Only memtables and tables
//! with newer entries are searched.

use std::sync::Arc;

use lsm_core::hash::key_hash;
use lsm_core::range_tombstone::RangeTombstoneSet;
use lsm_core::{Cursor, SEQUENCE_MAX, SequenceNumber, Slice};
use lsm_sstable::CursorAccess;

use crate::error::Result;
use crate::keyspaces::{Memtable, ReadState};
use crate::read::bounds::Bounds;
use crate::version::TableFile;

/// After this many older versions of a key, a seek costs less than further steps.
const RESEEK_COUNT: u32 = 8;

/// What a search in memory tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There is no change.
    None,
    /// This write changed something.
    At(SequenceNumber),
    /// A table would have to be read.
    Unknown,
}

/// The changes of one keyspace after a sequence number.
///
/// The caller holds a snapshot at that number, or asks so soon that it does not matter if a change is missed. To learn
/// of all changes up to a visible number, load that number first, then the state. A write that is not visible yet may be
/// found, too.
#[derive(Clone, Copy)]
pub(crate) struct Changes<'s> {
    state: &'s ReadState,
    after: SequenceNumber,
}

impl<'s> Changes<'s> {
    pub(crate) fn new(state: &'s ReadState, after: SequenceNumber) -> Self {
        Self { state, after }
    }

    /// A change of `key`, if there is one.
    pub(crate) fn of_key(self, key: &[u8]) -> Result<Option<SequenceNumber>> {
        match self.of_key_in_memory(key) {
            Change::None => Ok(None),
            Change::At(sequence) => Ok(Some(sequence)),
            Change::Unknown => self.of_key_in_tables(key),
        }
    }

    /// Like [`of_key`](Self::of_key), but reads no table.
    #[inline]
    pub(crate) fn of_key_in_memory(self, key: &[u8]) -> Change {
        if let Some(sequence) = self.untraced() {
            return Change::At(sequence);
        }
        for memtable in self.memtables() {
            let tombstones = &memtable.range_tombstones;
            let covering =
                if tombstones.is_empty() { 0 } else { tombstones.covering_sequence(key, SEQUENCE_MAX) };
            let newest = memtable.reader.get(key, SEQUENCE_MAX).map_or(0, |entry| entry.sequence);
            if newest.max(covering) > self.after {
                return Change::At(newest.max(covering));
            }
        }
        if self.tables_with(key).next().is_some() { Change::Unknown } else { Change::None }
    }

    #[cold]
    fn of_key_in_tables(self, key: &[u8]) -> Result<Option<SequenceNumber>> {
        let hash = key_hash(key);
        for table in self.tables_with(key) {
            let covering = table.table().range_tombstones().covering_sequence(key, SEQUENCE_MAX);
            let newest = table.table().get(key, hash, SEQUENCE_MAX)?.map_or(0, |value| value.sequence);
            if newest.max(covering) > self.after {
                return Ok(Some(newest.max(covering)));
            }
        }
        Ok(None)
    }

    /// A change of any key within the bounds, if there is one.
    pub(crate) fn of_range(self, bounds: &Bounds) -> Result<Option<SequenceNumber>> {
        match self.of_range_in_memory(bounds) {
            Change::None => Ok(None),
            Change::At(sequence) => Ok(Some(sequence)),
            Change::Unknown => self.of_range_in_tables(bounds),
        }
    }

    /// Like [`of_range`](Self::of_range), but reads no table.
    pub(crate) fn of_range_in_memory(self, bounds: &Bounds) -> Change {
        if let Some(sequence) = self.untraced() {
            return Change::At(sequence);
        }
        let start = bounds.start();
        for memtable in self.memtables() {
            if let Some(sequence) = self.deleted_in(&memtable.range_tombstones, &start, bounds) {
                return Change::At(sequence);
            }
            if memtable.reader.entry_count() > 0 {
                let mut cursor = Arc::clone(&memtable.reader).cursor();
                if let Some(sequence) = self.written_in(&mut *cursor, &start, bounds) {
                    return Change::At(sequence);
                }
            }
        }
        if self.tables_within(bounds).next().is_some() { Change::Unknown } else { Change::None }
    }

    /// Whether a key within the bounds was put, as far as memory tells. Gives up after `entries_max` entries.
    pub(crate) fn of_puts_in_memory(self, bounds: &Bounds, entries_max: usize) -> Change {
        if let Some(sequence) = self.untraced() {
            return Change::At(sequence);
        }
        let (start, mut passed) = (bounds.start(), 0);
        for memtable in self.memtables().filter(|memtable| memtable.reader.entry_count() > 0) {
            let mut cursor = Arc::clone(&memtable.reader).cursor();
            cursor.seek(&start, SEQUENCE_MAX);
            while let Some(entry) = cursor.entry().filter(|entry| !bounds.above_upper(entry.key)) {
                if entry.sequence > self.after && !entry.kind.is_tombstone() {
                    return Change::At(entry.sequence);
                }
                if passed == entries_max {
                    return Change::Unknown;
                }
                passed += 1;
                cursor.next();
            }
        }
        if self.tables_within(bounds).next().is_some() { Change::Unknown } else { Change::None }
    }

    #[cold]
    fn of_range_in_tables(self, bounds: &Bounds) -> Result<Option<SequenceNumber>> {
        let start = bounds.start();
        for table in self.tables_within(bounds) {
            let mut next = table.table().range_tombstones().fragment_at_or_after(&start);
            while let Some(fragment) = next.filter(|fragment| !bounds.above_upper(fragment.start)) {
                let covering = fragment.covering_sequence(SEQUENCE_MAX);
                if covering > self.after {
                    return Ok(Some(covering));
                }
                next = table.table().range_tombstones().fragment_at_or_after(fragment.end);
            }
            let mut cursor = table.table().cursor(CursorAccess::Cached);
            if let Some(sequence) = self.written_in(&mut cursor, &start, bounds) {
                return Ok(Some(sequence));
            }
            if let Some(error) = cursor.error() {
                return Err(error.clone().into());
            }
        }
        Ok(None)
    }

    /// The number of a clear or drop that may have removed all traces of a change.
    #[inline]
    pub(crate) fn untraced(self) -> Option<SequenceNumber> {
        (self.state.untraced > self.after).then_some(self.state.untraced)
    }

    /// The memtables that may hold newer entries.
    #[inline]
    fn memtables(self) -> impl Iterator<Item = &'s Arc<Memtable>> {
        // The active memtable has no last sequence number.
        let is_newer = move |memtable: &&Arc<Memtable>| {
            let last = memtable.last_sequence();
            last == 0 || last > self.after
        };
        self.state.memtables().filter(is_newer)
    }

    /// The tables with newer entries that may hold `key` or delete it.
    #[inline]
    fn tables_with(self, key: &[u8]) -> impl Iterator<Item = &'s TableFile> {
        let found = self.state.version.runs().filter_map(move |run| run.find(key).map(|table| &**table));
        found.filter(move |table| !table.is_older_than(self.after + 1))
    }

    /// The tables with newer entries that may hold or delete keys within the bounds.
    fn tables_within(self, bounds: &Bounds) -> impl Iterator<Item = &'s TableFile> {
        let within = self.state.version.runs().flat_map(move |run| {
            run.tables_within(|key| bounds.below_lower(key), |key| bounds.above_upper(key))
        });
        within.map(|table| &**table).filter(move |table| !table.is_older_than(self.after + 1))
    }

    /// A newer version of a key within the bounds.
    fn written_in(self, cursor: &mut dyn Cursor, start: &Slice, bounds: &Bounds) -> Option<SequenceNumber> {
        let (mut key, mut older_count) = (Vec::new(), 0);
        cursor.seek(start, SEQUENCE_MAX);
        while let Some(entry) = cursor.entry() {
            if bounds.above_upper(entry.key) {
                return None;
            }
            if entry.sequence > self.after {
                return Some(entry.sequence);
            }
            // Its older versions follow.
            if entry.key == key {
                older_count += 1;
            } else {
                key.clear();
                key.extend_from_slice(entry.key);
                older_count = 0;
            }
            if older_count == RESEEK_COUNT { cursor.seek(&key, 0) } else { cursor.next() }
        }
        None
    }

    /// A newer range delete of a key within the bounds.
    fn deleted_in(
        self,
        tombstones: &RangeTombstoneSet,
        start: &Slice,
        bounds: &Bounds,
    ) -> Option<SequenceNumber> {
        if tombstones.newest_sequence() <= self.after {
            return None;
        }
        let mut next = Some(&**start);
        while let Some(key) = next.filter(|key| !bounds.above_upper(key)) {
            let cover = tombstones.cover(key, SEQUENCE_MAX);
            if cover.sequence > self.after {
                return Some(cover.sequence);
            }
            next = cover.end;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;
    use std::sync::Arc;

    use lsm_compaction::{Fifo, FifoOptions};
    use lsm_core::Slice;
    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;
    use lsm_wal::Durability;
    use proptest::prelude::*;

    use super::{Change, Changes};
    use crate::error::Error;
    use crate::read::Bounds;
    use crate::{Db, Options, Snapshot};

    #[derive(Clone, Debug)]
    enum Op {
        Put(u8),
        Delete(u8),
        DeleteRange(u8, u8),
        Snapshot,
        DropSnapshot,
        Flush,
        Compact,
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            12 => (0_u8..16).prop_map(Op::Put),
            6 => (0_u8..16).prop_map(Op::Delete),
            3 => (0_u8..16, 0_u8..16).prop_map(|(a, b)| Op::DeleteRange(a.min(b), a.max(b))),
            4 => Just(Op::Snapshot),
            2 => Just(Op::DropSnapshot),
            4 => Just(Op::Flush),
            3 => Just(Op::Compact),
            1 => Just(Op::Clear),
        ]
    }

    fn key(number: u8) -> Vec<u8> {
        format!("key{number:02}").into_bytes()
    }

    fn open(options: Options) -> (Arc<SimEnv>, Db) {
        let env = Arc::new(SimEnv::new(1));
        let options = options.memory(8 << 20).vfs(Arc::new(SimFs::new()));
        let db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        (env, db)
    }

    /// Compares what is found after a snapshot with the keys that were changed since.
    fn check(db: &Db, snapshot: &Snapshot, changed: &[bool; 16]) {
        let state = db.default.tree().load_full();
        let since = Changes::new(&state, snapshot.sequence());
        for (number, expected) in (0..).zip(changed) {
            let found = since.of_key(&key(number)).unwrap();
            assert_eq!(found.is_some(), *expected, "key {number} after {snapshot:?}");
            assert!(found.is_none_or(|sequence| sequence > snapshot.sequence()));
            let in_memory = since.of_key_in_memory(&key(number));
            assert!(in_memory == Change::Unknown || (in_memory != Change::None) == *expected);
        }
        for (start, end) in (0..16).flat_map(|start| (start..16).map(move |end| (start, end))) {
            let (from, to) = (Slice::from(key(start)), Slice::from(key(end)));
            for (lower, upper, first, last) in [
                (Bound::Included(from.clone()), Bound::Included(to.clone()), start, end + 1),
                (Bound::Excluded(from.clone()), Bound::Excluded(to.clone()), start + 1, end),
                (Bound::Included(from.clone()), Bound::Unbounded, start, 16),
            ] {
                let expected = (first..last).any(|number| changed[usize::from(number)]);
                let bounds = Bounds { lower, upper };
                let found = since.of_range(&bounds).unwrap().is_some();
                // A range delete from one key to the next also changes what is between them.
                assert!(found || !expected, "{bounds:?} after {snapshot:?}");
                assert!(found == expected || changed.contains(&true), "{bounds:?} after {snapshot:?}");
                let in_memory = since.of_range_in_memory(&bounds);
                assert!(in_memory == Change::Unknown || (in_memory != Change::None) == found);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn every_change_after_a_snapshot_is_found_while_the_snapshot_lives(ops in prop::collection::vec(op(), 1..60)) {
            let (env, db) = open(Options::new());
            let mut snapshots: Vec<(Snapshot, [bool; 16])> = Vec::new();
            for op in ops {
                let mut change = |from: u8, to: u8| {
                    for (_, changed) in &mut snapshots {
                        changed[usize::from(from)..usize::from(to)].fill(true);
                    }
                };
                match op {
                    Op::Put(number) => (db.put(key(number), "value").unwrap(), change(number, number + 1)).1,
                    Op::Delete(number) => (db.delete(key(number)).unwrap(), change(number, number + 1)).1,
                    Op::DeleteRange(from, to) => (db.delete_range(key(from)..key(to)).unwrap(), change(from, to)).1,
                    Op::Clear => (db.default_keyspace().clear().unwrap(), change(0, 16)).1,
                    Op::Snapshot => snapshots.push((db.snapshot().unwrap(), [false; 16])),
                    Op::DropSnapshot => drop((!snapshots.is_empty()).then(|| snapshots.remove(0))),
                    Op::Flush => db.flush().unwrap(),
                    Op::Compact => db.compact_range::<&[u8]>(..).unwrap(),
                }
                for (snapshot, changed) in &snapshots {
                    check(&db, snapshot, changed);
                }
            }
            drop((snapshots, db));
            env.drop_jobs();
        }
    }

    #[test]
    fn a_dropped_table_with_newer_data_counts_as_a_change_of_everything() {
        const DAY: u64 = 24 * 3_600_000_000;
        let fifo = FifoOptions { time_to_live_micros: DAY, ..FifoOptions::default() };
        let (env, db) = open(Options::new().compaction(Arc::new(Fifo::new(fifo))));
        db.put("a", "1").unwrap();
        let before = db.snapshot().unwrap();
        db.put("b", "2").unwrap();
        let after = db.snapshot().unwrap();
        db.flush().unwrap();
        env.advance(DAY);
        db.wait_for_compactions().unwrap();
        assert_eq!(db.iter().count(), 0);
        let state = db.default.tree().load_full();
        let found = |snapshot: &Snapshot, key: &str| {
            Changes::new(&state, snapshot.sequence()).of_key(key.as_bytes()).unwrap().is_some()
        };
        assert!(found(&before, "b"));
        // The drop itself is no change.
        assert!(!found(&after, "b"));
        drop((before, after, state, db));
        env.drop_jobs();
    }

    #[test]
    fn a_write_whose_check_fails_leaves_nothing_in_log_or_memtable() {
        let (env, db) = open(Options::new());
        db.put("a", "1").unwrap();
        let (tree, write) = (db.default.tree(), db.database.write_path().unwrap());
        let before = db.snapshot().unwrap().sequence();
        let put = |value: &str, after: u64| {
            let check = || match Changes::new(&tree.load(), after).of_key_in_memory(b"a") {
                Change::None => Ok(()),
                change => Err(Error::invalid(format!("{change:?}"))),
            };
            let kind = lsm_core::ValueKind::Put;
            write.write_one_checked(&tree, kind, b"a", Some(value.as_bytes()), Durability::Buffered, check)
        };
        put("2", before).unwrap();
        let log_end = write.log_end();
        assert_eq!(put("3", before).unwrap_err().to_string(), format!("At({})", before + 1));
        assert_eq!((write.log_end(), db.database.visibility.sequence()), (log_end, before + 1));
        assert_eq!(db.get("a").unwrap().unwrap(), "2");
        let mut batch = crate::WriteBatch::new();
        batch.put("a", "4");
        let refuse = || Err(Error::invalid("refused"));
        write.write_batch_checked(batch.finish().unwrap(), Durability::Buffered, refuse).unwrap_err();
        assert_eq!((write.log_end(), db.database.visibility.sequence()), (log_end, before + 1));
        drop((tree, db));
        env.drop_jobs();
    }
}
