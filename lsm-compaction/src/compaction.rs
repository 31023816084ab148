use crate::output_run::OutputRun;
use crate::shape::{RunShape, RunningShape, TableShape, TreeShape};
use lsm_core::Slice;
use std::fmt;
use std::sync::Arc;

/// What to do next to a tree. Whoever carries it out calls [`validate`](crate::validate) first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The tables that leave the tree, each level at most once.
    pub inputs: Vec<InputLevel>,
    /// Where the outputs go. Meaningless for [`Action::Drop`].
    pub output_level: usize,
    /// Which run of the output level they become part of.
    pub output_run: OutputRun,
    /// How the outputs come about.
    pub action: Action,
    /// Size in bytes at which a merge starts a new output table. It may start one earlier, where a table of
    /// [`tables_below`](Compaction::tables_below) begins, and later, since a user key never spans two tables.
    pub target_table_bytes: u64,
    /// Why, for logs and metrics.
    pub reason: Reason,
}

/// Input tables of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLevel {
    /// Which level.
    pub level: usize,
    /// Its tables, in any order, of any of its runs, as they stand in the shape: they are found by their bounds.
    pub tables: Vec<Arc<TableShape>>,
}

impl InputLevel {
    /// Some tables of a level.
    pub fn new<'s>(level: usize, tables: impl IntoIterator<Item = &'s Arc<TableShape>>) -> Self {
        Self { level, tables: tables.into_iter().cloned().collect() }
    }

    /// The ids of the tables, ascending.
    pub(crate) fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.tables.iter().map(|table| table.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Where the tables stand that are in a run, ascending.
    fn positions_in(&self, run: &RunShape, ids: &[u64]) -> Vec<usize> {
        // Whichever are fewer are looked up among the others.
        if run.len() <= self.tables.len() {
            let is_input = |(_, table): &(usize, &Arc<TableShape>)| ids.binary_search(&table.id).is_ok();
            return run.tables().enumerate().filter(is_input).map(|(position, _)| position).collect();
        }
        let mut positions: Vec<usize> = self.tables.iter().filter_map(|table| run.position(table)).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

/// How the outputs come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The inputs are merged into new tables.
    Merge,
    /// The inputs themselves change place; nothing is written.
    Move,
    /// The inputs are dropped with all their data: only from a policy whose
    /// [`drops_data`](crate::CompactionPolicy::drops_data) says so.
    Drop,
}

/// Why a compaction was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Level 0 holds too many runs or bytes.
    Level0,
    /// Level 0 holds too many runs, and the level below is busy.
    IntraLevel0,
    /// A level holds more bytes than its target.
    LevelBytes,
    /// A level holds more runs than it should.
    RunCount,
    /// Neighbouring runs are of about the same size.
    SizeRatio,
    /// All runs together are too large beside the oldest.
    SpaceAmplification,
    /// Most of a table is tombstones.
    TombstoneDensity,
    /// Tombstones hide a large part of what is older.
    HiddenBytes,
    /// A tombstone is older than the bound for reaching the bottom.
    TombstoneAge,
    /// Data is older than its time to live.
    TimeToLive,
    /// The tree is larger than it may be.
    TotalBytes,
    /// Entries have expired.
    Expiry,
    /// Small tables stand side by side.
    SmallTables,
    /// Someone asked for it.
    Manual,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Level0 => "level 0",
            Self::IntraLevel0 => "within level 0",
            Self::LevelBytes => "level bytes",
            Self::RunCount => "run count",
            Self::SizeRatio => "size ratio",
            Self::SpaceAmplification => "space amplification",
            Self::TombstoneDensity => "tombstone density",
            Self::HiddenBytes => "hidden bytes",
            Self::TombstoneAge => "tombstone age",
            Self::TimeToLive => "time to live",
            Self::TotalBytes => "total bytes",
            Self::Expiry => "expiry",
            Self::SmallTables => "small tables",
            Self::Manual => "manual",
        })
    }
}

/// An input and its place in a shape.
#[derive(Clone, Copy, Debug)]
pub struct InputTable<'s> {
    /// Its level.
    pub level: usize,
    /// Its run in the level, 0 for the newest.
    pub run: usize,
    /// Its position in the run.
    pub position: usize,
    /// The table.
    pub table: &'s Arc<TableShape>,
}

impl InputTable<'_> {
    /// Whether both are of one run.
    pub fn same_run(&self, other: &Self) -> bool {
        (self.level, self.run) == (other.level, other.run)
    }
}

