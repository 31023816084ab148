//! The last bytes of a table file: where everything is.
//!
//! ```text
//! footer (128 bytes)
//!   0..8      where the data blocks end, u64 (they start right after the file header)
//!   8..16     length of the filter section, u64; 0 if there is none
//!   16..24    length of the range tombstone section; 0 if there is none
//!   24..32    length of the index section
//!   32..40    length of the properties section
//!   40..48    length of the file
//!   48..56    CRC-64 of everything before the footer
//!   56..72    table id, u128
//!   72..112   zero
//!   112..116  format version, u32
//!   116..120  CRC-32 of bytes 0..116, seeded like a block's
//!   120..128  magic "lsmtable"
//! ```
//!
//! The sections follow the data blocks in the order given here, without gaps: no byte of the file is unaccounted.

use std::ops::Range;
use std::path::Path;

use lsm_core::coding::Decoder;
use lsm_core::{Error, Result};

use super::checksum::BlockChecksum;
use super::file_header::{FILE_HEADER_BYTES, FORMAT_VERSION, MAGIC};
use crate::meta::TableId;

pub(crate) const FOOTER_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) data_end: u64,
    pub(crate) filter_bytes: u64,
    pub(crate) range_tombstone_bytes: u64,
    pub(crate) index_bytes: u64,
    pub(crate) properties_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) body_checksum: u64,
    pub(crate) id: TableId,
}

impl Footer {
    pub(crate) fn filter(&self) -> Range<u64> {
        self.data_end..self.data_end + self.filter_bytes
    }

    pub(crate) fn range_tombstones(&self) -> Range<u64> {
        let start = self.filter().end;
        start..start + self.range_tombstone_bytes
    }

    pub(crate) fn index(&self) -> Range<u64> {
        let start = self.range_tombstones().end;
        start..start + self.index_bytes
    }

    pub(crate) fn properties(&self) -> Range<u64> {
        let start = self.index().end;
        start..start + self.properties_bytes
    }

    /// Where the footer itself starts.
    pub(crate) fn offset(&self) -> u64 {
        self.file_bytes - FOOTER_BYTES as u64
    }

    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut footer = [0; FOOTER_BYTES];
        let fields = [
            self.data_end,
            self.filter_bytes,
            self.range_tombstone_bytes,
            self.index_bytes,
            self.properties_bytes,
            self.file_bytes,
            self.body_checksum,
        ];
        for (slot, field) in footer.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        footer[56..72].copy_from_slice(&self.id.0.to_le_bytes());
        footer[112..116].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let checksum = BlockChecksum::new(self.id).compute(self.offset(), &footer[..116]);
        footer[116..120].copy_from_slice(&checksum.to_le_bytes());
        footer[120..].copy_from_slice(MAGIC);
        footer
    }

    /// Decodes the footer of the table `id`, whose file has `file_bytes` bytes.
    pub(crate) fn decode(
        footer: &[u8; FOOTER_BYTES],
        id: TableId,
        file_bytes: u64,
        path: &Path,
    ) -> Result<Self> {
        let offset = file_bytes - FOOTER_BYTES as u64;
        let corruption = |at: u64, detail: String| Error::corruption(path, offset + at, detail);
        if &footer[120..] != MAGIC {
            return Err(corruption(
                120,
                "file does not end with \"lsmtable\": it was cut or is not a table".into(),
            ));
        }
        let mut fields = Decoder::new(footer);
        let mut next = || fields.u64().unwrap_or_default();
        let decoded = Self {
            data_end: next(),
            filter_bytes: next(),
            range_tombstone_bytes: next(),
            index_bytes: next(),
            properties_bytes: next(),
            file_bytes: next(),
            body_checksum: next(),
            id: TableId(fields.u128().unwrap_or_default()),
        };
        let zeros = fields.take(40).unwrap_or_default();
        let version = fields.u32().unwrap_or_default();
        let stored = fields.u32().unwrap_or_default();
        let computed = BlockChecksum::new(id).compute(offset, &footer[..116]);
        if stored != computed {
            return Err(corruption(
                116,
                format!(
                    "footer checksum is {stored:#010x}, its bytes have {computed:#010x} for table {id} at this offset"
                ),
            ));
        }
        if version != FORMAT_VERSION || zeros.iter().any(|&byte| byte != 0) {
            return Err(corruption(72, "footer and file header disagree about the format version".into()));
        }
        if decoded.id != id {
            return Err(corruption(
                56,
                format!("footer is of table {}, file header of table {id}", decoded.id),
            ));
        }
        if decoded.file_bytes != file_bytes {
            let detail = format!("footer says {} bytes, the file has {file_bytes}", decoded.file_bytes);
            return Err(corruption(40, detail));
        }
        let lengths = [
            decoded.data_end,
            decoded.filter_bytes,
            decoded.range_tombstone_bytes,
            decoded.index_bytes,
            decoded.properties_bytes,
        ];
        let total = lengths.iter().try_fold(0_u64, |sum, &bytes| sum.checked_add(bytes));
        if decoded.data_end < FILE_HEADER_BYTES as u64 || total != Some(offset) {
            return Err(corruption(0, format!("sections of {lengths:?} bytes do not add up to {offset}")));
        }
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let path = Path::new("1.sst");
        let footer = Footer {
            data_end: 1000,
            filter_bytes: 10,
            range_tombstone_bytes: 0,
            index_bytes: 30,
            properties_bytes: 40,
            file_bytes: 1080 + FOOTER_BYTES as u64,
            body_checksum: 5,
            id: TableId(9),
        };
        let encoded = footer.encode();
        let decode = |bytes: &[u8; FOOTER_BYTES]| Footer::decode(bytes, TableId(9), footer.file_bytes, path);
        assert_eq!(decode(&encoded).unwrap(), footer);
        for bit in 0..FOOTER_BYTES * 8 {
            let mut flipped = encoded;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        assert!(Footer::decode(&encoded, TableId(8), footer.file_bytes, path).is_err());
        assert!(Footer::decode(&encoded, TableId(9), footer.file_bytes + 1, path).is_err());
    }
}
