//! Opening a window for reading, and noticing one that was lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::checksum::crc64;
use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Encryption, Error, Result};

use super::directory::{self, LogFile};
use super::record_reader::{RecordArea, RecordReader};
use crate::format::bit_flip;
use crate::format::segment::{SegmentHeader, VERSION};
use crate::format::window::{
    AREA_OFFSET, COVERED_BYTES, ENCRYPTION, HEADER_BYTES, MAGIC, SLOT_BYTES, SLOT_OFFSETS, Slot,
};
use crate::report::Dropped;

/// A window that is looked into.
pub(crate) struct WindowFile {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    /// Bytes of the file when it was opened.
    pub(crate) len: u64,
    /// Bytes of the area, as the header says.
    pub(crate) area_bytes: u64,
    pub(crate) slots: [Slot; 2],
    /// What the checksum of each record's header continues from.
    pub(crate) record_seed: u32,
}

impl WindowFile {
    /// Opens the window of a number. `None` if there is none, or nothing that can be made out after a power cut.
    pub(crate) fn open(vfs: &dyn Vfs, folder: &Path, number: u64) -> Result<Option<Self>> {
        let path = LogFile::Window(number).path(folder);
        let Some((window, found)) = Self::read(vfs, &path)? else { return Ok(None) };
        if found != number {
            let detail = format!("this is window {found} under another's name");
            return Err(Error::corruption(&path, 16, detail));
        }
        Ok(Some(window))
    }

    /// Opens a window, whatever its name, and returns the number that it says it has.
    pub(crate) fn read(vfs: &dyn Vfs, path: &Path) -> Result<Option<(Self, u64)>> {
        let Some(file) = directory::open_if_there(vfs, path)? else { return Ok(None) };
        let len = file.len().map_err(|error| Error::io("read the length of", path, error))?;
        let mut reader = RecordReader::new(Arc::clone(&file), path.to_owned(), len, RecordArea::default());
        let Some(bytes) = reader.load(0, HEADER_BYTES)?.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        let (version, number, area_bytes, record_seed) =
            (word(1) as u32, word(2), word(3), (word(1) >> 32) as u32);
        let syndrome = crc64(0, &bytes[..COVERED_BYTES]) ^ word(15);
        let known = bytes[..8] == MAGIC;
        if syndrome != 0 {
            let bits = COVERED_BYTES as u64 * 8;
            if syndrome.is_power_of_two() || bit_flip::bits_after_flip(syndrome, bits).is_some() {
                return Err(Error::corruption(path, 0, "one bit of the window's header was flipped"));
            }
            // The checksum is written last. Each word before it is there or not, and most are zero.
            let unfinished = word(15) == 0 && (known || word(0) == 0) && (4..15).all(|at| word(at) == 0);
            if unfinished {
                return Ok(None);
            }
            if !(known && version > VERSION) {
                return Err(Error::corruption(path, 0, "the window's header is damaged"));
            }
        }
        if !known {
            return Err(Error::corruption(path, 0, "this is no window"));
        }
        if version != VERSION {
            let path = Arc::new(path.to_owned());
            return Err(Error::UnsupportedVersion { path, found: version, supported: VERSION });
        }
        if let Some(Err(error)) = bytes[ENCRYPTION].first_chunk().map(Encryption::decode) {
            return Err(error.at(path, ENCRYPTION.start as u64));
        }
        let mut slots = [Slot::Open(0); 2];
        for (slot, offset) in slots.iter_mut().zip(SLOT_OFFSETS) {
            if let Some(bytes) = reader.load(offset as u64, SLOT_BYTES)?.first_chunk() {
                *slot = Slot::decode(number, *bytes);
            }
        }
        Ok(Some((Self { file, path: path.to_owned(), len, area_bytes, slots, record_seed }, number)))
    }

    /// The area, its first byte being at log position `base`.
    pub(crate) fn area(&self, base: u64) -> RecordReader {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        RecordReader::new(file, path, self.len, records_at(base, Some(self.record_seed)))
    }

    /// Log positions at which the area may begin, the newest first.
    pub(crate) fn bases(&self) -> Vec<u64> {
        let mut bases: Vec<u64> = self.slots.into_iter().filter_map(Slot::base).collect();
        bases.sort_unstable_by(|a, b| b.cmp(a));
        bases
    }
}

/// The records of an area whose first byte is at log position `start`.
fn records_at(start: u64, record_seed: Option<u32>) -> RecordArea {
    RecordArea { first_offset: AREA_OFFSET as u64, start, record_seed }
}

/// What a segment's window lost of its file. Its name and length are durable before the segment's header names it,
/// and until the log is closed or goes on with another window.
pub(crate) fn find_loss(
    vfs: &dyn Vfs,
    folder: &Path,
    number: u64,
    segment: &Path,
) -> Result<Option<Dropped>> {
    let path = LogFile::Window(number).path(folder);
    let Some(file) = directory::open_if_there(vfs, &path)? else {
        let segment = segment.file_name().unwrap_or_default().display();
        let reason = format!("the file is missing, and {segment} does not end as a log that was closed");
        return Ok(Some(Dropped { path, offset: 0, bytes: 1, reason }));
    };
    let offset = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
    // A header that is damaged was found so by whoever looked for records.
    let area_bytes =
        WindowFile::open(vfs, folder, number).ok().flatten().map_or(0, |window| window.area_bytes);
    let whole = (AREA_OFFSET as u64).saturating_add(area_bytes);
    let reason = format!("the file has {offset} bytes, and had at least {whole}");
    Ok((offset < whole).then(|| Dropped { path, offset, bytes: whole - offset, reason }))
}

/// What a window holds, one reader for each slot that says where the area begins. Empty if there is no window of
/// this number, or nothing that can be made out after a power cut. `segment` is one that uses it, if one is known.
pub(crate) fn read(
    vfs: &dyn Vfs,
    folder: &Path,
    number: u64,
    segment: Option<&SegmentHeader>,
) -> Result<Vec<RecordReader>> {
    let Some(window) = WindowFile::open(vfs, folder, number)? else {
        return read_without_header(vfs, folder, number, segment);
    };
    for (slot, offset) in window.slots.into_iter().zip(SLOT_OFFSETS) {
        if slot == Slot::Flipped {
            let detail = "one bit of where the window begins was flipped";
            return Err(Error::corruption(&window.path, offset as u64, detail));
        }
    }
    Ok(window.slots.into_iter().filter_map(Slot::base).map(|base| window.area(base)).collect())
}

/// As [`read`], of a window whose header is zeros. A power cut may leave its slots all the same, and they have checks of
/// their own; what is believed is that the records continue the chain.
fn read_without_header(
    vfs: &dyn Vfs,
    folder: &Path,
    number: u64,
    segment: Option<&SegmentHeader>,
) -> Result<Vec<RecordReader>> {
    let path = LogFile::Window(number).path(folder);
    let Some(file) = directory::open_if_there(vfs, &path)? else { return Ok(Vec::new()) };
    let len = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
    let reader =
        |start, seed| RecordReader::new(Arc::clone(&file), path.clone(), len, records_at(start, seed));
    let mut whole = reader(0, None);
    let seed = match segment {
        Some(segment) => Some(segment.record_seed),
        None => whole.guess_seed()?,
    };
    let mut readers = Vec::new();
    for offset in SLOT_OFFSETS {
        if let Some(bytes) = whole.load(offset as u64, SLOT_BYTES)?.first_chunk() {
            readers.extend(Slot::decode(number, *bytes).base().map(|base| reader(base, seed)));
        }
    }
    Ok(readers)
}
