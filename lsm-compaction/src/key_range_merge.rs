//! Merges that bring a key range down to a lower level.

use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::TreeShape;
use lsm_core::Slice;
use std::sync::Arc;

/// A merge that brings a key range down: from which level and run to which level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRangeMerge {
    /// The level it leaves.
    pub(crate) level: usize,
    /// The newest run of that level that takes part.
    pub(crate) first_run: usize,
    /// The level that it joins; at least 1.
    pub(crate) output_level: usize,
    pub(crate) target_table_bytes: u64,
    pub(crate) reason: Reason,
}

impl KeyRangeMerge {
    /// A merge of all tables between here and the output level that overlap the key range, and of what those
    /// overlap in older runs, into the oldest run of the output level. Does not ask what is busy.
    pub(crate) fn merge(self, shape: &TreeShape, smallest: &Slice, largest: &Slice) -> Compaction {
        let (mut smallest, mut largest) = (smallest.clone(), largest.clone());
        let mut inputs = Vec::new();
        for level in self.level..=self.output_level {
            let first_run = if level == self.level { self.first_run } else { 0 };
            let mut tables = Vec::new();
            let mut count = usize::MAX;
            // Outputs that join a run must not span a table of any run of that level, so that a newer run may
            // have to be looked at again; above, a wider range only asks for more of what is older.
            while count != tables.len() {
                count = tables.len();
                tables.clear();
                for run in shape.levels[level].runs.iter().skip(first_run) {
                    for table in run.range(run.overlapping(&smallest, &largest)) {
                        smallest = smallest.min(table.smallest.clone());
                        largest = largest.max(table.largest.clone());
                        tables.push(Arc::clone(table));
                    }
                }
                if level != self.output_level {
                    break;
                }
            }
            if !tables.is_empty() {
                inputs.push(InputLevel { level, tables });
            }
        }
        Compaction {
            inputs,
            output_level: self.output_level,
            output_run: OutputRun::Join,
            action: Action::Merge,
            target_table_bytes: self.target_table_bytes,
            reason: self.reason,
        }
    }
}
