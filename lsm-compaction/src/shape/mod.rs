//! What policies see of a tree: levels of sorted runs of tables, as metadata.

mod chunk;
mod run;

pub(crate) use chunk::{SMALL_TABLES, Share, SmallTables, Summary};
pub use run::RunShape;

use crate::output_run::OutputRun;
use lsm_core::{SequenceNumber, Slice};
use std::sync::Arc;

/// What a policy may know of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableShape {
    /// File number: unique, and greater than that of every table written before.
    pub id: u64,
    /// Smallest user key, range tombstones included.
    pub smallest: Slice,
    /// Largest user key, inclusive. Where a range tombstone reaches further than the last point, its exclusive
    /// end stands here, so that neighbours in a run may share this one key as bound.
    pub largest: Slice,
    /// Size of the file.
    pub bytes: u64,
    /// Point entries, deletes included.
    pub entries: u64,
    /// Point deletes among the entries.
    pub tombstones: u64,
    /// Range deletes.
    pub range_tombstones: u64,
    /// Entries that expire.
    pub expiring: u64,
    /// When the first of those expires, in microseconds since 1970.
    pub earliest_expiry_micros: u64,
    /// When the last of those expires.
    pub latest_expiry_micros: u64,
    /// When the file was written, in microseconds of the same clock as [`TreeShape::now_micros`].
    pub created_micros: u64,
    /// When the oldest tombstone in the table (point or range) was written to its first table; a merge passes on
    /// the smallest value of its inputs. `None`: not known, [`created_micros`](Self::created_micros) stands in.
    pub oldest_tombstone_micros: Option<u64>,
    /// About how many bytes of older tables its tombstones hid when it was written: what a merge with all of them
    /// would free. See [`estimate_hidden`](Self::estimate_hidden). In a table that had nothing older below, what they
    /// hide in the table itself.
    pub hidden_bytes: u64,
    /// Bytes of the tables that [`hidden_bytes`](Self::hidden_bytes) is a part of: what such a merge would read
    /// beside the table.
    pub older_bytes: u64,
    /// Smallest sequence number of any entry or range tombstone.
    pub smallest_sequence: SequenceNumber,
    /// Largest sequence number of any entry or range tombstone.
    pub largest_sequence: SequenceNumber,
}

impl TableShape {
    /// Whether the table may hold a key of `[smallest, largest]`, both ends inclusive.
    pub fn overlaps(&self, smallest: &[u8], largest: &[u8]) -> bool {
        *self.smallest <= *largest && *self.largest >= *smallest
    }

    /// Whether the table deletes anything.
    pub fn has_tombstones(&self) -> bool {
        self.tombstones > 0 || self.range_tombstones > 0
    }

    /// About how many entries have expired at a time: the times of all are taken to be spread evenly.
    pub fn expired(&self, at_micros: u64) -> u64 {
        if self.expiring == 0 || at_micros < self.earliest_expiry_micros {
            return 0;
        }
        let span = self.latest_expiry_micros.saturating_sub(self.earliest_expiry_micros);
        let passed = at_micros - self.earliest_expiry_micros;
        if passed >= span {
            return self.expiring;
        }
        let expired = u128::from(self.expiring) * u128::from(passed) / u128::from(span);
        u64::try_from(expired).unwrap_or(self.expiring)
    }

    /// Sets [`hidden_bytes`](Self::hidden_bytes) and [`older_bytes`](Self::older_bytes), given all `older` tables that
    /// overlap this one, and the bytes of them that its range tombstones cover. A point tombstone is taken to hide an
    /// entry of middling size.
    pub fn estimate_hidden<'s>(
        &mut self,
        older: impl IntoIterator<Item = &'s Arc<TableShape>>,
        range_deleted_bytes: u64,
    ) {
        let (mut bytes, mut puts) = (0_u64, 0_u64);
        for table in older {
            bytes = bytes.saturating_add(table.bytes);
            puts = puts.saturating_add(table.entries.saturating_sub(table.tombstones));
        }
        let deleted = u128::from(bytes) * u128::from(self.tombstones) / u128::from(puts.max(1));
        let hidden = deleted.saturating_add(u128::from(range_deleted_bytes)).min(u128::from(bytes));
        self.hidden_bytes = u64::try_from(hidden).unwrap_or(bytes);
        self.older_bytes = bytes;
    }

    /// Age of the oldest tombstone in microseconds; `None` without tombstones.
    pub fn tombstone_age_micros(&self, now_micros: u64) -> Option<u64> {
        self.has_tombstones().then(|| now_micros.saturating_sub(self.tombstones_since_micros()))
    }

    /// When the oldest of its tombstones was written, if it has any.
    fn tombstones_since_micros(&self) -> u64 {
        self.oldest_tombstone_micros.unwrap_or(self.created_micros)
    }
}

