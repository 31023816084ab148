//! Bounds the length of the log: flushes the keyspace that pins its oldest part. If that flush fails for long, writes
//! fail.

use crate::error::{Error, ErrorKind};
use crate::write::committer::Committer;
use crate::write::path::WritePath;

/// A keyspace whose flushes fail may pin this many times the usual length of the log. Beyond that all writes fail,
/// until the keyspace is flushed, cleared or dropped.
const LOG_PINNED_FACTOR: u64 = 4;

impl WritePath {
    /// If the log is too long, rotates the memtable that pins its oldest part.
    #[inline]
    pub(crate) fn bound_log(&self, committer: &mut Committer) {
        if committer.log_end() - self.controller.log_start() > self.resources.memory.budget.log_bytes_max {
            self.shorten_log(committer);
        }
    }

    #[cold]
    fn shorten_log(&self, committer: &mut Committer) {
        let (log_end, log_bytes_max) = (committer.log_end(), self.resources.memory.budget.log_bytes_max);
        // If a keyspace that cannot be flushed pins the log, rotate other memtables only when they pin a good part of
        // it too.
        let kept_bytes_max =
            if self.pins_log(log_end, log_bytes_max).next().is_some() { log_bytes_max / 4 } else { 0 };
        if let Some((log_start, id)) = committer.pins_oldest()
            && log_end - log_start > kept_bytes_max
        {
            let last_sequence = committer.last_sequence();
            committer.rotate(id, last_sequence);
        }
        // Check again after half as much has been written. The flush sets the true start.
        self.controller.set_log_start(log_end - log_bytes_max / 2);
        if self.log_is_pinned(log_end).is_some() {
            self.controller.set_log_pinned(true);
        }
    }

    /// The error that writes fail with, if a keyspace that cannot be flushed pins more of the log than it may. A full
    /// disk does not count: there the log cannot grow either, and writers wait instead.
    pub(crate) fn log_is_pinned(&self, log_end: u64) -> Option<Error> {
        let bytes_max = self.resources.memory.budget.log_bytes_max.saturating_mul(LOG_PINNED_FACTOR);
        self.pins_log(log_end, bytes_max).find(|error| error.kind() != ErrorKind::NoSpace)
    }

    /// The errors of keyspaces that cannot be flushed and pin more than `bytes_max` of the log.
    fn pins_log(&self, log_end: u64, bytes_max: u64) -> impl Iterator<Item = Error> {
        self.unflushed.trees().into_iter().filter_map(move |tree| {
            let log_start = tree.load().memtables().map(|memtable| memtable.log_start).min()?;
            if log_end - log_start <= bytes_max {
                return None;
            }
            let retried = || tree.flush_retry_micros().and_then(|_| self.status.flush_error.current());
            tree.check_writable().err().or_else(retried)
        })
    }
}
