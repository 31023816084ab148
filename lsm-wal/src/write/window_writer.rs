//! The writing side of a window.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lsm_core::checksum::crc64;
use lsm_core::vfs::Window;
use lsm_core::{Encryption, Error, Result};

use super::site::Site;
use crate::files::directory::{self, LogFile};
use crate::files::segment_file::Segment;
use crate::format::record::{self, RecordHeader};
use crate::format::segment::VERSION;
use crate::format::window::{
    self, AREA_OFFSET, COVERED_BYTES, ENCRYPTION, HEADER_BYTES, MAGIC, SLOT_OFFSETS, slot_check,
};
use crate::options::WindowMemory;

/// Copies records to a window, and from there to a segment.
pub(crate) struct WindowWriter {
    window: Box<dyn Window>,
    number: u64,
    slot: usize,
    /// Log position of the first byte of the area.
    base: u64,
    area_bytes: u64,
    /// The part of the area that is in use. The rest takes no memory yet.
    room_bytes: u64,
    memory: Option<WindowMemory>,
    /// What the checksum of each record's header continues from.
    record_seed: u32,
    path: PathBuf,
}

impl WindowWriter {
    /// Creates a window whose area begins at `base`, durably. `None` where windows are not wanted or not supported.
    pub(crate) fn create(site: &Site, number: u64, base: u64, record_seed: u32) -> Result<Option<Self>> {
        let area_bytes = (site.options.window_bytes as usize).next_multiple_of(8);
        if area_bytes == 0 {
            return Ok(None);
        }
        let path = LogFile::Window(number).path(&site.directory);
        let window = match site.vfs.window(&path, (AREA_OFFSET + area_bytes) as u64) {
            Ok(window) => window,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
            Err(error) => return Err(Error::io("create the window", &path, error)),
        };
        let area_bytes = area_bytes as u64;
        let memory = site.options.window_memory.clone();
        let mut writer =
            Self { window, number, slot: 0, base, area_bytes, room_bytes: 0, memory, record_seed, path };
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&number.to_le_bytes());
        header[24..32].copy_from_slice(&area_bytes.to_le_bytes());
        header[12..16].copy_from_slice(&record_seed.to_le_bytes());
        header[ENCRYPTION].copy_from_slice(&Encryption::NONE.encode());
        writer.window.write_at(0, &header[..COVERED_BYTES]);
        writer.window.publish(COVERED_BYTES, crc64(0, &header[..COVERED_BYTES]));
        writer.rebase(base);
        if let Err(error) = directory::sync(&*site.vfs, &site.directory) {
            // A segment that names a window proves that its file was there: one that is gone is damage.
            let _ = directory::remove(&*site.vfs, &writer.path);
            return Err(error);
        }
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

    /// Starts the area anew, and overwrites what was in it with zeros. That must be in the segment.
    pub(crate) fn wipe(&mut self, base: u64) {
        const ZEROS: [u8; 4096] = [0; 4096];
        self.rebase(base);
        let mut left = self.room_bytes as usize;
        while left > 0 {
            let bytes = left.min(ZEROS.len());
            left -= bytes;
            self.window.write_at(AREA_OFFSET + left, &ZEROS[..bytes]);
        }
    }

    /// Whether the window is meant for a record: one of more than half of it would only be copied twice.
    #[inline]
    pub(crate) fn is_for(&self, header: &RecordHeader) -> bool {
        header.record_bytes() <= self.area_bytes / 2
    }

    /// Whether a record fits where the area was not used yet.
    #[inline]
    pub(crate) fn has_room(&self, header: &RecordHeader) -> bool {
        header.end() - self.base <= self.room_bytes
    }

    /// Starts the area anew with a record, and takes more of it into use. Returns whether the record fits then. What was in
    /// it must be in the segment.
    pub(crate) fn make_room(&mut self, header: &RecordHeader) -> bool {
        let wanted = window::room_after(self.room_bytes, header.record_bytes(), self.area_bytes);
        if wanted > self.room_bytes && self.memory.as_ref().is_none_or(|memory| (memory.0)(wanted)) {
            self.room_bytes = wanted;
        }
        if header.record_bytes() > self.room_bytes {
            return false;
        }
        if self.base != header.position {
            self.rebase(header.position);
        }
        true
    }

    /// Copies a record to its place in the area, its checksum last. Returns the checksum.
    #[inline]
    pub(crate) fn put(&mut self, header: &RecordHeader, payload: &[u8], chain: u64) -> u64 {
        let words = header.words(self.record_seed);
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

impl Drop for WindowWriter {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.as_ref().filter(|_| self.room_bytes > 0) {
            (memory.0)(0);
        }
    }
}
