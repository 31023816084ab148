use std::path::Path;

use lsm_core::Result;
use lsm_core::vfs::VfsFile;

use crate::section;

/// A page of memory. The tail of a small table is all of it.
const TAIL_BYTES: u64 = 4096;

/// The end of a file, read at once: of most tables it holds what opening reads in any case, of small ones index and
/// filter too.
#[derive(Default)]
pub(super) struct Tail {
    start: u64,
    bytes: Vec<u8>,
}

impl Tail {
    pub(super) fn read(file: &dyn VfsFile, path: &Path, file_bytes: u64) -> Result<Self> {
        let start = file_bytes.saturating_sub(TAIL_BYTES);
        let mut bytes = vec![0; (file_bytes - start) as usize];
        section::read_exact(file, path, &mut bytes, start)?;
        Ok(Self { start, bytes })
    }

    /// Fills `buffer` with what stands at `offset`, from here if it is here.
    pub(super) fn read_exact(
        &self,
        file: &dyn VfsFile,
        path: &Path,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        let here = offset
            .checked_sub(self.start)
            .and_then(|start| self.bytes.get(usize::try_from(start).ok()?..)?.get(..buffer.len()));
        match here {
            Some(here) => {
                buffer.copy_from_slice(here);
                Ok(())
            }
            None => section::read_exact(file, path, buffer, offset),
        }
    }
}
