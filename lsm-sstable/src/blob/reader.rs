use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Access, Vfs, VfsFile};
use lsm_core::{Error, Result, Slice};

use super::footer::{FOOTER_BYTES, Footer};
use super::writer::{BlobMeta, BlobPlace};
use super::{CHECK_BYTES, CHUNK_BYTES, ENTRY_BYTES, check_bytes};
use crate::format::checksum::BlockChecksum;
use crate::format::file_header::{BLOB, FILE_HEADER_BYTES};
use crate::meta::TableId;

/// An open blob file. It holds no value in memory: each read is one of the file, two if the file was rewritten.
pub struct BlobReader {
    pub(super) path: Arc<PathBuf>,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) footer: Footer,
    pub(super) checksum: BlockChecksum,
}

/// What a blob file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobExpectation {
    /// Identity.
    pub id: TableId,
    /// Length of the file.
    pub file_bytes: u64,
    /// Checksum of the file.
    pub checksum: u64,
}

impl From<&BlobMeta> for BlobExpectation {
    fn from(meta: &BlobMeta) -> Self {
        Self { id: meta.id, file_bytes: meta.file_bytes, checksum: meta.checksum }
    }
}

impl BlobReader {
    /// Opens a blob file: reads and checks header and footer. Values are checked when they are read.
    ///
    /// Fails with `Corruption` if the file is not the one that is expected, or was cut, and with `UnsupportedVersion` if a
    /// newer build wrote it.
    pub fn open(vfs: &dyn Vfs, path: &Path, expected: Option<&BlobExpectation>) -> Result<Self> {
        let file = vfs.open_read(path).map_err(|error| Error::io("open", path, error))?;
        Self::from_file(file, Arc::new(path.to_owned()), expected)
    }

    /// Opens a blob file that is open for reading, or that opens itself when it is read. `path` is what errors name.
    pub fn from_file(
        file: Arc<dyn VfsFile>,
        path: Arc<PathBuf>,
        expected: Option<&BlobExpectation>,
    ) -> Result<Self> {
        file.advise(Access::Random);
        let footer = read_ends(&*file, &path, expected)?;
        Ok(Self { checksum: BlockChecksum::new(footer.id), path, file, footer })
    }

    /// What a manifest keeps about the file.
    pub fn meta(&self) -> BlobMeta {
        let Footer { id, file_bytes, body_checksum: checksum, values, value_bytes, .. } = self.footer;
        BlobMeta { id, file_bytes, checksum, values, value_bytes }
    }

    /// The path that errors name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether values are not where they were written first.
    pub fn is_rewritten(&self) -> bool {
        self.footer.is_rewritten
    }

    /// Number of the values that the file, or the file that it is rewritten from, was written with.
    pub fn numbers(&self) -> u64 {
        self.footer.numbers
    }

    /// A value. Every byte of it is checked.
    pub fn read(&self, place: BlobPlace) -> Result<Slice> {
        let offset = self.locate(place)?;
        let bytes = usize_of(place.bytes)?;
        // The checksums come along at the end of the buffer.
        let mut buffer = vec![0; bytes + check_bytes(place.bytes) as usize];
        self.read_exact(&mut buffer, offset)?;
        let (value, checks) = buffer.split_at(bytes);
        self.check_chunks(offset, value, checks)?;
        buffer.truncate(bytes);
        Ok(Slice::pinned(Arc::new(buffer), 0..bytes))
    }

