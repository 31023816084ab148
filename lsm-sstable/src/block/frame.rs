//! A frame: a data block in memory, decompressed and ready to be searched.
//!
//! ```text
//! frame := rows:u32  prefix_bytes:u32  base:u64  offset_width:u8  width:u8  shift:u8  zero:[u8; 5]
//!          prefix  head*rows  offset*(rows+1)  column  record*rows  zero:[u8; 8]
//! head   := the four key bytes after the common prefix, as u32; a shorter key is padded with zeros
//! offset := where the row's record starts among the records, `offset_width` bytes; the last is where they end
//! ```
//!
//! Records and column are those of the file (`header.rs`). A frame is one allocation with everything small in
//! front, so that a search touches two places: some adjacent cache lines, and the record. Frames are built by `load` only, which proves every
//! length in them.
//!
//! Four head bytes suffice because the prefix is the block's own: rows with equal heads are rare, and 35 heads
//! are compared in the time of a few steps of a binary search, without a branch to predict.

use std::cmp::Ordering;

use lsm_core::coding::Decoder;
use lsm_core::key::{self, pack_trailer, unpack_trailer};
use lsm_core::{Entry, SequenceNumber, ValueKind, prefetch};

use super::header::BlockHeader;

pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// Where `base` is in the header.
const BASE_AT: usize = 8;

/// Zeros at the end, so that eight bytes can be read at every number in the column, whatever follows it.
pub(super) const FRAME_PADDING_BYTES: usize = 8;

/// How much of a record is asked for before its lengths are known.
const RECORD_BYTES_AHEAD: usize = 192;

/// Up to this many heads are counted; above, halved first.
const COUNTED_HEADS_MAX: usize = 64;

/// Where the parts of a frame are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(super) rows: usize,
    pub(super) heads_at: usize,
    pub(super) offsets_at: usize,
    pub(super) offset_width: usize,
    pub(super) records_at: usize,
    pub(super) column_at: usize,
    pub(super) base: u64,
    pub(super) width: usize,
    pub(super) shift: u32,
}

impl Shape {
    /// The shape of a frame with these parameters, and the frame's length; `None` if it does not fit memory.
    pub(super) fn plan(header: &BlockHeader) -> Option<(Self, usize)> {
        let record_bytes = header.raw_bytes.checked_sub(header.rows * header.width)?;
        let offset_width = match record_bytes {
            0..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => 8,
        };
        let heads_at = FRAME_HEADER_BYTES + header.prefix_bytes;
        let offsets_at = heads_at + 4 * header.rows;
        let column_at = offsets_at + offset_width * (header.rows + 1);
        let records_at = column_at + header.width * header.rows;
        let frame_bytes = records_at.checked_add(record_bytes)?.checked_add(FRAME_PADDING_BYTES)?;
        let shape = Self {
            rows: header.rows,
            heads_at,
            offsets_at,
            offset_width,
            records_at,
            column_at,
            base: header.base,
            width: header.width,
            shift: if header.mixed { 0 } else { 8 },
        };
        // While a block is loaded its column stands behind the records, too.
        isize::try_from(frame_bytes.checked_add(header.raw_bytes)?).is_ok().then_some((shape, frame_bytes))
    }

    pub(super) fn write(&self, frame: &mut [u8]) {
        let prefix_bytes = (self.heads_at - FRAME_HEADER_BYTES) as u32;
        frame[0..4].copy_from_slice(&(self.rows as u32).to_le_bytes());
        frame[4..8].copy_from_slice(&prefix_bytes.to_le_bytes());
        frame[BASE_AT..BASE_AT + 8].copy_from_slice(&self.base.to_le_bytes());
        let widths = [self.offset_width as u8, self.width as u8, self.shift as u8, 0, 0, 0, 0, 0];
        frame[16..24].copy_from_slice(&widths);
    }

