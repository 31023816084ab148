use lsm_compaction::{CompactionStream, OlderVersions};
use lsm_core::Cursor;

use super::output::{NewTable, Output};
use crate::Result;
use crate::inner::WriteSide;

/// Entries that one step handles: a millisecond or so.
const ENTRIES_PER_STEP: usize = 8192;

/// Tables in the making: a merged stream, the rules of what is kept, and the output.
pub(crate) struct Build<C, O = ()> {
    stream: CompactionStream<C, O>,
    output: Output,
}

/// How far a build got.
pub(crate) enum Progress {
    /// Step again.
    More,
    /// These are the tables, durable, and nobody's yet.
    Done(Vec<NewTable>),
}

impl<C: Cursor, O: OlderVersions> Build<C, O> {
    pub(crate) fn new(stream: CompactionStream<C, O>, output: Output) -> Self {
        Self { stream, output }
    }

    /// Handles the next entries. A build that failed must be dropped; it then removes what it wrote.
    pub(crate) fn step(&mut self, side: &WriteSide) -> Result<Progress> {
        for _ in 0..ENTRIES_PER_STEP {
            match self.stream.next()? {
                Some(entry) => self.output.add(side, entry)?,
                None => return Ok(Progress::Done(self.output.finish(side)?)),
            }
        }
        Ok(Progress::More)
    }
}
