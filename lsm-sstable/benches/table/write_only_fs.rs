//! File systems that leave out what is to be left out of a measurement.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::{Access, LockGuard, LockMode, Metadata, PosixFs, Vfs, VfsFile, Window};

/// Creates files; anything else fails.
#[derive(Clone, Copy)]
pub(crate) enum WriteOnlyFs {
    /// Whose bytes go nowhere.
    Discard,
    /// Whose bytes stay in the page cache: nothing is synced.
    PageCache,
}

struct WriteOnlyFile(Option<Arc<dyn VfsFile>>);

impl Vfs for WriteOnlyFs {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(WriteOnlyFile(match self {
            Self::Discard => None,
            Self::PageCache => Some(PosixFs.create_new(path)?),
        })))
    }

    fn open_read(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_write(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn window(&self, _: &Path, _: u64) -> io::Result<Box<dyn Window>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_dir(&self, _: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn metadata(&self, _: &Path) -> io::Result<Metadata> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, _: &Path, _: LockMode) -> io::Result<Box<dyn LockGuard>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
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
