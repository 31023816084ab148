//! The first bytes of a table file.
//!
//! ```text
//! file header (64 bytes)
//!   0..8    magic "lsmtable"
//!   8..12   format version, u32
//!   12..16  zero
//!   16..32  table id, u128
//!   32..48  encryption key id, zero: not encrypted
//!   48..60  encryption nonce, zero
//!   60..64  CRC-32 of bytes 0..60
//! ```
//!
//! Magic, version and checksum stand here in every version, so that a newer file is refused by name and never
//! taken for a damaged one.

use std::path::Path;

use lsm_core::checksum::crc32;
use lsm_core::coding::Decoder;
use lsm_core::{Error, Result};

use crate::meta::TableId;

/// The format that this build writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 0;

pub(crate) const FILE_HEADER_BYTES: usize = 64;

pub(crate) const MAGIC: &[u8; 8] = b"lsmtable";

pub(crate) fn encode(id: TableId) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[0..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[16..32].copy_from_slice(&id.0.to_le_bytes());
    let checksum = crc32(0, &header[..60]);
    header[60..64].copy_from_slice(&checksum.to_le_bytes());
    header
}

pub(crate) fn decode(header: &[u8; FILE_HEADER_BYTES], path: &Path) -> Result<TableId> {
    if &header[0..8] != MAGIC {
        return Err(Error::corruption(path, 0, "not a table file: it does not start with \"lsmtable\""));
    }
    let mut fields = Decoder::new(&header[8..]);
    let malformed = || Error::corruption(path, 0, "file header is cut short");
    let version = fields.u32().ok_or_else(malformed)?;
    let zero = fields.u32().ok_or_else(malformed)?;
    let id = fields.u128().ok_or_else(malformed)?;
    let encryption = fields.take(28).ok_or_else(malformed)?;
    let stored = fields.u32().ok_or_else(malformed)?;
    let computed = crc32(0, &header[..60]);
    if stored != computed {
        let detail = format!("file header checksum is {stored:#010x}, its bytes have {computed:#010x}");
        return Err(Error::corruption(path, 60, detail));
    }
    if version > FORMAT_VERSION {
        return Err(Error::UnsupportedVersion {
            path: std::sync::Arc::new(path.to_owned()),
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    if zero != 0 || encryption.iter().any(|&byte| byte != 0) {
        return Err(Error::corruption(path, 12, "file header has bytes set that version 0 keeps zero"));
    }
    Ok(TableId(id))
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
        let mut newer = header;
        newer[8] = 9;
        let checksum = crc32(0, &newer[..60]);
        newer[60..].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(
            decode(&newer, path),
            Err(Error::UnsupportedVersion { found: 9, supported: 0, .. })
        ));
    }
}
