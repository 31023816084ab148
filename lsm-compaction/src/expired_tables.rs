//! Compaction of expired entries: their values leave the disk although the policy wants nothing.

use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::{RunShape, Summary, TableShape, TreeShape};
use crate::validate::validate;

/// The part of the entries of a table that may have expired, in percent.
const EXPIRED_PERCENT_MAX: u64 = 30;
/// How long an entry may have expired: a week.
const EXPIRED_MICROS_MAX: u64 = 7 * 24 * 3600 * 1_000_000;

/// Rewrites tables in place of which about 30 % of the entries have expired for all readers, or one entry a week ago.
/// What has expired becomes a tombstone then, or nothing where there is nothing older to hide. Tables of which all has
/// expired, with nothing older to hide, are dropped without a look at them.
///
/// For whoever pays for space, whatever the policy: no policy looks at expiry. Under a policy that drops data by age
/// nothing should be rewritten, since it would be young again.
pub fn expired_tables(shape: &TreeShape) -> Option<Compaction> {
    let runs = shape.levels.iter().enumerate().flat_map(|(level, level_shape)| {
        let last = level_shape.runs.len();
        // Outputs can join the oldest run alone. Of other runs all is rewritten.
        level_shape
            .runs
            .iter()
            .enumerate()
            .map(move |(run, shape)| (level, shape, level > 0 && run + 1 == last))
    });
    runs.into_iter().find_map(
        |(level, run, is_joined)| {
            if is_joined { of_table(shape, level, run) } else { of_run(shape, level, run) }
        },
    )
}

fn of_table(shape: &TreeShape, level: usize, run: &RunShape) -> Option<Compaction> {
    let may = |summary: &Summary| {
        summary.earliest_expiry_micros.is_some_and(|earliest| earliest <= shape.expired_micros)
    };
    run.find_map(may, |position, table| {
        if run.is_busy_at(position) || !is_due(shape, [&**table]) {
            return None;
        }
        let inputs = InputLevel::new(level, [table]);
        dropped(shape, &inputs).or_else(|| rewritten(shape, inputs, OutputRun::Join, table.bytes))
    })
}

fn of_run(shape: &TreeShape, level: usize, run: &RunShape) -> Option<Compaction> {
    let earliest = run.summary().earliest_expiry_micros?;
    if earliest > shape.expired_micros || run.is_busy() || !is_due(shape, run.tables().map(|table| &**table))
    {
        return None;
    }
    let table_bytes = run.tables().map(|table| table.bytes).max()?;
    let inputs = InputLevel::new(level, run.tables());
    dropped(shape, &inputs).or_else(|| rewritten(shape, inputs, OutputRun::NewRun, table_bytes))
}

fn is_due<'s>(shape: &TreeShape, tables: impl IntoIterator<Item = &'s TableShape>) -> bool {
    let (mut expired, mut entries, mut is_overdue) = (0_u64, 0_u64, false);
    for table in tables {
        expired = expired.saturating_add(table.expired(shape.expired_micros));
        entries = entries.saturating_add(table.entries);
        is_overdue |= table.expiring > 0
            && shape.expired_micros.saturating_sub(table.earliest_expiry_micros) >= EXPIRED_MICROS_MAX;
    }
    is_overdue || (expired > 0 && expired.saturating_mul(100) >= entries.saturating_mul(EXPIRED_PERCENT_MAX))
}

/// The tables are dropped, if nothing of them is needed.
fn dropped(shape: &TreeShape, inputs: &InputLevel) -> Option<Compaction> {
    let is_needed = |table: &TableShape| {
        table.expiring < table.entries
            || table.latest_expiry_micros > shape.expired_micros
            || table.range_tombstones > 0
    };
    if inputs.tables.iter().any(|table| is_needed(table)) {
        return None;
    }
    accepted(shape, inputs.clone(), OutputRun::NewRun, 0, Action::Drop)
}

fn rewritten(
    shape: &TreeShape,
    inputs: InputLevel,
    output_run: OutputRun,
    target_table_bytes: u64,
) -> Option<Compaction> {
    accepted(shape, inputs, output_run, target_table_bytes.max(1), Action::Merge)
}

fn accepted(
    shape: &TreeShape,
    inputs: InputLevel,
    output_run: OutputRun,
    target_table_bytes: u64,
    action: Action,
) -> Option<Compaction> {
    let compaction = Compaction {
        output_level: inputs.level,
        inputs: vec![inputs],
        output_run,
        action,
        target_table_bytes,
        reason: Reason::Expiry,
    };
    validate(shape, &compaction).is_ok().then_some(compaction)
}
