use super::{
    CompactionPolicy, TombstoneBounds, accepted, cheapest_first, consolidate, move_to_the_bottom,
    output_of_runs, rewrite_oldest_run, windows,
};
use crate::compaction::bounds_of;
use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::key_range_merge::KeyRangeMerge;
use crate::output_run::OutputRun;
use crate::shape::Summary;
use crate::shape::{RunShape, TableShape, TreeShape};
use lsm_core::Slice;
use std::ops::Range;
use std::sync::Arc;

/// Tiers above one leveled last level (Dayan and Idreos, SIGMOD 2018): nearly as few rewrites as size-tiered, and
/// nearly as little garbage as leveled, because most data is in the one run of the last level.
///
/// A tier is merged whole into the next once it has [`runs_max`](LazyLeveledOptions::runs_max) runs. The lowest
/// tier is merged into the last level piece by piece: one table of its oldest run, with what newer runs hold of
/// the same keys, and what it meets below. How many tiers there are follows from the size of the last level.
#[derive(Clone, Copy, Debug, Default)]
pub struct LazyLeveled {
    options: LazyLeveledOptions,
}

/// Settings of [`LazyLeveled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LazyLeveledOptions {
    /// Levels, level 0 included: 2 or more. Default 7.
    pub level_count: usize,
    /// Runs in level 0 that start a compaction. Default 4.
    pub level0_runs_max: usize,
    /// Bytes in level 0 that start a compaction; about [`level0_runs_max`](Self::level0_runs_max) memtables.
    /// Default 256 MiB.
    pub base_bytes: u64,
    /// Runs in a tier that are merged into the next: 2 or more. Default 8.
    pub runs_max: usize,
    /// How many times larger the last level is than the lowest tier, about. Default 4.
    pub last_fanout: u64,
    /// Size of a table of the last level; those of the tiers are a quarter of it. Default 64 MiB.
    pub target_table_bytes: u64,
    /// A compaction into the last level takes no further table once its inputs have reached this size. Default
    /// 1600 MiB.
    pub compaction_bytes_max: u64,
    /// Age at which a tombstone is sent to the next level, again and again down to the last, in microseconds.
    /// Default 7 days.
    pub tombstone_age_micros_max: u64,
    /// Share of the older data under a table that its tombstones hide, about, from which on the table is sent to the
    /// bottom, in percent: what is hidden leaves early, at the price of so many rewrites of the rest. More than 100 for
    /// never. Default 10.
    pub hidden_percent_max: u64,
}

impl Default for LazyLeveledOptions {
    fn default() -> Self {
        Self {
            level_count: 7,
            level0_runs_max: 4,
            base_bytes: 256 << 20,
            runs_max: 8,
            last_fanout: 4,
            target_table_bytes: 64 << 20,
            compaction_bytes_max: 1600 << 20,
            tombstone_age_micros_max: 7 * 24 * 3600 * 1_000_000,
            hidden_percent_max: 10,
        }
    }
}

/// How often other runs are searched to compare tables of the oldest run of the lowest tier, the last level aside.
const WINDOW_LOOKS: usize = 512;

/// So many times smaller the tables of the tiers are than those of the last level.
const TIER_TABLES: u64 = 4;

/// Which levels are in use.
struct Tiers {
    /// The first below level 0; those between should be empty.
    base: usize,
    last: usize,
    /// Bytes that the lowest tier may hold.
    lowest_bytes_max: u64,
}

/// What has to happen to a level.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surplus {
    /// All its runs become one run of the next level.
    Runs,
    /// Piece by piece, this much joins the last level.
    Bytes(u64),
}

impl LazyLeveled {
    /// A policy with these settings; values out of range are taken as the nearest one that works.
    pub fn new(options: LazyLeveledOptions) -> Self {
        Self {
            options: LazyLeveledOptions {
                level_count: options.level_count.max(2),
                level0_runs_max: options.level0_runs_max.max(1),
                base_bytes: options.base_bytes.max(1),
                runs_max: options.runs_max.max(2),
                last_fanout: options.last_fanout.max(1),
                target_table_bytes: options.target_table_bytes.max(1),
                ..options
            },
        }
    }

    /// The settings in force.
    pub fn options(&self) -> &LazyLeveledOptions {
        &self.options
    }

