use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_core::{BlobPointer, Slice};
use lsm_sstable::{BlobExpectation, BlobMeta, BlobPlace, BlobReader};

use super::edit::AddedBlob;
use super::files;
use super::table_file::ObsoleteFiles;
use crate::error::Result;
use crate::memory::file_cache;
use crate::memory::{Charge, Memory, Part};

/// An open file of large values. Pointers name it by its `blob`; a file that takes its place when it is rewritten has the
/// same `blob` and another `number`. When the last holder drops it and it is obsolete, the file goes to the
/// [`ObsoleteFiles`].
pub(crate) struct BlobFile {
    blob: u64,
    number: u64,
    reader: BlobReader,
    /// Set when the manifest does not name the file any more, and no log record that may be replayed does.
    obsolete: AtomicBool,
    obsolete_files: Arc<ObsoleteFiles>,
    _charge: Charge,
}

/// What a blob file takes in memory: its handle, and what the manifest keeps.
const HELD_BYTES: usize = size_of::<BlobFile>() + file_cache::HANDLE_BYTES + size_of::<AddedBlob>() + 160;

impl BlobFile {
    /// Opens the file. Values are read and checked when they are asked for.
    pub(crate) fn open(
        memory: &Arc<Memory>,
        directory: &Path,
        (blob, number): (u64, u64),
        expected: Option<&BlobExpectation>,
        obsolete_files: &Arc<ObsoleteFiles>,
    ) -> lsm_core::Result<Arc<Self>> {
        let path = Arc::new(files::blob(directory, number));
        let opened = memory.file_cache.open(&path);
        let file = opened.map_err(|error| lsm_core::Error::io("open", &path, error))?;
        let reader = BlobReader::from_file(file, path, expected)?;
        Ok(Arc::new(Self {
            blob,
            number,
            reader,
            obsolete: AtomicBool::new(false),
            obsolete_files: Arc::clone(obsolete_files),
            _charge: Charge::new(memory, Part::Tables, HELD_BYTES),
        }))
    }

    /// What pointers call it.
    pub(crate) fn blob(&self) -> u64 {
        self.blob
    }

    /// The number of the file.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn path(&self) -> &Path {
        self.reader.path()
    }

    pub(crate) fn meta(&self) -> BlobMeta {
        self.reader.meta()
    }

    /// What a version edit says to add the file to a keyspace.
    pub(crate) fn added_to(&self, keyspace: u32) -> AddedBlob {
        AddedBlob { keyspace, blob: self.blob, number: self.number, meta: self.meta() }
    }

    /// The value of a pointer to this blob.
    pub(crate) fn read(&self, pointer: &BlobPointer) -> Result<Slice> {
        Ok(self.reader.read(place(pointer))?)
    }

    /// A part of the value of a pointer to this blob.
    pub(crate) fn read_part(&self, pointer: &BlobPointer, range: std::ops::Range<u64>) -> Result<Slice> {
        Ok(self.reader.read_part(place(pointer), range)?)
    }

    /// Marks the file as obsolete: it is removed after the last reader.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

/// Where the value of a pointer is.
fn place(pointer: &BlobPointer) -> BlobPlace {
    BlobPlace { number: pointer.number, offset: pointer.offset, bytes: pointer.bytes }
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.obsolete_files.remove_later(PathBuf::from(self.reader.path()));
        }
    }
}

impl std::fmt::Debug for BlobFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobFile")
            .field("blob", &self.blob)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
