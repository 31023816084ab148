//! The files of segments: the one that is written, and the spare that is prepared for later.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Error, Result};

use super::directory::{self, LogFile};
use crate::format::record;
use crate::format::segment::{self, SegmentHeader};

const HEADER_BYTES: u64 = segment::HEADER_BYTES as u64;
/// Room that every segment keeps for the record that closes the log.
pub(crate) const CLOSE_BYTES: u64 = record::record_bytes(0);

/// A segment that is or was written.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
    /// Position of its first record.
    pub(crate) start: u64,
    /// Bytes that are allocated.
    pub(crate) capacity: u64,
    /// What the checksum of each record's header continues from.
    pub(crate) record_seed: u32,
}

impl Segment {
    pub(crate) fn offset_of(&self, position: u64) -> u64 {
        position - self.start + HEADER_BYTES
    }

    /// Whether records up to `end` fit, and the closing one.
    pub(crate) fn fits(&self, end: u64) -> bool {
        self.offset_of(end).saturating_add(CLOSE_BYTES) <= self.capacity
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_at(bytes, offset).map_err(|error| Error::io("write to", &self.path, error))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }
}

/// A segment of zeros that waits for its turn: allocated, and its name and length durable.
pub(crate) struct Spare {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    pub(crate) number: u64,
    /// Bytes that are allocated.
    capacity: u64,
}

impl Spare {
    pub(crate) fn prepare(vfs: &dyn Vfs, directory: &Path, number: u64, capacity: u64) -> Result<Self> {
        directory::check_number(number)?;
        let path = LogFile::Segment(number).path(directory);
        let file = vfs.create_new(&path).map_err(|error| Error::io("create", &path, error))?;
        let mut spare = Self { file, path, number, capacity: 0 };
        let prepared = spare.allocate(capacity).and_then(|()| directory::sync(vfs, directory));
        match prepared {
            Ok(()) => Ok(spare),
            Err(error) => {
                spare.discard(vfs);
                Err(error)
            }
        }
    }

    /// Makes room for this many bytes at least.
    pub(crate) fn allocate(&mut self, capacity: u64) -> Result<()> {
        if self.capacity < capacity {
            let Self { file, path, .. } = self;
            file.allocate(capacity).map_err(|error| Error::io("allocate", path, error))?;
            file.sync_data().map_err(|error| Error::io("sync", path, error))?;
            self.capacity = capacity;
        }
        Ok(())
    }

    /// Removes the file. One that stays is found unused by the next recovery.
    pub(crate) fn discard(self, vfs: &dyn Vfs) {
        let _ = vfs.remove_file(&self.path);
    }

    /// Writes the header and makes it a segment; the header is durable after the segment's next sync.
    pub(crate) fn activate(self, header: &SegmentHeader) -> Result<Segment, (Self, Error)> {
        debug_assert_eq!(self.number, header.number);
        if let Err(error) = self.file.write_at(&header.encode(), 0) {
            let error = Error::io("write to", &self.path, error);
            return Err((self, error));
        }
        let Self { file, path, number, capacity } = self;
        let &SegmentHeader { start, record_seed, .. } = header;
        Ok(Segment { file, path, number, start, capacity, record_seed })
    }
}
