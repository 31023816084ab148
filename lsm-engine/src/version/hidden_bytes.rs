//! Estimates how much older data the tombstones of a table hide. Policies use the estimate.

use std::sync::Arc;

use lsm_compaction::TableShape;
use lsm_core::range_tombstone::Fragment;

use super::run::Run;
use super::table_file::TableFile;

/// Maximum number of range tombstones that are sampled per table.
const SAMPLES_MAX: usize = 256;

/// Sets in `shape` the estimate of what the tombstones of `table` hide in older runs. The older runs are all runs of
/// `levels` except the `age` newest.
pub(super) fn estimate(levels: &[Vec<Arc<Run>>], age: usize, table: &TableFile, shape: &mut TableShape) {
    let older: Vec<&Run> = levels.iter().flatten().skip(age).map(|run| &**run).collect();
    let met = || older.iter().flat_map(|run| run.overlapping(table.smallest(), table.largest()));
    if met().next().is_some() {
        let range_deleted_bytes = sampled(table, |fragment| {
            older.iter().map(|run| bytes_in(run.overlapping(fragment.start, fragment.end), fragment)).sum()
        });
        shape.estimate_hidden(met().map(TableFile::metadata), range_deleted_bytes);
        return;
    }
    if levels.first().is_some_and(|runs| age <= runs.len()) {
        // A flushed table holds nothing that its own tombstones hide, except for snapshots.
        return;
    }
    // There is no older data. Then the tombstones hide only data in the same table, which a snapshot has kept.
    let own = table.metadata();
    let range_deleted_bytes = if own.entries == 0 {
        own.bytes
    } else {
        sampled(table, |fragment| bytes_in(std::iter::once(table), fragment))
    };
    shape.estimate_hidden([own], range_deleted_bytes);
}

/// The sum of `bytes` over the range tombstones of a table, extrapolated from a sample.
fn sampled(table: &TableFile, bytes: impl Fn(&Fragment<'_>) -> u64) -> u64 {
    if !table.has_range_tombstones() {
        return 0;
    }
    let every = (table.meta().range_tombstones as usize).div_ceil(SAMPLES_MAX).max(1);
    let tombstones = table.table().range_tombstones();
    let sum: u64 = tombstones.iter().step_by(every).map(|fragment| bytes(&fragment)).sum();
    sum.saturating_mul(every as u64)
}

/// Estimated bytes of some tables within a range tombstone.
fn bytes_in<'t>(tables: impl Iterator<Item = &'t TableFile>, fragment: &Fragment<'_>) -> u64 {
    let bytes = |table: &TableFile| {
        let file_bytes = table.meta().file_bytes;
        if fragment.start <= table.smallest() && fragment.end > table.largest() {
            return file_bytes;
        }
        let (start, end) = (
            table.table().approximate_offset(fragment.start),
            table.table().approximate_offset(fragment.end),
        );
        end.saturating_sub(start).min(file_bytes)
    };
    tables.map(bytes).sum()
}
