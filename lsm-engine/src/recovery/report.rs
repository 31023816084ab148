use std::path::PathBuf;

/// Report of what recovery found when the database was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Whether the database was created by this open.
    pub created: bool,
    /// Whether it had been closed cleanly.
    pub was_clean: bool,
    /// Number of log records that were read.
    pub records: u64,
    /// Number of operations in them that were not in tables yet.
    pub operations: u64,
    /// Bytes that recovery dropped at the end of the log, because they are no whole record. They were not acknowledged
    /// as durable.
    pub bytes_dropped: u64,
    /// Where each part of those bytes was, and why it was dropped.
    pub dropped: Vec<String>,
    /// New paths (`N.wal.dropped`) of log segments that hold dropped bytes. They are not part of the log any more.
    /// Empty if the database was opened read-only.
    pub set_aside: Vec<PathBuf>,
    /// If the disk has no space for the replayed data: the error. The data is in memory and in the log, and is flushed
    /// when there is space. Deletes, clears and drops may free some.
    pub waiting_for_space: Option<String>,
}
