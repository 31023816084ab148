use crate::key::SequenceNumber;
use crate::slice::Slice;

/// Deletes the versions below `sequence` of all keys from `start` up to `end`, exclusive.
///
/// If `start` is not below `end`, nothing is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// The first key deleted.
    pub start: Slice,
    /// The first key after `start` that is not deleted.
    pub end: Slice,
    /// When the deletion was written.
    pub sequence: SequenceNumber,
}
