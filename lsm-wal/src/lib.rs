//! A write-ahead log: append opaque records, make them durable, read them back after a crash.

mod damage;
mod flip;
mod log;
mod record;
mod record_file;
mod report;
mod segment;
mod source;

pub use log::{CleanClose, Durability, DurableCallback, Log, LogSync, Position};
pub use record_file::{RecordFile, RecordFileReader};
pub use report::{Dropped, RecoveryMode, RecoveryReport};
pub use source::Record;
