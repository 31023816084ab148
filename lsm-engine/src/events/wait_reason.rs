use std::fmt;

/// Why a call waits. [`ended_by`](Self::ended_by) tells what ends the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitReason {
    /// A write is slowed because level 0 of its keyspace has too many runs.
    Level0Runs,
    /// A write is slowed because the compaction debt of its keyspace, or of several keyspaces, is too large.
    CompactionDebt,
    /// A write waits for memory.
    Memory,
    /// A write waits for memory, and flushes fail because the disk is full.
    DiskSpace,
    /// A write waits for the commit lock, which another write holds.
    CommitLock,
    /// A write or [`Db::sync`](crate::Db::sync) waits until the log is durable.
    LogSync,
    /// The call waits for flushes.
    Flush,
    /// The call waits for compactions.
    Compaction,
    /// The call changes keyspaces and waits for another change of the manifest.
    Manifest,
    /// Closing waits for the end of background jobs.
    BackgroundWork,
    /// Another thread closes the database, and this call waits for the end of that.
    Close,
    /// A transaction waits for a lock that another transaction holds or waits for.
    TransactionLock,
    /// [`Db::transact`](crate::Db::transact) pauses after a conflict, before it runs the transaction again.
    Conflict,
    /// An update, such as [`Db::update`](crate::Db::update), waits for others that update the same key.
    Update,
    /// The call waits for background work, which is paused.
    Paused,
    /// A write waits for memory, and background work is paused.
    MemoryWhilePaused,
    /// A write waits for memory of the [pool](crate::MemoryPool), which other databases hold that cannot flush now: they are
    /// paused, or their disks are full.
    PoolMemory,
    /// A write writes the log to its file, because the window of the log is full or the record is too long for it.
    LogWrite,
}

/// All reasons; the position of each is its number.
pub(crate) const REASONS: [WaitReason; 18] = [
    WaitReason::Level0Runs,
    WaitReason::CompactionDebt,
    WaitReason::Memory,
    WaitReason::DiskSpace,
    WaitReason::CommitLock,
    WaitReason::LogSync,
    WaitReason::Flush,
    WaitReason::Compaction,
    WaitReason::Manifest,
    WaitReason::BackgroundWork,
    WaitReason::Close,
    WaitReason::TransactionLock,
    WaitReason::Conflict,
    WaitReason::Update,
    WaitReason::Paused,
    WaitReason::MemoryWhilePaused,
    WaitReason::PoolMemory,
    WaitReason::LogWrite,
];

impl WaitReason {
    /// Whether it is a reason for which writers wait longer than a sync takes. Such waits are events from their
    /// beginning.
    pub(crate) fn is_stall(self) -> bool {
        matches!(self, Self::Memory | Self::DiskSpace | Self::MemoryWhilePaused | Self::PoolMemory)
    }

    /// Its name in lists of metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Level0Runs => "level_0_runs",
            Self::CompactionDebt => "compaction_debt",
            Self::Memory => "memory",
            Self::DiskSpace => "disk_space",
            Self::CommitLock => "commit_lock",
            Self::LogSync => "log_sync",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Manifest => "manifest",
            Self::BackgroundWork => "background_work",
            Self::Close => "close",
            Self::TransactionLock => "transaction_lock",
            Self::Conflict => "conflict",
            Self::Update => "update",
            Self::Paused => "paused",
            Self::MemoryWhilePaused => "memory_while_paused",
            Self::PoolMemory => "pool_memory",
            Self::LogWrite => "log_write",
        }
    }

    /// Whether writes wait for it.
    pub(crate) fn is_of_writes(self) -> bool {
        matches!(
            self,
            Self::Level0Runs
                | Self::CompactionDebt
                | Self::Memory
                | Self::DiskSpace
                | Self::MemoryWhilePaused
                | Self::PoolMemory
                | Self::CommitLock
                | Self::LogSync
                | Self::LogWrite
        )
    }

    /// What ends the wait.
    pub fn ended_by(self) -> &'static str {
        match self {
            Self::Level0Runs => "the rate limit pays for the write, or compactions merge runs of level 0",
            Self::CompactionDebt => "the rate limit pays for the write, or compactions work off their debt",
            Self::Memory => {
                "a flush, of any database of the memory pool, or a compaction if tables take too much memory"
            }
            Self::PoolMemory => {
                "other databases of the memory pool: they flush when they are resumed or have disk space, or are closed"
            }
            Self::DiskSpace => "free disk space: flushes are tried again twice a second",
            Self::CommitLock => "the end of the write that holds the lock",
            Self::LogSync => "the sync of the log",
            Self::LogWrite => "the operating system, which takes what is written",
            Self::Update => {
                "the updates that came before; after five milliseconds it tries again in any case"
            }
            Self::Flush => "the flush of the memtables, or an error of it",
            Self::Compaction => "the end of the compactions that are due, or an error of one",
            Self::Manifest => "the end of the other change",
            Self::BackgroundWork => "the end of the current step of each job",
            Self::Close => "the end of the first call of close",
            Self::TransactionLock => {
                "the end of the transactions that are in the way, or the timeout of the lock"
            }
            Self::Conflict => "the time of the pause, at most some milliseconds",
            Self::Paused | Self::MemoryWhilePaused => "a call of Db::resume_background_work, or of close",
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Level0Runs => "compactions are behind with level 0",
            Self::CompactionDebt => "compactions are behind",
            Self::Memory => "memory is used up",
            Self::DiskSpace => "memory is used up and the disk is full",
            Self::CommitLock => "another write holds the commit lock",
            Self::LogSync => "the log is synced",
            Self::LogWrite => "the log is written to its file",
            Self::Update => "other updates of the same key have their turn",
            Self::Flush => "flushes are running",
            Self::Compaction => "compactions are running",
            Self::Manifest => "the manifest is being changed",
            Self::BackgroundWork => "background jobs are ending",
            Self::Close => "another thread closes the database",
            Self::TransactionLock => "another transaction holds the lock",
            Self::Conflict => "the transaction pauses after a conflict",
            Self::Paused => "background work is paused",
            Self::MemoryWhilePaused => "memory is used up and background work is paused",
            Self::PoolMemory => "other databases of the memory pool use it up and cannot flush",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number() {
        for (number, why) in REASONS.into_iter().enumerate() {
            assert_eq!(why as usize, number, "{why:?}");
        }
    }
}
