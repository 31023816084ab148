use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::checksum::Checksum;
use lsm_core::vfs::VfsFile;
use lsm_core::{Error, Result};

/// What the system writes at a time at least.
const PAGE_BYTES: u64 = 4096;

/// A file that is written from front to back, the bytes that wait to be written to it, and the checksum of all.
pub(crate) struct FileWriter {
    file: Arc<dyn VfsFile>,
    path: Arc<PathBuf>,
    /// Never grows.
    buffer: Vec<u8>,
    buffer_bytes_max: usize,
    written_bytes: u64,
    checksum: Checksum,
}

impl FileWriter {
    /// Writes whenever `buffer_bytes_max` bytes have come together; `piece_bytes` are what comes at a time.
    pub(crate) fn new(
        file: Arc<dyn VfsFile>,
        path: &Path,
        buffer_bytes_max: usize,
        piece_bytes: usize,
    ) -> Self {
        Self {
            file,
            path: Arc::new(path.to_owned()),
            buffer: Vec::with_capacity(buffer_bytes_max + 2 * piece_bytes),
            buffer_bytes_max,
            written_bytes: 0,
            checksum: Checksum::new(),
        }
    }

    /// Where the next byte goes.
    pub(crate) fn offset(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    /// The checksum of all bytes so far, if none wait.
    pub(crate) fn checksum(&self) -> u64 {
        debug_assert!(self.buffer.is_empty());
        self.checksum.value()
    }

    /// Bytes of memory held, the struct itself excepted.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.buffer.capacity() + self.path.capacity() + size_of::<PathBuf>()
    }

    /// Appends bytes. Those that do not fit the buffer are not copied but written from where they are.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.buffer.capacity() - self.buffer.len() {
            return self.put_past_buffer(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    #[cold]
    fn put_past_buffer(&mut self, bytes: &[u8]) -> Result<()> {
        self.write()?;
        if bytes.len() <= self.buffer_bytes_max {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_out(bytes)
    }

    pub(crate) fn write_if_full(&mut self) -> Result<()> {
        if self.buffer.len() < self.buffer_bytes_max { Ok(()) } else { self.write() }
    }

    /// Writes all that waits.
    pub(crate) fn write(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write_out(&buffer);
        buffer.clear();
        self.buffer = buffer;
        written
    }

    fn write_out(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.update(bytes);
        self.file.write_at(bytes, self.written_bytes).map_err(|error| self.error("write", error))?;
        let started_bytes = self.written_bytes - self.written_bytes % PAGE_BYTES;
        self.written_bytes += bytes.len() as u64;
        // The disk works while the next blocks are built, and the sync at the end has little left to do. A page that is not
        // whole yet would be written twice.
        let whole_bytes = self.written_bytes - self.written_bytes % PAGE_BYTES;
        if whole_bytes > started_bytes {
            self.file.start_writeback(started_bytes, whole_bytes - started_bytes);
        }
        Ok(())
    }

    /// The file and its path; what waits to be written is lost.
    pub(crate) fn into_file(self) -> (Arc<dyn VfsFile>, Arc<PathBuf>) {
        (self.file, self.path)
    }

    fn error(&self, operation: &'static str, source: std::io::Error) -> Error {
        Error::Io { operation, path: Arc::clone(&self.path), source: Arc::new(source) }
    }
}
