//! Where a log is written: file system, directory, options.

use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::vfs::Vfs;

use crate::options::WalOptions;

/// Bytes of a log's first segment, unless all are to be smaller.
const FIRST_SEGMENT_BYTES: u64 = 2 << 20;
/// Bytes of a segment on a disk that has no room for a larger one.
pub(crate) const SMALL_SEGMENT_BYTES: u64 = 64 << 10;
/// Bytes of the first segment where not even that fits: enough for some records, and two blocks of most disks.
pub(crate) const LEAST_SEGMENT_BYTES: u64 = 8 << 10;

/// What all who write a log need: file system, directory, options.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) directory: PathBuf,
    pub(crate) options: WalOptions,
}

impl Site {
    /// Bytes of the segment after one of `capacity`. The first are small, so that a log of few records is, and each is
    /// twice as large as the one before.
    pub(crate) fn segment_bytes_after(&self, capacity: u64) -> u64 {
        capacity.saturating_mul(2).max(FIRST_SEGMENT_BYTES).min(self.options.segment_bytes)
    }
}
