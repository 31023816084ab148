//! What a cursor merges: memtables and runs.

use lsm_core::{Cursor, Entry, SEQUENCE_MAX, SequenceNumber};

use crate::version::RunCursor;

/// One sorted source of a merge.
#[expect(clippy::large_enum_variant, reason = "most sources are runs, and boxing them costs every step")]
pub(crate) enum MergeInput {
    /// With the highest sequence number that there may be in it.
    Memtable(Box<dyn Cursor + Send>, SequenceNumber),
    Run(RunCursor),
}

macro_rules! each {
    ($source:expr, $cursor:ident => $call:expr) => {
        match $source {
            MergeInput::Memtable($cursor, _) => $call,
            MergeInput::Run($cursor) => $call,
        }
    };
}

impl MergeInput {
    /// Moves to the next entry, or further where everything up to `end` is older than `sequence`.
    pub(crate) fn pass_up_to(&mut self, end: &[u8], sequence: SequenceNumber) {
        match self {
            Self::Memtable(cursor, newest) if *newest < sequence => cursor.seek(end, SEQUENCE_MAX),
            Self::Memtable(cursor, _) => cursor.next(),
            Self::Run(cursor) => cursor.pass_up_to(end, sequence),
        }
    }

    /// Moves to the previous entry, or further where everything down to `start`, inclusive, is older than `sequence`.
    pub(crate) fn pass_down_to(&mut self, start: &[u8], sequence: SequenceNumber) {
        match self {
            Self::Memtable(cursor, newest) if *newest < sequence => cursor.seek_for_prev(start, SEQUENCE_MAX),
            Self::Memtable(cursor, _) => cursor.prev(),
            Self::Run(cursor) => cursor.pass_down_to(start, sequence),
        }
    }
}

impl Cursor for MergeInput {
    fn first(&mut self) {
        each!(self, cursor => cursor.first());
    }

    fn last(&mut self) {
        each!(self, cursor => cursor.last());
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        each!(self, cursor => cursor.seek(key, sequence));
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        each!(self, cursor => cursor.seek_for_prev(key, sequence));
    }

    #[inline]
    fn next(&mut self) {
        each!(self, cursor => cursor.next());
    }

    #[inline]
    fn prev(&mut self) {
        each!(self, cursor => cursor.prev());
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        each!(self, cursor => cursor.entry())
    }

    fn error(&self) -> Option<&lsm_core::Error> {
        each!(self, cursor => cursor.error())
    }
}
