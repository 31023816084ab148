//! One record, as it stands in segments and windows.
//!
//! ```text
//! record   := header payload zeros checksum         8-byte aligned, integers little-endian
//! header   := crc u32         CRC-32 of the 28 bytes that follow, continued from the log's record seed
//!             length u32      bytes of payload
//!             position u56    log position of the record's first byte
//!             type u8         1 data, 2 the log was closed here
//!             tag u64         the caller's
//!             synced u64      when this was appended, everything before this position was on disk
//! zeros    := 0 to 7 bytes, to a multiple of 8
//! checksum := u64             CRC-64 of header, payload and zeros, continued from the checksum of the record
//!                             before; the first of a segment continues from the seed in the segment's header
//! ```
//!
//! The header stands on its own, so that a later record can be believed when it says what was synced, though
//! the chain to it is broken. The record seed is random, stands in the header of each segment and window, and stays
//! the same for all of a log, since records go from the window to whichever segment is current. Without it whoever
//! knows a position could write a value that holds a sound header. No record begins with zeros, since there is no
//! type 0. Positions are never used twice for different bytes under one chain, so what an earlier generation left
//! behind does not pass.

use std::ops::Range;

use lsm_core::checksum::{crc32, crc32_of_words, crc64, crc64_of_frame};
use lsm_core::{Error, Result};

/// Bytes of a record's header.
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes of a record's checksum.
pub(crate) const CHECKSUM_BYTES: usize = 8;
/// The polynomial of CRC-32 without its leading term, reflected.
const CRC32_POLYNOMIAL: u32 = 0xedb8_8320;
/// First position that does not fit.
pub(crate) const POSITION_MAX: u64 = 1 << 56;
/// Longest payload.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = u32::MAX as u64;

/// Bytes that a record with a payload of this length takes.
#[inline]
pub(crate) const fn record_bytes(payload_bytes: u64) -> u64 {
    (HEADER_BYTES + CHECKSUM_BYTES) as u64 + payload_bytes.next_multiple_of(8)
}

/// Where one record ends and the next begins.
#[derive(Clone, Copy)]
pub(crate) struct Boundary {
    pub(crate) position: u64,
    /// Checksum of the record that ends here, which the next one continues.
    pub(crate) checksum: u64,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RecordType {
    /// A caller's record.
    Data = 1,
    /// Nothing follows: the log was closed. Takes no positions; the next segment overrules it.
    Close = 2,
}

/// The header of a record, without its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) length: u32,
    pub(crate) position: u64,
    pub(crate) kind: RecordType,
    pub(crate) tag: u64,
    pub(crate) synced: u64,
}

impl RecordHeader {
    /// The header in a log of this record seed, in words that stand little-endian in the file.
    #[inline]
    pub(crate) fn words(&self, seed: u32) -> [u64; HEADER_BYTES / 8] {
        let place = self.position | (self.kind as u64) << 56;
        let crc = crc32_of_words(seed, self.length, [place, self.tag, self.synced]);
        [u64::from(crc) | u64::from(self.length) << 32, place, self.tag, self.synced]
    }

    #[inline]
    pub(crate) fn encode(&self, seed: u32) -> [u8; HEADER_BYTES] {
        bytes_of(self.words(seed))
    }

    /// The header in `bytes`, if it is one of a log of this record seed.
    #[inline]
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], seed: u32) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<8>();
        let [first, place, tag, synced] = words else { return None };
        let [first, place, tag, synced] = [first, place, tag, synced].map(|word| u64::from_le_bytes(*word));
        let kind = match place >> 56 {
            1 => RecordType::Data,
            2 => RecordType::Close,
            _ => return None,
        };
        let position = place & (POSITION_MAX - 1);
        let believable = synced <= position && crc32(seed, &bytes[4..]) == first as u32;
        believable.then_some(Self { length: (first >> 32) as u32, position, kind, tag, synced })
    }

    /// The record seed of the log that these bytes are a header of, should they be one: no more than a guess, for a file
    /// whose own header is lost.
    pub(crate) fn seed_of(bytes: &[u8; HEADER_BYTES]) -> Option<u32> {
        let (crc, covered) = bytes.split_first_chunk::<4>()?;
        let mut state = !u32::from_le_bytes(*crc);
        for &byte in covered.iter().rev() {
            for _ in 0..8 {
                // The highest bit says whether the polynomial, which has it, was added.
                state = if state >> 31 == 1 { (state ^ CRC32_POLYNOMIAL) << 1 | 1 } else { state << 1 };
            }
            state ^= u32::from(byte);
        }
        Self::decode(bytes, !state).map(|_| !state)
    }

    /// Bytes of the whole record.
    #[inline]
    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(u64::from(self.length))
    }

    /// Position after the record.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.position + self.record_bytes()
    }

    /// Where the payload stands in the record.
    #[inline]
    pub(crate) fn payload(&self) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.length as usize
    }
}

