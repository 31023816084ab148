//! A write-ahead log: append opaque records, make them durable, read them back after a crash.
//!
//! [`Wal`] writes the log and is usable alone, as the log of jobs or of a consensus protocol; [`Log`] and
//! [`LogSync`] are what an engine needs of one. [`WalReader`] reads a log without changing anything, and [`Tail`] one that is being written. A bad record
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

mod files;
mod format;
#[cfg(test)]
mod interleavings;
mod log;
mod options;
mod read;
mod record_file;
mod report;
mod sync;
mod ticket;
mod verify;
mod wal;
mod write;

pub use files::directory::{
    DROPPED_SUFFIX, SEGMENT_SUFFIX, UNFINISHED_SUFFIX, WINDOW_SUFFIX, remove_segments_below,
    set_aside_dropped,
};
pub use files::record_reader::Record;
pub use log::{CleanClose, Durability, DurableCallback, Log, LogChange, LogObserver, LogSync, Position};
pub use options::{WalOptions, WindowMemory};
pub use read::tail::{Tail, TailError};
pub use read::wal_reader::WalReader;
pub use read::window_reader::WindowReader;
pub use record_file::{RecordFile, RecordFileReader};
pub use report::{Dropped, LogExpectation, RecoveryMode, RecoveryReport};
pub use ticket::{Ticket, TicketFuture};
pub use verify::{Extent, VerifiedFile, VerifyReport, verify};
pub use wal::{FirstSegment, Wal};
pub use write::log_copy::LogCopy;
pub use write::resume::release_unused;
