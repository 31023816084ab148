use crate::compaction::{Action, Compaction, InputTable, bounds_of};
use crate::output_run::OutputRun;
use crate::shape::{RunShape, TreeShape};
use lsm_core::Slice;

/// Why a compaction must not be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It has no inputs.
    #[error("the compaction has no inputs")]
    NoInputs,
    /// It names a level that the tree does not have.
    #[error("level {level} does not exist: the tree has {level_count} levels")]
    NoSuchLevel {
        /// The level.
        level: usize,
        /// How many levels there are.
        level_count: usize,
    },
    /// It names a level or a table twice.
    #[error("level {level} or one of its tables is named twice")]
    NamedTwice {
        /// The level.
        level: usize,
    },
    /// It names a table that is not in that level.
    #[error("level {level} has no table {table}")]
    NoSuchTable {
        /// The level.
        level: usize,
        /// The table.
        table: u64,
    },
    /// An input already belongs to a running compaction.
    #[error("table {table} of level {level} is an input of a running compaction")]
    Busy {
        /// The level.
        level: usize,
        /// The table.
        table: u64,
    },
    /// An input lies below the output level.
    #[error("input level {level} is below output level {output_level}")]
    Upwards {
        /// The input level.
        level: usize,
        /// The output level.
        output_level: usize,
    },
    /// The outputs would be larger than no table.
    #[error("the target table size is zero")]
    ZeroTableBytes,
    /// Level 0 takes outputs only in the place of their inputs.
    #[error("outputs into level 0 must replace inputs of level 0 as a run of their own")]
    IntoLevelZero,
    /// An input would pass a table that may hold older versions of its keys (or newer ones, for an input that
    /// rises to the place of a newer run), and that is not an input.
    #[error(
        "table {input} of level {level} cannot pass table {passed} of level {passed_level}: their keys overlap, \
         and the order of versions would be lost"
    )]
    OrderLost {
        /// The level of the input.
        level: usize,
        /// The input.
        input: u64,
        /// The level of the table that would be passed.
        passed_level: usize,
        /// The table that would be passed.
        passed: u64,
    },
    /// A new run that replaces runs of its level must replace the newest of them whole, and if it also takes in
    /// data from above, that must be the newest run of the level.
    #[error(
        "table {table} of level {level} belongs to a run that a new run would replace in part, or leave behind"
    )]
    RunLeftBehind {
        /// The output level.
        level: usize,
        /// The table.
        table: u64,
    },
    /// Outputs that join a run could span a table of it that is not an input.
    #[error(
        "table {table} of level {level} lies between the inputs and would overlap an output of the same run"
    )]
    RunOverlap {
        /// The output level.
        level: usize,
        /// The table.
        table: u64,
    },
    /// A running compaction writes overlapping keys into the same run.
    #[error("a running compaction adds overlapping tables to level {level}")]
    RunningOverlap {
        /// The output level.
        level: usize,
    },
    /// A move would put overlapping tables into one run.
    #[error("tables {first} and {second} overlap and cannot be moved into one run")]
    MoveOverlap {
        /// One table.
        first: u64,
        /// The other.
        second: u64,
    },
    /// A move names a table that is where it should be.
    #[error("table {table} is already in output level {level}")]
    MoveWithinLevel {
        /// The output level.
        level: usize,
        /// The table.
        table: u64,
    },
    /// Dropping an input would let older versions of its keys reappear.
    #[error("dropping table {input} would uncover older data in table {uncovered}")]
    Uncovers {
        /// The input.
        input: u64,
        /// The older table.
        uncovered: u64,
    },
}

/// Proves that a compaction keeps, for every key, newer versions above older ones, and every run sorted and
/// disjoint, whatever else is running.
///
/// Checked: each input exists once and is free; no table that stays behind and overlaps an input lies between
/// the input's place and that of the outputs; outputs that join a run span none of its other tables, nor what a
/// running compaction adds to it; tables moved into one run are disjoint; what is dropped is older than all that
/// stays. `shape` itself is trusted.
///
/// Costs about `inputs * runs passed * log(tables of a run)`.
///
/// ```
/// use lsm_compaction::*;
/// use std::sync::Arc;
///
/// let shape = TreeShape::empty(7);
/// let compaction = Compaction {
///     inputs: vec![InputLevel { level: 0, tables: vec![Arc::new(TableShape { id: 3, ..TableShape::default() })] }],
///     output_level: 6,
///     output_run: OutputRun::Join,
///     action: Action::Merge,
///     target_table_bytes: 64 << 20,
///     reason: Reason::Manual,
/// };
/// let rejection = validate(&shape, &compaction).unwrap_err();
/// assert_eq!(rejection.to_string(), "level 0 has no table 3");
/// ```
pub fn validate(shape: &TreeShape, compaction: &Compaction) -> Result<(), Rejection> {
    check_names(shape, compaction)?;
    let inputs = compaction.input_tables(shape);
    check_found(shape, compaction, &inputs)?;
    let check = Check { shape, compaction, ids: sorted_ids(&inputs), inputs };
    if compaction.action == Action::Drop {
        return check.nothing_uncovered();
    }
    check.destination()?;
    check.place_is_clear()?;
    check.order_kept()?;
    match compaction.action {
        Action::Move => check.moves_are_disjoint()?,
        Action::Merge | Action::Drop => check.joined_run_is_disjoint()?,
    }
    check.running_are_disjoint()
}

