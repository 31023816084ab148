//! Background work: flushes, compactions, the removal of obsolete files, and the flight recorder.
//!
//! Input: immutable memtables, and the picks of compaction policies. Output: tables, and the version edits that install
//! them. A job works in steps of a few milliseconds and never waits. Callers that wait for its work get its error.

mod clean;
mod compaction;
mod context;
mod flush;
mod flush_job;
mod flushed;
mod pinning;
mod purge;

use std::sync::Arc;

use lsm_core::env::Priority;

use clean::CleanJob;
pub(crate) use compaction::{Compactions, Manual, NewFiles, Output, OutputOptions};
pub(crate) use context::{JobContext, JobToken};
#[cfg(test)]
pub(crate) use flush::FlushGroup;
pub(crate) use flush::{Flush, UNSYNCED_FILES_MAX};
use flush_job::FlushJob;

use crate::memory_pool::Wakers;

/// Starts the jobs that run as long as a database is open for writing.
pub(crate) fn start(context: &Arc<JobContext>, compactions: &Arc<Compactions>) {
    let env = &context.resources.env;
    context.resources.memory.holding.set_wakers(Wakers {
        flush: context.write.flush_wanted.clone(),
        progress: context.status.progress.clone(),
        merge: context.resources.obsolete_files.event().clone(),
    });
    let (flushing, cleaning) = (Arc::clone(context), Arc::clone(context));
    env.spawn(Priority::High, Box::new(FlushJob::new(flushing, Arc::clone(compactions))));
    for tree in &context.all_trees() {
        context.compaction_queue.add(tree);
        context.blob_rewrites.trees.add(tree);
        context.blob_rewrites.trees.recheck(tree);
    }
    env.spawn(Priority::Normal, Box::new(CleanJob::new(cleaning, Arc::clone(compactions))));
}
