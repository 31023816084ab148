use super::{Leveled, Targets, accepted, bounds_of, level_zero_input};
use crate::{Action, Compaction, InputLevel, OutputRun, Reason, RunShape, TreeShape};

/// Fewer runs are not worth a merge that brings nothing nearer to the bottom.
const RUNS_WITHIN_MIN: usize = 4;

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

    /// Merges new runs of level 0 among themselves while the way down is blocked, so that reads do not pay for
    /// the wait. Takes runs from the newest on as long as they are not much larger than those before them, so
    /// that nothing is rewritten for little.
    pub(super) fn pick_within_level_zero(&self, shape: &TreeShape) -> Option<Compaction> {
        let runs = &shape.levels[0].runs;
        let first = runs.iter().position(|run| !run.is_busy())?;
        let mut end = first;
        let mut bytes: u64 = 0;
        while let Some(run) = runs.get(end).filter(|run: &&RunShape| !run.is_busy()) {
            let run_bytes = run.bytes();
            let much_larger = end >= first + RUNS_WITHIN_MIN && run_bytes > bytes;
            if much_larger || bytes.saturating_add(run_bytes) > self.options.base_bytes {
                break;
            }
            bytes += run_bytes;
            end += 1;
        }
        if end - first < RUNS_WITHIN_MIN.max(self.options.level0_runs_max) {
            return None;
        }
        accepted(
            shape,
            Compaction {
                inputs: vec![level_zero_input(shape, first, end)],
                output_level: 0,
                output_run: OutputRun::NewRun,
                action: Action::Merge,
                target_table_bytes: self.options.target_table_bytes,
                reason: Reason::IntraLevel0,
            },
        )
    }
}
