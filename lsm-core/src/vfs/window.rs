use std::io;
use std::ops::Range;

use super::file::VfsFile;

/// A small file in memory that outlives the process: writing is a copy, and what was copied survives a crash of
/// the process, but not of the machine, until its bytes were also written elsewhere and synced.
///
/// One thread writes. Never a slice is given out, so that a simulator can model the file.
pub trait Window: Send {
    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether the window has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// If the range is out of bounds.
    fn write_at(&mut self, offset: usize, bytes: &[u8]);

    /// Stores `value`, little-endian, at `offset`, a multiple of 8, after everything written before: who finds
    /// the value after a crash of the process finds those bytes too.
    ///
    /// # Panics
    /// If the range is out of bounds or `offset` is not a multiple of 8.
    fn publish(&mut self, offset: usize, value: u64);

    /// Writes a range of the window to a file, as [`VfsFile::write_at`] does.
    ///
    /// # Panics
    /// If the range is out of bounds.
    fn write_to(&self, range: Range<usize>, file: &dyn VfsFile, offset: u64) -> io::Result<()>;
}
