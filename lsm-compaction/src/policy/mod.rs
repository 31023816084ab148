//! Policies: pure functions from the shape of a tree to the next compaction.

mod fifo;
mod lazy_leveled;
mod leveled;
mod settings;
mod size_tiered;

pub use fifo::{Fifo, FifoOptions};
pub use lazy_leveled::{LazyLeveled, LazyLeveledOptions};
pub use leveled::{Leveled, LeveledOptions};
pub use settings::built_in_policy;
pub use size_tiered::{SizeTiered, SizeTieredOptions};

use crate::compaction::bounds_of;
use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::{RunShape, TableShape, TreeShape};
use crate::shape::{Share, Summary};
use crate::validate::validate;
use std::fmt;

/// Decides what to compact next.
///
/// A policy is a pure function: it reads no clock, file or random number and keeps no state, so that the same
/// shape always gives the same answer. It must cope with every shape, since the tree may have been left by
/// another policy: levels with more runs than it would make, data below its last level, tables of any size.
///
/// The store calls [`pick`](Self::pick) after every change of the tree, and again at once after starting a
/// compaction, until it returns `None`; so several compactions may be running, and their inputs are
/// [busy](crate::RunShape::is_busy_at). Each pick goes through [`validate`](crate::validate); a rejected one is not
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
///         let level_0 = &shape.levels[0];
///         if level_0.runs.len() < 2 || level_0.is_busy() {
///             return None;
///         }
///         Some(Compaction {
///             inputs: vec![InputLevel::new(0, level_0.tables())],
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

    /// The settings of the policy as text. A store keeps them beside the name, so that
    /// [`built_in_policy`](crate::built_in_policy) can make a built-in policy again. Empty by default.
    fn settings(&self) -> String {
        String::new()
    }

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

    /// Whether a table of a run may be aged.
    fn any_aged(self, run: &RunShape, now_micros: u64) -> bool {
        run.summary().tombstones.as_ref().is_some_and(|all| self.is_old(all.written_micros, now_micros))
    }

    fn is_old(self, written_micros: u64, now_micros: u64) -> bool {
        now_micros.saturating_sub(written_micros) >= self.age_micros
    }

    /// Whether a merge of some runs with all that is older would free a large part of that.
    fn hide_much<'s>(self, shape: &TreeShape, runs: impl IntoIterator<Item = &'s RunShape>) -> bool {
        let (mut hidden, mut older) = (0, 0);
        for run in runs {
            hidden += free_hidden_bytes(shape, run);
            // Those of several runs are mostly the same.
            older = older.max(run.summary().older_bytes);
        }
        hidden > 0 && hidden.saturating_mul(100) >= older.saturating_mul(u128::from(self.hidden_percent))
    }

    fn reason(self, shape: &TreeShape, table: &TableShape) -> Option<Reason> {
        if self.aged(table, shape.now_micros) {
            return Some(Reason::TombstoneAge);
        }
        let tombstones = Share { part: table.tombstones, whole: table.entries.max(1) };
        if tombstones.is_at_least(self.dense_percent) {
            return Some(Reason::TombstoneDensity);
        }
        let hidden = Share { part: table.hidden_bytes, whole: table.older_bytes };
        (!shape.is_held(table) && hidden.is_at_least(self.hidden_percent)).then_some(Reason::HiddenBytes)
    }

    /// Whether there may be a [`reason`](Self::reason) for one of some tables.
    fn may_be_reason(self, shape: &TreeShape, summary: &Summary) -> bool {
        summary.tombstones.as_ref().is_some_and(|all| {
            self.is_old(all.written_micros, shape.now_micros)
                || all.densest.is_at_least(self.dense_percent)
                || all.most_hidden.is_at_least(self.hidden_percent)
        })
    }
}

/// What the tombstones of a run hide that no snapshot holds and no running compaction takes down.
fn free_hidden_bytes(shape: &TreeShape, run: &RunShape) -> u128 {
    let oldest_snapshot = shape.snapshots.first().copied();
    let hidden = run.summaries().map(|(positions, summary)| {
        let Some(all) = summary.tombstones.as_ref().filter(|all| all.hidden_bytes > 0) else { return 0 };
        if oldest_snapshot.is_some_and(|oldest| oldest < all.least_sequence) {
            return 0;
        }
        let held = oldest_snapshot.is_some_and(|oldest| oldest < all.greatest_sequence);
        if !held && !run.is_busy_in(&positions) {
            return all.hidden_bytes;
        }
        let tables = positions.clone().zip(run.range(positions));
        let free = tables.filter(|(position, table)| !run.is_busy_at(*position) && !shape.is_held(table));
        free.map(|(_, table)| u128::from(table.hidden_bytes)).sum()
    });
    hidden.sum()
}

