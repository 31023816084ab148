//! Checkpoints: a second database in another directory that shares the tables of the first by hard links.
//!
//! Input: the state that is frozen for a moment, while writes go on. Output: a directory that is whole and durable, or
//! nothing. Nothing here changes the database that is copied. Backups freeze, copy and stage in the same way.

#[expect(clippy::module_inception, reason = "the folder has the name of what it is about")]
mod checkpoint;
mod copying;
mod frozen;
mod options;
mod proved;
mod staging;

pub use checkpoint::Checkpoint;
pub use options::CheckpointOptions;

pub(crate) use checkpoint::make;
pub(crate) use copying::{COPY_BYTES, write_file};
pub(crate) use frozen::{Frozen, SEGMENT, freeze, log_path};
pub(crate) use proved::{Check, FileReader, Proved};
pub(crate) use staging::Staging;
