//! Writes the files of a copy.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Vfs, VfsFile};

use super::proved::Proved;
use crate::error::{Error, Result};

/// Bytes copied at a time.
pub(crate) const COPY_BYTES: usize = 1 << 20;

/// A new file that is written from front to back.
pub(crate) struct NewFile {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    bytes: u64,
}

impl NewFile {
    pub(crate) fn create(vfs: &dyn Vfs, path: PathBuf) -> Result<Self> {
        let file = vfs.create_new(&path).map_err(|error| Error::io("create", &path, error))?;
        Ok(Self { file, path, bytes: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_at(bytes, self.bytes).map_err(|error| Error::io("write to", &self.path, error))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes the bytes durable, and returns how many there are. The name is durable after a sync of its directory.
    pub(crate) fn sync(self) -> Result<u64> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))?;
        Ok(self.bytes)
    }
}

/// Writes a new file with all that `content` has, and syncs it.
pub(crate) fn write_file<R: Read>(vfs: &dyn Vfs, path: &Path, content: &mut Proved<'_, R>) -> Result<u64> {
    let mut file = NewFile::create(vfs, path.to_owned())?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match content.next(&mut buffer)? {
            0 => return file.sync(),
            count => file.write(&buffer[..count])?,
        }
    }
}