/// Runs, newest first: where two hold the same key, the earlier run holds the newer versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelShape {
    /// The runs, newest first. None is empty.
    pub runs: Vec<RunShape>,
}

impl LevelShape {
    /// Sum of the sizes of the runs.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(RunShape::bytes).sum()
    }

    /// All tables: newest run first, by key within a run.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableShape>> {
        self.runs.iter().flat_map(RunShape::tables)
    }

    /// The tables that are no inputs of running compactions, in the same order.
    pub fn free_tables(&self) -> impl Iterator<Item = &Arc<TableShape>> {
        self.runs.iter().flat_map(RunShape::free_tables)
    }

    /// Whether a table of this level is an input of a running compaction.
    pub fn is_busy(&self) -> bool {
        self.runs.iter().any(RunShape::is_busy)
    }
}

/// What a compaction that is under way will add to the tree.
///
/// Its inputs are [busy](RunShape::is_busy_at); that alone does not say which keys its output tables may
/// span. Made by [`Compaction::running`](crate::Compaction::running).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningShape {
    /// [`Compaction::output_level`](crate::Compaction::output_level).
    pub output_level: usize,
    /// [`Compaction::output_run`](crate::Compaction::output_run).
    pub output_run: OutputRun,
    /// Smallest key bound of all its inputs.
    pub smallest: Slice,
    /// Largest key bound of all its inputs, inclusive.
    pub largest: Slice,
}

/// A whole tree as policies see it: levels of runs of tables, and what is happening to it.
///
/// Order of age: a smaller level is newer than a larger one; within a level, an earlier run is newer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeShape {
    /// The levels. Level 0 takes one run per flush. At least
    /// [`CompactionPolicy::level_count`](crate::CompactionPolicy::level_count) of them, empty ones included; more
    /// if an earlier policy left data further down.
    pub levels: Vec<LevelShape>,
    /// The time, in microseconds.
    pub now_micros: u64,
    /// The compactions under way.
    pub running: Vec<RunningShape>,
    /// The sequence numbers that readers may look at, ascending, as in
    /// [`GarbageRules::snapshots`](crate::GarbageRules::snapshots). Empty: nobody looks at less than everything.
    pub snapshots: Vec<SequenceNumber>,
    /// The time of the first reader, in microseconds since 1970: what expires then or earlier has expired for all.
    pub expired_micros: u64,
}

impl TreeShape {
    /// A tree without tables.
    pub fn empty(level_count: usize) -> Self {
        Self { levels: vec![LevelShape::default(); level_count], ..Self::default() }
    }

    /// Sum of the sizes of all tables.
    pub fn bytes(&self) -> u64 {
        self.levels.iter().map(LevelShape::bytes).sum()
    }

    /// All tables with their level, newest first.
    pub fn tables(&self) -> impl Iterator<Item = (usize, &Arc<TableShape>)> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(|(level, shape)| shape.tables().map(move |table| (level, table)))
    }

    /// Whether a reader may look at less than all tombstones of `table`. A merge keeps those that it does not see, with
    /// what they hide, so that sending them down frees nothing yet.
    pub fn is_held(&self, table: &TableShape) -> bool {
        self.snapshots.first().is_some_and(|oldest| *oldest < table.largest_sequence)
    }

    /// Number of runs of the whole tree: the sources of a scan.
    pub fn run_count(&self) -> usize {
        self.levels.iter().map(|level| level.runs.len()).sum()
    }
}
