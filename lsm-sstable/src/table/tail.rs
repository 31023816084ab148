//! The last bytes of a table, read at once when it is opened.

use std::path::Path;

use lsm_core::Result;
use lsm_core::vfs::VfsFile;

use crate::format::section;

/// A page of memory. The tail of a small table is all of it.
pub(super) const TAIL_BYTES: usize = 4096;

/// The end of a file, read at once: of most tables it holds what opening reads in any case, of small ones index and
/// filter too.
#[derive(Clone, Copy, Default)]
pub(super) struct Tail<'b> {
    start: u64,
    bytes: &'b [u8],
}

impl<'b> Tail<'b> {
    /// Reads as much as `buffer` takes.
    pub(super) fn read(
        file: &dyn VfsFile,
        path: &Path,
        file_bytes: u64,
        buffer: &'b mut [u8; TAIL_BYTES],
    ) -> Result<Self> {
        let start = file_bytes.saturating_sub(TAIL_BYTES as u64);
        let bytes = &mut buffer[..(file_bytes - start) as usize];
        section::read_exact(file, path, bytes, start)?;
        Ok(Self { start, bytes })
    }

    /// So many bytes at `offset`, if they are here.
    pub(super) fn get(&self, offset: u64, bytes: usize) -> Option<&'b [u8]> {
        let start = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(start..)?.get(..bytes)
    }

    /// Fills `buffer` with what stands at `offset`, from here if it is here.
    pub(super) fn read_exact(
        &self,
        file: &dyn VfsFile,
        path: &Path,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        match self.get(offset, buffer.len()) {
            Some(here) => {
                buffer.copy_from_slice(here);
                Ok(())
            }
            None => section::read_exact(file, path, buffer, offset),
        }
    }
}
