//! How a data block stands in the file.
//!
//! ```text
//! block   := checksum:u32  tag:u8  rows:varint  stored_bytes:varint  raw_bytes:varint  prefix_bytes:varint
//!            trailer:u8  base:varint  stored
//! tag     := 0x10 | codec                  0 none, 1 LZ4, 2 Zstandard
//! stored  := compress(stream)              stored_bytes bytes, up to the end of the block
//! stream  := record*rows  column           raw_bytes bytes
//! record  := key_bytes:varint  value_bytes:varint  key  value
//! column  := trailer number of each row, little-endian, `width` bytes each
//! trailer := width | mixed << 7            width 0..=8
//! ```
//!
//! Rows ascend by internal key. `prefix_bytes` is the length of the common prefix of all keys. Sequence number and
//! kind of a row stand in the column, relative to `base`:
//!
//! ```text
//! not mixed: all rows are of one kind    trailer(row) = base + (number << 8),   base = lowest sequence << 8 | kind
//! mixed                                  trailer(row) = base + number,          base = lowest sequence << 8
//! ```
//!
//! where `trailer = sequence << 8 | kind`. So entries without sequence numbers, as the bottom of a tree has
//! them, cost nothing.
//!
//! The checksum covers everything after itself and is seeded with the table's id and the block's offset.

use lsm_core::coding::{Decoder, put_varint};
use lsm_core::key::{KEY_BYTES_MAX, unpack_trailer};

use crate::format::compression::{Codec, EXPANSION_MAX};

const DATA_TAG: u8 = 0x10;

/// Most rows of a block.
pub(crate) const ROWS_MAX: usize = u16::MAX as usize;

/// Longest encoding of a header, checksum included.
pub(crate) const BLOCK_HEADER_BYTES_MAX: usize = 4 + 1 + 3 + 10 + 10 + 3 + 1 + 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) codec: Codec,
    pub(crate) rows: usize,
    pub(crate) stored_bytes: usize,
    pub(crate) raw_bytes: usize,
    pub(crate) prefix_bytes: usize,
    /// Bytes of each row's number in the column.
    pub(crate) width: usize,
    /// Whether kinds differ, so that the numbers include them.
    pub(crate) mixed: bool,
    pub(crate) base: u64,
}

impl BlockHeader {
    /// Appends the header behind four bytes for the checksum.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(BLOCK_HEADER_BYTES_MAX);
        out.extend_from_slice(&[0, 0, 0, 0, DATA_TAG | self.codec as u8]);
        put_varint(out, self.rows as u64);
        put_varint(out, self.stored_bytes as u64);
        put_varint(out, self.raw_bytes as u64);
        put_varint(out, self.prefix_bytes as u64);
        out.push(self.width as u8 | u8::from(self.mixed) << 7);
        put_varint(out, self.base);
    }

    /// Decodes what follows the checksum; returns the header and the stored stream.
    pub(crate) fn decode(covered: &[u8]) -> Result<(Self, &[u8]), String> {
        let mut fields = Decoder::new(covered);
        let mut parse = || {
            let tag = fields.u8()?;
            let rows = fields.varint_usize()?;
            let stored_bytes = fields.varint_usize()?;
            let raw_bytes = fields.varint_usize()?;
            let prefix_bytes = fields.varint_usize()?;
            let trailer = fields.u8()?;
            let base = fields.varint()?;
            Some((tag, rows, stored_bytes, raw_bytes, prefix_bytes, trailer, base))
        };
        let Some((tag, rows, stored_bytes, raw_bytes, prefix_bytes, trailer, base)) = parse() else {
            return Err("block header is malformed".into());
        };
        let stored = fields.rest();
        let codec = Codec::from_u8(tag & 0x0f).filter(|_| tag & 0xf0 == DATA_TAG);
        let Some(codec) = codec else {
            return Err(format!("block has tag {tag:#04x}, which is no data block"));
        };
        let (width, mixed) = (usize::from(trailer & 0x7f), trailer & 0x80 != 0);
        if rows == 0 || rows > ROWS_MAX || prefix_bytes > KEY_BYTES_MAX || width > 8 {
            return Err(format!(
                "block header has {rows} rows, a prefix of {prefix_bytes} bytes and trailers of {width} bytes"
            ));
        }
        if stored_bytes != stored.len() {
            return Err(format!("block header says {stored_bytes} stored bytes, there are {}", stored.len()));
        }
        // A record has at least its two lengths.
        let raw_min = rows * (2 + width);
        if raw_bytes < raw_min || raw_bytes as u64 > (stored_bytes as u64).saturating_mul(EXPANSION_MAX) {
            return Err(format!(
                "block header says {raw_bytes} raw bytes for {rows} rows and {stored_bytes} stored bytes"
            ));
        }
        let base_is_valid = if mixed { base.trailing_zeros() >= 8 } else { unpack_trailer(base).is_some() };
        if !base_is_valid {
            return Err(format!("block header has an unknown kind of entry in {base:#x}"));
        }
        Ok((Self { codec, rows, stored_bytes, raw_bytes, prefix_bytes, width, mixed, base }, stored))
    }
}