fn sorted_ids(inputs: &[InputTable<'_>]) -> Vec<u64> {
    let mut ids: Vec<u64> = inputs.iter().map(|input| input.table.id).collect();
    ids.sort_unstable();
    ids
}

/// Levels exist and are named once, so are tables.
fn check_names(shape: &TreeShape, compaction: &Compaction) -> Result<(), Rejection> {
    let level_count = shape.levels.len();
    let mut levels: Vec<usize> = compaction.inputs.iter().map(|input| input.level).collect();
    levels.sort_unstable();
    if let Some(pair) = levels.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Rejection::NamedTwice { level: pair[0] });
    }
    let output = (compaction.action != Action::Drop).then_some(compaction.output_level);
    if let Some(level) = levels.into_iter().chain(output).find(|level| *level >= level_count) {
        return Err(Rejection::NoSuchLevel { level, level_count });
    }
    if compaction.inputs.iter().all(|input| input.tables.is_empty()) {
        return Err(Rejection::NoInputs);
    }
    Ok(())
}

/// All named tables were found, once each, and are free.
fn check_found(
    shape: &TreeShape,
    compaction: &Compaction,
    inputs: &[InputTable<'_>],
) -> Result<(), Rejection> {
    for named in &compaction.inputs {
        let level = named.level;
        let mut found: Vec<u64> =
            inputs.iter().filter(|input| input.level == level).map(|input| input.table.id).collect();
        found.sort_unstable();
        if let Some(table) = named.tables.iter().find(|table| found.binary_search(&table.id).is_err()) {
            return Err(Rejection::NoSuchTable { level, table: table.id });
        }
        if found.len() != named.tables.len() {
            return Err(Rejection::NamedTwice { level });
        }
    }
    let is_busy =
        |input: &&InputTable<'_>| shape.levels[input.level].runs[input.run].is_busy_at(input.position);
    match inputs.iter().find(is_busy) {
        Some(input) => Err(Rejection::Busy { level: input.level, table: input.table.id }),
        None => Ok(()),
    }
}

struct Check<'s> {
    shape: &'s TreeShape,
    compaction: &'s Compaction,
    inputs: Vec<InputTable<'s>>,
    ids: Vec<u64>,
}

