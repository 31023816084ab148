//! File systems that leave out what is to be left out of a measurement.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::{Access, PosixFs, Vfs, VfsFile};
use lsm_dev::{NoFs, VfsLayer};

/// Creates files; anything else fails.
#[derive(Clone, Copy)]
pub(crate) enum WriteOnlyFs {
    /// Whose bytes go nowhere.
    Discard,
    /// Whose bytes stay in the page cache: nothing is synced.
    PageCache,
}

struct WriteOnlyFile(Option<Arc<dyn VfsFile>>);

impl VfsLayer for WriteOnlyFs {
    fn below(&self) -> &dyn Vfs {
        &NoFs
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(WriteOnlyFile(match self {
            Self::Discard => None,
            Self::PageCache => Some(PosixFs.create_new(path)?),
        })))
    }
}

impl VfsFile for WriteOnlyFile {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |file| file.write_at(bytes, offset))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _: u64, _: u64) {}

    fn advise(&self, _: Access) {}
}
