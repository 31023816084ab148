//! Background work on tables: what flushes and compactions have in common, and who runs when.

mod build;
mod changed;
mod job;
mod output;
mod scheduler;

pub(crate) use build::{Build, Progress, Source};
pub(crate) use changed::Changed;
pub(crate) use output::{NewTable, Output, OutputOptions};
pub(crate) use scheduler::{Manual, Scheduler};
