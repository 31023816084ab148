use std::path::Path;

use lsm_core::Result;
use lsm_core::vfs::Vfs;

use crate::files::record_reader::{Found, FoundRecord, Record, RecordReader};
use crate::files::window_file::WindowFile;
use crate::format::window::{AREA_OFFSET, SLOT_OFFSETS};

/// Reads a window by itself, for looking into it; [`WalReader`](crate::WalReader) reads it as the end of its log.
///
/// First come the records of the newest generation, then what earlier generations left behind them: the log has those in its
/// segments, as far as it still has them. Without the log the first record of each cannot be checked against the one
/// before it, so it is believed if its header is sound.
pub struct WindowReader {
    reader: RecordReader,
    number: u64,
    area_bytes: u64,
    slots: [(u64, Option<u64>); 2],
    /// It is known where the newest generation began.
    has_base: bool,
    offset: u64,
    /// Where the last record of the newest generation ended.
    newest_end: u64,
    /// Bytes that may still be checksummed: more is demanded by forged files only.
    budget: u64,
}

impl WindowReader {
    /// Opens a window, whatever its name. `None` if it has no header, as a power cut may leave it.
    pub fn open(vfs: &dyn Vfs, path: &Path) -> Result<Option<Self>> {
        let Some((window, number)) = WindowFile::read(vfs, path)? else { return Ok(None) };
        let base = window.bases().first().copied();
        let [first, second] = window.slots;
        let [first_offset, second_offset] = SLOT_OFFSETS;
        Ok(Some(Self {
            reader: window.area(base.unwrap_or(0)),
            number,
            area_bytes: window.area_bytes,
            slots: [(first_offset as u64, first.base()), (second_offset as u64, second.base())],
            has_base: base.is_some(),
            offset: AREA_OFFSET as u64,
            newest_end: AREA_OFFSET as u64,
            budget: window.len.saturating_mul(4),
        }))
    }

    /// The number that the header says it has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the area that takes records.
    pub fn area_bytes(&self) -> u64 {
        self.area_bytes
    }

    /// The two places that say where the area begins: their offsets in the file, and the log positions of the area's
    /// first byte, `None` where one is not sound. The higher position counts.
    pub fn slots(&self) -> [(u64, Option<u64>); 2] {
        self.slots
    }

    /// The next record, and whether it is of the newest generation; borrowed until the next call.
    #[expect(clippy::should_implement_trait, reason = "the record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<(Record<'_>, bool)>> {
        let Some((found, is_newest)) = self.find()? else { return Ok(None) };
        Ok(Some((self.reader.record(&found), is_newest)))
    }

    fn find(&mut self) -> Result<Option<(FoundRecord, bool)>> {
        while self.offset + 8 <= self.reader.len() {
            let offset = self.offset;
            self.offset += 8;
            let Some(header) = self.reader.header_at(offset)? else { continue };
            let Some(budget) = self.budget.checked_sub(header.record_bytes()) else { return Ok(None) };
            self.budget = budget;
            let is_newest = self.has_base && self.reader.position_of(offset) == Some(header.position);
            // What the first record of the area continues is elsewhere; what the first behind the newest generation does,
            // was overwritten.
            let alone = offset == self.newest_end && !(is_newest && offset > AREA_OFFSET as u64);
            let chain = if alone {
                None
            } else {
                self.reader.load(offset - 8, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
            };
            if let Found::Record(found) = self.reader.record_of(offset, header, chain)? {
                self.offset = offset + header.record_bytes();
                if is_newest {
                    self.newest_end = self.offset;
                }
                return Ok(Some((found, is_newest)));
            }
        }
        Ok(None)
    }
}
