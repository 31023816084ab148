//! Policies: pure functions from the shape of a tree to the next compaction.

mod fifo;
mod lazy_leveled;
mod leveled;
mod size_tiered;

pub use fifo::{Fifo, FifoOptions};
pub use lazy_leveled::{LazyLeveled, LazyLeveledOptions};
pub use leveled::{Leveled, LeveledOptions};
pub use size_tiered::{SizeTiered, SizeTieredOptions};

use crate::{Action, Compaction, InputLevel, OutputRun, Reason, RunShape, TableShape, TreeShape, validate};
use lsm_core::Slice;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Decides what to compact next.
///
/// A policy is a pure function: it reads no clock, file or random number and keeps no state, so that the same
/// shape always gives the same answer. It must cope with every shape, since the tree may have been left by
/// another policy: levels with more runs than it would make, data below its last level, tables of any size.
///
/// The store calls [`pick`](Self::pick) after every change of the tree, and again at once after starting a
/// compaction, until it returns `None`; so several compactions may be running, and their inputs are
/// [busy](crate::TableShape::busy). Each pick goes through [`validate`](crate::validate); a rejected one is not
/// carried out and counts as `None`. On a tree that does not change otherwise, picking and carrying out must
/// come to an end.
///
/// ```
/// use lsm_compaction::*;
///
/// /// Merges all of level 0 as soon as there are two runs.
/// #[derive(Debug)]
/// struct Eager;
///
/// impl CompactionPolicy for Eager {
///     fn name(&self) -> &'static str {
///         "eager"
///     }
///     fn level_count(&self) -> usize {
///         1
///     }
///     fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
///         let runs = &shape.levels[0].runs;
///         if runs.len() < 2 || runs.iter().any(RunShape::is_busy) {
///             return None;
///         }
///         Some(Compaction {
///             inputs: vec![InputLevel { level: 0, tables: shape.levels[0].tables().map(|t| t.id).collect() }],
///             output_level: 0,
///             output_run: OutputRun::NewRun,
///             action: Action::Merge,
///             target_table_bytes: u64::MAX,
///             reason: Reason::Level0,
///         })
///     }
///     fn debt_bytes(&self, shape: &TreeShape) -> u64 {
///         if shape.levels[0].runs.len() < 2 { 0 } else { shape.bytes() }
///     }
/// }
/// ```
pub trait CompactionPolicy: Send + Sync + fmt::Debug {
    /// A short name for logs and reports.
    fn name(&self) -> &'static str;

    /// How many levels the tree must have, level 0 included; at least 1.
    fn level_count(&self) -> usize;

    /// The next compaction to start, if any.
    fn pick(&self, shape: &TreeShape) -> Option<Compaction>;

    /// Bytes that must still be rewritten before the tree has the shape that the policy wants; 0 once it has.
    /// Backpressure follows it. An estimate; running compactions count until they are committed.
    fn debt_bytes(&self, shape: &TreeShape) -> u64;

    /// Whether the policy may drop data that nobody deleted. Only then may a store carry out
    /// [`Action::Drop`](crate::Action::Drop).
    fn drops_data(&self) -> bool {
        false
    }
}

/// When the tombstones of a table are reason enough to send it down.
#[derive(Clone, Copy, Debug)]
struct TombstoneBounds {
    age_micros: u64,
    dense_percent: u64,
    hidden_percent: u64,
}

impl TombstoneBounds {
    fn aged(self, table: &TableShape, now_micros: u64) -> bool {
        table.tombstone_age_micros(now_micros).is_some_and(|age| age >= self.age_micros)
    }

    fn dense(self, table: &TableShape) -> bool {
        table.tombstones > 0
            && u128::from(table.tombstones) * 100
                >= u128::from(table.entries.max(1)).saturating_mul(u128::from(self.dense_percent))
    }

    /// Whether a merge of some runs with all that is older would free a large part of that.
    fn hide_much<'s>(self, shape: &TreeShape, runs: impl IntoIterator<Item = &'s RunShape>) -> bool {
        let (mut hidden, mut older) = (0, 0);
        for run in runs {
            let hides =
                |table: &&Arc<TableShape>| table.hidden_bytes > 0 && !table.busy && !shape.is_held(table);
            hidden +=
                run.tables.iter().filter(hides).map(|table| u128::from(table.hidden_bytes)).sum::<u128>();
            // Those of several runs are mostly the same.
            older = older.max(run.tables.iter().map(|table| u128::from(table.older_bytes)).sum());
        }
        self.is_much(hidden, older)
    }

    fn hides_much(self, shape: &TreeShape, table: &TableShape) -> bool {
        !shape.is_held(table) && self.is_much(table.hidden_bytes.into(), table.older_bytes.into())
    }

    fn is_much(self, hidden_bytes: u128, older_bytes: u128) -> bool {
        hidden_bytes > 0
            && hidden_bytes.saturating_mul(100) >= older_bytes.saturating_mul(u128::from(self.hidden_percent))
    }

    fn reason(self, shape: &TreeShape, table: &TableShape) -> Option<Reason> {
        if self.aged(table, shape.now_micros) {
            return Some(Reason::TombstoneAge);
        }
        if self.dense(table) {
            return Some(Reason::TombstoneDensity);
        }
        self.hides_much(shape, table).then_some(Reason::HiddenBytes)
    }
}

