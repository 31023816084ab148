//! The first bytes of a table and of a blob file.
//!
//! ```text
//! file header (80 bytes)
//!   0..8    magic "lsmtable", or "lsm-blob"
//!   8..12   format version, u32
//!   12..16  zero
//!   16..32  id, u128
//!   32..72  encryption, see `lsm_core::Encryption`; zero
//!   72..76  zero
//!   76..80  CRC-32 of bytes 0..76
//! ```
//!
//! Magic, version and checksum stand here in every version, so that a newer file is refused by name and never
//! taken for a damaged one.

use std::path::Path;

use lsm_core::checksum::crc32;
use lsm_core::coding::Decoder;
use lsm_core::{Encryption, Error, Result};

use crate::meta::TableId;

/// The format of tables that this build reads and writes.
pub(crate) const FORMAT_VERSION: u32 = TABLE.version;

/// What tells the files of one format from others.
pub(crate) struct FileFormat {
    pub(crate) magic: &'static [u8; 8],
    pub(crate) version: u32,
    pub(crate) name: &'static str,
}

pub(crate) const TABLE: FileFormat = FileFormat { magic: b"lsmtable", version: 1, name: "table" };
pub(crate) const BLOB: FileFormat = FileFormat { magic: b"lsm-blob", version: 1, name: "blob" };

pub(crate) const FILE_HEADER_BYTES: usize = 80;
/// The bytes that the checksum covers.
const COVERED_BYTES: usize = FILE_HEADER_BYTES - 4;
const ENCRYPTION_OFFSET: usize = 32;

pub(crate) const MAGIC: &[u8; 8] = TABLE.magic;

pub(crate) fn encode(id: TableId) -> [u8; FILE_HEADER_BYTES] {
    TABLE.encode(id)
}

pub(crate) fn decode(header: &[u8; FILE_HEADER_BYTES], path: &Path) -> Result<TableId> {
    TABLE.decode(header, path)
}

impl FileFormat {
    pub(crate) fn encode(&self, id: TableId) -> [u8; FILE_HEADER_BYTES] {
        let mut header = [0; FILE_HEADER_BYTES];
        header[0..8].copy_from_slice(self.magic);
        header[8..12].copy_from_slice(&self.version.to_le_bytes());
        header[16..32].copy_from_slice(&id.0.to_le_bytes());
        header[ENCRYPTION_OFFSET..][..Encryption::BYTES].copy_from_slice(&Encryption::NONE.encode());
        let checksum = crc32(0, &header[..COVERED_BYTES]);
        header[COVERED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    pub(crate) fn decode(&self, header: &[u8; FILE_HEADER_BYTES], path: &Path) -> Result<TableId> {
        if &header[0..8] != self.magic {
            let detail =
                format!("not a {} file: it does not start with \"{}\"", self.name, self.magic.escape_ascii());
            return Err(Error::corruption(path, 0, detail));
        }
        let mut fields = Decoder::new(&header[8..]);
        let malformed = || Error::corruption(path, 0, "file header is cut short");
        let version = fields.u32().ok_or_else(malformed)?;
        let zero = fields.u32().ok_or_else(malformed)?;
        let id = fields.u128().ok_or_else(malformed)?;
        let encryption =
            fields.take(Encryption::BYTES).and_then(|bytes| bytes.first_chunk()).ok_or_else(malformed)?;
        let zeros = fields.u32().ok_or_else(malformed)?;
        let stored = fields.u32().ok_or_else(malformed)?;
        let computed = crc32(0, &header[..COVERED_BYTES]);
        if stored != computed {
            let detail = format!("file header checksum is {stored:#010x}, its bytes have {computed:#010x}");
            return Err(Error::corruption(path, COVERED_BYTES as u64, detail));
        }
        if version != self.version {
            return Err(Error::UnsupportedVersion {
                path: std::sync::Arc::new(path.to_owned()),
                found: version,
                supported: self.version,
            });
        }
        Encryption::decode(encryption).map_err(|error| error.at(path, ENCRYPTION_OFFSET as u64))?;
        if zero != 0 || zeros != 0 {
            return Err(Error::corruption(path, 12, "file header has bytes set that version 1 keeps zero"));
        }
        Ok(TableId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_refused_by_name_and_a_flipped_bit_is_corruption() {
        let path = Path::new("1.sst");
        let header = encode(TableId(7));
        assert_eq!(decode(&header, path).unwrap(), TableId(7));
        for byte in 0..header.len() {
            let mut flipped = header;
            flipped[byte] ^= 1;
            assert!(matches!(decode(&flipped, path), Err(Error::Corruption { .. })), "byte {byte}");
        }
        assert!(matches!(
            decode(&with_byte(8, 9), path),
            Err(Error::UnsupportedVersion { found: 9, supported: 1, .. })
        ));
    }

    /// A header with one byte set, under a valid checksum.
    fn with_byte(at: usize, byte: u8) -> [u8; FILE_HEADER_BYTES] {
        let mut header = encode(TableId(7));
        header[at] = byte;
        let checksum = crc32(0, &header[..COVERED_BYTES]);
        header[COVERED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    #[test]
    fn an_encrypted_table_is_told_from_a_damaged_one() {
        let path = Path::new("1.sst");
        let error = decode(&with_byte(32, 1), path).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("1.sst") && error.to_string().contains("encrypted"), "{error}");
        for at in (12..16).chain(33..76) {
            let decoded = decode(&with_byte(at, 1), path);
            assert!(matches!(decoded, Err(Error::Corruption { .. })), "byte {at}");
        }
    }
}