    /// `shape` has at least two levels.
    fn tiers(&self, shape: &TreeShape) -> Tiers {
        let deepest = shape.levels.iter().rposition(|level| !level.runs.is_empty()).unwrap_or(0);
        let last = deepest.max(self.options.level_count.min(shape.levels.len()) - 1);
        let base_bytes = self.options.base_bytes;
        let wanted = shape.levels[last].bytes() / self.options.last_fanout;
        let mut tiers = 0;
        let mut tier_bytes = base_bytes;
        while tier_bytes < wanted && tiers + 1 < last {
            tiers += 1;
            tier_bytes = tier_bytes.saturating_mul(self.options.runs_max as u64);
        }
        Tiers { base: last - tiers, last, lowest_bytes_max: wanted.max(base_bytes) }
    }

    fn level_zero_is_full(&self, shape: &TreeShape) -> bool {
        let level = &shape.levels[0];
        level.runs.len() >= self.options.level0_runs_max || level.bytes() >= self.options.base_bytes
    }

    /// What `level`, neither the first nor the last, has too much of.
    fn surplus(&self, shape: &TreeShape, tiers: &Tiers, level: usize) -> Option<Surplus> {
        let runs = shape.levels[level].runs.len();
        if runs == 0 {
            return None;
        }
        let stale = level < tiers.base;
        if level + 1 < tiers.last {
            return (stale || runs >= self.options.runs_max).then_some(Surplus::Runs);
        }
        let bytes = shape.levels[level].bytes();
        let bytes_max = if stale { 0 } else { tiers.lowest_bytes_max };
        // Pieces leave holes in the runs, so that twice as many cost a read no more than full ones would.
        let too_many_runs = runs >= 2 * self.options.runs_max;
        let surplus = bytes.saturating_sub(bytes_max).max(u64::from(too_many_runs));
        (surplus > 0).then_some(Surplus::Bytes(surplus))
    }

    /// All free runs of a tier, from the oldest on, become one run further down.
    fn pick_runs(
        &self,
        shape: &TreeShape,
        level: usize,
        output_level: usize,
        reason: Reason,
    ) -> Option<Compaction> {
        let runs = &shape.levels[level].runs;
        let free = runs.iter().rev().take_while(|run| !run.is_busy()).count();
        let tables = runs[runs.len() - free..].iter().flat_map(RunShape::tables);
        let inputs = vec![InputLevel::new(level, tables)];
        // Small tables, since a piece can take only those that lie in it.
        let target_table_bytes = (self.options.target_table_bytes / TIER_TABLES).max(1);
        output_of_runs(shape, inputs, output_level, target_table_bytes, reason)
    }

    fn pick_level_zero(&self, shape: &TreeShape, tiers: &Tiers, reason: Reason) -> Option<Compaction> {
        if let Some(compaction) = move_to_the_bottom(shape, Reason::Level0) {
            return Some(compaction);
        }
        let stale = (1..tiers.base).find(|level| !shape.levels[*level].runs.is_empty());
        let output_level = stale.unwrap_or(tiers.base);
        if output_level < tiers.last {
            return self.pick_runs(shape, 0, output_level, reason);
        }
        let runs = &shape.levels[0].runs;
        let free = runs.iter().rev().take_while(|run| !run.is_busy()).count();
        let first_run = runs.len() - free;
        let (smallest, largest) = bounds_of(runs[first_run..].iter().flat_map(RunShape::tables))?;
        accepted(
            shape,
            self.key_range_merge(0, first_run, output_level, reason).merge(shape, smallest, largest),
        )
    }

    fn key_range_merge(
        &self,
        level: usize,
        first_run: usize,
        output_level: usize,
        reason: Reason,
    ) -> KeyRangeMerge {
        let target_table_bytes = self.options.target_table_bytes;
        KeyRangeMerge { level, first_run, output_level, target_table_bytes, reason }
    }

    /// One piece of the lowest tier joins the last level: a table of the oldest run, the one that meets the
    /// fewest bytes there beside what the tier holds of its keys.
    fn pick_piece(&self, shape: &TreeShape, level: usize) -> Option<Compaction> {
        let (oldest, newer) = shape.levels[level].runs.split_last()?;
        let empty = RunShape::default();
        let below = shape.levels[level + 1].runs.first().unwrap_or(&empty);
        let met_bytes = |run: &RunShape, table: &TableShape| {
            run.bytes_in(run.overlapping(&table.smallest, &table.largest))
        };
        let candidate = |position: usize| {
            let table = oldest.get(position)?;
            let newer_bytes: u64 = newer.iter().map(|run| met_bytes(run, table)).sum();
            let ratio =
                (u128::from(met_bytes(below, table)) << 32) / u128::from((table.bytes + newer_bytes).max(1));
            (!oldest.is_busy_at(position)).then_some((ratio, table.id, position))
        };
        windows(oldest, below, WINDOW_LOOKS / (newer.len() + 1)).find_map(|window| {
            let mut candidates: Vec<(u128, u64, usize)> = window.filter_map(candidate).collect();
            cheapest_first(&mut candidates).find_map(|(_, _, index)| self.piece(shape, level, index))
        })
    }