impl Compaction {
    /// The inputs with their places, newest first, by key in a run. Those that are not in `shape` are passed over.
    pub fn input_tables<'s>(&self, shape: &'s TreeShape) -> Vec<InputTable<'s>> {
        let mut found = Vec::new();
        let mut inputs: Vec<_> = self.inputs.iter().collect();
        inputs.sort_by_key(|input| input.level);
        for input in inputs {
            let (level, ids) = (input.level, input.ids());
            let runs = shape.levels.get(level).map_or(&[][..], |shape| &shape.runs);
            for (run, run_shape) in runs.iter().enumerate() {
                let positions = input.positions_in(run_shape, &ids).into_iter();
                found.extend(positions.filter_map(|position| {
                    Some(InputTable { level, run, position, table: run_shape.get(position)? })
                }));
            }
        }
        found
    }

    /// How many sorted runs the inputs are of.
    pub fn input_runs(&self, shape: &TreeShape) -> usize {
        self.input_tables(shape).chunk_by(InputTable::same_run).count()
    }

    /// The same compaction of the oldest `runs` of its input runs alone, for whoever cannot read all at once. What
    /// is left out is newer, so it stays in its place.
    #[must_use]
    pub fn of_oldest_runs(&self, shape: &TreeShape, runs: usize) -> Self {
        let inputs = self.input_tables(shape);
        let by_run: Vec<&[InputTable<'_>]> = inputs.chunk_by(InputTable::same_run).collect();
        let mut kept: Vec<InputLevel> = Vec::new();
        for run in &by_run[by_run.len().saturating_sub(runs)..] {
            let Some(level) = run.first().map(|input| input.level) else { continue };
            let tables = run.iter().map(|input| Arc::clone(input.table));
            match kept.last_mut().filter(|last| last.level == level) {
                Some(last) => last.tables.extend(tables),
                None => kept.push(InputLevel { level, tables: tables.collect() }),
            }
        }
        Self { inputs: kept, ..self.clone() }
    }

    /// The place of the output run among those of the output level: outputs are newer than this run and all
    /// after it, except that the outputs of [`OutputRun::Join`] become part of it.
    pub(crate) fn output_position(&self, shape: &TreeShape, inputs: &[InputTable<'_>]) -> usize {
        match self.output_run {
            OutputRun::Join => {
                shape.levels.get(self.output_level).map_or(0, |level| level.runs.len().saturating_sub(1))
            }
            OutputRun::NewRun => {
                let runs = inputs.iter().filter(|input| input.level == self.output_level);
                runs.map(|input| input.run).min().unwrap_or(0)
            }
        }
    }

    /// Smallest and largest key bound of the inputs, between which all outputs lie; `None` without inputs.
    pub fn bounds<'s>(&self, shape: &'s TreeShape) -> Option<(&'s Slice, &'s Slice)> {
        let tables = self.input_tables(shape);
        bounds_of(tables.iter().map(|input| input.table))
    }

    /// What [`TreeShape::running`] holds while this compaction is under way; `None` without inputs.
    pub fn running(&self, shape: &TreeShape) -> Option<RunningShape> {
        let (smallest, largest) = self.bounds(shape)?;
        Some(RunningShape {
            output_level: self.output_level,
            output_run: self.output_run,
            smallest: smallest.clone(),
            largest: largest.clone(),
        })
    }

    /// Sum of the sizes of the inputs: what a merge reads, and writes at most.
    pub fn input_bytes(&self, shape: &TreeShape) -> u64 {
        self.input_tables(shape).iter().map(|input| input.table.bytes).sum()
    }

    /// Whether the inputs hold the oldest versions of every key they hold: no table outside of them overlaps one
    /// of them and is older. Then a merge may drop tombstones that every reader can see.
    ///
    /// Holds until the compaction is committed, whatever else is committed meanwhile: data that is older than an
    /// input can neither come into being nor be moved by a valid compaction.
    pub fn is_bottommost(&self, shape: &TreeShape) -> bool {
        let inputs = self.input_tables(shape);
        self.older_than(shape, &inputs, |_| true)
    }

    /// The tables, inputs aside, that stay older than the outputs and overlap an input: a tombstone may be
    /// dropped where none of them has a key it deletes. By ascending id.
    pub fn tables_older_than_output<'s>(&self, shape: &'s TreeShape) -> Vec<&'s Arc<TableShape>> {
        let inputs = self.input_tables(shape);
        let mut older: Vec<&Arc<TableShape>> = Vec::new();
        self.older_than(shape, &inputs, |table| {
            older.push(table);
            false
        });
        older.sort_by_key(|table| table.id);
        older.dedup_by_key(|table| table.id);
        older
    }

    /// Shows `stop` the tables that stay older than the outputs and overlap an input, some more than once, until
    /// it returns true. Returns whether it never did.
    fn older_than<'s>(
        &self,
        shape: &'s TreeShape,
        inputs: &[InputTable<'s>],
        mut stop: impl FnMut(&'s Arc<TableShape>) -> bool,
    ) -> bool {
        let mut ids: Vec<u64> = inputs.iter().map(|input| input.table.id).collect();
        ids.sort_unstable();
        let position = self.output_position(shape, inputs);
        for (level, level_shape) in shape.levels.iter().enumerate().skip(self.output_level) {
            let newest = if level == self.output_level { position } else { 0 };
            for (run, run_shape) in level_shape.runs.iter().enumerate().skip(newest) {
                // Tables of one run share no key, even where they touch.
                for input in inputs.iter().filter(|input| (input.level, input.run) != (level, run)) {
                    let range = run_shape.overlapping(&input.table.smallest, &input.table.largest);
                    let mut tables = run_shape.range(range);
                    if tables.any(|table| ids.binary_search(&table.id).is_err() && stop(table)) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// The tables of the first level below the outputs that holds any in their key range, by key. Outputs that
    /// end where one of these begins make the next compaction down read less.
    pub fn tables_below<'s>(&self, shape: &'s TreeShape) -> impl Iterator<Item = &'s Arc<TableShape>> {
        let bounds = self.bounds(shape);
        let below = shape.levels.iter().skip(self.output_level + 1).find_map(|level| {
            let (run, (smallest, largest)) = level.runs.last().zip(bounds)?;
            let met = run.overlapping(smallest, largest);
            (!met.is_empty()).then_some((run, met))
        });
        below.into_iter().flat_map(|(run, met)| run.range(met))
    }
}

/// Smallest and largest key bound of some tables.
pub(crate) fn bounds_of<'s>(
    tables: impl IntoIterator<Item = &'s Arc<TableShape>>,
) -> Option<(&'s Slice, &'s Slice)> {
    tables.into_iter().fold(None, |bounds, table| match bounds {
        None => Some((&table.smallest, &table.largest)),
        Some((smallest, largest)) => Some((smallest.min(&table.smallest), largest.max(&table.largest))),
    })
}
