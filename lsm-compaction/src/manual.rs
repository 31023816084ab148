use crate::compaction::bounds_of;
use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::key_range_merge::KeyRangeMerge;
use crate::output_run::OutputRun;
use crate::shape::{RunShape, Summary, TableShape, TreeShape};
use lsm_core::Slice;
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
    /// Rewrite all data of the range, since a compaction filter is to look at it: move no table, and leave none of the last
    /// level as it is. Default no.
    pub rewrite_all: bool,
    /// Rewrite tables of the last level, too, that may hold what only a snapshot needed: those with sequence numbers. In a
    /// tree with level 0 alone, merge all its runs. Nothing that was deleted or overwritten is left, unless a snapshot sees
    /// it. Default no.
    pub purge: bool,
}

impl Default for ManualOptions {
    fn default() -> Self {
        Self {
            target_table_bytes: 64 << 20,
            compaction_bytes_max: 1600 << 20,
            rewritten_since: u64::MAX,
            rewrite_all: false,
            purge: false,
        }
    }
}

/// Keys from the first to the second bound.
type KeyRange<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

/// The next step of bringing all data of a key range into one run at the bottom of the tree, without tombstones and what
/// has expired; `None` once it is there.
///
/// Works level by level from the top, whatever policy shaped the tree, and at last rewrites tables of the last
/// level that still hold those, once. A tree with level 0 alone stays as it is.
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
/// shape.levels[0].runs.push(RunShape::new(vec![Arc::new(table)]));
///
/// let options = ManualOptions { rewritten_since: 2, ..ManualOptions::default() };
/// let step = manual(&shape, (Bound::Included(b"b"), Bound::Unbounded), &options).unwrap();
/// assert_eq!((step.action, step.output_level), (Action::Move, 6));
/// assert_eq!(manual(&shape, (Bound::Excluded(b"c"), Bound::Unbounded), &options), None);
/// ```
pub fn manual(shape: &TreeShape, range: KeyRange<'_>, options: &ManualOptions) -> Option<Compaction> {
    let last = shape.levels.len().checked_sub(1)?;
    if last == 0 {
        return if options.purge { merge_level_0(shape, options) } else { None };
    }
    for level in 0..last {
        let runs = &shape.levels[level].runs;
        if let Some(first_run) = runs.iter().position(|run| !in_range(run, range).is_empty()) {
            return step_down(shape, range, level, first_run, options);
        }
    }
    let runs = &shape.levels[last].runs;
    let (oldest, newer) = runs.split_last()?;
    if let Some(first_run) = newer.iter().position(|run| !in_range(run, range).is_empty()) {
        let run = &runs[first_run];
        let (smallest, largest) = bounds_of(run.range(in_range(run, range)))?;
        return Some(key_range_merge(last, first_run, last, options).merge(shape, smallest, largest));
    }
    rewrite(shape, oldest, in_range(oldest, range), last, options)
}

/// Positions of the tables of a run that may hold a key of the range.
fn in_range(run: &RunShape, (start, end): KeyRange<'_>) -> Range<usize> {
    let before_start = |table: &TableShape| match start {
        Bound::Included(key) => *table.largest < *key,
        Bound::Excluded(key) => *table.largest <= *key,
        Bound::Unbounded => false,
    };
    let before_end = |table: &TableShape| match end {
        Bound::Included(key) => *table.smallest <= *key,
        Bound::Excluded(key) => *table.smallest < *key,
        Bound::Unbounded => true,
    };
    let first = run.partition_point(before_start);
    first..run.partition_point(before_end).max(first)
}

fn key_range_merge(
    level: usize,
    first_run: usize,
    output_level: usize,
    options: &ManualOptions,
) -> KeyRangeMerge {
    let target_table_bytes = options.target_table_bytes;
    KeyRangeMerge { level, first_run, output_level, target_table_bytes, reason: Reason::Manual }
}

