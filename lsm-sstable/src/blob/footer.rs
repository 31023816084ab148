//! The last bytes of a blob file.
//!
//! ```text
//! footer (128 bytes)
//!   0..8      where the directory starts, u64: the values end there
//!   8..16     numbers: entries of the directory, u64
//!   16..24    values that are there, u64
//!   24..32    sum of their lengths, u64
//!   32..40    length of the file, u64
//!   40..48    CRC-64 of everything before the footer
//!   48..64    id, u128
//!   64        1 if the file was rewritten, so that values are not where they were written first
//!   65..112   zero
//!   112..116  format version, u32
//!   116..120  CRC-32 of bytes 0..116, seeded with id and the footer's offset
//!   120..128  magic "lsm-blob"
//! ```

use std::path::Path;

use lsm_core::coding::Decoder;
use lsm_core::{Error, Result};

use super::ENTRY_BYTES;
use crate::format::checksum::BlockChecksum;
use crate::format::file_header::{BLOB, FILE_HEADER_BYTES};
use crate::meta::TableId;

pub(super) const FOOTER_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) directory: u64,
    pub(super) numbers: u64,
    pub(super) values: u64,
    pub(super) value_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) body_checksum: u64,
    pub(super) id: TableId,
    pub(super) is_rewritten: bool,
}

impl Footer {
    /// Where the footer starts.
    pub(super) fn offset(&self) -> u64 {
        self.file_bytes - FOOTER_BYTES as u64
    }

    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut footer = [0; FOOTER_BYTES];
        let fields = [
            self.directory,
            self.numbers,
            self.values,
            self.value_bytes,
            self.file_bytes,
            self.body_checksum,
        ];
        for (slot, field) in footer.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        footer[48..64].copy_from_slice(&self.id.0.to_le_bytes());
        footer[64] = u8::from(self.is_rewritten);
        footer[112..116].copy_from_slice(&BLOB.version.to_le_bytes());
        let checksum = BlockChecksum::new(self.id).compute(self.offset(), &footer[..116]);
        footer[116..120].copy_from_slice(&checksum.to_le_bytes());
        footer[120..].copy_from_slice(BLOB.magic);
        footer
    }

    /// Decodes the footer of the file `id`, which has `file_bytes` bytes.
    pub(super) fn decode(
        footer: &[u8; FOOTER_BYTES],
        id: TableId,
        file_bytes: u64,
        path: &Path,
    ) -> Result<Self> {
        let offset = file_bytes - FOOTER_BYTES as u64;
        let corruption = |at: u64, detail: String| Error::corruption(path, offset + at, detail);
        if &footer[120..] != BLOB.magic {
            let detail = "file does not end with \"lsm-blob\": it was cut or is not a blob file";
            return Err(corruption(120, detail.into()));
        }
        let stored = u32::from_le_bytes(footer[116..120].try_into().unwrap_or_default());
        let computed = BlockChecksum::new(id).compute(offset, &footer[..116]);
        if stored != computed {
            let detail = format!(
                "footer checksum is {stored:#010x}, its bytes have {computed:#010x} for blob file {id} at this offset"
            );
            return Err(corruption(116, detail));
        }
        let mut fields = Decoder::new(footer);
        let mut next = || fields.u64().unwrap_or_default();
        let decoded = Self {
            directory: next(),
            numbers: next(),
            values: next(),
            value_bytes: next(),
            file_bytes: next(),
            body_checksum: next(),
            id: TableId(fields.u128().unwrap_or_default()),
            is_rewritten: footer[64] == 1,
        };
        if decoded.encode() != *footer {
            return Err(corruption(
                48,
                "footer has an id, a version or bytes that this file cannot have".into(),
            ));
        }
        if decoded.id != id || decoded.file_bytes != file_bytes {
            let detail = format!(
                "footer is of blob file {} with {} bytes, the file is {id} and has {file_bytes}",
                decoded.id, decoded.file_bytes
            );
            return Err(corruption(32, detail));
        }
        let directory_bytes = decoded.numbers.checked_mul(ENTRY_BYTES);
        let end = directory_bytes.and_then(|bytes| decoded.directory.checked_add(bytes));
        if decoded.directory < FILE_HEADER_BYTES as u64
            || end != Some(offset)
            || decoded.values > decoded.numbers
            || decoded.value_bytes > decoded.directory
        {
            return Err(corruption(0, "the parts that the footer names do not fill the file".into()));
        }
        Ok(decoded)
    }
}

/// The checksum of everything before the footer, from a footer that is checked.
pub(crate) fn blob_body_checksum(
    footer: &[u8; FOOTER_BYTES],
    id: TableId,
    file_bytes: u64,
    path: &Path,
) -> Result<u64> {
    Ok(Footer::decode(footer, id, file_bytes, path)?.body_checksum)
}
