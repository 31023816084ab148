//! A write-ahead log: append opaque records, make them durable, read them back after a crash.
//!
//! [`Wal`] writes the log and is usable alone, as the log of jobs or of a consensus protocol; [`Log`] and
//! [`LogSync`] are what an engine needs of one. [`WalReader`] reads a log without changing anything. A bad record
//! is told apart: torn, the harmless end of what was promised to nobody, or corrupt, an error that names file and
//! offset. [`RecordFile`] is one file in the same format, for manifests. Files and clocks are reached through
//! [`lsm_core::vfs`] and [`lsm_core::env`] only.
//!
//! ```
//! use std::sync::Arc;
//! use lsm_core::{env::ThreadEnv, vfs::PosixFs};
//! use lsm_wal::{Log, Position, Wal, WalOptions};
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//!
//! let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
//! let (mut log, _) = Wal::open(Arc::new(PosixFs), Arc::new(ThreadEnv::new(1)), directory, options)?;
//! log.append(1, b"first")?;
//! let end = log.append(2, b"second")?; // survives a crash of the process from here on
//! log.ticket(end).wait()?; // and a power cut from here on
//!
//! let mut reader = log.read_from(Position::ZERO)?;
//! while let Some(record) = reader.next()? {
//!     println!("{} {:?}", record.tag, record.payload);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod chain;
mod damage;
mod directory;
mod flip;
mod group_commit;
mod housekeeping;
#[cfg(test)]
mod interleavings;
mod log;
mod options;
mod reader;
mod record;
mod record_file;
mod recovery;
mod report;
mod rewrite;
mod segment;
mod segment_file;
mod source;
mod sync;
mod ticket;
mod verdict;
mod verify;
mod wal;
mod window;
mod window_reader;
mod writer;

pub use directory::{
    DROPPED_SUFFIX, SEGMENT_SUFFIX, UNFINISHED_SUFFIX, WINDOW_SUFFIX, remove_segments_below,
    set_aside_dropped,
};
pub use log::{CleanClose, Durability, DurableCallback, Log, LogSync, Position};
pub use options::WalOptions;
pub use reader::WalReader;
pub use record_file::{RecordFile, RecordFileReader};
pub use report::{Dropped, RecoveryMode, RecoveryReport};
pub use source::Record;
pub use ticket::Ticket;
pub use verify::{Extent, LogExpectation, VerifiedFile, VerifyReport, verify};
pub use wal::Wal;
pub use window_reader::WindowReader;
