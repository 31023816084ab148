use lsm_core::{SequenceNumber, Slice, ValueKind};

use super::blocks::BorrowedBlock;

/// The newest version of a key that a read may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableValue {
    /// When it was written.
    pub sequence: SequenceNumber,
    /// What was done; tombstones are found like any other version.
    pub kind: ValueKind,
    /// With what.
    pub value: Slice,
}

/// The newest version of `key` at or below `sequence` in the only block that can have it.
#[inline]
pub(super) fn value_in(
    block: &BorrowedBlock<'_>,
    key: &[u8],
    sequence: SequenceNumber,
) -> Option<TableValue> {
    let row = block.frame().get(key, sequence)?;
    let entry = row.entry(block.bytes())?;
    let (sequence, kind) = (entry.sequence, entry.kind);
    Some(TableValue { sequence, kind, value: block.slice(row.value_range()) })
}
