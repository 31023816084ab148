//! How compactions change the shape of a tree, as they start and as they end.

use crate::compaction::{Action, Compaction, InputTable};
use crate::output_run::OutputRun;
use crate::shape::{RunShape, TableShape, TreeShape};
use std::sync::Arc;

impl TreeShape {
    /// The tree while `compaction` runs: its inputs are [busy](RunShape::is_busy_at), and
    /// [`running`](TreeShape::running) says what it will add.
    pub fn start(&mut self, compaction: &Compaction) {
        self.running.extend(compaction.running(self));
        for (level, run, positions) in places(&compaction.input_tables(self)) {
            for position in positions {
                self.levels[level].runs[run].mark_busy(position);
            }
        }
    }

    /// The tree after `compaction`: its inputs are gone, and `outputs` stand where they belong. For a move,
    /// `outputs` are the inputs themselves; for a drop, nothing. Runs that have become empty are removed.
    ///
    /// The compaction must have been accepted by [`validate`](crate::validate) when it started; levels and tables
    /// that are not there are passed over. [`running`](TreeShape::running) is left to the caller.
    ///
    /// Costs as much as the compaction is large, however many tables there are.
    pub fn apply(&mut self, compaction: &Compaction, outputs: Vec<Arc<TableShape>>) {
        let inputs = compaction.input_tables(self);
        let place = compaction.output_position(self, &inputs);
        for (level, run, positions) in places(&inputs) {
            let run = &mut self.levels[level].runs[run];
            *run = run.with_changes(&positions, Vec::new());
        }
        if compaction.action != Action::Drop && !outputs.is_empty() {
            self.add(compaction, place, outputs);
        }
        for level in &mut self.levels {
            level.runs.retain(|run| !run.is_empty());
        }
    }

    fn add(&mut self, compaction: &Compaction, place: usize, outputs: Vec<Arc<TableShape>>) {
        let Some(level) = self.levels.get_mut(compaction.output_level) else { return };
        if compaction.output_run == OutputRun::NewRun {
            let run = RunShape::default().with_changes(&[], outputs);
            level.runs.insert(place.min(level.runs.len()), run);
            return;
        }
        // The inputs may have been all of the oldest run; then the next oldest takes its place.
        level.runs.retain(|run| !run.is_empty());
        match level.runs.last_mut() {
            Some(run) => *run = run.with_changes(&[], outputs),
            None => level.runs.push(RunShape::default().with_changes(&[], outputs)),
        }
    }
}

/// Level, run and positions of the inputs of each run.
fn places(inputs: &[InputTable<'_>]) -> Vec<(usize, usize, Vec<usize>)> {
    let by_run = inputs.chunk_by(InputTable::same_run);
    by_run.map(|run| (run[0].level, run[0].run, run.iter().map(|input| input.position).collect())).collect()
}
