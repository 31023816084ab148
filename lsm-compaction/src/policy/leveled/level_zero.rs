use std::ops::Range;

use super::{Leveled, Targets, accepted, bounds_of, level_zero_input};
use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::{RunShape, TreeShape};

/// How many times as much as level 0 holds a merge of it may take from the next level, unless level 0 is full.
const BELOW_FACTOR_MAX: u64 = 4;

/// Fewer runs are not worth a merge that brings nothing nearer to the bottom.
const RUNS_WITHIN_MIN: usize = 4;
/// Runs below this part of the bytes that fill level 0 are not told apart by size, so that they do not pile up.
const TINY_PART: u64 = 4096;

impl Leveled {
    /// Merges the oldest runs of level 0 into the next level that is in use, or moves them there.
    pub(super) fn pick_level_zero(
        &self,
        shape: &TreeShape,
        targets: &Targets,
        reason: Reason,
    ) -> Option<Compaction> {
        let runs = &shape.levels[0].runs;
        let output_level = targets.below_level_zero(shape);
        let mut first = runs.len();
        let mut bytes = 0;
        while first > 0 && !runs[first - 1].is_busy() && (bytes < self.options.compaction_bytes_max) {
            first -= 1;
            bytes += runs[first].bytes();
        }
        let tables = || runs[first..].iter().flat_map(RunShape::tables);
        let (smallest, largest) = bounds_of(tables())?;
        let below = shape.levels[output_level].runs.first();
        let met = below.map(|run| (run, run.overlapping(smallest, largest)));
        let met_bytes = met.as_ref().map_or(0, |(run, met)| run.bytes_in(met.clone()));
        if reason == Reason::Level0 && !self.is_worth_merging_down(shape, met_bytes) {
            return None;
        }
        let compaction = Compaction {
            inputs: vec![level_zero_input(shape, first, runs.len())],
            output_level,
            output_run: OutputRun::Join,
            action: Action::Move,
            target_table_bytes: self.options.target_table_bytes,
            reason,
        };
        // Tombstones that reach the bottom are better left out than moved.
        let elides = tables().any(|table| table.has_tombstones()) && compaction.is_bottommost(shape);
        if !elides && let Some(compaction) = accepted(shape, compaction.clone()) {
            return Some(compaction);
        }
        let mut compaction = Compaction { action: Action::Merge, ..compaction };
        if let Some((run, met)) = met.filter(|(_, met)| !met.is_empty()) {
            if run.is_busy_in(&met) {
                return None;
            }
            compaction.inputs.push(InputLevel::new(output_level, run.range(met)));
        }
        accepted(shape, compaction)
    }

    /// Merges runs of level 0 among themselves while the way down is blocked or not worth it yet, so that reads do not
    /// pay for the wait.
    pub(super) fn pick_within_level_zero(&self, shape: &TreeShape) -> Option<Compaction> {
        let alike = self.alike(&shape.levels[0].runs, |run| !run.is_busy())?;
        accepted(
            shape,
            Compaction {
                inputs: vec![level_zero_input(shape, alike.start, alike.end)],
                output_level: 0,
                output_run: OutputRun::NewRun,
                action: Action::Merge,
                target_table_bytes: self.options.target_table_bytes,
                reason: Reason::IntraLevel0,
            },
        )
    }

    /// Whether level 0 holds enough for a merge with so much of the next level. With small memtables, a few runs would
    /// have all of that rewritten again and again.
    fn is_worth_merging_down(&self, shape: &TreeShape, below_bytes: u64) -> bool {
        let bytes = shape.levels[0].bytes();
        bytes >= self.options.base_bytes || bytes.saturating_mul(BELOW_FACTOR_MAX) >= below_bytes
    }

    /// The newest neighbours, all `free`, that are worth a merge: enough of them, none larger than those before it
    /// together, so that nothing is rewritten for little.
    fn alike(&self, runs: &[RunShape], free: impl Fn(&RunShape) -> bool) -> Option<Range<usize>> {
        let runs_min = RUNS_WITHIN_MIN.max(self.options.level0_runs_max);
        let bytes_max = self.options.base_bytes;
        (0..runs.len()).find_map(|first| {
            let mut bytes = 0;
            let joins = |run: &&RunShape| {
                // Tiny ones are all alike.
                let run_bytes = run.bytes().max(bytes_max / TINY_PART);
                let is_alike = bytes == 0 || run_bytes <= bytes;
                bytes = run_bytes.saturating_add(bytes);
                is_alike && bytes <= bytes_max && free(run)
            };
            let count = runs[first..].iter().take_while(joins).count();
            (count >= runs_min).then_some(first..first + count)
        })
    }

    /// What has to be rewritten because of level 0, which is to be merged somewhere, and how much of that arrives in the
    /// next level.
    pub(super) fn level_zero_debt(&self, shape: &TreeShape, below_bytes: u64) -> (u64, u64) {
        if self.is_worth_merging_down(shape, below_bytes) {
            let bytes = shape.levels[0].bytes();
            return (bytes.saturating_add(below_bytes), bytes);
        }
        let runs = &shape.levels[0].runs;
        let alike = self.alike(runs, |_| true).unwrap_or_default();
        (runs[alike].iter().map(RunShape::bytes).sum(), 0)
    }
}
