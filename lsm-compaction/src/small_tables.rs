//! Small-table compaction: small neighbours become one table.

use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::{RunShape, TreeShape};
use crate::shape::{SMALL_TABLES, SmallTables};
use crate::validate::validate;

/// Small neighbours in a sorted run that are worth a merge into one table, for whoever pays for each table: a policy that
/// moves tables which overlap nothing never makes them larger, and inserts in the order of keys make no others.
///
/// `fits` says whether so many bytes and entries make one table, which the merge then has to write: so each leaves fewer
/// tables, and there is an end. What fits must not cease to fit where it becomes less.
pub fn small_tables(shape: &TreeShape, fits: impl Fn(u64, u64) -> bool) -> Option<Compaction> {
    shape.levels.iter().enumerate().skip(1).find_map(|(level, runs)| {
        // Outputs can join the oldest run alone.
        let run = runs.runs.last()?;
        candidates(run, &fits).find_map(|first| {
            let positions = first..first + SMALL_TABLES;
            let together = SmallTables::of(run.range(positions.clone()))?;
            if run.is_busy_in(&positions) || !fits(together.bytes, together.entries) {
                return None;
            }
            let compaction = Compaction {
                inputs: vec![InputLevel::new(level, run.range(positions))],
                output_level: level,
                output_run: OutputRun::Join,
                action: Action::Merge,
                target_table_bytes: u64::MAX,
                reason: Reason::SmallTables,
            };
            validate(shape, &compaction).is_ok().then_some(compaction)
        })
    })
}

/// Where neighbours begin that may be small: all but those that summaries rule out.
fn candidates(run: &RunShape, fits: &impl Fn(u64, u64) -> bool) -> impl Iterator<Item = usize> {
    let summaries: Vec<_> = run.summaries().collect();
    let may_fit = |least: Option<SmallTables>, count: u64| {
        least
            .is_some_and(|least| fits(least.bytes.saturating_mul(count), least.entries.saturating_mul(count)))
    };
    let last = run.len().checked_sub(SMALL_TABLES);
    let starts = (0..summaries.len()).flat_map(move |index| {
        let (positions, summary) = summaries[index].clone();
        // Neighbours that begin from here on reach into the next chunks: of them nothing is known but their tables.
        let crossing = positions.end.saturating_sub(SMALL_TABLES - 1).max(positions.start);
        let tables = summaries[index..].iter().take(SMALL_TABLES).map(|(_, summary)| summary.least);
        let least_table = tables.fold(None, SmallTables::least);
        let start = if may_fit(summary.small, 1) { positions.start } else { crossing };
        let end = if may_fit(least_table, SMALL_TABLES as u64) { positions.end } else { crossing };
        start..end
    });
    starts.take_while(move |start| last.is_some_and(|last| *start <= last))
}
