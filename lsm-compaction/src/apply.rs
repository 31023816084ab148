use crate::shape::{RunShape, TableShape, TreeShape};
use crate::{Action, Compaction, OutputRun};
use std::sync::Arc;

impl TreeShape {
    /// The tree after `compaction`: its inputs are gone, and `outputs` stand where they belong. For a move,
    /// `outputs` are the inputs themselves; for a drop, nothing. Runs that have become empty are removed.
    ///
    /// The compaction must have been accepted by [`validate`](crate::validate) when it started; levels and tables
    /// that are not there are passed over. [`running`](TreeShape::running) is left to the caller.
    pub fn apply(&mut self, compaction: &Compaction, outputs: Vec<Arc<TableShape>>) {
        let inputs = compaction.locate(self);
        let place = compaction.output_position(self, &inputs);
        for input in &compaction.inputs {
            let mut ids = input.tables.clone();
            ids.sort_unstable();
            let level = self.levels.get_mut(input.level).into_iter();
            for run in level.flat_map(|level| &mut level.runs) {
                run.tables.retain(|table| ids.binary_search(&table.id).is_err());
            }
        }
        if compaction.action != Action::Drop && !outputs.is_empty() {
            self.add(compaction, place, outputs);
        }
        for level in &mut self.levels {
            level.runs.retain(|run| !run.tables.is_empty());
        }
    }

    fn add(&mut self, compaction: &Compaction, place: usize, mut outputs: Vec<Arc<TableShape>>) {
        let by_key = |a: &Arc<TableShape>, b: &Arc<TableShape>| {
            (&a.smallest, &a.largest).cmp(&(&b.smallest, &b.largest))
        };
        let Some(level) = self.levels.get_mut(compaction.output_level) else { return };
        outputs.sort_by(by_key);
        if compaction.output_run == OutputRun::NewRun {
            level.runs.insert(place.min(level.runs.len()), RunShape { tables: outputs });
            return;
        }
        // The inputs may have been all of the oldest run; then the next oldest takes its place.
        level.runs.retain(|run| !run.tables.is_empty());
        let Some(run) = level.runs.last_mut() else {
            level.runs.push(RunShape { tables: outputs });
            return;
        };
        let Some((first, last)) = outputs.first().zip(outputs.last()) else { return };
        let place = run.tables.partition_point(|table| by_key(table, first).is_lt());
        let together = run.tables.get(place).is_none_or(|table| by_key(last, table).is_lt());
        run.tables.splice(place..place, outputs);
        if !together {
            run.tables.sort_by(by_key);
        }
    }
}
