//! Compactions, and what they have in common with flushes: how tables are built.
//!
//! In comes what a policy wants; out go tables in the place of others, by one edit of the manifest. What cannot be read
//! stays where it is, and no policy gets it again.

mod build;
mod compactions;
mod covered;
mod install;
mod job;
mod output;
mod policy;
mod queue;
mod scheduler;

pub(crate) use build::{Build, BuildInput, Progress};
pub(crate) use compactions::{Compactions, Manual};
pub(crate) use output::{NewTable, Output, OutputOptions};
pub(crate) use queue::CompactionQueue;
