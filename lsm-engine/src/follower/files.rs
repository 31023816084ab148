//! The file system of a follower: says of a table or blob file that is missing that the follower fell behind.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::{LockGuard, LockMode, Metadata, Vfs, VfsFile, Window};

use super::lease::HeldLease;
use crate::error::FellBehind;
use crate::version::files::{self, FileKind};

/// The file system of a follower. It holds the lease, so the lease lives as long as anybody can open a table.
pub(crate) struct FollowerFiles {
    vfs: Arc<dyn Vfs>,
    lease: Arc<HeldLease>,
}

impl FollowerFiles {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, lease: Arc<HeldLease>) -> Self {
        Self { vfs, lease }
    }

    #[cold]
    fn missing(&self, path: &Path, error: io::Error) -> io::Error {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !matches!(files::parse(name), Some(FileKind::Table(_) | FileKind::Blob(_))) {
            return error;
        }
        match self.lease.why_files_vanish() {
            Some(why) => io::Error::other(FellBehind(why)),
            None => error,
        }
    }
}

impl Vfs for FollowerFiles {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        match self.vfs.open_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing(path, error)),
            file => file,
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.vfs.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.vfs.metadata(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.vfs.free_bytes(path)
    }

    fn raise_open_files_limit(&self) -> Option<u64> {
        self.vfs.raise_open_files_limit()
    }

    fn create_new(&self, _path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Err(read_only())
    }

    fn open_write(&self, _path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Err(read_only())
    }

    fn window(&self, _path: &Path, _bytes: u64) -> io::Result<Box<dyn Window>> {
        Err(read_only())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn remove_file(&self, _path: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn hard_link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn lock(&self, _path: &Path, _mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        Err(read_only())
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a follower changes nothing")
}
