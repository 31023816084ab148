use std::sync::Arc;

use lsm_compaction::{CompactionStream, OlderVersions};
use lsm_core::Cursor;

use super::output::{NewFiles, Output};
use crate::error::Result;
use crate::keyspaces::Merging;

/// Maximum number of entries, and bytes, that one step handles. That takes about a millisecond.
const ENTRIES_PER_STEP: usize = 8192;
const BYTES_PER_STEP: usize = 1 << 20;

/// The building of tables: a merged stream, filtered by the garbage rules, and the output.
pub(crate) struct Build<C, O = ()> {
    stream: CompactionStream<C, O>,
    source: BuildInput<C, O>,
    output: Output,
    merging: Arc<Merging>,
}

/// Functions that a build needs for its kind of cursor.
pub(crate) struct BuildInput<C, O> {
    /// Memory of the cursor's buffers.
    pub(crate) read_bytes: fn(&C) -> usize,
    /// Copies the next block unchanged, if possible. Returns its bytes in the file, or 0.
    pub(crate) copy_block: fn(&mut CompactionStream<C, O>, &mut Output) -> Result<usize>,
}

/// The progress of a build.
pub(crate) enum Progress {
    /// The build needs more steps.
    More,
    /// The build is done. The tables are not installed yet, and not synced if [`OutputOptions::sync_later`] is set.
    Done(NewFiles),
}

impl<C: Cursor, O: OlderVersions> Build<C, O> {
    /// Merge operands are folded with the operator of `merging`.
    pub(crate) fn new(
        stream: CompactionStream<C, O>,
        source: BuildInput<C, O>,
        output: Output,
        merging: &Arc<Merging>,
    ) -> Self {
        let stream = stream.with_merge_operator(merging.for_background());
        Self { stream, source, output, merging: Arc::clone(merging) }
    }

    /// Handles the next entries. Drop a build that failed; then it removes its files.
    pub(crate) fn step(&mut self) -> Result<Progress> {
        let mut bytes = 0;
        for _ in 0..ENTRIES_PER_STEP {
            let copied = (self.source.copy_block)(&mut self.stream, &mut self.output)?;
            if copied == 0 {
                let Some(entry) = self.stream.next()? else {
                    let files = self.output.finish()?;
                    self.report_merges();
                    return Ok(Progress::Done(files));
                };
                bytes += entry.key.len() + entry.value.len();
                self.output.add(entry)?;
            }
            bytes += copied;
            if bytes >= BYTES_PER_STEP {
                break;
            }
        }
        self.output.charge((self.source.read_bytes)(self.stream.cursor()) + self.stream.memory_bytes());
        Ok(Progress::More)
    }

    /// Whether a compaction filter has deleted or changed something.
    pub(crate) fn has_filtered(&self) -> bool {
        let counts = self.stream.counts();
        counts.filter_deleted + counts.filter_replaced > 0
    }

    /// Estimated bytes of the tables that were written so far. 0 when the build is done.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.output.written_bytes()
    }

    fn report_merges(&self) {
        self.output.count_folded(self.stream.counts().operands_folded);
        if let Some(failure) = self.stream.merge_failure() {
            self.output.count_refused(failure.count, self.merging.first_refusal(failure));
        }
    }
}
