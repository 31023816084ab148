//! The window: a small resident file that takes records by a copy and outlives the process.
//!
//! ```text
//! window := header zeros slot zeros slot zeros area
//! header := magic "lsm-win\0"
//!           version u32     1
//!           zero u32
//!           number u64      also the file name
//!           area u64        bytes of the area
//!           key u64         for a key id, 0
//!           nonce 24 bytes  for encryption, 0
//!           record_seed u32 that of the segments that use it
//!           zero 52 bytes
//!           crc u64         CRC-64 of the 120 bytes before
//! slot   := base u64        log position of the first byte of the area; at offsets 512 and 1024
//!           check u64       CRC-64 of number and base
//! area   := record*         at offset 4096; records as in a segment, at their positions
//! ```
//!
//! When the area is full, all of it is written to the segment, and it is used again from its front: the older
//! slot is taken back, then gets the new base. What an earlier round left in the area does not pass for
//! anything else, since records name their positions. Name and length are durable before a segment's header has the
//! window's number; header and slots are never synced. So after a power cut the header may be zeros, but what is no
//! header is damage, and what is found in the area has to continue the chain.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::checksum::crc64;
use lsm_core::vfs::{Vfs, VfsFile, Window};
use lsm_core::{Error, Result};

use crate::directory::{self, LogFile};
use crate::flip;
use crate::record::{self, RecordHeader};
use crate::report::Dropped;
use crate::segment::{SegmentHeader, VERSION};
use crate::segment_file::Segment;
use crate::source::Source;

const MAGIC: [u8; 8] = *b"lsm-win\0";
pub(crate) const HEADER_BYTES: usize = 128;
pub(crate) const COVERED_BYTES: usize = HEADER_BYTES - 8;
pub(crate) const SLOT_OFFSETS: [usize; 2] = [512, 1024];
pub(crate) const SLOT_BYTES: usize = 16;
pub(crate) const AREA_OFFSET: usize = 4096;

/// The writing side of a window.
pub(crate) struct WindowWriter {
    window: Box<dyn Window>,
    number: u64,
    slot: usize,
    /// Log position of the first byte of the area.
    base: u64,
    area_bytes: u64,
    /// What the checksum of each record's header continues from.
    record_seed: u32,
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
        record_seed: u32,
    ) -> Result<Option<Self>> {
        let path = LogFile::Window(number).path(directory);
        let window = match vfs.window(&path, (AREA_OFFSET + area_bytes) as u64) {
            Ok(window) => window,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
            Err(error) => return Err(Error::io("create the window", &path, error)),
        };
        let area_bytes = area_bytes as u64;
        let mut writer = Self { window, number, slot: 0, base, area_bytes, record_seed, path };
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&number.to_le_bytes());
        header[24..32].copy_from_slice(&area_bytes.to_le_bytes());
        header[64..68].copy_from_slice(&record_seed.to_le_bytes());
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

/// What stands in one of the two places that say where the area begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// The area begins at this log position.
    Base(u64),
    /// Being written, or never used: the check is zero, and the base is this.
    Open(u64),
    /// One flipped bit explains why it does not check.
    Flipped,
    /// It does not check.
    Bad,
}

impl Slot {
    fn decode(number: u64, bytes: [u8; SLOT_BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        let (base, check) = (word(0), word(1));
        let syndrome = slot_check(number, base) ^ check;
        match syndrome {
            0 => Self::Base(base),
            _ if check == 0 => Self::Open(base),
            _ if syndrome.is_power_of_two() || flip::bits_after_flip(syndrome, 64).is_some() => Self::Flipped,
            _ => Self::Bad,
        }
    }

    /// Log position of the area's first byte.
    pub(crate) fn base(self) -> Option<u64> {
        if let Self::Base(base) = self { Some(base) } else { None }
    }
}

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
        let mut source = Source::new(Arc::clone(&file), path.to_owned(), len, 0, 0, None);
        let Some(bytes) = source.load(0, HEADER_BYTES)?.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        let (version, number, area_bytes, record_seed) = (word(1) as u32, word(2), word(3), word(8) as u32);
        let syndrome = crc64(0, &bytes[..COVERED_BYTES]) ^ word(15);
        let known = bytes[..8] == MAGIC;
        if syndrome != 0 {
            let bits = COVERED_BYTES as u64 * 8;
            if syndrome.is_power_of_two() || flip::bits_after_flip(syndrome, bits).is_some() {
                return Err(Error::corruption(path, 0, "one bit of the window's header was flipped"));
            }
            // The checksum is written last. Each word before it is there or not, and most are zero.
            let unfinished = word(15) == 0
                && (known || word(0) == 0)
                && (4..15).all(|at| word(at) == 0 || at == 8 && word(8) >> 32 == 0);
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
        if version > VERSION {
            let path = Arc::new(path.to_owned());
            return Err(Error::UnsupportedVersion { path, found: version, supported: VERSION });
        }
        let mut slots = [Slot::Open(0); 2];
        for (slot, offset) in slots.iter_mut().zip(SLOT_OFFSETS) {
            if let Some(bytes) = source.load(offset as u64, SLOT_BYTES)?.first_chunk() {
                *slot = Slot::decode(number, *bytes);
            }
        }
        Ok(Some((Self { file, path: path.to_owned(), len, area_bytes, slots, record_seed }, number)))
    }

    /// The area, its first byte being at log position `base`.
    pub(crate) fn area(&self, base: u64) -> Source {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        Source::new(file, path, self.len, AREA_OFFSET as u64, base, Some(self.record_seed))
    }

    /// Log positions at which the area may begin, the newest first.
    pub(crate) fn bases(&self) -> Vec<u64> {
        let mut bases: Vec<u64> = self.slots.into_iter().filter_map(Slot::base).collect();
        bases.sort_unstable_by(|a, b| b.cmp(a));
        bases
    }
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

/// What a window holds, one source for each slot that says where the area begins. Empty if there is no window of
/// this number, or nothing that can be made out after a power cut. `segment` is one that uses it, if one is known.
pub(crate) fn read(
    vfs: &dyn Vfs,
    folder: &Path,
    number: u64,
    segment: Option<&SegmentHeader>,
) -> Result<Vec<Source>> {
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
) -> Result<Vec<Source>> {
    let path = LogFile::Window(number).path(folder);
    let Some(file) = directory::open_if_there(vfs, &path)? else { return Ok(Vec::new()) };
    let len = file.len().map_err(|error| Error::io("read the length of", &path, error))?;
    let first = AREA_OFFSET as u64;
    let source = |start, seed| Source::new(Arc::clone(&file), path.clone(), len, first, start, seed);
    let mut whole = source(0, None);
    let seed = match segment {
        Some(segment) => Some(segment.record_seed),
        None => whole.guess_seed()?,
    };
    let mut sources = Vec::new();
    for offset in SLOT_OFFSETS {
        if let Some(bytes) = whole.load(offset as u64, SLOT_BYTES)?.first_chunk() {
            sources.extend(Slot::decode(number, *bytes).base().map(|base| source(base, seed)));
        }
    }
    Ok(sources)
}
