use crate::shape::{RunShape, TableShape, TreeShape};
use crate::sink::Sink;
use crate::{Action, Compaction, InputLevel, OutputRun, Reason};
use std::ops::{Bound, Range};
use std::sync::Arc;

/// Settings of [`manual`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManualOptions {
    /// Size of a table. Default 64 MiB.
    pub target_table_bytes: u64,
    /// A compaction out of a level with a single run takes no further table once its inputs have reached this
    /// size. Default 1600 MiB.
    pub compaction_bytes_max: u64,
    /// The number that the next file had when the manual compaction began: tables of the last level with this id
    /// or a greater one have been rewritten since, and are not rewritten again.
    pub rewritten_since: u64,
}

impl Default for ManualOptions {
    fn default() -> Self {
        Self { target_table_bytes: 64 << 20, compaction_bytes_max: 1600 << 20, rewritten_since: u64::MAX }
    }
}

/// Keys from the first to the second bound.
type KeyRange<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

/// The next step of bringing all data of a key range into one run at the bottom of the tree, without tombstones;
/// `None` once it is there.
///
/// Works level by level from the top, whatever policy shaped the tree, and at last rewrites tables of the last
/// level that still hold tombstones, once. A tree with level 0 alone stays as it is.
///
/// The step does not regard what is running: while [`validate`](crate::validate) refuses it with
/// [`Rejection::Busy`](crate::Rejection::Busy) or [`RunningOverlap`](crate::Rejection::RunningOverlap), wait for
/// a compaction to end, hold back new ones, and ask again. Flushes while it goes on add data at the top, so that
/// whoever wants an end asks only for what there was at the beginning.
///
/// ```
/// use lsm_compaction::*;
/// use std::ops::Bound;
/// use std::sync::Arc;
///
/// let table = TableShape { id: 1, smallest: "a".into(), largest: "c".into(), bytes: 9, ..TableShape::default() };
/// let mut shape = TreeShape::empty(7);
/// shape.levels[0].runs.push(RunShape { tables: vec![Arc::new(table)] });
///
/// let options = ManualOptions { rewritten_since: 2, ..ManualOptions::default() };
/// let step = manual(&shape, (Bound::Included(b"b"), Bound::Unbounded), &options).unwrap();
/// assert_eq!((step.action, step.output_level), (Action::Move, 6));
/// assert_eq!(manual(&shape, (Bound::Excluded(b"c"), Bound::Unbounded), &options), None);
/// ```
pub fn manual(shape: &TreeShape, range: KeyRange<'_>, options: &ManualOptions) -> Option<Compaction> {
    let last = shape.levels.len().checked_sub(1).filter(|last| *last > 0)?;
    for level in 0..last {
        let runs = &shape.levels[level].runs;
        if let Some(first_run) = runs.iter().position(|run| !in_range(run, range).is_empty()) {
            return Some(step_down(shape, range, level, first_run, options));
        }
    }
    let runs = &shape.levels[last].runs;
    let (oldest, newer) = runs.split_last()?;
    if let Some(first_run) = newer.iter().position(|run| !in_range(run, range).is_empty()) {
        let tables = &runs[first_run].tables[in_range(&runs[first_run], range)];
        let sink = sink(last, first_run, last, options);
        return Some(sink.merge(shape, &tables.first()?.smallest, &tables.last()?.largest));
    }
    rewrite(&oldest.tables[in_range(oldest, range)], last, options)
}

/// Positions of the tables of a run that may hold a key of the range.
fn in_range(run: &RunShape, (start, end): KeyRange<'_>) -> Range<usize> {
    let before_start = |table: &Arc<TableShape>| match start {
        Bound::Included(key) => *table.largest < *key,
        Bound::Excluded(key) => *table.largest <= *key,
        Bound::Unbounded => false,
    };
    let before_end = |table: &Arc<TableShape>| match end {
        Bound::Included(key) => *table.smallest <= *key,
        Bound::Excluded(key) => *table.smallest < *key,
        Bound::Unbounded => true,
    };
    let first = run.tables.partition_point(before_start);
    first..run.tables.partition_point(before_end).max(first)
}

fn sink(level: usize, first_run: usize, output_level: usize, options: &ManualOptions) -> Sink {
    let target_table_bytes = options.target_table_bytes;
    Sink { level, first_run, output_level, target_table_bytes, reason: Reason::Manual }
}

/// Sends what `level` holds of the range to the next level that holds anything of it, or else to the last.
fn step_down(
    shape: &TreeShape,
    range: KeyRange<'_>,
    level: usize,
    first_run: usize,
    options: &ManualOptions,
) -> Compaction {
    let runs = &shape.levels[level].runs;
    let tables = &runs[first_run].tables[in_range(&runs[first_run], range)];
    let single_run = first_run + 1 == runs.len();
    let last = shape.levels.len() - 1;
    let bounds = |tables: &[Arc<TableShape>]| {
        let ends = tables.first().zip(tables.last());
        ends.map_or_else(Default::default, |(first, last)| (first.smallest.clone(), last.largest.clone()))
    };
    let (smallest, largest) = bounds(tables);
    let output_level = (level + 1..last).find(|below| {
        shape.levels[*below].runs.iter().any(|run| !run.overlapping(&smallest, &largest).is_empty())
    });
    let output_level = output_level.unwrap_or(last);
    let sink = sink(level, first_run, output_level, options);
    let mut count = tables.len();
    if single_run && level > 0 {
        // One chunk of a long run at a time.
        let below = |table: &TableShape| -> u64 {
            let runs = shape.levels[output_level].runs.iter();
            let met = runs.flat_map(|run| &run.tables[run.overlapping(&table.smallest, &table.largest)]);
            met.map(|table| table.bytes).sum()
        };
        let mut bytes: u64 = 0;
        let within = |table: &&Arc<TableShape>| {
            bytes = bytes.saturating_add(table.bytes).saturating_add(below(table));
            bytes <= options.compaction_bytes_max
        };
        count = tables.iter().take_while(within).count().max(1);
    }
    let (smallest, largest) = bounds(&tables[..count]);
    let merge = sink.merge(shape, &smallest, &largest);
    let from_one_run = merge.input_tables(shape).len() == count;
    let tombstones = tables[..count].iter().any(|table| table.has_tombstones());
    if from_one_run && !(tombstones && merge.is_bottommost(shape)) {
        return Compaction { action: Action::Move, ..merge };
    }
    merge
}

/// Rewrites tables of the last level that hold tombstones.
fn rewrite(tables: &[Arc<TableShape>], level: usize, options: &ManualOptions) -> Option<Compaction> {
    let due = |table: &Arc<TableShape>| table.has_tombstones() && table.id < options.rewritten_since;
    let first = tables.iter().position(due)?;
    let mut bytes: u64 = 0;
    let within = |table: &&Arc<TableShape>| {
        bytes = bytes.saturating_add(table.bytes);
        due(table) && bytes <= options.compaction_bytes_max
    };
    let count = tables[first..].iter().take_while(within).count().max(1);
    Some(Compaction {
        inputs: vec![InputLevel {
            level,
            tables: tables[first..first + count].iter().map(|table| table.id).collect(),
        }],
        output_level: level,
        output_run: OutputRun::Join,
        action: Action::Merge,
        target_table_bytes: options.target_table_bytes,
        reason: Reason::Manual,
    })
}