/// How long a table that was just written keeps tombstones before they are worth another try: what held them was
/// a snapshot.
fn retry_micros(age_micros_max: u64) -> u64 {
    (age_micros_max / 4).clamp(1_000_000, 3_600_000_000)
}

/// The candidates in ascending order, of which mostly only the first is asked for.
fn cheapest_first<T: Ord + Copy>(candidates: &mut [T]) -> impl Iterator<Item = T> {
    let least = candidates.iter().enumerate().min_by_key(|(_, candidate)| **candidate);
    if let Some((index, _)) = least {
        candidates.swap(0, index);
    }
    let mut asked = 0;
    std::iter::from_fn(move || {
        if asked == 1 {
            candidates[1..].sort_unstable();
        }
        asked += 1;
        candidates.get(asked - 1).copied()
    })
}

/// The compaction if it is sound right now: nothing it needs is busy.
fn accepted(shape: &TreeShape, compaction: Compaction) -> Option<Compaction> {
    validate(shape, &compaction).is_ok().then_some(compaction)
}

fn ids<'s>(tables: impl IntoIterator<Item = &'s Arc<TableShape>>) -> Vec<u64> {
    tables.into_iter().map(|table| table.id).collect()
}

/// For each table of `run`, in order, the positions of what it overlaps in `other`: one walk over both.
fn overlaps<'r>(run: &'r RunShape, other: &'r RunShape) -> impl Iterator<Item = Range<usize>> {
    let (mut start, mut end) = (0, 0);
    run.tables.iter().map(move |table| {
        start += other.tables[start..].iter().take_while(|other| other.largest < table.smallest).count();
        end = end.max(start);
        end += other.tables[end..].iter().take_while(|other| other.smallest <= table.largest).count();
        start..end
    })
}

/// Smallest and largest key bound of some tables.
fn bounds_of<'s>(tables: impl IntoIterator<Item = &'s Arc<TableShape>>) -> Option<(&'s Slice, &'s Slice)> {
    tables.into_iter().fold(None, |bounds, table| match bounds {
        None => Some((&table.smallest, &table.largest)),
        Some((smallest, largest)) => Some((smallest.min(&table.smallest), largest.max(&table.largest))),
    })
}

/// Merges the runs of a level that should have one: another policy left them.
fn consolidate(shape: &TreeShape, level: usize, target_table_bytes: u64) -> Option<Compaction> {
    if shape.levels[level].runs.len() < 2 {
        return None;
    }
    accepted(
        shape,
        Compaction {
            inputs: vec![InputLevel { level, tables: ids(shape.levels[level].tables()) }],
            output_level: level,
            output_run: OutputRun::NewRun,
            action: Action::Merge,
            target_table_bytes,
            reason: Reason::RunCount,
        },
    )
}

