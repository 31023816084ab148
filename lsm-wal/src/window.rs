//! The window: a small resident file that takes records by a copy and outlives the process.
//!
//! ```text
//! window := header zeros slot zeros slot zeros area
//! header := magic "lsm-win\0"
//!           version u32     0
//!           zero u32
//!           number u64      also the file name
//!           area u64        bytes of the area
//!           key u64         for a key id, 0
//!           nonce 24 bytes  for encryption, 0
//!           zero 56 bytes
//!           crc u64         CRC-64 of the 120 bytes before
//! slot   := base u64        log position of the first byte of the area; at offsets 512 and 1024
//!           check u64       CRC-64 of number and base
//! area   := record*         at offset 4096; records as in a segment, at their positions
//! ```
//!
//! When the area is full, all of it is written to the segment, and it is used again from its front: the older
//! slot is taken back, then gets the new base. What an earlier round left in the area does not pass for
//! anything else, since records name their positions. The header and slots are never synced: after a power cut
//! the window may be anything, and what is found in it has to continue the chain.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::checksum::crc64;
use lsm_core::vfs::{Vfs, Window};
use lsm_core::{Error, Result};

use crate::directory::{self, LogFile};
use crate::flip;
use crate::record::{self, RecordHeader};
use crate::segment::VERSION;
use crate::segment_file::Segment;
use crate::source::Source;

const MAGIC: [u8; 8] = *b"lsm-win\0";
const HEADER_BYTES: usize = 128;
const COVERED_BYTES: usize = HEADER_BYTES - 8;
const SLOT_OFFSETS: [usize; 2] = [512, 1024];
const AREA_OFFSET: usize = 4096;

/// The writing side of a window.
pub(crate) struct WindowWriter {
    window: Box<dyn Window>,
    number: u64,
    slot: usize,
    /// Log position of the first byte of the area.
    base: u64,
    area_bytes: u64,
    path: PathBuf,
}

fn slot_check(number: u64, base: u64) -> u64 {
    crc64(crc64(0, &number.to_le_bytes()), &base.to_le_bytes())
}

impl WindowWriter {
    /// Creates a window whose area begins at `base`. `None` where windows are not to be had.
    pub(crate) fn create(
        vfs: &dyn Vfs,
        directory: &Path,
        number: u64,
        area_bytes: usize,
        base: u64,
    ) -> Result<Option<Self>> {
        let path = LogFile::Window(number).path(directory);
        let window = match vfs.window(&path, (AREA_OFFSET + area_bytes) as u64) {
            Ok(window) => window,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
            Err(error) => return Err(Error::io("create the window", &path, error)),
        };
        let mut writer = Self { window, number, slot: 0, base, area_bytes: area_bytes as u64, path };
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&number.to_le_bytes());
        header[24..32].copy_from_slice(&(area_bytes as u64).to_le_bytes());
        writer.window.write_at(0, &header[..COVERED_BYTES]);
        writer.window.publish(COVERED_BYTES, crc64(0, &header[..COVERED_BYTES]));
        writer.rebase(base);
        Ok(Some(writer))
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the area anew at a log position. What was in it must be in the segment.
    pub(crate) fn rebase(&mut self, base: u64) {
        self.base = base;
        self.slot ^= 1;
        let [offset, other] = if self.slot == 0 { SLOT_OFFSETS } else { [SLOT_OFFSETS[1], SLOT_OFFSETS[0]] };
        debug_assert_ne!(offset, other);
        self.window.publish(offset + 8, 0);
        self.window.publish(offset, base);
        self.window.publish(offset + 8, slot_check(self.number, base));
    }

    /// Whether the window is meant for a record: one of more than half of it would only be copied twice.
    #[inline]
    pub(crate) fn is_for(&self, header: &RecordHeader) -> bool {
        header.record_bytes() <= self.area_bytes / 2
    }

    /// Whether a record fits where the area was not used yet.
    #[inline]
    pub(crate) fn has_room(&self, header: &RecordHeader) -> bool {
        header.end() - self.base <= self.area_bytes
    }