    #[inline]
    fn read(frame: &[u8]) -> Self {
        let Some(header) = frame.first_chunk::<FRAME_HEADER_BYTES>() else {
            return Self::default();
        };
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let lengths = word(0);
        let rows = (lengths & 0xffff_ffff) as usize;
        let offset_width = usize::from(header[16]);
        let heads_at = FRAME_HEADER_BYTES + (lengths >> 32) as usize;
        let offsets_at = heads_at + 4 * rows;
        let column_at = offsets_at + offset_width * (rows + 1);
        let width = usize::from(header[17]);
        Self {
            rows,
            heads_at,
            offsets_at,
            offset_width,
            records_at: column_at + width * rows,
            column_at,
            base: word(BASE_AT),
            width,
            shift: u32::from(header[18]),
        }
    }

    #[inline]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether all rows are puts with sequence number 0. Then no two have the same key.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.base == pack_trailer(0, ValueKind::Put) && self.width == 0 && self.shift > 0
    }

    /// Bytes of records and column.
    pub(crate) fn raw_bytes(&self, frame: &[u8]) -> usize {
        self.offset(frame, self.rows) + self.rows * self.width
    }

    #[inline]
    fn offset(&self, frame: &[u8], row: usize) -> usize {
        if self.offset_width == 2 {
            let at = self.offsets_at + 2 * row;
            return usize::from(u16::from_le_bytes([frame[at], frame[at + 1]]));
        }
        let at = self.offsets_at + self.offset_width * row;
        let mut bytes = [0; 8];
        bytes[..self.offset_width].copy_from_slice(&frame[at..at + self.offset_width]);
        u64::from_le_bytes(bytes) as usize
    }

    #[inline]
    fn trailer(&self, frame: &[u8], row: usize) -> u64 {
        let at = self.column_at + self.width * row;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&frame[at..at + 8]);
        let mask = if self.width == 0 { 0 } else { u64::MAX >> (64 - 8 * self.width) };
        self.base.wrapping_add((u64::from_le_bytes(bytes) & mask) << self.shift)
    }

    /// The row that starts at `at` in the frame.
    #[inline]
    fn row_at(&self, frame: &[u8], row: usize, at: usize) -> Row {
        let trailer = self.trailer(frame, row);
        let (key_bytes, value_bytes) = (frame[at], frame[at + 1]);
        if key_bytes | value_bytes < 0x80 {
            let key_at = at + 2;
            let key_end = key_at + usize::from(key_bytes);
            return Row {
                index: row,
                key_at,
                key_end,
                value_end: key_end + usize::from(value_bytes),
                trailer,
            };
        }
        let mut lengths = Decoder::new(&frame[at..]);
        let key_bytes = lengths.varint_usize().unwrap_or_default();
        let value_bytes = lengths.varint_usize().unwrap_or_default();
        let key_at = frame.len() - lengths.rest().len();
        let key_end = key_at + key_bytes;
        Row { index: row, key_at, key_end, value_end: key_end + value_bytes, trailer }
    }

    /// Row number `row`, which must be below [`Shape::rows`].
    #[inline]
    pub(crate) fn row(&self, frame: &[u8], row: usize) -> Row {
        self.row_at(frame, row, self.records_at + self.offset(frame, row))
    }

    /// The row after `row`, which must not be the last.
    #[inline]
    pub(crate) fn row_after(&self, frame: &[u8], row: &Row) -> Row {
        self.row_at(frame, row.index + 1, row.value_end)
    }
}

/// Adds `sequence` to the sequence numbers of all rows of a frame.
pub(crate) fn renumber(frame: &mut [u8], sequence: SequenceNumber) {
    if let Some(base) = frame.get_mut(BASE_AT..BASE_AT + 8).and_then(|base| base.first_chunk_mut::<8>()) {
        // Whoever reads the trailer takes the lowest 64 bits of the sum as well.
        *base = u64::from_le_bytes(*base).wrapping_add(sequence << 8).to_le_bytes();
    }
}

/// Where the parts of a row are in its frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) index: usize,
    key_at: usize,
    key_end: usize,
    value_end: usize,
    trailer: u64,
}