/// The bytes of the words of a header.
#[inline]
pub(crate) fn bytes_of(words: [u64; HEADER_BYTES / 8]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    for (slot, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *slot = word.to_le_bytes();
    }
    bytes
}

/// The length of a payload as a header stores it, if a record of it may begin at `position`.
#[inline]
pub(crate) fn payload_length(payload: &[u8], position: u64) -> Result<u32> {
    let bytes = payload.len() as u64;
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a record of {bytes} bytes is too long for the log; the limit is {PAYLOAD_BYTES_MAX} bytes"
        )));
    }
    if record_bytes(bytes) > POSITION_MAX - position.min(POSITION_MAX) {
        return Err(Error::invalid("the log is full: positions have 56 bits"));
    }
    Ok(bytes as u32)
}

/// Appends a record to `out` and returns its checksum; `chain` is the one of the record before, `seed` the log's record
/// seed. The caller has checked that the payload is no longer than [`PAYLOAD_BYTES_MAX`] and `header.length` is its
/// length.
#[inline]
pub(crate) fn encode(out: &mut Vec<u8>, header: &RecordHeader, payload: &[u8], chain: u64, seed: u32) -> u64 {
    debug_assert_eq!(header.length as usize, payload.len());
    let words = header.words(seed);
    let checksum = checksum(chain, words, payload);
    out.reserve(header.record_bytes() as usize);
    out.extend_from_slice(&bytes_of(words));
    out.extend_from_slice(payload);
    out.extend_from_slice(&[0; 7][..payload.len().next_multiple_of(8) - payload.len()]);
    out.extend_from_slice(&checksum.to_le_bytes());
    checksum
}

/// The checksum of a record, from its header and payload.
#[inline]
pub(crate) fn checksum(chain: u64, header: [u64; HEADER_BYTES / 8], payload: &[u8]) -> u64 {
    crc64_of_frame(chain, header, payload)
}

/// The checksum that stands at the end of a record, `record` being all of it.
#[inline]
pub(crate) fn stored_checksum(record: &[u8]) -> Option<u64> {
    record.last_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The checksum that ought to stand at the end of a record.
#[inline]
pub(crate) fn expected_checksum(record: &[u8], chain: u64) -> u64 {
    crc64(chain, &record[..record.len().saturating_sub(CHECKSUM_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u32 = 0x9abc_def0;
    const HEADER: RecordHeader =
        RecordHeader { length: 5, position: 4096, kind: RecordType::Data, tag: 77, synced: 4000 };

    #[test]
    fn a_header_survives_in_its_log_and_any_flipped_bit_spoils_it() {
        let bytes = HEADER.encode(SEED);
        assert_eq!(RecordHeader::decode(&bytes, SEED), Some(HEADER));
        assert_eq!(RecordHeader::seed_of(&bytes), Some(SEED));
        assert_eq!(RecordHeader::decode(&bytes, SEED ^ 1), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, SEED), None, "bit {bit}");
        }
    }

    #[test]
    fn zeros_are_no_header() {
        assert_eq!(RecordHeader::decode(&[0; HEADER_BYTES], SEED), None);
        assert_eq!(RecordHeader::seed_of(&[0; HEADER_BYTES]), None);
    }

    #[test]
    fn a_claim_about_what_comes_after_itself_is_no_header() {
        let bytes = RecordHeader { synced: 4097, ..HEADER }.encode(SEED);
        assert_eq!(RecordHeader::decode(&bytes, SEED), None);
    }

    #[test]
    fn records_are_aligned_and_end_with_their_checksum() {
        for length in 0..20_u32 {
            let mut out = Vec::new();
            let checksum =
                encode(&mut out, &RecordHeader { length, ..HEADER }, &[9; 20][..length as usize], 3, SEED);
            assert_eq!(out.len() % 8, 0);
            assert_eq!(out.len() as u64, record_bytes(u64::from(length)));
            assert_eq!(stored_checksum(&out), Some(checksum));
            assert_eq!(expected_checksum(&out, 3), checksum);
            assert_ne!(expected_checksum(&out, 4), checksum, "the chain counts");
        }
    }
}
