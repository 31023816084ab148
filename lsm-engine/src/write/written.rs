use lsm_core::SequenceNumber;
use lsm_wal::Position;

/// A write that is in the log and visible.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The sequence number of its last operation.
    pub(crate) sequence: SequenceNumber,
    /// The position after its log record.
    pub(crate) position: Position,
}