impl Row {
    #[inline]
    pub(crate) fn key<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.key_at..self.key_end]
    }

    #[inline]
    pub(crate) fn sequence(&self) -> SequenceNumber {
        self.trailer >> 8
    }

    /// The value's place in the frame.
    #[inline]
    pub(crate) fn value_range(&self) -> std::ops::Range<usize> {
        self.key_end..self.value_end
    }

    /// The entry; always there, because `load` checked the kind.
    #[inline]
    pub(crate) fn entry<'a>(&self, frame: &'a [u8]) -> Option<Entry<'a>> {
        let (sequence, kind) = unpack_trailer(self.trailer)?;
        let (key, value) = frame[self.key_at..self.value_end].split_at(self.key_end - self.key_at);
        Some(Entry { key, sequence, kind, value })
    }
}

/// A frame with its shape.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    bytes: &'a [u8],
    shape: Shape,
}

impl<'a> Frame<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, shape: Shape::read(bytes) }
    }

    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    #[inline]
    pub(crate) fn row(&self, row: usize) -> Row {
        self.shape.row(self.bytes, row)
    }

    #[inline]
    fn heads(&self) -> &'a [[u8; 4]] {
        self.bytes[self.shape.heads_at..self.shape.offsets_at].as_chunks().0
    }

    /// The first row at or after the internal key `(key, sequence)`; the number of rows if there is none.
    pub(crate) fn lower_bound(&self, key: &[u8], sequence: SequenceNumber) -> usize {
        let prefix = &self.bytes[FRAME_HEADER_BYTES..self.shape.heads_at];
        let Some(rest) = key.strip_prefix(prefix) else {
            return if key < prefix { 0 } else { self.shape.rows };
        };
        let head = head(rest);
        let heads = self.heads();
        let first = count_below(heads, head);
        if heads.get(first).is_some_and(|found| u32::from_le_bytes(*found) == head) {
            self.lower_bound_among_equal(heads, first, head, key, sequence)
        } else {
            first
        }
    }

    /// The newest version of `key` at or below `sequence`, if it is in this block.
    #[inline]
    pub(crate) fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Row> {
        let prefix = &self.bytes[FRAME_HEADER_BYTES..self.shape.heads_at];
        let head = head(key.strip_prefix(prefix)?);
        let heads = self.heads();
        let first = count_below(heads, head);
        // Absent keys end here almost always, without a look at any record.
        if u32::from_le_bytes(*heads.get(first)?) != head {
            return None;
        }
        // A record spans cache lines, and its lengths, which say where the value is, stand in the first.
        let start = self.shape.records_at + self.shape.offset(self.bytes, first);
        let end = self.bytes.len().min(start + RECORD_BYTES_AHEAD);
        prefetch(self.bytes.get(start..end).unwrap_or_default());
        let row = self.row(first);
        // Present keys end here almost always.
        if row.key(self.bytes) == key && row.sequence() <= sequence {
            return Some(row);
        }
        let found = self.lower_bound_among_equal(heads, first, head, key, sequence);
        if found == self.shape.rows {
            return None;
        }
        let row = self.row(found);
        (row.key(self.bytes) == key).then_some(row)
    }

    /// Rows from `first` on have `head`, some of them: binary search among those by internal key.
    #[cold]
    fn lower_bound_among_equal(
        &self,
        heads: &[[u8; 4]],
        first: usize,
        head: u32,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> usize {
        let mut low = first;
        let mut high = first + heads[first..].partition_point(|found| u32::from_le_bytes(*found) <= head);
        while low < high {
            let middle = low.midpoint(high);
            let row = self.row(middle);
            if key::compare(row.key(self.bytes), row.sequence(), key, sequence) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The first four bytes of what follows the common prefix.
#[inline]
pub(super) fn head(rest: &[u8]) -> u32 {
    if let Some(first) = rest.first_chunk::<4>() {
        return u32::from_be_bytes(*first);
    }
    let mut padded = [0; 4];
    padded[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(padded)
}

/// Number of heads below `head`; the heads ascend.
#[inline]
fn count_below(heads: &[[u8; 4]], head: u32) -> usize {
    let (mut low, mut high) = (0, heads.len());
    while high - low > COUNTED_HEADS_MAX {
        let middle = low.midpoint(high);
        if u32::from_le_bytes(heads[middle]) < head {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let below: u32 = heads[low..high].iter().map(|found| u32::from(u32::from_le_bytes(*found) < head)).sum();
    low + below as usize
}
