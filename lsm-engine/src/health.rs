use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Error;
use crate::events::WaitReason;

/// What a write would meet now; see [`Db::health`](crate::Db::health). [`WaitReason::ended_by`] tells what ends a wait.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Health {
    /// Writes go through.
    Writing,
    /// A rate limit slows writes, because compactions are behind.
    Throttled {
        /// What compactions are behind with.
        why: WaitReason,
        /// The keyspace whose writers have the lowest limit; `None` if that is the limit of all writers.
        keyspace: Option<Arc<str>>,
        /// The limit.
        bytes_per_second: u64,
    },
    /// Writes wait.
    Waiting {
        /// What the write waits for that has waited longest.
        why: WaitReason,
        /// When that wait began, by the clock of the system.
        since: SystemTime,
    },
    /// Writes fail with this error.
    ReadOnly(Error),
}
