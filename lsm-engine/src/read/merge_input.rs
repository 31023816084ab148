//! The inputs of a cursor's merge: memtables and runs.

use std::sync::Arc;

use lsm_core::{Cursor, Entry, MergingCursor, SEQUENCE_MAX, SequenceNumber};
use lsm_sstable::CursorAccess;

use crate::keyspaces::ReadState;
use crate::read::bounds::Bounds;
use crate::version::{Run, RunCursor, common_prefix};

/// One sorted source of a merge.
#[expect(clippy::large_enum_variant, reason = "most sources are runs, and boxing them costs every step")]
pub(crate) enum MergeInput {
    /// A memtable, and an upper bound of its sequence numbers.
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
    /// Moves to the next entry. May skip entries below `end` that are older than `sequence`.
    pub(crate) fn pass_up_to(&mut self, end: &[u8], sequence: SequenceNumber) {
        match self {
            Self::Memtable(cursor, newest) if *newest < sequence => cursor.seek(end, SEQUENCE_MAX),
            Self::Memtable(cursor, _) => cursor.next(),
            Self::Run(cursor) => cursor.pass_up_to(end, sequence),
        }
    }

    /// Moves to the previous entry. May skip entries at or above `start` that are older than `sequence`.
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

/// A merging cursor over the memtables and runs of a state that may hold keys within the bounds.
pub(super) fn merged(state: &ReadState, bounds: &Bounds, prefix: Option<&[u8]>) -> MergingCursor<MergeInput> {
    let mut sources = Vec::new();
    for memtable in state.memtables() {
        if memtable.reader.entry_count() > 0 {
            // The active memtable has no last sequence number: it may still take newer writes.
            let newest = Some(memtable.last_sequence()).filter(|&sequence| sequence != 0);
            let cursor = Arc::clone(&memtable.reader).cursor();
            sources.push(MergeInput::Memtable(cursor, newest.unwrap_or(SEQUENCE_MAX)));
        }
    }
    let is_wanted = |run: &&Arc<Run>| {
        bounds.may_hold(run) && !prefix.is_some_and(|prefix| bounds.prefix_is_absent(run, prefix))
    };
    let runs: Vec<&Arc<Run>> = state.version.runs().filter(is_wanted).collect();
    let prefix = common_prefix(runs.iter().map(|run| &***run));
    sources.extend(
        runs.into_iter().map(|run| MergeInput::Run(RunCursor::new(Arc::clone(run), CursorAccess::Cached))),
    );
    MergingCursor::with_prefix(sources, &prefix)
}
