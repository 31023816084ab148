//! Reads records from one file of the log, a segment or a window.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::VfsFile;
use lsm_core::{Error, Result};

use crate::format::record::{self, RecordHeader};
use crate::log::Position;

/// How much is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A file that holds a contiguous stretch of the log: a segment, or the contents of a window.
///
/// Reads in chunks, one kept. Memory is bounded by a chunk or the longest record, whichever is more, and no
/// length is believed before it was compared with what the file has.
pub(crate) struct RecordReader {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    area: RecordArea,
    /// Bytes of the file when it was opened.
    len: u64,
    chunk: Vec<u8>,
    chunk_offset: u64,
    chunk_bytes: usize,
}

/// Where a file has its records. The default has none: only bytes are read.
#[derive(Clone, Copy, Default)]
pub(crate) struct RecordArea {
    /// File offset of the first record.
    pub(crate) first_offset: u64,
    /// Log position of `first_offset`.
    pub(crate) start: u64,
    /// What the checksum of each record's header continues from; `None` if that is lost, and nothing is a record.
    pub(crate) record_seed: Option<u32>,
}

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record that continues the chain.
    Record(FoundRecord),
    /// Something else, or nothing.
    Nothing,
}

/// A record in the chunk of a [`RecordReader`].
#[derive(Debug)]
pub(crate) struct FoundRecord {
    pub(crate) header: RecordHeader,
    pub(crate) chain_before: u64,
    pub(crate) checksum: u64,
    /// Where the record stands in the file.
    offset: u64,
    /// Where the payload stands in the chunk.
    payload: Range<usize>,
}

impl RecordReader {
    /// Reads a file of `len` bytes.
    pub(crate) fn new(file: Arc<dyn VfsFile>, path: PathBuf, len: u64, area: RecordArea) -> Self {
        Self { file, path, area, len, chunk: Vec::new(), chunk_offset: 0, chunk_bytes: 0 }
    }

    /// Takes the file for one of a log of this record seed.
    pub(crate) fn set_record_seed(&mut self, seed: Option<u32>) {
        self.area.record_seed = seed;
    }

    /// How record headers of this file are told from other bytes.
    #[inline]
    pub(crate) fn decoder(&self) -> impl Fn(&[u8; record::HEADER_BYTES]) -> Option<RecordHeader> + use<> {
        let seed = self.area.record_seed;
        move |bytes| RecordHeader::decode(bytes, seed?)
    }

    /// The record seed that what stands at the place of the first record would have, if it looks like one.
    pub(crate) fn guess_seed(&mut self) -> Result<Option<u32>> {
        let first = self.load(self.area.first_offset, record::HEADER_BYTES)?;
        Ok(first.first_chunk().and_then(RecordHeader::seed_of))
    }

