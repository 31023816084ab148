use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::change_position::{ChangePosition, NotAPosition};

/// The result of a call to the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. [`Error::kind`] tells what to do about it. The message names the file and offset, key or option.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written, is corrupt, or has a newer format.
    #[error(transparent)]
    Storage(#[from] lsm_core::Error),

    /// Another process, or another handle in this one, has the database open.
    #[error("{} is locked: another process or handle has it open; close that first", .0.display())]
    Locked(Arc<PathBuf>),

    /// The store of backups is in use: it is not pruned while a backup is made, verified or restored, and the other way
    /// round.
    #[error("{} is in use by another backup, restore or prune: try again when that has ended", .0.display())]
    StoreBusy(Arc<PathBuf>),

    /// The directory holds no database, and the options do not allow to create one.
    #[error("there is no database in {}", .0.display())]
    NoDatabase(Arc<PathBuf>),

    /// The path exists and is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(Arc<PathBuf>),

    /// A checkpoint or restore makes a new directory, and there is something of that name.
    #[error("{} already exists: choose another directory, or remove it first", .0.display())]
    TargetExists(Arc<PathBuf>),

    /// A key, value, range, name or option is not valid.
    #[error("{0}")]
    InvalidArgument(Arc<str>),

    /// A batch exceeds the limit of the memory budget, or a key or value exceeds the limit of the formats.
    #[error("{what} of {bytes} bytes is over the limit of {bytes_max}{}", remedy(what))]
    TooLarge {
        /// What is too large: "batch", "transaction", "memory of all transactions", "key", "value" or "write (with memtable
        /// growth)".
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },

    /// The options contradict what is recorded on disk.
    #[error("{0}")]
    OptionsMismatch(Arc<str>),

    /// An option cannot change while the database is open.
    #[error(
        "keyspace {keyspace:?}: KeyspaceOptions::{option} cannot change while the database is open; give it when you open the keyspace"
    )]
    NotLive {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// Name of the option.
        option: &'static str,
    },

    /// The database was opened read-only, and the call writes.
    #[error("the database was opened read-only")]
    ReadOnly,

    /// An earlier failure stopped all writes. Writes acknowledged before it are safe. Reopen the database to write
    /// again.
    #[error("writing has stopped until the database is reopened: {0}")]
    WritingStopped(Arc<Error>),

    /// The manual compaction was cancelled. The data is as it was, apart from what its earlier steps compacted.
    #[error("the manual compaction was cancelled by Db::cancel_manual_compactions")]
    Cancelled,

    /// The keyspace was dropped.
    #[error("keyspace {0:?} was dropped")]
    KeyspaceDropped(Arc<str>),

    /// The snapshot, or what the iterator or transaction reads, is older than
    /// [`Options::snapshot_age_max`](crate::Options::snapshot_age_max).
    #[error("{0}")]
    SnapshotExpired(Arc<str>),

    /// A follower was away for too long, and the owner of the database removed what it reads.
    #[error("{0}")]
    FellBehind(Arc<str>),

    /// A follower can get no lease.
    #[error("{0}")]
    NoLease(Arc<str>),

    /// The database was closed.
    #[error("the database is closed")]
    Closed,

    /// Another write came between a read and the write that depends on it.
    #[error("{0}")]
    Conflict(Arc<str>),

    /// A key has merge operands, or a write has, but the keyspace has no merge operator, or one that was not given.
    #[error("{0}")]
    OperatorMissing(Arc<str>),

    /// The merge operator refused the operands of a key. They are kept.
    #[error("{0}")]
    OperatorFailed(Arc<str>),

    /// A transaction waited too long for a lock. The message names the lock and who holds it.
    #[error("{0}")]
    LockTimeout(Arc<str>),

    /// Transactions wait for locks of each other, in a cycle that the message names.
    #[error("{0}")]
    Deadlock(Arc<str>),

    /// A keyspace or batch of another database, or a savepoint of another transaction, was given.
    #[error("{0}")]
    Foreign(Arc<str>),

    /// A table cannot be ingested as it is.
    #[error("{0}")]
    RefusedTable(Arc<str>),

    /// A key of a table or bulk load does not come after the key before it.
    #[error("{0}")]
    NotAscending(Arc<str>),

    /// The history from a change position on is not kept any more.
    #[error("{0}")]
    HistoryGone(Arc<str>),

    /// A reader of changes has writes that a power cut took from the database, or that another copy of it has had.
    #[error("{detail}")]
    HistoryDiverged {
        /// What happened.
        detail: Arc<str>,
        /// The last position that both have in common.
        common: Arc<ChangePosition>,
    },

    /// A change position is one of another database, or lies in the future.
    #[error("{0}")]
    ForeignPosition(Arc<str>),

    /// A reader of changes was cancelled.
    #[error("the reader of changes was cancelled")]
    ChangesCancelled,

    /// A policy, filter or other callback panicked, or a policy asked for a compaction that would lose data.
    #[error("{0}")]
    Callback(Arc<str>),
}

