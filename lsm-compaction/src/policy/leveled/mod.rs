mod level_zero;
mod targets;

use self::targets::Targets;
use super::{
    CompactionPolicy, TombstoneBounds, accepted, bounds_of, cheapest_first, consolidate, push_down,
    rewrite_oldest_run, windows,
};
use crate::compaction::{Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::{LevelShape, RunShape, Summary, TreeShape};

/// Tables of a level that are compared for the one that overlaps least. More find little better ones, and make a pick
/// cost more.
const WINDOW_TABLES: usize = 128;

/// One run per level, each level a fixed factor larger than the one above: the policy that reads least and keeps
/// the least garbage, at the price of rewriting most.
///
/// Level sizes are dynamic (Dong et al., CIDR 2017): they follow from what the last level holds, so that the
/// levels above it always are a small part of the whole, and levels that are not needed yet stay empty. Within a
/// level the table goes down that overlaps the least beside its own size; a table that overlaps nothing is moved. In a
/// level of more than 128 tables it is the least of 128, from where the last merge into the next level ended on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leveled {
    options: LeveledOptions,
}

/// Settings of [`Leveled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeveledOptions {
    /// Levels, level 0 included: 2 or more. Default 7.
    pub level_count: usize,
    /// Runs in level 0 that start a compaction: into the next level if they are at least a fourth of what they meet
    /// there, else within level 0. Default 4.
    pub level0_runs_max: usize,
    /// Size of the first level below level 0 that is in use, and bytes in level 0 that start a compaction; about
    /// [`level0_runs_max`](Self::level0_runs_max) memtables. Default 256 MiB.
    pub base_bytes: u64,
    /// How many times larger a level is than the one above, about; 2 or more. Default 10.
    pub fanout: u64,
    /// Size of a table. Default 64 MiB.
    pub target_table_bytes: u64,
    /// A compaction takes no further table once its inputs have reached this size. Default 1600 MiB.
    pub compaction_bytes_max: u64,
    /// Age at which a tombstone is sent to the bottom, where it vanishes along with what it deletes, in
    /// microseconds. Default 7 days.
    pub tombstone_age_micros_max: u64,
    /// Share of deletes among the entries of a table that sends it down, in percent; more than 100 for never.
    /// Default 50.
    pub tombstone_percent_max: u64,
    /// Share of the older data under a table that its tombstones hide, about, from which on the table is sent to the
    /// bottom, in percent: what is hidden leaves early, at the price of so many rewrites of the rest. More than 100 for
    /// never. Default 10.
    pub hidden_percent_max: u64,
}

impl Default for LeveledOptions {
    fn default() -> Self {
        Self {
            level_count: 7,
            level0_runs_max: 4,
            base_bytes: 256 << 20,
            fanout: 10,
            target_table_bytes: 64 << 20,
            compaction_bytes_max: 1600 << 20,
            tombstone_age_micros_max: 7 * 24 * 3600 * 1_000_000,
            tombstone_percent_max: 50,
            hidden_percent_max: 10,
        }
    }
}

impl Leveled {
    /// A policy with these settings; values out of range are taken as the nearest one that works.
    pub fn new(options: LeveledOptions) -> Self {
        Self {
            options: LeveledOptions {
                level_count: options.level_count.max(2),
                level0_runs_max: options.level0_runs_max.max(1),
                base_bytes: options.base_bytes.max(1),
                fanout: options.fanout.max(2),
                target_table_bytes: options.target_table_bytes.max(1),
                ..options
            },
        }
    }

    /// The settings in force.
    pub fn options(&self) -> &LeveledOptions {
        &self.options
    }

    /// How many bytes each level should hold at most; `u64::MAX` for the last. Level 0 is bounded by
    /// [`LeveledOptions::base_bytes`].
    pub fn level_bytes_max(&self, shape: &TreeShape) -> Vec<u64> {
        Targets::of(shape, &self.options).bytes
    }

    fn bounds(&self) -> TombstoneBounds {
        TombstoneBounds {
            age_micros: self.options.tombstone_age_micros_max,
            dense_percent: self.options.tombstone_percent_max,
            hidden_percent: self.options.hidden_percent_max,
        }
    }

