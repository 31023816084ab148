use crate::{Action, Compaction, InputLevel, OutputRun, Reason, TreeShape, validate};

/// Tables that are merged at a time.
const TABLES: usize = 4;

/// How many times as much as the largest of them all must be together. Each time that an entry is rewritten its table
/// grows by as much, so that it is rewritten a few times only.
const GROWTH: u64 = 3;

/// Small neighbours in a sorted run that are worth a merge into one table, for whoever pays for each table: a policy that
/// moves tables which overlap nothing never makes them larger, and inserts in the order of keys make no others.
///
/// `fits` says whether so many bytes and entries make one table, which the merge then has to write: so each leaves fewer
/// tables, and there is an end.
pub fn tidy(shape: &TreeShape, fits: impl Fn(u64, u64) -> bool) -> Option<Compaction> {
    shape.levels.iter().enumerate().skip(1).find_map(|(level, runs)| {
        // Outputs can join the oldest run alone.
        let tables = &runs.runs.last()?.tables;
        tables.windows(TABLES).find_map(|window| {
            let bytes: u64 = window.iter().map(|table| table.bytes).sum();
            let entries = window.iter().map(|table| table.entries).sum();
            let largest = window.iter().map(|table| table.bytes).max().unwrap_or(0);
            if window.iter().any(|table| table.busy) || largest > bytes / GROWTH || !fits(bytes, entries) {
                return None;
            }
            let compaction = Compaction {
                inputs: vec![InputLevel { level, tables: window.iter().map(|table| table.id).collect() }],
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
