//! The log stays short: whoever keeps too much of it is flushed, and where that fails, writes fail before long.

use crate::error::{Error, ErrorKind};
use crate::write::committer::Committer;
use crate::write::path::WritePath;

/// A keyspace whose flush fails may keep this many times what the log usually has. Then writes fail, until the keyspace
/// is flushed, cleared or dropped.
const LOG_PINNED_FACTOR: u64 = 4;

impl WritePath {
    /// Seals whoever keeps the log from being truncated, once it is too long.
    #[inline]
    pub(crate) fn bound_log(&self, committer: &mut Committer) {
        if committer.log_end() - self.controller.log_start() > self.resources.memory.budget.log_bytes_max {
            self.shorten_log(committer);
        }
    }

    #[cold]
    fn shorten_log(&self, committer: &mut Committer) {
        let (log_end, log_bytes_max) = (committer.log_end(), self.resources.memory.budget.log_bytes_max);
        // Where another is not flushed, and may never be, to rotate one that has begun since would not help.
        let kept_bytes_max =
            if self.pins_log(log_end, log_bytes_max).next().is_some() { log_bytes_max / 4 } else { 0 };
        if let Some((log_start, id)) = committer.pins_oldest()
            && log_end - log_start > kept_bytes_max
        {
            let last_sequence = committer.last_sequence();
            committer.rotate(id, last_sequence);
        }
        // Look again after as much has been written; the flush sets the true start.
        self.controller.set_log_start(log_end - log_bytes_max / 2);
        if self.log_is_pinned(log_end).is_some() {
            self.controller.set_log_pinned(true);
        }
    }

    /// Why writes fail, if a keyspace that is not flushed keeps more of the log than it may. On a full disk the log ends
    /// by itself, and writers wait rather than fail.
    pub(crate) fn log_is_pinned(&self, log_end: u64) -> Option<Error> {
        let bytes_max = self.resources.memory.budget.log_bytes_max.saturating_mul(LOG_PINNED_FACTOR);
        self.pins_log(log_end, bytes_max).find(|error| error.kind() != ErrorKind::NoSpace)
    }

    /// Why the log cannot be shortened to `bytes_max`: the errors of keyspaces that are not flushed.
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