    /// Sends the tables of `level` that overlap least down, as long as the level is over its target.
    fn pick_level(&self, shape: &TreeShape, level: usize, excess: u64) -> Option<Compaction> {
        let run = shape.levels[level].runs.first()?;
        let empty = RunShape::default();
        let below = shape.levels[level + 1].runs.first().unwrap_or(&empty);
        let candidate = |position: usize| {
            let table = run.get(position)?;
            let met = below.overlapping(&table.smallest, &table.largest);
            if run.is_busy_at(position) || below.is_busy_in(&met) {
                return None;
            }
            // Overlap per byte in 2^-32; among equals the oldest file goes first, which makes the picks go round.
            let ratio = (u128::from(below.bytes_in(met)) << 32) / u128::from(table.bytes.max(1));
            Some((ratio, table.id, position))
        };
        windows(run, below, WINDOW_TABLES).find_map(|window| {
            let mut candidates: Vec<(u128, u64, usize)> = window.filter_map(candidate).collect();
            cheapest_first(&mut candidates)
                .find_map(|(_, _, index)| self.push_down(shape, level, index, excess, Reason::LevelBytes))
        })
    }

    fn push_down(
        &self,
        shape: &TreeShape,
        level: usize,
        index: usize,
        wanted_bytes: u64,
        reason: Reason,
    ) -> Option<Compaction> {
        let limit = self.options.compaction_bytes_max;
        let (inputs, action) = push_down(shape, level, index, wanted_bytes, limit)?;
        accepted(
            shape,
            Compaction {
                inputs,
                output_level: level + 1,
                output_run: OutputRun::Join,
                action,
                target_table_bytes: self.options.target_table_bytes,
                reason,
            },
        )
    }

    /// Tables whose tombstones are too old, too dense or hide too much, from the top down.
    fn pick_tombstones(&self, shape: &TreeShape, targets: &Targets) -> Option<Compaction> {
        let bounds = self.bounds();
        let now = shape.now_micros;
        let aged = shape.levels[0].runs.iter().any(|run| bounds.any_aged(run, now));
        let reason = if aged {
            Some(Reason::TombstoneAge)
        } else {
            bounds.hide_much(shape, &shape.levels[0].runs).then_some(Reason::HiddenBytes)
        };
        let pick = reason.and_then(|reason| self.pick_level_zero(shape, targets, reason));
        if pick.is_some() {
            return pick;
        }
        for level in 1..targets.last {
            let Some(run) = shape.levels[level].runs.first() else { continue };
            let may = |summary: &Summary| bounds.may_be_reason(shape, summary);
            let pick = run.find_map(may, |index, table| {
                let reason = bounds.reason(shape, table)?;
                self.push_down(shape, level, index, table.bytes, reason)
            });
            if pick.is_some() {
                return pick;
            }
        }
        rewrite_oldest_run(shape, targets.last, bounds, self.options.target_table_bytes)
    }
}

impl CompactionPolicy for Leveled {
    fn name(&self) -> &'static str {
        "leveled"
    }

    fn settings(&self) -> String {
        self.options.to_settings()
    }

    fn level_count(&self) -> usize {
        self.options.level_count
    }

    fn pick(&self, shape: &TreeShape) -> Option<Compaction> {
        if shape.levels.len() < 2 {
            return None;
        }
        let target_table_bytes = self.options.target_table_bytes;
        for level in 1..shape.levels.len() {
            let pick = consolidate(shape, level, target_table_bytes);
            if pick.is_some() {
                return pick;
            }
        }
        let targets = Targets::of(shape, &self.options);
        let mut scores = targets.scores(shape, &self.options);
        scores.sort_by(|a, b| b.per_mille.cmp(&a.per_mille).then(a.level.cmp(&b.level)));
        for score in scores {
            let pick = match score.level {
                0 => self
                    .pick_level_zero(shape, &targets, Reason::Level0)
                    .or_else(|| self.pick_within_level_zero(shape)),
                level => self.pick_level(shape, level, score.excess_bytes),
            };
            if pick.is_some() {
                return pick;
            }
        }
        self.pick_tombstones(shape, &targets)
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        if shape.levels.len() < 2 {
            return 0;
        }
        let several_runs = shape.levels.iter().skip(1).filter(|level| level.runs.len() > 1);
        let consolidation: u64 = several_runs.map(LevelShape::bytes).sum();
        consolidation + Targets::of(shape, &self.options).debt_bytes(shape, self)
    }
}

/// The inputs of whole runs of level 0.
fn level_zero_input(shape: &TreeShape, first: usize, end: usize) -> InputLevel {
    InputLevel::new(0, shape.levels[0].runs[first..end].iter().flat_map(RunShape::tables))
}
