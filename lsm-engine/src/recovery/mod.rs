//! Opening a database: reads the manifest, opens the tables, replays the log, and starts a new manifest and log.
//!
//! Input: a directory. Output: a database with everything that was acknowledged, or an error that loses nothing. No
//! file is removed before its replacement is durable.

mod full_disk;
mod history;
mod open;
mod replay;
mod report;

pub(crate) use open::{existing_current, open};
pub(crate) use replay::{malformed, open_blob, wanted_bytes};
pub use report::Recovery;
