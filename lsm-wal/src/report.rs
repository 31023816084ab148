//! What recovery is told to do, and what it reports.

use std::fmt;
use std::path::PathBuf;

use crate::log::{CleanClose, Position};

/// What to do when a log does not end where a record ends.
///
/// In every mode a bad record counts as a *torn tail* unless something proves that it was whole once: a later
/// record, the header of a later segment or the caller says that it was synced, or flipping a single bit makes
/// it whole again. Then it is *corrupt*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecoveryMode {
    /// A torn tail ends the log and is reported; corruption is an error.
    #[default]
    TolerateTornTail,
    /// A torn tail is an error too.
    Strict,
    /// Whatever is damaged is left out and reported, and reading goes on behind it.
    Salvage,
}

/// What is known of a log that is about to be read or [verified](crate::verify()), from a manifest for instance: what is
/// missing of that is corruption. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogExpectation {
    /// Records before this are not needed; [`Position::ZERO`] is the oldest there is.
    pub from: Position,
    /// Everything before this was synced.
    pub synced: Position,
    /// Where the log ended, if it was closed.
    pub clean: Option<CleanClose>,
    /// The number of the first segment of a log that [`Wal::create`](crate::Wal::create) began: a segment of this number
    /// or a later one is there, whatever was truncated since. 0 if that is not known.
    pub begun: u64,
}

/// What reading a log found, complete once the reader returned `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Records returned.
    pub records: u64,
    /// Payload bytes of the records returned.
    pub bytes: u64,
    /// Position of the first record in the oldest segment that was read.
    pub start: Position,
    /// Position of the end of the last sound record: where the log ends.
    pub end: Position,
    /// Tag of the last record returned.
    pub last_tag: Option<u64>,
    /// Everything before this is known to have been synced.
    pub synced: Position,
    /// Whether the log was closed and nothing was dropped.
    pub closed: bool,
    /// Number of the segment that the log ends in; 0 if there was none.
    pub segment: u64,
    /// Bytes of that segment up to the end of the last sound record, its header included.
    pub length: u64,
    /// Checksum of the last sound record, chained over everything before it.
    pub checksum: u64,
    /// Bytes that were there and were not returned.
    pub dropped: Vec<Dropped>,
    /// Sum of [`Dropped::bytes`].
    pub bytes_dropped: u64,
    /// A segment number higher than any in use.
    pub next_segment: u64,
    /// Names of the log's files in its directory, sorted.
    pub files: Vec<String>,
}

/// A stretch of a file that was not returned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Which file.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes, up to the last that is not zero.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, bytes, reason } = self;
        write!(f, "{bytes} bytes at offset {offset} of {}: {reason}", path.display())
    }
}

impl RecoveryReport {
    pub(crate) fn drop_bytes(&mut self, dropped: Dropped) {
        if dropped.bytes > 0 {
            self.bytes_dropped += dropped.bytes;
            self.dropped.push(dropped);
        }
    }
}
