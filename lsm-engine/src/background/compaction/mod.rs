//! Compactions, and the building of tables, which flushes use too.
//!
//! Input: the picks of policies. Output: tables that replace others by one version edit. A table that cannot be read
//! stays in place, and later compactions leave it out.

mod blob_output;
mod blob_rewrite;
mod blob_rewrites;
mod build;
mod compactions;
mod covered;
mod install;
mod job;
mod older;
mod output;
mod policy;
mod queue;
mod scheduler;

pub(crate) use blob_rewrites::BlobRewrites;
pub(crate) use build::{Build, BuildInput, Progress};
pub(crate) use compactions::{Compactions, Hold, Manual};
pub(crate) use older::Older;
pub(crate) use output::{NewFiles, NewTable, Output, OutputOptions};
pub(crate) use queue::CompactionQueue;
