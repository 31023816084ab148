//! Opening: the manifest, the tables, what the log holds beyond them, and a fresh start on new files.
//!
//! In comes a directory; out goes a database with everything that was acknowledged, or an error that leaves the
//! directory as it was. Nothing is removed before what replaces it is durable.

mod full_disk;
mod open;
mod replay;
mod report;

pub(crate) use open::{existing_current, open};
pub use report::Recovery;