/// The kind of an [`Error`], by what the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Fix the call.
    InvalidArgument,
    /// Choose another target, or remove what is there.
    AlreadyExists,
    /// Open with the options that the database was made with.
    OptionsMismatch,
    /// There is no such database.
    NotFound,
    /// Wait until the other process or handle closes the database, or stop it.
    Locked,
    /// Free disk space, then repeat the call.
    NoSpace,
    /// The operating system reported an error. Check the disk, then reopen.
    Io,
    /// Restore the named file from a backup.
    Corruption,
    /// Use a newer build, or a build with the feature that the message names.
    Unsupported,
    /// Open for writing, or reopen.
    ReadOnly,
    /// Another write came between. Read again, decide again, and write again.
    Conflict,
    /// Take a new snapshot, iterator or transaction, and read again.
    SnapshotExpired,
    /// Call [`Follower::reopen`](crate::Follower::reopen).
    FellBehind,
    /// Let the follower write its lease, or open it without one; see
    /// [`Options::follower_lease`](crate::Options::follower_lease). If there are too many followers, end one.
    NoLease,
    /// The database was closed or the keyspace dropped. Open it again.
    Closed,
    /// Open the keyspace with the merge operator that the message names.
    OperatorMissing,
    /// Put or delete the key, whose merge operands do not fit.
    OperatorFailed,
    /// Try the call again, or roll the transaction back. It has the locks that it had before.
    LockTimeout,
    /// Roll the transaction back and repeat it; [`Db::transact_with`](crate::Db::transact_with) does that.
    Deadlock,
    /// Use the handle with the database or transaction that it came from.
    Foreign,
    /// Build the table in another way, as the message says, or leave it out. Nothing was ingested.
    RefusedTable,
    /// Add the keys in ascending order, each once.
    NotAscending,
    /// Give the option when you open the keyspace.
    NotLive,
    /// Someone cancelled the work. Nothing is lost; call again to have it done.
    Cancelled,
    /// Take a snapshot, copy what it has, and read the changes from its position on.
    HistoryGone,
    /// Undo what came after the last common position, which [`Error::HistoryDiverged`] has, and read the changes from there
    /// on; or begin anew with a snapshot.
    HistoryDiverged,
    /// Give the change position to the database that it came from.
    ForeignPosition,
    /// A callback given in the options panicked or misbehaved, now or earlier. Fix it, then reopen.
    Callback,
}