    /// The table at `index` of the oldest run of the lowest tier and its neighbours, with what the tier holds of
    /// the keys of what they meet below.
    fn piece(&self, shape: &TreeShape, level: usize, index: usize) -> Option<Compaction> {
        let runs = &shape.levels[level].runs;
        let (oldest, newer) = runs.split_last()?;
        let empty = RunShape::default();
        let below = shape.levels[level + 1].runs.first().unwrap_or(&empty);
        let seeds = self.seeds(oldest, below, index);
        let (smallest, largest) = bounds_of(oldest.range(seeds.clone()))?;
        let met = below.overlapping(smallest, largest);
        if below.is_busy_in(&met) {
            return None;
        }
        let (smallest, largest) = bounds_of(below.range(met.clone()).chain(oldest.range(seeds.clone())))?;
        // A piece may fill the gaps beside what it meets, but not reach the tables beyond.
        let before = met.start.checked_sub(1).and_then(|index| below.get(index)).map(|table| &table.largest);
        let after = below.get(met.end).map(|table| &table.smallest);
        let within = |table: &TableShape| {
            before.is_none_or(|key| table.smallest > *key) && after.is_none_or(|key| table.largest < *key)
        };
        let mut inputs = vec![InputLevel::new(level, oldest.range(seeds.clone()))];
        // From old to new, a table comes along if it lies in the piece and passes nothing that stays.
        let mut passed: Vec<(&Slice, &Slice)> = Vec::new();
        for (age, run) in std::iter::once(oldest).chain(newer.iter().rev()).enumerate() {
            let mut stay = Vec::new();
            let first = run.partition_point(|table| before.is_some_and(|key| table.largest < *key));
            let end = run.partition_point(|table| after.is_none_or(|key| table.smallest <= *key));
            for (position, table) in (first..end).zip(run.range(first..end)) {
                if age == 0 && seeds.contains(&position) {
                    continue;
                }
                let met = table.overlaps(smallest, largest);
                let free = passed.iter().all(|(smallest, largest)| !table.overlaps(smallest, largest));
                if met && free && !run.is_busy_at(position) && within(table) {
                    inputs[0].tables.push(Arc::clone(table));
                } else {
                    stay.push((&table.smallest, &table.largest));
                }
            }
            passed.extend(stay);
        }
        let alone = met.is_empty() && inputs[0].tables.len() == 1;
        if !met.is_empty() {
            inputs.push(InputLevel::new(level + 1, below.range(met)));
        }
        let merge = Compaction {
            inputs,
            output_level: level + 1,
            output_run: OutputRun::Join,
            action: Action::Merge,
            target_table_bytes: self.options.target_table_bytes,
            reason: Reason::LevelBytes,
        };
        let elides = oldest.range(seeds).any(|seed| seed.has_tombstones());
        let action = if alone && !elides { Action::Move } else { Action::Merge };
        accepted(shape, Compaction { action, ..merge })
    }

    /// Positions of the table at `index` and of those beside it that a piece has room for. The wider the piece,
    /// the less of the newer runs reaches across its ends and has to stay.
    fn seeds(&self, oldest: &RunShape, below: &RunShape, index: usize) -> Range<usize> {
        let bytes = |range: &Range<usize>| -> Option<u64> {
            let (first, last) = oldest.get(range.start).zip(oldest.get(range.end - 1))?;
            let met = below.overlapping(&first.smallest, &last.largest);
            let bytes = oldest.bytes_in(range.clone()).saturating_add(below.bytes_in(met.clone()));
            (!met.is_empty()).then_some(bytes)
        };
        let fits = |range: &Range<usize>| {
            bytes(range).is_some_and(|bytes| bytes <= self.options.compaction_bytes_max)
        };
        let mut seeds = index..index + 1;
        loop {
            let left = seeds.start.saturating_sub(1)..seeds.end;
            let right = seeds.start..(seeds.end + 1).min(oldest.len());
            let wider = [right, left]
                .into_iter()
                .find(|wider| wider.len() > seeds.len() && !oldest.is_busy_in(wider) && fits(wider));
            match wider {
                Some(wider) => seeds = wider,
                None => return seeds,
            }
        }
    }

