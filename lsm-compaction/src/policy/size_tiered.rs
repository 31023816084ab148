use super::{CompactionPolicy, TombstoneBounds, move_to_the_bottom, output_of_runs, rewrite_oldest_run};
use crate::compaction::{Compaction, InputLevel, Reason};
use crate::shape::{RunShape, TreeShape};

/// Merges neighbouring runs of like size, so that every byte is rewritten only a few times; reads look into more
/// runs, and up to the bound on space amplification the tree holds more garbage.
///
/// Also known as universal compaction. Nothing happens below [`SizeTieredOptions::runs_max`] runs. Then all runs
/// are merged if too much of the tree is not in the oldest one; else neighbours of like size, the newest first;
/// else the newest runs, as many as are too many. Level 0 holds flushed runs, level 1 the results of merges, and
/// level 2 what is the oldest run of all. A merge takes whole runs, so that it needs as much free space again.
#[derive(Clone, Copy, Debug, Default)]
pub struct SizeTiered {
    options: SizeTieredOptions,
}

/// Settings of [`SizeTiered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeTieredOptions {
    /// Runs of the whole tree that start a merge: 2 or more. Default 8.
    pub runs_max: usize,
    /// A run is of like size if it is at most this much larger than all newer runs of the merge together, in
    /// percent. Default 1.
    pub size_ratio_percent: u64,
    /// Bytes outside of the oldest run, as a share of it, above which all runs are merged, in percent. Default
    /// 200: the tree takes up to three times the space of its live data.
    pub space_amplification_percent_max: u64,
    /// Size of a table. Default 64 MiB.
    pub target_table_bytes: u64,
    /// Age at which a tombstone is sent to the bottom by a merge of its run with all older ones, in
    /// microseconds. Default 7 days.
    pub tombstone_age_micros_max: u64,
    /// Share of the older data under a run that its tombstones hide, about, from which on the run is merged with all older
    /// ones, in percent: what is hidden leaves early, at the price of so many rewrites of the rest. More than 100 for
    /// never. Default 25.
    pub hidden_percent_max: u64,
}

impl Default for SizeTieredOptions {
    fn default() -> Self {
        Self {
            runs_max: 8,
            size_ratio_percent: 1,
            space_amplification_percent_max: 200,
            target_table_bytes: 64 << 20,
            tombstone_age_micros_max: 7 * 24 * 3600 * 1_000_000,
            hidden_percent_max: 25,
        }
    }
}

/// The level of the oldest run.
const BOTTOM: usize = 2;

impl SizeTiered {
    /// A policy with these settings; values out of range are taken as the nearest one that works.
    pub fn new(options: SizeTieredOptions) -> Self {
        Self {
            options: SizeTieredOptions {
                runs_max: options.runs_max.max(2),
                target_table_bytes: options.target_table_bytes.max(1),
                ..options
            },
        }
    }

    /// The settings in force.
    pub fn options(&self) -> &SizeTieredOptions {
        &self.options
    }

