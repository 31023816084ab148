use lsm_compaction::{CompactionStream, OlderVersions};
use lsm_core::Cursor;

use super::output::{NewTable, Output};
use crate::Result;
use crate::inner::WriteSide;

/// Entries that one step handles, and about how many bytes of them: a millisecond or so.
const ENTRIES_PER_STEP: usize = 8192;
const BYTES_PER_STEP: usize = 1 << 20;

/// Tables in the making: a merged stream, the rules of what is kept, and the output.
pub(crate) struct Build<C, O = ()> {
    stream: CompactionStream<C, O>,
    /// What the cursor holds in buffers.
    read_bytes: fn(&C) -> usize,
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
    pub(crate) fn new(stream: CompactionStream<C, O>, read_bytes: fn(&C) -> usize, output: Output) -> Self {
        Self { stream, read_bytes, output }
    }

    /// Handles the next entries. A build that failed must be dropped; it then removes what it wrote.
    pub(crate) fn step(&mut self, side: &WriteSide) -> Result<Progress> {
        let mut bytes = 0;
        for _ in 0..ENTRIES_PER_STEP {
            let Some(entry) = self.stream.next()? else {
                return Ok(Progress::Done(self.output.finish(side)?));
            };
            bytes += entry.key.len() + entry.value.len();
            self.output.add(side, entry)?;
            if bytes >= BYTES_PER_STEP {
                break;
            }
        }
        self.output.charge((self.read_bytes)(self.stream.cursor()));
        Ok(Progress::More)
    }
}
