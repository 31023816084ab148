use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::compaction::{Action, Compaction, InputLevel, Reason};
use crate::output_run::OutputRun;
use crate::shape::{RunShape, TableShape, TreeShape};

/// Drops all tables that lie in a key range completely, without those over older tables that stay: what they hide would
/// come back. Tables that a compaction reads stay, too. `None` if no table is left.
///
/// ```
/// use lsm_compaction::*;
/// use std::ops::Bound::{Excluded, Included};
/// use std::sync::Arc;
///
/// let table = |id, smallest: &str, largest: &str| {
///     let (smallest, largest) = (smallest.into(), largest.into());
///     Arc::new(TableShape { id, smallest, largest, ..TableShape::default() })
/// };
/// let mut shape = TreeShape::empty(3);
/// shape.levels[1].runs.push(RunShape::new(vec![table(3, "b", "c"), table(4, "g", "h")]));
/// shape.levels[2].runs.push(RunShape::new(vec![table(1, "a", "e"), table(2, "f", "k")]));
///
/// let drop = tables_in_range(&shape, (Included(b"b"), Excluded(b"m"))).unwrap();
/// let ids: Vec<_> = drop.input_tables(&shape).iter().map(|input| input.table.id).collect();
/// assert_eq!(ids, [4, 2], "table 3 hides a part of table 1, which begins before the range");
/// ```
pub fn tables_in_range(shape: &TreeShape, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Option<Compaction> {
    let mut dropped = BTreeSet::new();
    let mut older: Vec<&RunShape> = Vec::new();
    let mut inputs = Vec::new();
    for (level, runs) in shape.levels.iter().enumerate().rev() {
        let mut tables: Vec<&Arc<TableShape>> = Vec::new();
        for run in runs.runs.iter().rev() {
            let hides = |table: &TableShape| {
                older.iter().any(|run| {
                    let below = run.overlapping(&table.smallest, &table.largest);
                    run.range(below).any(|older| !dropped.contains(&older.id))
                })
            };
            let due: Vec<_> =
                run.free_tables().filter(|table| lies_in(table, range) && !hides(table)).collect();
            dropped.extend(due.iter().map(|table| table.id));
            tables.extend(due);
            older.push(run);
        }
        if !tables.is_empty() {
            inputs.push(InputLevel::new(level, tables));
        }
    }
    inputs.reverse();
    (!inputs.is_empty()).then(|| Compaction {
        inputs,
        output_level: 0,
        output_run: OutputRun::NewRun,
        action: Action::Drop,
        target_table_bytes: u64::MAX,
        reason: Reason::Manual,
    })
}

/// Whether all keys that a table may hold are in the range.
fn lies_in(table: &TableShape, (start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    let starts = match start {
        Bound::Included(key) => *table.smallest >= *key,
        Bound::Excluded(key) => *table.smallest > *key,
        Bound::Unbounded => true,
    };
    let ends = match end {
        Bound::Included(key) => *table.largest <= *key,
        Bound::Excluded(key) => *table.largest < *key,
        Bound::Unbounded => true,
    };
    starts && ends
}