    /// The bytes of a value in `range`, as far as it has them. Only the chunks in which they are are read and checked.
    pub fn read_part(&self, place: BlobPlace, range: Range<u64>) -> Result<Slice> {
        let range = range.start.min(place.bytes)..range.end.min(place.bytes);
        if range.is_empty() {
            return Ok(Slice::new());
        }
        let value = self.locate(place)?;
        let chunks = range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES);
        let (start, end) = (chunks.start * CHUNK_BYTES, (chunks.end * CHUNK_BYTES).min(place.bytes));
        let mut buffer = vec![0; usize_of(end - start)?];
        self.read_exact(&mut buffer, value + start)?;
        let mut checks = vec![0; usize_of((chunks.end - chunks.start) * CHECK_BYTES)?];
        self.read_exact(&mut checks, value + place.bytes + chunks.start * CHECK_BYTES)?;
        self.check_chunks(value + start, &buffer, &checks)?;
        let part = usize_of(range.start - start)?..usize_of(range.end - start)?;
        Ok(Slice::pinned(Arc::new(buffer), part))
    }

    /// The place of the value with this number, `None` if it is gone. For those who go through a whole file.
    pub fn place(&self, number: u64) -> Result<Option<BlobPlace>> {
        if number >= self.footer.numbers {
            let detail = format!("there is no value {number}, the file has {}", self.footer.numbers);
            return Err(Error::corruption(&self.path, self.footer.offset() + 8, detail));
        }
        let at = self.footer.directory + number * ENTRY_BYTES;
        let mut entry = [0; ENTRY_BYTES as usize];
        self.read_exact(&mut entry, at)?;
        self.decode_entry(number, at, &entry)
    }

    pub(super) fn decode_entry(
        &self,
        number: u64,
        at: u64,
        entry: &[u8; ENTRY_BYTES as usize],
    ) -> Result<Option<BlobPlace>> {
        let (covered, stored) = entry.split_at(12);
        let computed = self.checksum.compute(at, covered).to_le_bytes();
        if stored != computed {
            return Err(Error::corruption(&self.path, at, "checksum of a directory entry does not match"));
        }
        let (offset, bytes) = covered.split_at(8);
        let offset = u64::from_le_bytes(offset.try_into().unwrap_or_default());
        let bytes = u64::from(u32::from_le_bytes(bytes.try_into().unwrap_or_default()));
        if (offset == 0) != (bytes == 0) {
            return Err(Error::corruption(&self.path, at, "a directory entry is malformed"));
        }
        Ok((offset > 0).then_some(BlobPlace { number, offset, bytes }))
    }

    /// Where a value is now. The value and its checksums are within the file.
    fn locate(&self, place: BlobPlace) -> Result<u64> {
        let mut offset = place.offset;
        if self.footer.is_rewritten {
            let found = self.place(place.number)?;
            let Some(now) = found.filter(|now| now.bytes == place.bytes) else {
                let at = self.footer.directory + place.number * ENTRY_BYTES;
                let detail = format!(
                    "value {} with {} bytes is not in the rewritten file, which has {found:?}",
                    place.number, place.bytes
                );
                return Err(Error::corruption(&self.path, at, detail));
            };
            offset = now.offset;
        }
        let end = place.bytes.checked_add(check_bytes(place.bytes)).and_then(|all| all.checked_add(offset));
        if offset < FILE_HEADER_BYTES as u64 || end.is_none_or(|end| end > self.footer.directory) {
            let detail = format!(
                "a pointer names {} bytes at {offset}, the values of the file end at {}",
                place.bytes, self.footer.directory
            );
            return Err(Error::corruption(&self.path, offset.min(self.footer.directory), detail));
        }
        Ok(offset)
    }

    /// Checks whole chunks that begin at `offset`.
    pub(super) fn check_chunks(&self, offset: u64, value: &[u8], checks: &[u8]) -> Result<()> {
        let mut at = offset;
        for (chunk, check) in value.chunks(CHUNK_BYTES as usize).zip(checks.chunks(CHECK_BYTES as usize)) {
            let computed = self.checksum.compute(at, chunk);
            if check != computed.to_le_bytes() {
                let detail = format!(
                    "checksum of a chunk of {} bytes does not match: its bytes have {computed:#010x}",
                    chunk.len()
                );
                return Err(Error::corruption(&self.path, at, detail));
            }
            at += chunk.len() as u64;
        }
        Ok(())
    }

    pub(super) fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact(&*self.file, &self.path, buffer, offset)
    }
}

fn read_exact(file: &dyn VfsFile, path: &Path, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corruption(path, offset, "file was cut"),
        _ => Error::io("read", path, error),
    })
}

fn usize_of(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::invalid(format!("{bytes} bytes do not fit the address space")))
}

/// Reads header and footer and checks that they belong together and to the file that is expected.
pub(super) fn read_ends(
    file: &dyn VfsFile,
    path: &Path,
    expected: Option<&BlobExpectation>,
) -> Result<Footer> {
    let file_bytes = file.len().map_err(|error| Error::io("read", path, error))?;
    if let Some(expected) = expected
        && expected.file_bytes != file_bytes
    {
        let detail =
            format!("file has {file_bytes} bytes, blob file {} has {}", expected.id, expected.file_bytes);
        return Err(Error::corruption(path, file_bytes.min(expected.file_bytes), detail));
    }
    let ends_bytes = (FILE_HEADER_BYTES + FOOTER_BYTES) as u64;
    if file_bytes < ends_bytes {
        let detail = format!("file has {file_bytes} bytes, a blob file has at least {ends_bytes}");
        return Err(Error::corruption(path, file_bytes, detail));
    }
    let mut header = [0; FILE_HEADER_BYTES];
    read_exact(file, path, &mut header, 0)?;
    let id = BLOB.decode(&header, path)?;
    if let Some(expected) = expected
        && expected.id != id
    {
        let detail = format!("file is blob file {id}, expected {}", expected.id);
        return Err(Error::corruption(path, 16, detail));
    }
    let mut footer = [0; FOOTER_BYTES];
    read_exact(file, path, &mut footer, file_bytes - FOOTER_BYTES as u64)?;
    let footer = Footer::decode(&footer, id, file_bytes, path)?;
    if let Some(expected) = expected
        && expected.checksum != footer.body_checksum
    {
        let detail =
            format!("file has checksum {:#018x}, expected {:#018x}", footer.body_checksum, expected.checksum);
        return Err(Error::corruption(path, footer.offset() + 40, detail));
    }
    Ok(footer)
}