/// How long a table that was just written keeps tombstones before they are worth another try: what held them was
/// a snapshot.
fn retry_micros(age_micros_max: u64) -> u64 {
    (age_micros_max / 4).clamp(1_000_000, 3_600_000_000)
}

/// Positions of `run` in windows of so many tables, in the order in which to look for one to merge into `below`: round
/// the run, from where the newest table of `below` ends. So a pick compares a bounded number of tables, and picks go
/// round; a run that is no longer than a window is compared as a whole.
fn windows(
    run: &RunShape,
    below: &RunShape,
    tables: usize,
) -> impl Iterator<Item = impl Iterator<Item = usize>> {
    let (count, tables) = (run.len(), tables.max(1));
    let newest = below.newest().filter(|_| count > tables);
    let first = newest.map_or(0, |newest| run.partition_point(|table| table.smallest < newest.largest));
    let position = move |index: usize| (first + index) % count;
    (0..count).step_by(tables).map(move |start| (start..(start + tables).min(count)).map(position))
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

/// Merges the runs of a level that should have one: another policy left them.
fn consolidate(shape: &TreeShape, level: usize, target_table_bytes: u64) -> Option<Compaction> {
    if shape.levels[level].runs.len() < 2 {
        return None;
    }
    accepted(
        shape,
        Compaction {
            inputs: vec![InputLevel::new(level, shape.levels[level].tables())],
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
    let run = shape.levels[level].runs.first()?;
    let seed = run.get(index)?;
    let empty = RunShape::default();
    let below = shape.levels.get(level + 1)?.runs.first().unwrap_or(&empty);
    let met = below.overlapping(&seed.smallest, &seed.largest);
    if run.is_busy_at(index) || below.is_busy_in(&met) {
        return None;
    }
    let limit = if met.is_empty() { wanted_bytes } else { compaction_bytes_max };
    let mut bytes = seed.bytes.saturating_add(below.bytes_in(met.clone()));
    let mut comes_along = |index: usize| {
        let Some(table) = run.get(index).filter(|_| !run.is_busy_at(index)) else { return false };
        let theirs = below.overlapping(&table.smallest, &table.largest);
        let costs_nothing = theirs.is_empty() || (theirs.start >= met.start && theirs.end <= met.end);
        // What overlaps nothing is moved later, not merged now.
        let alike = theirs.is_empty() == met.is_empty();
        let take = costs_nothing && alike && bytes.saturating_add(table.bytes) <= limit;
        bytes = bytes.saturating_add(if take { table.bytes } else { 0 });
        take
    };
    let mut first = index;
    while first > 0 && comes_along(first - 1) {
        first -= 1;
    }
    let mut end = index + 1;
    while comes_along(end) {
        end += 1;
    }
    if !met.is_empty() {
        let inputs =
            vec![InputLevel::new(level, run.range(first..end)), InputLevel::new(level + 1, below.range(met))];
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
    if run.range(first..end).any(|table| elides(table)) {
        // Alone, since a merge of several could span what lies between them in the next level.
        let action = if elides(seed) { Action::Merge } else { Action::Move };
        return Some((vec![InputLevel::new(level, [seed])], action));
    }
    Some((vec![InputLevel::new(level, run.range(first..end))], Action::Move))
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
    let tombstones = merge.input_tables(shape).iter().any(|input| input.table.has_tombstones());
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
    if shape.levels[last].runs.len() > 1 || oldest.summary().tombstones.is_some() {
        return None;
    }
    accepted(
        shape,
        Compaction {
            inputs: vec![InputLevel::new(0, oldest.tables())],
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
    let run = shape.levels[level].runs.last()?;
    let all_held = |summary: &Summary| {
        let oldest_snapshot = shape.snapshots.first();
        summary
            .tombstones
            .as_ref()
            .zip(oldest_snapshot)
            .is_some_and(|(all, oldest)| *oldest < all.least_sequence)
    };
    let may = |summary: &Summary| bounds.may_be_reason(shape, summary) && !all_held(summary);
    run.find_map(may, |position, table| {
        let reason = bounds.reason(shape, table)?;
        let is_new = shape.now_micros.saturating_sub(table.created_micros) < retry_micros;
        if run.is_busy_at(position) || shape.is_held(table) || (is_new && shape.snapshots.is_empty()) {
            return None;
        }
        accepted(
            shape,
            Compaction {
                inputs: vec![InputLevel::new(level, [table])],
                output_level: level,
                output_run: OutputRun::Join,
                action: Action::Merge,
                target_table_bytes,
                reason,
            },
        )
    })
}
