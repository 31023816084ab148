//! Writes the large values of an output to blob files.

use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::{BlobPointer, Entry, ValueKind, expiry};
use lsm_sstable::{BlobExpectation, BlobMeta, BlobWriter, UnsyncedBlobs};

use crate::error::Result;
use crate::events::EventKind;
use crate::resources::{Resources, file_name};
use crate::version::{BlobFile, VersionSet, files};

/// A blob file ends when it has reached this size.
const FILE_BYTES: u64 = 64 << 20;

/// The blob files of an output.
pub(super) struct BlobOutput {
    resources: Arc<Resources>,
    versions: Arc<VersionSet>,
    write_buffer_bytes: usize,
    /// The file being written, and its number.
    writer: Option<(u64, BlobWriter)>,
    finished: Vec<NewBlobs>,
    /// The pointer to the value added last.
    pointer: Vec<u8>,
}

/// A blob file that was written and is not installed yet.
pub(crate) struct NewBlobs {
    /// The blob that pointers name, and the number of the file.
    pub(crate) numbers: (u64, u64),
    pub(crate) path: PathBuf,
    pub(crate) meta: BlobMeta,
    /// Set until the file is synced.
    unsynced: Option<UnsyncedBlobs>,
}

/// The value of an entry that may go to a blob file, and when it expires.
pub(super) fn separable<'v>(entry: &Entry<'v>) -> Option<(u64, &'v [u8])> {
    match entry.kind {
        ValueKind::Put => Some((expiry::NEVER, entry.value)),
        ValueKind::PutWithExpiry => expiry::split(entry.value),
        _ => None,
    }
}

impl BlobOutput {
    pub(super) fn new(
        resources: Arc<Resources>,
        versions: Arc<VersionSet>,
        write_buffer_bytes: usize,
    ) -> Self {
        Self {
            resources,
            versions,
            write_buffer_bytes,
            writer: None,
            finished: Vec::new(),
            pointer: Vec::new(),
        }
    }

    /// Writes a value, and makes the pointer to it.
    pub(super) fn add(&mut self, expiry_micros: u64, value: &[u8]) -> Result<()> {
        if self.writer.as_ref().is_some_and(|(_, writer)| writer.written_bytes() >= FILE_BYTES) {
            self.finish_file()?;
        }
        if self.writer.is_none() {
            let number = self.versions.numbers.next();
            let path = files::blob(&self.resources.directory, number);
            let id = self.resources.random_id();
            let writer = BlobWriter::create(&*self.resources.vfs, &path, id, self.write_buffer_bytes)?;
            self.writer = Some((number, writer));
        }
        let Some((blob, writer)) = &mut self.writer else { return Ok(()) };
        let place = writer.add(value)?;
        self.pointer.clear();
        let (number, offset, bytes) = (place.number, place.offset, place.bytes);
        BlobPointer { expiry_micros, blob: *blob, number, offset, bytes }.encode(&mut self.pointer);
        Ok(())
    }

    /// The pointer to the value added last.
    pub(super) fn pointer(&self) -> &[u8] {
        &self.pointer
    }

    pub(super) fn written_bytes(&self) -> u64 {
        let finished: u64 = self.finished.iter().map(|blobs| blobs.meta.file_bytes).sum();
        finished + self.writer.as_ref().map_or(0, |(_, writer)| writer.written_bytes())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.writer.as_ref().map_or(0, |(_, writer)| writer.memory_bytes())
    }

    fn finish_file(&mut self) -> Result<()> {
        if let Some((number, writer)) = self.writer.take() {
            let path = files::blob(&self.resources.directory, number);
            // Add it before it is complete, so that a failure removes its file.
            let (numbers, meta) = ((number, number), BlobMeta::default());
            self.finished.push(NewBlobs { numbers, path, meta, unsynced: None });
            let written = writer.finish_unsynced()?;
            if let Some(blobs) = self.finished.last_mut() {
                blobs.finished(&self.resources, written);
                self.resources.counters.blob_bytes_out.add(blobs.meta.file_bytes);
            }
        }
        Ok(())
    }

    /// Finishes the last file.
    pub(super) fn finish(&mut self) -> Result<Vec<NewBlobs>> {
        self.finish_file()?;
        Ok(std::mem::take(&mut self.finished))
    }
}

impl Drop for BlobOutput {
    /// Removes files that were not taken by [`finish`](Self::finish).
    fn drop(&mut self) {
        if let Some((number, writer)) = self.writer.take() {
            drop(writer);
            self.resources.obsolete_files.remove_later(files::blob(&self.resources.directory, number));
        }
        for blobs in self.finished.drain(..) {
            self.resources.obsolete_files.remove_later(blobs.path);
        }
    }
}

impl NewBlobs {
    /// A file that is written in place of that of `blob`.
    pub(crate) fn rewritten(resources: &Resources, numbers: (u64, u64), written: UnsyncedBlobs) -> Self {
        let path = files::blob(&resources.directory, numbers.1);
        let mut blobs = Self { numbers, path, meta: BlobMeta::default(), unsynced: None };
        blobs.finished(resources, written);
        blobs
    }

    fn finished(&mut self, resources: &Resources, written: UnsyncedBlobs) {
        self.meta = written.meta().clone();
        self.unsynced = Some(written);
        let (file, bytes) = (file_name(&self.path), self.meta.file_bytes);
        resources.events.emit(EventKind::FileCreated { file, bytes });
    }

    /// Syncs and closes the file.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.unsynced.take().map_or(Ok(()), |blobs| Ok(blobs.sync()?))
    }

    /// Opens the file for a version.
    pub(crate) fn open(&self, resources: &Resources) -> Result<Arc<BlobFile>> {
        let expected = BlobExpectation::from(&self.meta);
        let Resources { memory, directory, obsolete_files, .. } = resources;
        Ok(BlobFile::open(memory, directory, self.numbers, Some(&expected), obsolete_files)?)
    }
}