/// Inputs that send one table of a level with one run to the next level, which has at most one, and whether they
/// can be moved. Neighbours of the table come along if that costs nothing in the next level, until their bytes
/// exceed `wanted_bytes` (when moved) or all inputs exceed `compaction_bytes_max`.
fn push_down(
    shape: &TreeShape,
    level: usize,
    index: usize,
    wanted_bytes: u64,
    compaction_bytes_max: u64,
) -> Option<(Vec<InputLevel>, Action)> {
    let tables = &shape.levels[level].runs.first()?.tables;
    let seed = tables.get(index)?;
    let empty = RunShape::default();
    let below = shape.levels.get(level + 1)?.runs.first().unwrap_or(&empty);
    let met = below.overlapping(&seed.smallest, &seed.largest);
    let met_bytes: u64 = below.tables[met.clone()].iter().map(|table| table.bytes).sum();
    let limit = if met.is_empty() { wanted_bytes } else { compaction_bytes_max };
    let mut bytes = seed.bytes + met_bytes;
    let mut comes_along = |table: &TableShape| {
        let theirs = below.overlapping(&table.smallest, &table.largest);
        let costs_nothing = theirs.is_empty() || (theirs.start >= met.start && theirs.end <= met.end);
        // What overlaps nothing is moved later, not merged now.
        let alike = theirs.is_empty() == met.is_empty();
        let take = !table.busy && costs_nothing && alike && bytes.saturating_add(table.bytes) <= limit;
        bytes = bytes.saturating_add(if take { table.bytes } else { 0 });
        take
    };
    let mut first = index;
    while first > 0 && comes_along(&tables[first - 1]) {
        first -= 1;
    }
    let mut end = index + 1;
    while end < tables.len() && comes_along(&tables[end]) {
        end += 1;
    }
    if !met.is_empty() {
        let inputs = vec![
            InputLevel { level, tables: ids(&tables[first..end]) },
            InputLevel { level: level + 1, tables: ids(&below.tables[met]) },
        ];
        return Some((inputs, Action::Merge));
    }
    // Tombstones that reach the bottom are left out rather than moved.
    let something_below = |table: &TableShape| {
        let levels = shape.levels[level + 1..].iter();
        levels
            .flat_map(|level| &level.runs)
            .any(|run| !run.overlapping(&table.smallest, &table.largest).is_empty())
    };
    let elides = |table: &TableShape| table.has_tombstones() && !something_below(table);
    if tables[first..end].iter().any(|table| elides(table)) {
        // Alone, since a merge of several could span what lies between them in the next level.
        let action = if elides(seed) { Action::Merge } else { Action::Move };
        return Some((vec![InputLevel { level, tables: vec![seed.id] }], action));
    }
    Some((vec![InputLevel { level, tables: ids(&tables[first..end]) }], Action::Move))
}

/// A compaction of whole runs into one run of `output_level`: a move if they come from other levels and are
/// disjoint, else a merge.
fn output_of_runs(
    shape: &TreeShape,
    inputs: Vec<InputLevel>,
    output_level: usize,
    target_table_bytes: u64,
    reason: Reason,
) -> Option<Compaction> {
    let merge = Compaction {
        inputs,
        output_level,
        output_run: OutputRun::NewRun,
        action: Action::Merge,
        target_table_bytes,
        reason,
    };
    // Tombstones that reach the bottom are left out rather than moved.
    let tombstones = merge.input_tables(shape).iter().any(|(_, table)| table.has_tombstones());
    let elides = tombstones && merge.is_bottommost(shape);
    let moved = Compaction { action: Action::Move, ..merge.clone() };
    accepted(shape, moved).filter(|_| !elides).or_else(|| accepted(shape, merge))
}

/// Moves the oldest run of level 0 into the one run of the last level if it overlaps nothing that is older, which
/// is what keys written in order come to.
fn move_to_the_bottom(shape: &TreeShape, reason: Reason) -> Option<Compaction> {
    let deepest = shape.levels.iter().rposition(|level| !level.runs.is_empty())?;
    let last = deepest.max(2).min(shape.levels.len() - 1);
    let oldest = shape.levels[0].runs.last()?;
    if shape.levels[last].runs.len() > 1 || oldest.tables.iter().any(|table| table.has_tombstones()) {
        return None;
    }
    accepted(
        shape,
        Compaction {
            inputs: vec![InputLevel { level: 0, tables: ids(&oldest.tables) }],
            output_level: last,
            output_run: OutputRun::Join,
            action: Action::Move,
            target_table_bytes: 0,
            reason,
        },
    )
}

/// Rewrites one table of the oldest run of the tree, which ends `level`, to be rid of its tombstones: only a
/// snapshot can have kept them there, so that a table waits until that is gone. Where the shape does not tell, it is
/// left alone for a while.
fn rewrite_oldest_run(
    shape: &TreeShape,
    level: usize,
    bounds: TombstoneBounds,
    target_table_bytes: u64,
) -> Option<Compaction> {
    let retry_micros = retry_micros(bounds.age_micros);
    shape.levels[level].runs.last()?.tables.iter().find_map(|table| {
        let reason = bounds.reason(shape, table)?;
        let is_new = shape.now_micros.saturating_sub(table.created_micros) < retry_micros;
        if table.busy || shape.is_held(table) || (is_new && shape.snapshots.is_empty()) {
            return None;
        }
        accepted(
            shape,
            Compaction {
                inputs: vec![InputLevel { level, tables: vec![table.id] }],
                output_level: level,
                output_run: OutputRun::Join,
                action: Action::Merge,
                target_table_bytes,
                reason,
            },
        )
    })
}