/// Sends what `level` holds of the range to the next level that holds anything of it, or else to the last.
fn step_down(
    shape: &TreeShape,
    range: KeyRange<'_>,
    level: usize,
    first_run: usize,
    options: &ManualOptions,
) -> Option<Compaction> {
    let runs = &shape.levels[level].runs;
    let run = &runs[first_run];
    let mut positions = in_range(run, range);
    let single_run = first_run + 1 == runs.len();
    let last = shape.levels.len() - 1;
    let (smallest, largest) = ends(run, &positions)?;
    let output_level = (level + 1..last).find(|below| {
        shape.levels[*below].runs.iter().any(|run| !run.overlapping(smallest, largest).is_empty())
    });
    let output_level = output_level.unwrap_or(last);
    let range_merge = key_range_merge(level, first_run, output_level, options);
    if single_run && level > 0 {
        // One chunk of a long run at a time.
        let below = |table: &TableShape| -> u64 {
            let runs = shape.levels[output_level].runs.iter();
            runs.map(|run| run.bytes_in(run.overlapping(&table.smallest, &table.largest))).sum()
        };
        let mut bytes: u64 = 0;
        let within = |table: &&Arc<TableShape>| {
            bytes = bytes.saturating_add(table.bytes).saturating_add(below(table));
            bytes <= options.compaction_bytes_max
        };
        positions.end = positions.start + run.range(positions.clone()).take_while(within).count().max(1);
    }
    let (smallest, largest) = ends(run, &positions)?;
    let merge = range_merge.merge(shape, smallest, largest);
    let from_one_run = merge.input_tables(shape).len() == positions.len();
    let has_garbage = run.range(positions).any(|table| has_garbage(shape, table));
    if from_one_run && !options.rewrite_all && !(has_garbage && merge.is_bottommost(shape)) {
        return Some(Compaction { action: Action::Move, ..merge });
    }
    Some(merge)
}

/// Where the tables at some positions begin and end.
fn ends<'r>(run: &'r RunShape, positions: &Range<usize>) -> Option<(&'r Slice, &'r Slice)> {
    Some((&run.get(positions.start)?.smallest, &run.get(positions.end.checked_sub(1)?)?.largest))
}

/// Whether some of a table can leave at the bottom.
fn has_garbage(shape: &TreeShape, table: &TableShape) -> bool {
    table.has_tombstones() || table.expired(shape.expired_micros) > 0
}

/// Makes one run of all runs of level 0, or rewrites the one that there is, once.
fn merge_level_0(shape: &TreeShape, options: &ManualOptions) -> Option<Compaction> {
    let runs = &shape.levels.first()?.runs;
    let tables = || runs.iter().flat_map(RunShape::tables);
    let is_due = runs.len() > 1 || tables().any(|table| is_due(shape, table, options));
    is_due.then(|| Compaction {
        inputs: vec![InputLevel::new(0, tables())],
        output_level: 0,
        output_run: OutputRun::NewRun,
        action: Action::Merge,
        target_table_bytes: options.target_table_bytes,
        reason: Reason::Manual,
    })
}

/// Whether a table of the last level is to be rewritten.
fn is_due(shape: &TreeShape, table: &TableShape, options: &ManualOptions) -> bool {
    let may_hold_old_versions = options.purge && table.largest_sequence > 0;
    table.id < options.rewritten_since
        && (options.rewrite_all || may_hold_old_versions || has_garbage(shape, table))
}

/// Rewrites tables of the last level, some of a run, that hold garbage.
fn rewrite(
    shape: &TreeShape,
    run: &RunShape,
    positions: Range<usize>,
    level: usize,
    options: &ManualOptions,
) -> Option<Compaction> {
    let due = |table: &TableShape| is_due(shape, table, options);
    let may = |summary: &Summary| {
        let expired = summary.earliest_expiry_micros.is_some_and(|earliest| earliest <= shape.expired_micros);
        options.rewrite_all || options.purge || summary.tombstones.is_some() || expired
    };
    let first = run
        .find_map(may, |position, table| (positions.contains(&position) && due(table)).then_some(position))?;
    let mut bytes: u64 = 0;
    let within = |table: &&Arc<TableShape>| {
        bytes = bytes.saturating_add(table.bytes);
        due(table) && bytes <= options.compaction_bytes_max
    };
    let count = run.range(first..positions.end).take_while(within).count().max(1);
    Some(Compaction {
        inputs: vec![InputLevel::new(level, run.range(first..first + count))],
        output_level: level,
        output_run: OutputRun::Join,
        action: Action::Merge,
        target_table_bytes: options.target_table_bytes,
        reason: Reason::Manual,
    })
}