impl From<NotAPosition> for Error {
    fn from(error: NotAPosition) -> Self {
        Self::invalid(error.to_string())
    }
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Storage(error) => storage_kind(error),
            Self::Locked(_) | Self::StoreBusy(_) => ErrorKind::Locked,
            Self::NoDatabase(_) => ErrorKind::NotFound,
            Self::TargetExists(_) => ErrorKind::AlreadyExists,
            Self::NotADirectory(_) | Self::InvalidArgument(_) | Self::TooLarge { .. } => {
                ErrorKind::InvalidArgument
            }
            Self::OptionsMismatch(_) => ErrorKind::OptionsMismatch,
            Self::Cancelled | Self::ChangesCancelled => ErrorKind::Cancelled,
            Self::HistoryGone(_) => ErrorKind::HistoryGone,
            Self::HistoryDiverged { .. } => ErrorKind::HistoryDiverged,
            Self::ForeignPosition(_) => ErrorKind::ForeignPosition,
            Self::NotLive { .. } => ErrorKind::NotLive,
            // Reopening does not help until the callback is fixed, so the kind must say so.
            Self::WritingStopped(reason) if reason.kind() == ErrorKind::Callback => ErrorKind::Callback,
            Self::ReadOnly | Self::WritingStopped(_) => ErrorKind::ReadOnly,
            Self::KeyspaceDropped(_) | Self::Closed => ErrorKind::Closed,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::SnapshotExpired(_) => ErrorKind::SnapshotExpired,
            Self::FellBehind(_) => ErrorKind::FellBehind,
            Self::NoLease(_) => ErrorKind::NoLease,
            Self::OperatorMissing(_) => ErrorKind::OperatorMissing,
            Self::OperatorFailed(_) => ErrorKind::OperatorFailed,
            Self::LockTimeout(_) => ErrorKind::LockTimeout,
            Self::Deadlock(_) => ErrorKind::Deadlock,
            Self::Foreign(_) => ErrorKind::Foreign,
            Self::RefusedTable(_) => ErrorKind::RefusedTable,
            Self::NotAscending(_) => ErrorKind::NotAscending,
            Self::Callback(_) => ErrorKind::Callback,
        }
    }

    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Storage(lsm_core::Error::io(operation, path, source))
    }

    pub(crate) fn corruption(path: &Path, offset: u64, detail: impl Into<Arc<str>>) -> Self {
        Self::Storage(lsm_core::Error::corruption(path, offset, detail))
    }

    pub(crate) fn foreign(detail: impl Into<Arc<str>>) -> Self {
        Self::Foreign(detail.into())
    }

    pub(crate) fn invalid(detail: impl Into<Arc<str>>) -> Self {
        Self::InvalidArgument(detail.into())
    }

    /// A range that ends before it starts.
    pub(crate) fn inverted(start: &[u8], end: &[u8]) -> Self {
        let (start, end) = (start.escape_ascii(), end.escape_ascii());
        Self::invalid(format!("the range from \"{start}\" to \"{end}\" ends before it starts"))
    }

    /// Whether the same work may succeed later: for errors of the operating system such as a full disk or too few file
    /// descriptors, but not when the file system is read-only or does not support the operation.
    pub(crate) fn may_pass(&self) -> bool {
        use std::io::ErrorKind as Io;
        let Self::Storage(lsm_core::Error::Io { source, .. }) = self else { return false };
        !matches!(source.kind(), Io::ReadOnlyFilesystem | Io::Unsupported | Io::InvalidInput)
    }
}

/// What helps against [`Error::TooLarge`]. For a key nothing does: its limit does not depend on the budget.
fn remedy(what: &str) -> &'static str {
    match what {
        "key" => "",
        "memory of all transactions" => "; end some or raise Options::memory",
        _ => "; split it or raise Options::memory",
    }
}

/// The cause of an error of the file system of a follower that fell behind.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FellBehind(pub(crate) Arc<str>);

fn storage_kind(error: &lsm_core::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    if let lsm_core::Error::Io { source, .. } = error
        && source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<FellBehind>)
    {
        return ErrorKind::FellBehind;
    }
    match error {
        lsm_core::Error::Corruption { .. } => ErrorKind::Corruption,
        lsm_core::Error::UnsupportedVersion { .. } | lsm_core::Error::Unsupported { .. } => {
            ErrorKind::Unsupported
        }
        lsm_core::Error::InvalidArgument { .. } => ErrorKind::InvalidArgument,
        lsm_core::Error::Stopped { .. } => ErrorKind::ReadOnly,
        lsm_core::Error::Io { source, .. } => match source.kind() {
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::NoSpace,
            Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
            Io::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        },
        _ => ErrorKind::Io,
    }
}
