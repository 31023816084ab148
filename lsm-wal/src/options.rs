use std::fmt;
use std::sync::Arc;

use lsm_core::{Error, Result};

use crate::format::{record, segment};
use crate::report::RecoveryMode;

/// How a log is written. The defaults suit a database; change them with struct update syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// Size of the largest segments in bytes: what [`Log::truncate_front`](crate::Log::truncate_front) frees at
    /// once. Each time that a log is opened its segments begin at 2 MiB, or this, and double. The next one is kept
    /// allocated ahead. A record that is longer gets a segment of its own size. 64 MiB; at least 4 KiB.
    pub segment_bytes: u64,
    /// Size of the window in bytes: buffered records are copied there and written to the segment when it is
    /// full. 0 means no window: every append is a write. The first record takes a sixteenth of it into use, and each time
    /// that this is full it doubles; what is not in use takes no memory. 512 KiB; at most 64 MiB.
    pub window_bytes: u64,
    /// Asked before more of the window is taken into use. `None`: all of it may be.
    pub window_memory: Option<WindowMemory>,
    /// What to make of a log that does not end where a record ends; used by [`Wal::open`](crate::Wal::open).
    pub recovery: RecoveryMode,
    /// Buffered records are synced in the background when the oldest has waited this long, in microseconds;
    /// `None` leaves it to the caller. One second.
    pub sync_lag_micros: Option<u64>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            window_bytes: 512 << 10,
            window_memory: None,
            recovery: RecoveryMode::default(),
            sync_lag_micros: Some(1_000_000),
        }
    }
}

impl WalOptions {
    pub(crate) fn check(&self) -> Result<()> {
        let segment_bytes_max = record::POSITION_MAX - segment::HEADER_BYTES as u64 - 1;
        if !(4096..=segment_bytes_max).contains(&self.segment_bytes) {
            return Err(Error::invalid(format!(
                "segment_bytes is {}; it must be from 4096 to {segment_bytes_max}",
                self.segment_bytes
            )));
        }
        if self.window_bytes > 64 << 20 {
            return Err(Error::invalid("window_bytes must be at most 64 MiB"));
        }
        Ok(())
    }
}

/// Who decides how much memory the window of a log may take.
///
/// It is called with the bytes that the window is about to hold, and returns whether it may. If it may not, the window
/// stays as it is, and records that do not fit are written to the segment. Less than before is not refused; 0 is the end of
/// the window. It is called while the log is locked: it must be short, and must not call the log.
#[derive(Clone)]
pub struct WindowMemory(pub Arc<dyn Fn(u64) -> bool + Send + Sync>);

impl fmt::Debug for WindowMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WindowMemory")
    }
}

impl PartialEq for WindowMemory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for WindowMemory {}
