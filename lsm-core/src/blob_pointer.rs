//! The value of a blob pointer: where in a blob file a value is.
//!
//! ```text
//! pointer := expiry:u64 blob:varint number:varint offset:varint bytes:varint     nothing may follow
//! ```
//!
//! A blob file can be rewritten without touching the tables that point into it: `blob` and `number` stay the same for
//! ever, and a rewritten file says where its values are now. `offset` is where the value was written first, so that most
//! reads need not ask. `expiry` stands where it stands in a value that expires, and is [`NEVER`] if it does not.

use crate::coding::{Decoder, put_varint};
use crate::expiry::{self, NEVER};
use crate::key::VALUE_BYTES_MAX;

/// Where in a blob file a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobPointer {
    /// When the value expires, in microseconds since 1970, or [`NEVER`].
    pub expiry_micros: u64,
    /// The blob: the number of the file that the value was written to first.
    pub blob: u64,
    /// Number of the value in the blob, from 0.
    pub number: u64,
    /// Where the value was written first.
    pub offset: u64,
    /// Length of the value.
    pub bytes: u64,
}

impl BlobPointer {
    /// Bytes that a pointer takes at most.
    pub const BYTES_MAX: usize = 8 + 4 * 10;

    /// Appends the encoded pointer to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&expiry::prefix(self.expiry_micros));
        for number in [self.blob, self.number, self.offset, self.bytes] {
            put_varint(out, number);
        }
    }

    /// Decodes a pointer; `None` if it is malformed.
    pub fn decode(stored: &[u8]) -> Option<Self> {
        let (expiry_micros, rest) = expiry::split(stored)?;
        let mut rest = Decoder::new(rest);
        let (blob, number, offset) = (rest.varint()?, rest.varint()?, rest.varint()?);
        let bytes = rest.varint().filter(|&bytes| bytes > 0 && bytes <= VALUE_BYTES_MAX)?;
        let end = offset.checked_add(bytes).filter(|&end| i64::try_from(end).is_ok());
        (rest.is_empty() && end.is_some()).then_some(Self { expiry_micros, blob, number, offset, bytes })
    }

    /// Whether the value expires at some time.
    pub fn expires(&self) -> bool {
        self.expiry_micros != NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_survives_encoding_and_hostile_bytes_are_refused() {
        let pointer = BlobPointer { expiry_micros: NEVER, blob: 7, number: 300, offset: 80, bytes: 65_536 };
        let mut encoded = Vec::new();
        pointer.encode(&mut encoded);
        assert!(encoded.len() <= BlobPointer::BYTES_MAX);
        assert_eq!(BlobPointer::decode(&encoded), Some(pointer));
        for cut in 0..encoded.len() {
            assert_eq!(BlobPointer::decode(&encoded[..cut]), None);
        }
        encoded.push(0);
        assert_eq!(BlobPointer::decode(&encoded), None);
        for (offset, bytes) in [(80, 0), (80, u64::from(u32::MAX) + 1), (u64::MAX, 1), (i64::MAX as u64, 1)] {
            let mut encoded = Vec::new();
            BlobPointer { offset, bytes, ..pointer }.encode(&mut encoded);
            assert_eq!(BlobPointer::decode(&encoded), None);
        }
    }
}
