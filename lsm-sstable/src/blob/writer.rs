use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::key::VALUE_BYTES_MAX;
use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Error, Result};

use super::footer::{FOOTER_BYTES, Footer};
use super::{CHUNK_BYTES, ENTRY_BYTES, PIECE_BYTES};
use crate::file_writer::FileWriter;
use crate::format::checksum::BlockChecksum;
use crate::format::file_header::BLOB;
use crate::meta::TableId;

/// Writes a blob file from front to back. The file is complete when [`finish_unsynced`](BlobWriter::finish_unsynced)
/// returns, and durable when what that returns is synced. The directory is for the caller to sync.
///
/// After an error the writer is of no more use: drop it and remove the file.
///
/// ```
/// use lsm_core::vfs::PosixFs;
/// use lsm_sstable::{BlobReader, BlobWriter, TableId};
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("1.blob");
/// let mut writer = BlobWriter::create(&PosixFs, &path, TableId(7), 1 << 20)?;
/// let place = writer.add(&[b'x'; 100_000])?;
/// let meta = writer.finish()?;
///
/// let blobs = BlobReader::open(&PosixFs, &path, Some(&(&meta).into()))?;
/// assert_eq!(blobs.read(place)?.len(), 100_000);
/// assert_eq!(blobs.read_part(place, 99_998..200_000)?, b"xx");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BlobWriter {
    output: FileWriter,
    checksum: BlockChecksum,
    meta: BlobMeta,
    is_rewritten: bool,
    directory: Vec<(u64, u32)>,
    checks: Vec<u8>,
}

/// What a list of blob files (a manifest) keeps about each one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobMeta {
    /// Identity: random, never used again.
    pub id: TableId,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// CRC-64/NVME of the file up to its footer.
    pub checksum: u64,
    /// Number of values.
    pub values: u64,
    /// Sum of their lengths.
    pub value_bytes: u64,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobPlace {
    /// Its number in the file, from 0.
    pub number: u64,
    /// Where it was written first.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// A blob file that is complete, and that a power cut may still take.
pub struct UnsyncedBlobs {
    meta: BlobMeta,
    file: Arc<dyn VfsFile>,
    path: Arc<PathBuf>,
}

impl UnsyncedBlobs {
    /// What belongs into a manifest once the file is synced.
    pub fn meta(&self) -> &BlobMeta {
        &self.meta
    }

    /// Makes the file durable. The directory is for the caller to sync.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }
}

impl BlobWriter {
    /// Creates the file, which must not exist. `id` must be random and never used before.
    pub fn create(vfs: &dyn Vfs, path: &Path, id: TableId, write_buffer_bytes: usize) -> Result<Self> {
        let file = vfs.create_new(path).map_err(|error| Error::io("create", path, error))?;
        let mut output = FileWriter::new(file, path, write_buffer_bytes, 0);
        output.put(&BLOB.encode(id))?;
        Ok(Self {
            output,
            checksum: BlockChecksum::new(id),
            meta: BlobMeta { id, ..BlobMeta::default() },
            is_rewritten: false,
            directory: Vec::new(),
            checks: Vec::new(),
        })
    }

    /// Like [`create`](Self::create), for the values of another file that keep their numbers: those that are not added are
    /// gone.
    pub fn create_rewritten(
        vfs: &dyn Vfs,
        path: &Path,
        id: TableId,
        write_buffer_bytes: usize,
    ) -> Result<Self> {
        Ok(Self { is_rewritten: true, ..Self::create(vfs, path, id, write_buffer_bytes)? })
    }

    /// Adds a value, which gets the next number. It has 1 byte to 4 GiB.
    pub fn add(&mut self, value: &[u8]) -> Result<BlobPlace> {
        self.add_as(self.directory.len() as u64, value)
    }

    /// Adds a value with this number, which must be above all others.
    pub fn add_as(&mut self, number: u64, value: &[u8]) -> Result<BlobPlace> {
        let bytes = value.len() as u64;
        let (Ok(index), true) = (usize::try_from(number), bytes > 0 && bytes <= VALUE_BYTES_MAX) else {
            return Err(Error::invalid(format!("a blob of {bytes} bytes cannot be number {number}")));
        };
        if index < self.directory.len() {
            return Err(Error::invalid(format!("blob {number} does not follow {}", self.directory.len())));
        }
        let offset = self.output.offset();
        self.checks.clear();
        let mut at = offset;
        for piece in value.chunks(PIECE_BYTES as usize) {
            for chunk in piece.chunks(CHUNK_BYTES as usize) {
                self.checks.extend_from_slice(&self.checksum.compute(at, chunk).to_le_bytes());
                at += chunk.len() as u64;
            }
            self.output.put(piece)?;
        }
        self.output.put(&self.checks)?;
        self.output.write_if_full()?;
        self.directory.resize(index, (0, 0));
        self.directory.push((offset, value.len() as u32));
        self.meta.values += 1;
        self.meta.value_bytes += bytes;
        Ok(BlobPlace { number, offset, bytes })
    }

    /// Bytes so far.
    pub fn written_bytes(&self) -> u64 {
        self.output.offset()
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        self.output.heap_bytes()
            + self.checks.capacity()
            + self.directory.capacity() * size_of::<(u64, u32)>()
    }

    /// Writes the rest and syncs the file. What is returned belongs into a manifest.
    pub fn finish(self) -> Result<BlobMeta> {
        let blobs = self.finish_unsynced()?;
        blobs.sync()?;
        Ok(blobs.meta)
    }

    /// Writes the rest, and leaves the sync to the caller.
    pub fn finish_unsynced(mut self) -> Result<UnsyncedBlobs> {
        let directory = self.output.offset();
        let mut at = directory;
        for (offset, bytes) in std::mem::take(&mut self.directory) {
            let mut entry = [0; ENTRY_BYTES as usize];
            entry[..8].copy_from_slice(&offset.to_le_bytes());
            entry[8..12].copy_from_slice(&bytes.to_le_bytes());
            let check = self.checksum.compute(at, &entry[..12]);
            entry[12..].copy_from_slice(&check.to_le_bytes());
            self.output.put(&entry)?;
            at += ENTRY_BYTES;
        }
        self.output.write()?;
        let footer = Footer {
            directory,
            numbers: (at - directory) / ENTRY_BYTES,
            values: self.meta.values,
            value_bytes: self.meta.value_bytes,
            file_bytes: at + FOOTER_BYTES as u64,
            body_checksum: self.output.checksum(),
            id: self.meta.id,
            is_rewritten: self.is_rewritten,
        };
        self.output.put(&footer.encode())?;
        self.output.write()?;
        self.meta.file_bytes = footer.file_bytes;
        self.meta.checksum = footer.body_checksum;
        let (file, path) = self.output.into_file();
        Ok(UnsyncedBlobs { meta: self.meta, file, path })
    }
}
