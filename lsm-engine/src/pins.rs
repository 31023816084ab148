use std::sync::Arc;
use std::time::Duration;

/// Something that keeps old data in memory or on the disk; see [`Db::pins`](crate::Db::pins).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// What it is.
    pub kind: PinKind,
    /// The label that a snapshot or transaction was given.
    pub label: Option<Arc<str>>,
    /// The keyspace that iterators read; `None` for a snapshot, which sees all keyspaces.
    pub keyspace: Option<Arc<str>>,
    /// The sequence number of the last write that a snapshot sees.
    pub sequence: Option<u64>,
    /// Age of a snapshot. Of iterators: how long what they read has been out of date, which is how long they have kept
    /// data that the database would have removed.
    pub age: Duration,
    /// Number of iterators and cursors that read the same state of their keyspace; 1 for a snapshot.
    pub readers: u64,
    /// Bytes of the table files that only these iterators, or others with the same tables, keep on the disk. What a
    /// snapshot keeps is a part of the tables in use and not known: 0.
    pub table_bytes: u64,
    /// Bytes of the log that this keeps and the database does not need any more, those counted that others keep too.
    pub log_bytes: u64,
}

/// What keeps old data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PinKind {
    /// A [`Snapshot`](crate::Snapshot).
    Snapshot,
    /// The snapshot of a [`Transaction`](crate::Transaction).
    Transaction,
    /// Iterators and cursors whose state of the keyspace is out of date.
    Iterators,
    /// A change slot, which keeps the log for a consumer of the change feed.
    ChangeSlot,
    /// A follower in another process.
    Follower,
    /// A checkpoint or backup that is being made.
    Checkpoint,
}
