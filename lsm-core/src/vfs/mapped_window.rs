//! A [`Window`] on a shared memory map.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapMut, MmapOptions};

use super::file::VfsFile;
use super::platform;
use super::window::Window;

/// A file mapped shared: stores go to the page cache, which outlives the process.
pub(super) struct MappedWindow {
    map: MmapMut,
}

impl MappedWindow {
    /// Fills `file`, which is new and empty, with `bytes` zeros and maps it.
    pub(super) fn new(file: &File, bytes: u64) -> io::Result<Self> {
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::Unsupported)?;
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // A store into a hole on a full disk kills the process with a signal, and so does one into a block that the
        // file system copies. So every block is written, and synced, since some file systems allocate only then; and
        // those that write anywhere else but there are refused.
        if !platform::keeps_blocks(file)? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        platform::allocate(file, bytes)?;
        let zeros = vec![0; len.min(1 << 16)];
        let mut offset = 0;
        while offset < len {
            let count = zeros.len().min(len - offset);
            match platform::write_at(file, &zeros[..count], offset as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => offset += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        file.sync_all()?;
        // The first store into a page maps it, in less than a microsecond. So a window takes the memory that is used.
        Ok(Self { map: map(file, len)? })
    }
}

#[expect(
    unsafe_code,
    reason = "the one memory map of the workspace; measured 18 times faster than a write per record"
)]
fn map(file: &File, len: usize) -> io::Result<MmapMut> {
    // SAFETY: a map is unsound if someone else changes or cuts the file. The file was created by this call's
    // caller under a name that was free, in a directory that its owner locks; nobody else writes to it, and no
    // reference into the map leaves this module.
    let map = unsafe { MmapOptions::new().len(len).map_mut(file) };
    // File systems without maps say so with a choice of codes; to the caller they are one.
    map.map_err(|error| match error.kind() {
        io::ErrorKind::OutOfMemory => error,
        _ => io::Error::new(io::ErrorKind::Unsupported, error),
    })
}

impl Window for MappedWindow {
    fn len(&self) -> usize {
        self.map.len()
    }

    #[inline]
    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.map[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    #[inline]
    #[expect(unsafe_code, reason = "an atomic store into mapped memory")]
    #[expect(clippy::cast_ptr_alignment, reason = "asserted; maps start on a page")]
    fn publish(&mut self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8), "offset must be a multiple of 8");
        let target = self.map[offset..offset + 8].as_mut_ptr().cast::<u64>();
        // SAFETY: the slice proves that eight bytes are in bounds; they are aligned, since a map starts on a page
        // and the offset is a multiple of 8; `&mut self` keeps everyone else in this process away meanwhile.
        let atomic = unsafe { AtomicU64::from_ptr(target) };
        atomic.store(value.to_le(), Ordering::Release);
    }

    fn write_to(&self, range: Range<usize>, file: &dyn VfsFile, offset: u64) -> io::Result<()> {
        file.write_at(&self.map[range], offset)
    }
}
