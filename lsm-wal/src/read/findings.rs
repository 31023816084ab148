//! What an examination of the end of a log finds.

use std::path::PathBuf;

use crate::files::record_reader::RecordReader;
use crate::report::Dropped;

/// What was found out about the end of a log.
pub(crate) struct TailFindings {
    /// Everything before this was synced, as later records and segments say.
    pub(crate) claimed: u64,
    /// Which file, where, why.
    pub(crate) corrupt: Option<((PathBuf, u64), String)>,
    /// Bytes that are there all the same, and are dropped.
    pub(crate) dropped: Vec<Dropped>,
}

impl TailFindings {
    pub(crate) fn flipped(&mut self, reader: &RecordReader, byte: u64) {
        let place = (reader.path().to_owned(), byte);
        self.corrupt.get_or_insert((place, "one bit of this byte was flipped".to_owned()));
    }

    pub(crate) fn claim(&mut self, claim: Option<(u64, u64)>) {
        if let Some((synced, _)) = claim {
            self.claimed = self.claimed.max(synced);
        }
    }

    pub(crate) fn dropped(&mut self, reader: &RecordReader, offset: u64, end: u64, reason: &str) {
        if end > offset {
            let path = reader.path().to_owned();
            self.dropped.push(Dropped { path, offset, bytes: end - offset, reason: reason.to_owned() });
        }
    }
}
