use lsm_compaction::{CompactionStream, OlderVersions};
use lsm_core::Cursor;

use super::output::{NewTable, Output};
use crate::error::Result;

/// Entries that one step handles, and about how many bytes of them: a millisecond or so.
const ENTRIES_PER_STEP: usize = 8192;
const BYTES_PER_STEP: usize = 1 << 20;

/// Tables in the making: a merged stream, the rules of what is kept, and the output.
pub(crate) struct Build<C, O = ()> {
    stream: CompactionStream<C, O>,
    source: BuildInput<C, O>,
    output: Output,
}

/// What a build does with its cursor beside reading its entries.
pub(crate) struct BuildInput<C, O> {
    /// What it holds in buffers.
    pub(crate) read_bytes: fn(&C) -> usize,
    /// Copies the block that comes next as it is, if there is one to be copied; returns its bytes in the file, or 0.
    pub(crate) copy_block: fn(&mut CompactionStream<C, O>, &mut Output) -> Result<usize>,
}

/// How far a build got.
pub(crate) enum Progress {
    /// Step again.
    More,
    /// These are the tables, durable, and nobody's yet.
    Done(Vec<NewTable>),
}

impl<C: Cursor, O: OlderVersions> Build<C, O> {
    pub(crate) fn new(stream: CompactionStream<C, O>, source: BuildInput<C, O>, output: Output) -> Self {
        Self { stream, source, output }
    }

    /// Handles the next entries. A build that failed must be dropped; it then removes what it wrote.
    pub(crate) fn step(&mut self) -> Result<Progress> {
        let mut bytes = 0;
        for _ in 0..ENTRIES_PER_STEP {
            let copied = (self.source.copy_block)(&mut self.stream, &mut self.output)?;
            if copied == 0 {
                let Some(entry) = self.stream.next()? else {
                    return Ok(Progress::Done(self.output.finish()?));
                };
                bytes += entry.key.len() + entry.value.len();
                self.output.add(entry)?;
            }
            bytes += copied;
            if bytes >= BYTES_PER_STEP {
                break;
            }
        }
        self.output.charge((self.source.read_bytes)(self.stream.cursor()));
        Ok(Progress::More)
    }
}