    fn too_much_outside_of_oldest(&self, runs: &[Run<'_>]) -> bool {
        let Some((oldest, newer)) = runs.split_last() else { return false };
        let newer: u128 = newer.iter().map(|run| u128::from(run.bytes)).sum();
        newer * 100 > u128::from(oldest.bytes) * u128::from(self.options.space_amplification_percent_max)
    }

    /// End of the longest sequence from `first` on in which every run is of like size to those before it.
    fn like_size_end(&self, runs: &[Run<'_>], first: usize) -> usize {
        let mut bytes = u128::from(runs[first].bytes);
        let mut end = first + 1;
        let percent = 100 + u128::from(self.options.size_ratio_percent);
        while end < runs.len() && !runs[end].busy && u128::from(runs[end].bytes) * 100 <= bytes * percent {
            bytes += u128::from(runs[end].bytes);
            end += 1;
        }
        end
    }

    fn merge(
        &self,
        shape: &TreeShape,
        runs: &[Run<'_>],
        range: std::ops::Range<usize>,
        reason: Reason,
    ) -> Option<Compaction> {
        let end = range.end;
        let picked = runs.get(range)?;
        let mut inputs: Vec<InputLevel> = Vec::new();
        for run in picked {
            match inputs.last_mut().filter(|input| input.level == run.level) {
                Some(input) => input.tables.extend(run.shape.tables().cloned()),
                None => inputs.push(InputLevel::new(run.level, run.shape.tables())),
            }
        }
        let oldest_level = inputs.last()?.level;
        let output_level = match runs.get(end) {
            None => oldest_level.max(BOTTOM),
            // All of level 0 that is older than the inputs is among them.
            Some(older) if older.level > 0 => oldest_level.max(1),
            Some(_) => 0,
        };
        output_of_runs(shape, inputs, output_level, self.options.target_table_bytes, reason)
    }

    fn pick_tombstones(&self, shape: &TreeShape, runs: &[Run<'_>]) -> Option<Compaction> {
        let bounds = TombstoneBounds {
            age_micros: self.options.tombstone_age_micros_max,
            dense_percent: u64::MAX,
            hidden_percent: self.options.hidden_percent_max,
        };
        let (oldest, newer) = runs.split_last()?;
        let aged = |run: &Run<'_>| bounds.any_aged(run.shape, shape.now_micros);
        if let Some(first) = newer.iter().position(aged) {
            return self.merge(shape, runs, first..runs.len(), Reason::TombstoneAge);
        }
        // The newest from which on they hide much together, since what is newer need not be rewritten.
        let hide_much = |first: &usize| bounds.hide_much(shape, newer[*first..].iter().map(|run| run.shape));
        if let Some(first) = (0..newer.len()).rev().find(hide_much) {
            return self.merge(shape, runs, first..runs.len(), Reason::HiddenBytes);
        }
        if oldest.level == 0 {
            return aged(oldest)
                .then(|| self.merge(shape, runs, newer.len()..runs.len(), Reason::TombstoneAge))?;
        }
        rewrite_oldest_run(shape, oldest.level, bounds, self.options.target_table_bytes)
    }
}

/// A run with its place and what is asked of it again and again.
struct Run<'s> {
    level: usize,
    shape: &'s RunShape,
    bytes: u64,
    busy: bool,
}

/// All runs, newest first.
fn runs(shape: &TreeShape) -> Vec<Run<'_>> {
    let levels = shape.levels.iter().enumerate();
    let runs = levels.flat_map(|(level, shape)| shape.runs.iter().map(move |run| (level, run)));
    runs.map(|(level, shape)| Run { level, shape, bytes: shape.bytes(), busy: shape.is_busy() }).collect()
}

/// How many runs there will be when what is running is done: neighbours under compaction become one.
fn run_count_soon(runs: &[Run<'_>]) -> usize {
    let merging = runs.windows(2).filter(|pair| pair[0].busy && pair[1].busy).count();
    runs.len() - merging
}

impl CompactionPolicy for SizeTiered {
    fn name(&self) -> &'static str {
        "size-tiered"
    }

    fn settings(&self) -> String {
        self.options.to_settings()
    }

    fn level_count(&self) -> usize {
        BOTTOM + 1
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        if shape.levels.len() <= BOTTOM {
            return None;
        }
        let runs = runs(shape);
        let run_count = run_count_soon(&runs);
        if run_count < self.options.runs_max {
            return self.pick_tombstones(shape, &runs);
        }
        if let Some(compaction) = move_to_the_bottom(shape, Reason::RunCount) {
            return Some(compaction);
        }
        if self.too_much_outside_of_oldest(&runs) && runs.iter().all(|run| !run.busy) {
            return self.merge(shape, &runs, 0..runs.len(), Reason::SpaceAmplification);
        }
        for first in (0..runs.len()).filter(|first| !runs[*first].busy) {
            let end = self.like_size_end(&runs, first);
            if end - first >= 2
                && let Some(compaction) = self.merge(shape, &runs, first..end, Reason::SizeRatio)
            {
                return Some(compaction);
            }
        }
        let wanted = run_count - self.options.runs_max + 2;
        for first in (0..runs.len()).filter(|first| !runs[*first].busy) {
            let free = runs[first..].iter().take_while(|run| !run.busy).count();
            if free >= 2
                && let Some(compaction) =
                    self.merge(shape, &runs, first..first + free.min(wanted), Reason::RunCount)
            {
                return Some(compaction);
            }
        }
        None
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        let runs = runs(shape);
        if runs.len() < self.options.runs_max {
            return 0;
        }
        let too_many = runs.len() - self.options.runs_max + 2;
        let merged = if self.too_much_outside_of_oldest(&runs) { runs.len() } else { too_many };
        runs.iter().take(merged).map(|run| run.bytes).sum::<u64>().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{LevelShape, TableShape};
    use crate::validate::validate;
    use std::sync::Arc;

    fn tree(levels: &[&[u64]]) -> TreeShape {
        let mut id = 1000;
        let mut run = |bytes: &u64| {
            id -= 1;
            let table = TableShape {
                id,
                smallest: "a".into(),
                largest: "z".into(),
                bytes: *bytes,
                ..Default::default()
            };
            RunShape::new(vec![Arc::new(table)])
        };
        let levels = levels.iter().map(|runs| LevelShape { runs: runs.iter().map(&mut run).collect() });
        TreeShape { levels: levels.collect(), ..TreeShape::default() }
    }

    fn pick(shape: &TreeShape) -> Option<(usize, usize, Reason)> {
        let options = SizeTieredOptions { runs_max: 4, ..SizeTieredOptions::default() };
        let compaction = SizeTiered::new(options).pick(shape)?;
        validate(shape, &compaction).unwrap();
        Some((compaction.input_tables(shape).len(), compaction.output_level, compaction.reason))
    }

    #[test]
    fn few_runs_are_left_alone() {
        assert_eq!(pick(&tree(&[&[1, 1, 1], &[], &[]])), None);
    }

    #[test]
    fn runs_of_like_size_are_merged_and_larger_ones_left() {
        assert_eq!(pick(&tree(&[&[10, 10, 10], &[500], &[1000]])), Some((3, 1, Reason::SizeRatio)));
        assert_eq!(pick(&tree(&[&[10, 10], &[20, 500], &[1000]])), Some((3, 1, Reason::SizeRatio)));
        assert_eq!(pick(&tree(&[&[10, 10, 500], &[], &[1000]])), Some((2, 0, Reason::SizeRatio)));
    }

    #[test]
    fn too_many_runs_of_unlike_size_are_merged_from_the_newest_on() {
        assert_eq!(pick(&tree(&[&[10, 20, 40], &[80], &[1000]])), Some((3, 1, Reason::RunCount)));
    }

    #[test]
    fn too_much_garbage_is_merged_with_all_runs() {
        assert_eq!(pick(&tree(&[&[10, 20], &[40], &[30]])), Some((4, 2, Reason::SpaceAmplification)));
    }
}
