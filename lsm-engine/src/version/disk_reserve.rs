//! `RESERVE`: room on the disk that is held back for the way out of a full one.
//!
//! The file is allocated and holds nothing. Whoever has to write a little in order to free much makes it shorter by that,
//! and writes: a manifest, a segment of the log for deletes, the table that a range delete becomes. After a flush that
//! succeeded it is filled up again. A file system that does not reserve what is allocated gives nothing back for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use parking_lot::Mutex;

use super::files;

/// What disks allocate at once, mostly.
const BLOCK_BYTES: u64 = 4096;

/// The file of that name, and what it holds back.
pub(crate) struct DiskReserve {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    bytes_max: u64,
    bytes: Mutex<u64>,
}

impl DiskReserve {
    /// What earlier processes left of it; it is to become `bytes_max` long.
    pub(crate) fn find(vfs: &Arc<dyn Vfs>, directory: &Path, bytes_max: u64) -> Self {
        let path = directory.join(files::RESERVE);
        let bytes = vfs.metadata(&path).map_or(0, |metadata| metadata.len);
        Self { vfs: Arc::clone(vfs), path, bytes_max, bytes: Mutex::new(bytes) }
    }

    /// Bytes that are held back.
    pub(crate) fn bytes(&self) -> u64 {
        *self.bytes.lock()
    }

    /// Gives back so many bytes to the disk, or what there is; `false` if that is nothing.
    pub(crate) fn give(&self, bytes: u64) -> bool {
        let mut held = self.bytes.lock();
        let left = held.saturating_sub(bytes.saturating_add(BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES);
        if *held == 0 || self.set_bytes(left).is_err() {
            return false;
        }
        tracing::warn!(given = *held - left, left, "the disk is full: a part of the reserve is given back");
        *held = left;
        true
    }

    /// Gives back all of it.
    pub(crate) fn give_all(&self) -> bool {
        self.give(u64::MAX / 2)
    }

    /// Holds back again what it should, or as much as there is room for.
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
                // It may be longer now, or there.
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