    /// Forgets what was read, and takes the length of the file anew: somebody may be writing it.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.len = self.file.len().map_err(|error| Error::io("read the length of", &self.path, error))?;
        self.chunk_bytes = 0;
        Ok(())
    }

    /// Takes the file to end at `len`, if it is longer.
    pub(crate) fn limit(&mut self, len: u64) {
        self.len = self.len.min(len);
    }

    /// Reads anew what is asked for next: the file may have changed.
    pub(crate) fn forget_chunk(&mut self) {
        self.chunk_bytes = 0;
    }

    #[inline]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.chunk.capacity()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn first_offset(&self) -> u64 {
        self.area.first_offset
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The file offset of a position; `None` before the first record.
    pub(crate) fn offset_of(&self, position: u64) -> Option<u64> {
        position.checked_sub(self.area.start)?.checked_add(self.area.first_offset)
    }

    /// The position that a file offset stands for.
    pub(crate) fn position_of(&self, offset: u64) -> Option<u64> {
        offset.checked_sub(self.area.first_offset)?.checked_add(self.area.start)
    }

    /// The bytes at `offset`, `bytes` of them or as many as the file has.
    pub(crate) fn load(&mut self, offset: u64, bytes: usize) -> Result<&[u8]> {
        let range = self.load_range(offset, bytes)?;
        Ok(&self.chunk[range])
    }

    #[inline]
    fn load_range(&mut self, offset: u64, bytes: usize) -> Result<Range<usize>> {
        let within = offset.wrapping_sub(self.chunk_offset);
        if offset >= self.chunk_offset
            && within <= self.chunk_bytes as u64
            && bytes as u64 <= self.chunk_bytes as u64 - within
        {
            return Ok(within as usize..within as usize + bytes);
        }
        self.refill(offset, bytes)
    }

    #[cold]
    fn refill(&mut self, offset: u64, bytes: usize) -> Result<Range<usize>> {
        let left = self.len.saturating_sub(offset);
        let wanted = left.min(bytes.max(CHUNK_BYTES) as u64) as usize;
        if self.chunk.len() < wanted {
            self.chunk.resize(wanted, 0);
        }
        let kept = match offset.checked_sub(self.chunk_offset) {
            Some(within) if within < self.chunk_bytes as u64 => {
                self.chunk.copy_within(within as usize..self.chunk_bytes, 0);
                self.chunk_bytes - within as usize
            }
            _ => 0,
        };
        self.chunk_offset = offset;
        self.chunk_bytes = kept;
        while self.chunk_bytes < wanted {
            let at = offset + self.chunk_bytes as u64;
            match self.file.read_at(&mut self.chunk[self.chunk_bytes..wanted], at) {
                Ok(0) => break,
                Ok(count) => self.chunk_bytes += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path, error)),
            }
        }
        Ok(0..self.chunk_bytes.min(bytes))
    }

    /// The record header at `offset`, whatever position it speaks of, if the whole record fits the file.
    pub(crate) fn header_at(&mut self, offset: u64) -> Result<Option<RecordHeader>> {
        let decode = self.decoder();
        let header = self.load(offset, record::HEADER_BYTES)?.first_chunk().and_then(decode);
        let left = self.len.saturating_sub(offset);
        Ok(header.filter(|header| header.record_bytes() <= left && usize::try_from(left).is_ok()))
    }

    /// The record that begins at `position`, if it is sound and continues the chain.
    #[inline]
    pub(crate) fn record_at(&mut self, position: u64, chain: u64) -> Result<Found> {
        let Some(offset) = self.offset_of(position) else { return Ok(Found::Nothing) };
        let Some(header) = self.header_at(offset)? else { return Ok(Found::Nothing) };
        if header.position != position {
            return Ok(Found::Nothing);
        }
        self.record_of(offset, header, Some(chain))
    }

    /// The record at `offset`, which has this header, if it is sound and continues the chain; without a chain its
    /// checksum is believed.
    #[inline]
    pub(crate) fn record_of(
        &mut self,
        offset: u64,
        header: RecordHeader,
        chain: Option<u64>,
    ) -> Result<Found> {
        let bytes = header.record_bytes() as usize;
        let range = self.load_range(offset, bytes)?;
        if range.len() != bytes {
            return Ok(Found::Nothing);
        }
        let record = &self.chunk[range.clone()];
        let Some(checksum) = record::stored_checksum(record) else { return Ok(Found::Nothing) };
        if chain.is_some_and(|chain| record::expected_checksum(record, chain) != checksum) {
            return Ok(Found::Nothing);
        }
        let payload = header.payload();
        let payload = range.start + payload.start..range.start + payload.end;
        let chain_before = chain.unwrap_or(0);
        Ok(Found::Record(FoundRecord { header, chain_before, checksum, offset, payload }))
    }

    /// The record that the last call of [`record_at`](Self::record_at) found.
    #[inline]
    pub(crate) fn record(&self, found: &FoundRecord) -> Record<'_> {
        let RecordHeader { position, tag, synced, .. } = found.header;
        Record {
            tag,
            payload: &self.chunk[found.payload.clone()],
            start: Position(position),
            end: Position(found.header.end()),
            synced: Position(synced),
            path: &self.path,
            offset: found.offset,
        }
    }
}

/// A record, borrowed from the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record<'a> {
    /// What the caller of `append` passed as tag.
    pub tag: u64,
    /// What the caller appended.
    pub payload: &'a [u8],
    /// Position of the record's first byte.
    pub start: Position,
    /// Position of the record's end, by which `append` named it.
    pub end: Position,
    /// When the record was appended, everything before this was durable.
    pub synced: Position,
    /// The file that it was read from, for whoever has to say that it makes no sense.
    pub path: &'a Path,
    /// Where it stands in that file, in bytes.
    pub offset: u64,
}
