//! Background work on tables: what flushes and compactions have in common, and who runs when.

mod build;
mod job;
mod output;
mod queue;
mod scheduler;

pub(crate) use build::{Build, BuildInput, Progress};
pub(crate) use output::{NewTable, Output, OutputOptions};
pub(crate) use queue::CompactionQueue;
pub(crate) use scheduler::{Manual, Scheduler};
