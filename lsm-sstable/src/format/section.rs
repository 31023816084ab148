//! Sections: everything in a table file that is neither a data block nor header nor footer. RocksDB calls them meta
//! blocks.
//!
//! ```text
//! section := checksum:u32  tag:u8  zero:[u8; 3]  payload_bytes:u64  payload
//! ```
//!
//! The checksum covers everything after itself and is seeded with the table's id and the section's offset.

use std::io;
use std::ops::Range;
use std::path::Path;

use lsm_core::coding::Decoder;
use lsm_core::vfs::VfsFile;
use lsm_core::{Error, Result};

use super::checksum::{BlockChecksum, RunningChecksum};

pub(crate) const SECTION_HEADER_BYTES: usize = 16;

/// What a section holds; the numbers are part of the format. Data blocks have 1 in the high half of their tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SectionTag {
    Filter = 0x20,
    RangeTombstones = 0x30,
    Index = 0x40,
    Properties = 0x50,
}

/// The header of a section with this payload that will stand at `offset` in the file.
pub(crate) fn header(
    tag: SectionTag,
    payload: &[u8],
    checksum: BlockChecksum,
    offset: u64,
) -> [u8; SECTION_HEADER_BYTES] {
    let mut header = [0; SECTION_HEADER_BYTES];
    header[4] = tag as u8;
    header[8..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let mut value = checksum.start(offset);
    value.update(&header[4..]);
    value.update(payload);
    header[..4].copy_from_slice(&value.value().to_le_bytes());
    header
}

/// Checks a section that stands at `offset`. Its payload follows the header.
pub(crate) fn check(
    section: &[u8],
    tag: SectionTag,
    checksum: BlockChecksum,
    offset: u64,
) -> Result<(), String> {
    checksum.verify(offset, section)?;
    check_header(section, tag, section.len() as u64)
}

/// Checks the fields of a section of so many bytes, of which `section` is the front.
fn check_header(section: &[u8], tag: SectionTag, section_bytes: u64) -> Result<(), String> {
    let mut fields = Decoder::new(section);
    let header = (fields.u32(), fields.u8(), fields.take(3), fields.u64());
    let (_, Some(found), Some(zeros), Some(bytes)) = header else {
        return Err(format!("section of {section_bytes} bytes is too short"));
    };
    if found != tag as u8 || zeros != [0; 3] {
        return Err(format!("section is tagged {found:#04x}, expected {:#04x} ({tag:?})", tag as u8));
    }
    let payload_bytes = section_bytes - SECTION_HEADER_BYTES as u64;
    if bytes != payload_bytes {
        return Err(format!("section says it holds {bytes} bytes, it has {payload_bytes}"));
    }
    Ok(())
}

/// Fills a buffer from a table file; a file that ends before is damaged.
pub(crate) fn read_exact(file: &dyn VfsFile, path: &Path, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::corruption(path, offset, "file ends while it is read"),
        _ => Error::io("read", path, error),
    })
}

/// Reads a section from front to back in bounded memory.
///
/// What it gives out is not proved before [`SectionStream::finish`] says so.
pub(crate) struct SectionStream<'f> {
    file: &'f dyn VfsFile,
    path: &'f Path,
    section: Range<u64>,
    checksum: RunningChecksum,
    stored_checksum: u32,
    /// What was read last; its front, up to `taken`, is done with.
    buffer: Vec<u8>,
    taken: usize,
    /// Where to read on.
    next: u64,
}

impl<'f> SectionStream<'f> {
    /// Bytes read at a time.
    const READ_BYTES: u64 = 128 << 10;

    /// Begins to read the payload of a section.
    pub(crate) fn new(
        file: &'f dyn VfsFile,
        path: &'f Path,
        section: Range<u64>,
        tag: SectionTag,
        checksum: BlockChecksum,
    ) -> Result<Self> {
        let mut header = [0; SECTION_HEADER_BYTES];
        let front_bytes = (section.end - section.start).min(SECTION_HEADER_BYTES as u64) as usize;
        read_exact(file, path, &mut header[..front_bytes], section.start)?;
        check_header(&header[..front_bytes], tag, section.end - section.start)
            .map_err(|detail| Error::corruption(path, section.start, detail))?;
        let mut checksum = checksum.start(section.start);
        checksum.update(&header[4..]);
        let mut stored_checksum = [0; 4];
        stored_checksum.copy_from_slice(&header[..4]);
        Ok(Self {
            file,
            path,
            next: section.start + SECTION_HEADER_BYTES as u64,
            section,
            checksum,
            stored_checksum: u32::from_le_bytes(stored_checksum),
            buffer: Vec::new(),
            taken: 0,
        })
    }

    /// The bytes that come next: at least so many, unless the section has no more.
    #[inline]
    pub(crate) fn window(&mut self, bytes_min: usize) -> Result<&[u8]> {
        while self.buffer.len() - self.taken < bytes_min && self.next < self.section.end {
            self.fill()?;
        }
        Ok(&self.buffer[self.taken..])
    }

    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let held = self.buffer.len();
        let more = (self.section.end - self.next).min(Self::READ_BYTES);
        self.buffer.resize(held + more as usize, 0);
        read_exact(self.file, self.path, &mut self.buffer[held..], self.next)?;
        self.checksum.update(&self.buffer[held..]);
        self.next += more;
        Ok(())
    }

    /// Leaves the next bytes, which [`SectionStream::window`] has shown, behind.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.taken += bytes;
        debug_assert!(self.taken <= self.buffer.len());
    }

    /// Where the next byte is in the file.
    pub(crate) fn offset(&self) -> u64 {
        self.next - (self.buffer.len() - self.taken) as u64
    }

    /// Where the section ends in the file.
    pub(crate) fn end(&self) -> u64 {
        self.section.end
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.section.end - self.section.start - SECTION_HEADER_BYTES as u64
    }

    /// Checks all that was read, which must be all there is.
    pub(crate) fn finish(&self) -> Result<()> {
        debug_assert_eq!(self.offset(), self.section.end);
        let computed = self.checksum.value();
        if computed == self.stored_checksum {
            return Ok(());
        }
        let stored = self.stored_checksum;
        Err(self.corruption(format!("section checksum is {stored:#010x}, its bytes have {computed:#010x}")))
    }

    pub(crate) fn corruption(&self, detail: String) -> Error {
        Error::corruption(self.path, self.section.start, detail)
    }
}
