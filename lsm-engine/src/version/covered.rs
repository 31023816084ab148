//! Tables that a newer range tombstone covers from end to end.

use lsm_core::SequenceNumber;
use lsm_core::range_tombstone::Fragment;

use super::{Placement, Run, TableFile, Version};

/// A table that range tombstones in a newer run cover from end to end. Once no reader can see anything of it, it can
/// leave the tree without a merge: the tombstones stay where they are, and hide what is still older.
#[derive(Debug)]
pub(crate) struct CoveredTable {
    pub(crate) placement: Placement,
    /// Readers at this number or a higher one may see something of the table,
    seen_from: SequenceNumber,
    /// and those from this one on do not.
    deleted_at: SequenceNumber,
}

impl CoveredTable {
    /// Whether none of `stripes`, which are all numbers that anyone reads at, ascending, sees anything of the table.
    pub(crate) fn is_unseen(&self, stripes: &[SequenceNumber]) -> bool {
        let first = stripes.partition_point(|stripe| *stripe < self.seen_from);
        // There must be one: the last is the visible number, and a snapshot may be taken there.
        stripes.get(first).is_some_and(|stripe| *stripe >= self.deleted_at)
    }
}

/// All covered tables, some more than once.
///
/// Costs a search for each table that begins in a tombstone, and for each gap between tombstones.
pub(super) fn covered_tables(version: &Version) -> Vec<CoveredTable> {
    let mut covered = Vec::new();
    let runs = || {
        let levels = version.levels().iter().enumerate();
        levels.flat_map(|(level, runs)| runs.iter().map(move |run| (level, run)))
    };
    for (age, (_, newer)) in runs().enumerate() {
        if newer.has_range_tombstones() {
            for (level, older) in runs().skip(age + 1) {
                covered_in(newer, level, older, &mut covered);
            }
        }
    }
    covered
}

fn covered_in(newer: &Run, level: usize, older: &Run, covered: &mut Vec<CoveredTable>) {
    let tables = older.tables();
    let mut index = 0;
    while let Some(table) = tables.get(index) {
        let Some(fragment) = newer.fragment_at_or_after(table.smallest()) else { return };
        if fragment.start > table.smallest() {
            index += tables[index..].partition_point(|table| table.smallest() < fragment.start);
            continue;
        }
        if let Some(deleted_at) = deleted_at(newer, fragment, table) {
            covered.push(CoveredTable {
                placement: Placement { level, run: older.number(), table: table.clone() },
                seen_from: table.meta().smallest_sequence,
                deleted_at,
            });
        }
        index += 1;
    }
}

/// From which number on the range tombstones of a run hide all that the table holds, its own range tombstones
/// included; `None` if they do not. `fragment` is the one where the table begins.
fn deleted_at<'r>(newer: &'r Run, mut fragment: Fragment<'r>, table: &TableFile) -> Option<SequenceNumber> {
    let mut deleted_at = 0;
    loop {
        // The oldest of those that are newer than all of the table.
        let newer_count =
            fragment.sequences.partition_point(|sequence| *sequence > table.meta().largest_sequence);
        deleted_at = deleted_at.max(*fragment.sequences.get(newer_count.checked_sub(1)?)?);
        // A table without points ends before its largest bound.
        let reaches_end =
            fragment.end > table.largest() || (table.meta().entries == 0 && fragment.end == table.largest());
        if reaches_end {
            return Some(deleted_at);
        }
        let end = fragment.end;
        fragment = newer.fragment_at_or_after(end).filter(|next| next.start == end)?;
    }
}