impl Check<'_> {
    fn is_input(&self, table: u64) -> bool {
        self.ids.binary_search(&table).is_ok()
    }

    /// The first table of `run` that overlaps `input` and stays behind.
    fn left_behind(&self, run: &RunShape, input: InputTable<'_>) -> Option<u64> {
        let range = run.overlapping(&input.table.smallest, &input.table.largest);
        run.range(range).map(|table| table.id).find(|table| !self.is_input(*table))
    }

    fn bounds(&self) -> Option<(&Slice, &Slice)> {
        bounds_of(self.inputs.iter().map(|input| input.table))
    }

    fn destination(&self) -> Result<(), Rejection> {
        let Compaction { output_level, output_run, action, target_table_bytes, .. } = *self.compaction;
        if let Some(input) = self.inputs.iter().find(|input| input.level > output_level) {
            return Err(Rejection::Upwards { level: input.level, output_level });
        }
        if action == Action::Merge && target_table_bytes == 0 {
            return Err(Rejection::ZeroTableBytes);
        }
        // No level is above level 0, so its inputs are the only ones by now. A flush may add a run at any time,
        // so no position but that of the inputs is known to stay what it is.
        if output_level == 0 && (output_run == OutputRun::Join || action == Action::Move) {
            return Err(Rejection::IntoLevelZero);
        }
        Ok(())
    }

    /// Whether inputs of the output level become part of its newest run together with newer ones from above.
    fn rises_to_newest(&self) -> bool {
        let level = self.compaction.output_level;
        self.compaction.output_run == OutputRun::NewRun
            && self.inputs.iter().any(|input| input.level == level)
            && self.inputs.iter().any(|input| input.level < level)
    }

    /// Where a new run stands must not depend on what else is committed meanwhile: it replaces a whole run, and
    /// if part of it comes from above, the newest.
    fn place_is_clear(&self) -> Result<(), Rejection> {
        let Compaction { output_level: level, output_run, .. } = *self.compaction;
        let replaced = self.inputs.iter().filter(|input| input.level == level).map(|input| input.run);
        let Some(newest) = replaced.min().filter(|_| output_run == OutputRun::NewRun) else { return Ok(()) };
        // The run whose tables all have to be among the inputs.
        let whole = if self.rises_to_newest() { 0 } else { newest };
        let run = &self.shape.levels[level].runs[whole];
        match run.tables().find(|table| !self.is_input(table.id)) {
            Some(table) => Err(Rejection::RunLeftBehind { level, table: table.id }),
            None => Ok(()),
        }
    }

    /// Walks every run between an input and the output run and refuses to pass a table that overlaps the input.
    fn order_kept(&self) -> Result<(), Rejection> {
        let output_level = self.compaction.output_level;
        let position = self.compaction.output_position(self.shape, &self.inputs);
        let joins = self.compaction.output_run == OutputRun::Join;
        for &input in &self.inputs {
            for (level, level_shape) in
                self.shape.levels.iter().enumerate().take(output_level + 1).skip(input.level)
            {
                for (run, run_shape) in level_shape.runs.iter().enumerate() {
                    let moves_down_past = (level, run) > (input.level, input.run)
                        && (level < output_level || run < position || (joins && run == position));
                    let moves_up_past =
                        level == output_level && input.level == level && run >= position && run < input.run;
                    if !moves_down_past && !moves_up_past {
                        continue;
                    }
                    if let Some(passed) = self.left_behind(run_shape, input) {
                        return Err(Rejection::OrderLost {
                            level: input.level,
                            input: input.table.id,
                            passed_level: level,
                            passed,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Merged outputs may span anything between the smallest and the largest input.
    fn joined_run_is_disjoint(&self) -> Result<(), Rejection> {
        let level = self.compaction.output_level;
        if self.compaction.output_run == OutputRun::NewRun {
            return Ok(());
        }
        let Some((smallest, largest)) = self.bounds() else { return Ok(()) };
        // All runs of the level, since another one may be the oldest by the time the outputs are there.
        for (index, run) in self.shape.levels[level].runs.iter().enumerate() {
            let oldest = index + 1 == self.shape.levels[level].runs.len();
            for table in run.range(run.overlapping(smallest, largest)) {
                // A neighbour that only touches an end shares no key with an input of its own run; inputs of
                // other runs that it overlaps were refused before.
                let touches = oldest && (table.largest == *smallest || table.smallest == *largest);
                if !touches && !self.is_input(table.id) {
                    return Err(Rejection::RunOverlap { level, table: table.id });
                }
            }
        }
        Ok(())
    }

    fn moves_are_disjoint(&self) -> Result<(), Rejection> {
        let level = self.compaction.output_level;
        if let Some(input) = self.inputs.iter().find(|input| input.level == level) {
            return Err(Rejection::MoveWithinLevel { level, table: input.table.id });
        }
        let mut by_key = self.inputs.clone();
        by_key.sort_by(|a, b| {
            (&a.table.smallest, &a.table.largest).cmp(&(&b.table.smallest, &b.table.largest))
        });
        // The table that reaches furthest so far is the one to compare with.
        let mut furthest: Option<InputTable<'_>> = None;
        for input in by_key {
            if let Some(before) = furthest {
                let same_run = (before.level, before.run) == (input.level, input.run);
                if !same_run && input.table.smallest <= before.table.largest {
                    return Err(Rejection::MoveOverlap { first: before.table.id, second: input.table.id });
                }
            }
            if furthest.is_none_or(|before| input.table.largest >= before.table.largest) {
                furthest = Some(input);
            }
        }
        Ok(())
    }

    fn running_are_disjoint(&self) -> Result<(), Rejection> {
        let level = self.compaction.output_level;
        let same_level = self.shape.running.iter().filter(|running| running.output_level == level);
        for running in same_level {
            if running.output_run != self.compaction.output_run {
                // Which run is the oldest would depend on who finishes first.
                return Err(Rejection::RunningOverlap { level });
            }
            // New runs may be added beside each other, since neither passes what the other adds; but not while
            // older data of the level rises to become its newest run.
            if running.output_run == OutputRun::NewRun && !self.rises_to_newest() {
                continue;
            }
            let Some((smallest, largest)) = self.bounds() else { continue };
            if *smallest <= running.largest && *largest >= running.smallest {
                return Err(Rejection::RunningOverlap { level });
            }
        }
        Ok(())
    }

    fn nothing_uncovered(&self) -> Result<(), Rejection> {
        for &input in &self.inputs {
            for (level, level_shape) in self.shape.levels.iter().enumerate().skip(input.level) {
                for (run, run_shape) in level_shape.runs.iter().enumerate() {
                    if (level, run) <= (input.level, input.run) {
                        continue;
                    }
                    if let Some(uncovered) = self.left_behind(run_shape, input) {
                        return Err(Rejection::Uncovers { input: input.table.id, uncovered });
                    }
                }
            }
        }
        Ok(())
    }
}