    /// Tables whose tombstones are too old or hide too much, from the top down.
    fn pick_tombstones(&self, shape: &TreeShape, tiers: &Tiers) -> Option<Compaction> {
        let bounds = TombstoneBounds {
            age_micros: self.options.tombstone_age_micros_max,
            dense_percent: u64::MAX,
            hidden_percent: self.options.hidden_percent_max,
        };
        for level in 0..tiers.last {
            let pick = if level + 1 < tiers.last || level == 0 {
                self.pick_tombstones_of_tier(shape, tiers, level, bounds)
            } else {
                self.pick_tombstones_of_lowest_tier(shape, level, bounds)
            };
            if pick.is_some() {
                return pick;
            }
        }
        rewrite_oldest_run(shape, tiers.last, bounds, self.options.target_table_bytes)
    }

    fn pick_tombstones_of_tier(
        &self,
        shape: &TreeShape,
        tiers: &Tiers,
        level: usize,
        bounds: TombstoneBounds,
    ) -> Option<Compaction> {
        let runs = &shape.levels[level].runs;
        let reason = if runs.iter().any(|run| bounds.any_aged(run, shape.now_micros)) {
            Reason::TombstoneAge
        } else if bounds.hide_much(shape, runs) {
            Reason::HiddenBytes
        } else {
            return None;
        };
        match level {
            0 => self.pick_level_zero(shape, tiers, reason),
            _ => self.pick_runs(shape, level, level + 1, reason),
        }
    }

    fn pick_tombstones_of_lowest_tier(
        &self,
        shape: &TreeShape,
        level: usize,
        bounds: TombstoneBounds,
    ) -> Option<Compaction> {
        shape.levels[level].runs.iter().enumerate().find_map(|(first_run, run)| {
            let may = |summary: &Summary| bounds.may_be_reason(shape, summary);
            run.find_map(may, |_, table| {
                let range_merge =
                    self.key_range_merge(level, first_run, level + 1, bounds.reason(shape, table)?);
                accepted(shape, range_merge.merge(shape, &table.smallest, &table.largest))
            })
        })
    }
}

impl CompactionPolicy for LazyLeveled {
    fn name(&self) -> &'static str {
        "lazy-leveled"
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
        let tiers = self.tiers(shape);
        let consolidated = consolidate(shape, tiers.last, self.options.target_table_bytes);
        if consolidated.is_some() {
            return consolidated;
        }
        if self.level_zero_is_full(shape)
            && let Some(compaction) = self.pick_level_zero(shape, &tiers, Reason::Level0)
        {
            return Some(compaction);
        }
        for level in 1..tiers.last {
            let pick = match self.surplus(shape, &tiers, level) {
                None => None,
                Some(Surplus::Runs) => self.pick_runs(shape, level, level + 1, Reason::RunCount),
                Some(Surplus::Bytes(_)) => self.pick_piece(shape, level),
            };
            if pick.is_some() {
                return pick;
            }
        }
        self.pick_tombstones(shape, &tiers)
    }

    fn debt_bytes(&self, shape: &TreeShape) -> u64 {
        if shape.levels.len() < 2 {
            return 0;
        }
        let tiers = self.tiers(shape);
        let last_bytes = shape.levels[tiers.last].bytes();
        let mut debt: u128 = 0;
        if shape.levels[tiers.last].runs.len() > 1 {
            debt += u128::from(last_bytes);
        }
        if self.level_zero_is_full(shape) {
            debt += u128::from(shape.levels[0].bytes());
            if tiers.base == tiers.last {
                debt += u128::from(last_bytes);
            }
        }
        for level in 1..tiers.last {
            let bytes = u128::from(shape.levels[level].bytes());
            debt += match self.surplus(shape, &tiers, level) {
                None => 0,
                Some(Surplus::Runs) => bytes,
                Some(Surplus::Bytes(surplus)) => {
                    let surplus = u128::from(surplus);
                    surplus + surplus * u128::from(last_bytes) / bytes.max(1)
                }
            };
        }
        u64::try_from(debt).unwrap_or(u64::MAX)
    }
}
