//! The disk reserve: the file `RESERVE`, disk space to use when the disk is full.
//!
//! The file is allocated and has no content. Work that must write a little in order to free much shortens the file
//! first: for a manifest, a log segment with deletes, or the table of a range delete. After a successful flush the
//! reserve is filled again. On a file system that does not reserve allocated space, the reserve has no effect.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use parking_lot::Mutex;

use super::files;

/// The usual allocation unit of file systems.
const BLOCK_BYTES: u64 = 4096;

/// The file and its length.
pub(crate) struct DiskReserve {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    bytes_max: u64,
    bytes: Mutex<u64>,
}

impl DiskReserve {
    /// Finds the reserve that earlier processes left. Its full length is `bytes_max`.
    pub(crate) fn find(vfs: &Arc<dyn Vfs>, directory: &Path, bytes_max: u64) -> Self {
        let path = directory.join(files::RESERVE);
        let bytes = vfs.metadata(&path).map_or(0, |metadata| metadata.len);
        Self { vfs: Arc::clone(vfs), path, bytes_max, bytes: Mutex::new(bytes) }
    }

    /// Bytes in the reserve.
    pub(crate) fn bytes(&self) -> u64 {
        *self.bytes.lock()
    }

    /// Frees `bytes` of the reserve, or all if it has less. Returns `false` if it is empty or cannot be shortened.
    pub(crate) fn release(&self, bytes: u64) -> bool {
        let mut held = self.bytes.lock();
        let left = held.saturating_sub(bytes.saturating_add(BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES);
        if *held == 0 || self.set_bytes(left).is_err() {
            return false;
        }
        tracing::warn!(
            given = *held - left,
            left,
            "the disk is full: a part of the disk reserve is released"
        );
        *held = left;
        true
    }

    /// Frees the whole reserve.
    pub(crate) fn release_all(&self) -> bool {
        self.release(u64::MAX / 2)
    }

    /// Fills the reserve again, or as much of it as the disk has space for.
    pub(crate) fn fill(&self) {
        let mut held = self.bytes.lock();
        if *held >= self.bytes_max {
            return;
        }
        for bytes in [self.bytes_max, self.bytes_max / 2, self.bytes_max / 4] {
            if bytes <= *held {
                break;
            }
            match self.allocate(bytes) {
                Ok(()) => {
                    *held = bytes;
                    break;
                }
                // A failed allocation may leave the file longer, or new.
                Err(_) if self.set_bytes(*held).is_err() => break,
                Err(_) => {}
            }
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let file = match self.vfs.open_write(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.vfs.create_new(&self.path),
            opened => opened,
        }?;
        file.allocate(bytes)?;
        file.sync_data()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        if bytes > 0 {
            return self.vfs.open_write(&self.path)?.set_len(bytes);
        }
        match self.vfs.remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
