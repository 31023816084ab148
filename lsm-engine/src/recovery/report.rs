use std::path::PathBuf;

/// What opening a database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The database was created.
    pub created: bool,
    /// It had been closed cleanly.
    pub was_clean: bool,
    /// Log records that were replayed.
    pub records: u64,
    /// Writes in them that were not in tables yet.
    pub operations: u64,
    /// Bytes at the end of the log that were no whole record: promised to nobody, and left out.
    pub bytes_dropped: u64,
    /// Where those bytes stood, and why they were left out.
    pub dropped: Vec<String>,
    /// Log segments that hold such bytes, under the names that they were given so that nobody takes them for a part of
    /// the log or removes them. None if the database was opened read-only.
    pub set_aside: Vec<PathBuf>,
    /// What was replayed is in memory and the log: the disk has no room for the tables that it would become, for this
    /// reason. It is flushed when there is room, and deletes, clears and drops may make some.
    pub waiting_for_space: Option<String>,
}
