//! Tables that newer range tombstones cover completely.

use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_core::range_tombstone::Fragment;

use super::placement::Placement;
use super::run::Run;
use super::table_file::TableFile;

/// A table that range tombstones in a newer run cover completely. When no reader can see any of it, the table can be
/// dropped without a merge. The tombstones stay, since they may also hide older data.
#[derive(Debug)]
pub(crate) struct CoveredTable {
    pub(crate) placement: Placement,
    /// Readers at this number or higher may see some of the table, up to `deleted_at`.
    seen_from: SequenceNumber,
    /// Readers at this number or higher see none of it.
    deleted_at: SequenceNumber,
}

impl CoveredTable {
    /// Whether no reader sees any of the table. `stripes` are the sequence numbers of all readers, ascending.
    pub(crate) fn is_unseen(&self, stripes: &[SequenceNumber]) -> bool {
        let first = stripes.partition_point(|stripe| *stripe < self.seen_from);
        // There must be such a number: the last one is the visible number, at which a snapshot may be taken.
        stripes.get(first).is_some_and(|stripe| *stripe >= self.deleted_at)
    }
}

/// All covered tables. A table may occur more than once.
///
/// It makes one search per table that begins in a tombstone, and one per gap between tombstones.
pub(super) fn covered_tables(levels: &[Vec<Arc<Run>>]) -> Vec<CoveredTable> {
    let mut covered = Vec::new();
    let runs = || {
        let levels = levels.iter().enumerate();
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

/// The sequence number from which the range tombstones of a run hide all entries and range tombstones of the table;
/// `None` if they do not. `fragment` is the fragment in which the table begins.
fn deleted_at<'r>(newer: &'r Run, mut fragment: Fragment<'r>, table: &TableFile) -> Option<SequenceNumber> {
    let mut deleted_at = 0;
    loop {
        // Take the oldest tombstone that is newer than the whole table.
        let newer_count =
            fragment.sequences.partition_point(|sequence| *sequence > table.meta().largest_sequence);
        deleted_at = deleted_at.max(*fragment.sequences.get(newer_count.checked_sub(1)?)?);
        // A table without point entries ends before its largest bound.
        let reaches_end =
            fragment.end > table.largest() || (table.meta().entries == 0 && fragment.end == table.largest());
        if reaches_end {
            return Some(deleted_at);
        }
        let end = fragment.end;
        fragment = newer.fragment_at_or_after(end).filter(|next| next.start == end)?;
    }
}