    /// Copies a record to its place in the area, its checksum last. Returns the checksum.
    #[inline]
    pub(crate) fn put(&mut self, header: &RecordHeader, payload: &[u8], chain: u64) -> u64 {
        let words = header.words();
        let checksum = record::checksum(chain, words, payload);
        let offset = self.offset_of(header.position);
        let payload_end = offset + record::HEADER_BYTES + payload.len();
        let checksum_offset = payload_end.next_multiple_of(8);
        self.window.write_at(offset, &record::bytes_of(words));
        self.window.write_at(offset + record::HEADER_BYTES, payload);
        if checksum_offset > payload_end {
            self.window.write_at(payload_end, &[0; 7][..checksum_offset - payload_end]);
        }
        self.window.publish(checksum_offset, checksum);
        checksum
    }

    /// Writes the records between two positions to their segment.
    pub(crate) fn write_to(&self, segment: &Segment, positions: Range<u64>) -> Result<()> {
        let Range { start, end } = positions;
        let range = self.offset_of(start)..self.offset_of(end);
        let written = self.window.write_to(range, &*segment.file, segment.offset_of(start));
        written.map_err(|error| Error::io("write to", &segment.path, error))
    }

    #[inline]
    fn offset_of(&self, position: u64) -> usize {
        AREA_OFFSET + (position - self.base) as usize
    }
}

/// What a window holds, one source for each slot that says where the area begins. Empty if there is no window of
/// this number, or nothing that can be made out after a power cut.
pub(crate) fn read(vfs: &dyn Vfs, folder: &Path, number: u64) -> Result<Vec<Source>> {
    let path = LogFile::Window(number).path(folder);
    let Some(file) = directory::open_if_there(vfs, &path)? else { return Ok(Vec::new()) };
    let len = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
    let mut header = Source::new(Arc::clone(&file), path.clone(), len, 0, 0);
    let Some(bytes) = header.load(0, HEADER_BYTES)?.first_chunk::<HEADER_BYTES>() else {
        return Ok(Vec::new());
    };
    let (words, _) = bytes.as_chunks::<8>();
    let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
    let (version, found_number) = (word(1) as u32, word(2));
    let syndrome = crc64(0, &bytes[..COVERED_BYTES]) ^ word(15);
    let known = bytes[..8] == MAGIC;
    if syndrome != 0 {
        let bits = COVERED_BYTES as u64 * 8;
        if syndrome.is_power_of_two() || flip::bits_after_flip(syndrome, bits).is_some() {
            return Err(Error::corruption(&path, 0, "one bit of the window's header was flipped"));
        }
        if !(known && version > VERSION) {
            return Ok(Vec::new());
        }
    }
    if !known {
        return Ok(Vec::new());
    }
    if version > VERSION {
        return Err(Error::UnsupportedVersion { path: Arc::new(path), found: version, supported: VERSION });
    }
    if found_number != number {
        return Err(Error::corruption(
            &path,
            16,
            format!("this is window {found_number} under another's name"),
        ));
    }
    let mut sources = Vec::new();
    for offset in SLOT_OFFSETS {
        let Some((base, rest)) = header.load(offset as u64, 16)?.split_first_chunk::<8>() else { continue };
        let base = u64::from_le_bytes(*base);
        let check = rest.first_chunk::<8>().map_or(0, |check| u64::from_le_bytes(*check));
        let syndrome = slot_check(number, base) ^ check;
        if syndrome == 0 {
            let file = Arc::clone(&file);
            sources.push(Source::new(file, path.clone(), len, AREA_OFFSET as u64, base));
        } else if check != 0 && (syndrome.is_power_of_two() || flip::bits_after_flip(syndrome, 64).is_some())
        {
            let detail = "one bit of where the window begins was flipped";
            return Err(Error::corruption(&path, offset as u64, detail));
        }
    }
    Ok(sources)
}
