use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::wait_reason::WaitReason;

/// Something that happened in a database; see [`Db::events`](crate::Db::events).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Number of the event since the database was opened, from 0.
    pub number: u64,
    /// Time of the event, in microseconds since 1970, by the clock of the system.
    pub unix_micros: u64,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// Time of the event, by the clock of the system.
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.unix_micros)
    }
}

/// What happened. Sizes are in bytes, durations in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The database was opened.
    Opened {
        /// Whether it is new.
        created: bool,
        /// Whether it had been closed, rather than dropped or killed.
        was_clean: bool,
        /// Number of log records that were replayed.
        replayed_records: u64,
        /// How long opening took.
        micros: u64,
    },
    /// The database was closed.
    Closed,
    /// A flush of immutable memtables began. The retries of a failed flush have no begin.
    FlushBegin {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// Memory of the memtables.
        bytes: u64,
    },
    /// A flush ended, and its tables are in use.
    FlushEnd {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// Number of tables written.
        tables: u64,
        /// Bytes of those tables.
        bytes: u64,
        /// How long it took. Memtables of several keyspaces may be flushed together.
        micros: u64,
    },
    /// A compaction began.
    CompactionBegin {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// Why the policy picked it.
        reason: Arc<str>,
        /// The level that it writes to.
        level: u64,
        /// Number of tables that it reads.
        tables: u64,
        /// Bytes of those tables.
        bytes: u64,
    },
    /// A compaction ended, and its tables are in use.
    CompactionEnd {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// The level that it wrote to.
        level: u64,
        /// Number of tables written.
        tables: u64,
        /// Bytes of those tables.
        bytes: u64,
        /// How long it took.
        micros: u64,
    },
    /// Tables were moved to another level without rewriting them.
    TablesMoved {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// The level that they moved to.
        level: u64,
        /// Number of tables.
        tables: u64,
        /// Bytes of those tables.
        bytes: u64,
    },
    /// Tables were dropped without rewriting them: by the policy, or because range deletes cover them.
    TablesDropped {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// Number of tables.
        tables: u64,
        /// Bytes of those tables.
        bytes: u64,
    },
    /// Tables from outside, or of a bulk load, are in use.
    Ingested {
        /// Name of the keyspace.
        keyspace: Arc<str>,
        /// Number of tables.
        tables: u64,
        /// Bytes of those tables.
        bytes: u64,
    },
    /// A table or manifest was written.
    FileCreated {
        /// Name of the file in the directory of the database.
        file: Arc<str>,
        /// Its length.
        bytes: u64,
    },
    /// A file was deleted.
    FileDeleted {
        /// Name of the file in the directory of the database.
        file: Arc<str>,
    },
    /// The log continues in a new segment.
    LogSegment {
        /// Name of its file in the directory of the database.
        file: Arc<str>,
    },
    /// Writers began to wait: before this, none waited for this reason.
    StallBegin {
        /// What they wait for.
        why: WaitReason,
    },
    /// No writer waits for this reason any more.
    StallEnd {
        /// What they waited for.
        why: WaitReason,
        /// Time since the begin of the stall.
        micros: u64,
    },
    /// A rate limit of writers began, changed to less than half or more than double, or ended.
    RateLimit {
        /// The keyspace whose writers it slows; `None` for all writers.
        keyspace: Option<Arc<str>>,
        /// What compactions are behind with.
        why: WaitReason,
        /// The limit; `None` if it ended.
        bytes_per_second: Option<u64>,
    },
    /// A user paused background work.
    Paused,
    /// A user resumed background work.
    Resumed,
    /// A snapshot expired; see [`Options::snapshot_age_max`](crate::Options::snapshot_age_max).
    SnapshotExpired {
        /// The label of the snapshot, if it has one.
        label: Option<Arc<str>>,
        /// Its sequence number.
        sequence: u64,
        /// Its age.
        age_micros: u64,
    },
    /// A change slot, or something else that keeps the log, kept more of it than it may. The log was truncated, so whoever
    /// needs it has to begin anew.
    LogPinLost {
        /// Its name, if it has one.
        label: Option<Arc<str>>,
        /// How many bytes it may keep.
        bytes_max: u64,
    },
    /// Background work or all writing failed. An error that repeats is reported once.
    Error {
        /// What failed, such as "flush".
        during: Arc<str>,
        /// The keyspace that it concerns, if it is one.
        keyspace: Option<Arc<str>>,
        /// The message of the error.
        message: Arc<str>,
    },
    /// Stalls that were so short that the flight recorder keeps only their sum. Events that a database itself reports do
    /// not have this kind.
    ShortStalls {
        /// What writers waited for.
        why: WaitReason,
        /// Number of stalls since the flight recorder was written before.
        count: u64,
        /// Their total time.
        micros: u64,
    },
    /// The reader was too slow: this number of events before the next one are lost.
    Lagged(u64),
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |micros: &u64| Millis(*micros);
        match self {
            Self::Opened { created: true, micros, .. } => write!(f, "created: {}", ms(micros)),
            Self::Opened { was_clean, replayed_records, micros, .. } => {
                let how = if *was_clean { "after a clean close" } else { "without a clean close" };
                write!(f, "opened {how}: {replayed_records} records replayed, {}", ms(micros))
            }
            Self::Closed => f.write_str("closed"),
            Self::Paused => f.write_str("background work paused"),
            Self::Resumed => f.write_str("background work resumed"),
            Self::FlushBegin { keyspace, bytes } => write!(f, "flush of {keyspace:?} begins: {bytes} bytes"),
            Self::FlushEnd { keyspace, tables, bytes, micros } => {
                write!(f, "flush of {keyspace:?} ends: {tables} tables, {bytes} bytes, {}", ms(micros))
            }
            Self::CompactionBegin { keyspace, reason, level, tables, bytes } => write!(
                f,
                "compaction of {keyspace:?} into level {level} begins: {tables} tables, {bytes} bytes ({reason})"
            ),
            Self::CompactionEnd { keyspace, level, tables, bytes, micros } => write!(
                f,
                "compaction of {keyspace:?} into level {level} ends: {tables} tables, {bytes} bytes, {}",
                ms(micros)
            ),
            Self::TablesMoved { keyspace, level, tables, bytes } => {
                write!(f, "{tables} tables of {keyspace:?} moved to level {level}: {bytes} bytes")
            }
            Self::TablesDropped { keyspace, tables, bytes } => {
                write!(f, "{tables} tables of {keyspace:?} dropped: {bytes} bytes")
            }
            Self::Ingested { keyspace, tables, bytes } => {
                write!(f, "{tables} tables ingested into {keyspace:?}: {bytes} bytes")
            }
            Self::FileCreated { file, bytes } => write!(f, "file {file} created: {bytes} bytes"),
            Self::FileDeleted { file } => write!(f, "file {file} deleted"),
            Self::LogSegment { file } => write!(f, "the log continues in {file}"),
            Self::StallBegin { why } => write!(f, "writers begin to wait: {why}"),
            Self::StallEnd { why, micros } => write!(f, "writers no longer wait: {why}, {}", ms(micros)),
            Self::RateLimit { keyspace, why, bytes_per_second } => {
                match keyspace {
                    Some(keyspace) => write!(f, "writers of {keyspace:?} are ")?,
                    None => f.write_str("all writers are ")?,
                }
                match bytes_per_second {
                    Some(rate) => write!(f, "limited to {rate} bytes per second: {why}"),
                    None => write!(f, "no longer limited: {why}"),
                }
            }
            Self::SnapshotExpired { label, sequence, age_micros } => {
                write!(f, "snapshot at {sequence} expired after {}", ms(age_micros))?;
                label.as_ref().map_or(Ok(()), |label| write!(f, ": {label:?}"))
            }
            Self::LogPinLost { label, bytes_max } => {
                f.write_str("the log was truncated although it is still needed")?;
                label.as_ref().map_or(Ok(()), |label| write!(f, " by {label:?}"))?;
                write!(f, ", which may keep {bytes_max} bytes")
            }
            Self::Error { during, keyspace, message } => {
                write!(f, "{during} failed")?;
                keyspace.as_ref().map_or(Ok(()), |keyspace| write!(f, " in {keyspace:?}"))?;
                write!(f, ": {message}")
            }
            Self::ShortStalls { why, count, micros } => {
                write!(f, "writers waited {count} times for a short time: {why}, {} in all", ms(micros))
            }
            Self::Lagged(count) => write!(f, "{count} events are lost"),
        }
    }
}

/// A duration in microseconds, printed in milliseconds.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} ms", self.0 / 1000, self.0 % 1000)
    }
}
