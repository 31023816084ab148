//! Background work: flushes, compactions, the removal of obsolete files.
//!
//! In come immutable memtables and what policies ask for; out go tables and the edits that make them count. A job
//! works a few milliseconds at a time and never waits; what it fails with is told to whoever waits for it.

mod compaction;
mod flush;
mod jobs;
mod pinning;

pub(crate) use compaction::{CompactionQueue, Manual, NewTable, Scheduler};
#[cfg(test)]
pub(crate) use flush::FlushGroup;
pub(crate) use flush::{Flush, UNSYNCED_FILES_MAX};
pub(crate) use jobs::{caught, panic_message, start};
