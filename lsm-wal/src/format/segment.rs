//! The header of a segment, the file that holds a stretch of the log.
//!
//! ```text
//! segment := header record*                    then zeros, as far as the file was allocated
//! header  := magic "lsm-wal\0"
//!            version u32          2
//!            record_seed u32      what the CRC-32 of each record's header continues from
//!            number u64           of this segment; also its file name; never used twice in a directory
//!            start u64            log position of the first record
//!            predecessor u64      number of the segment that this one continues, 0 if none
//!            length u64           bytes of the predecessor, header included, that count; the rest was given up
//!            checksum u64         of the predecessor's last record that counts
//!            seed u64             what the first record's checksum continues from
//!            synced u64           when this was written, everything before this position was on disk
//!            window u64           number of the window that holds what was not yet written here, 0 if none
//!            encryption 40 bytes  see `lsm_core::Encryption`; 0
//!            crc u64              CRC-64 of the 120 bytes before
//! ```
//!
//! Segments are prepared with zeros for a header and get theirs when the first record goes in, so a header of
//! zeros means a segment that was never used. Usually `seed` is `checksum`. After records were taken back it is
//! random, so that what they left elsewhere can never continue the chain. The record seed is random where a log
//! begins, and the same in all its segments.

use std::ops::Range;

use lsm_core::checksum::crc64;
use lsm_core::{DecodeError, Encryption};

use super::bit_flip;

/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: usize = 128;
/// The format version that this crate reads and writes.
pub(crate) const VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"lsm-wal\0";
const COVERED_BYTES: usize = HEADER_BYTES - 8;
/// What does not follow from the segment's number.
const VARIABLE: [Range<usize>; 3] = [24..80, RECORD_SEED, COVERED_BYTES..HEADER_BYTES];
const RECORD_SEED: Range<usize> = 12..16;
const ENCRYPTION: Range<usize> = 80..80 + Encryption::BYTES;
/// Where an error about encryption points to.
pub(crate) const ENCRYPTION_OFFSET: u64 = ENCRYPTION.start as u64;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) start: u64,
    pub(crate) predecessor: u64,
    pub(crate) predecessor_bytes: u64,
    pub(crate) predecessor_checksum: u64,
    pub(crate) seed: u64,
    pub(crate) synced: u64,
    pub(crate) window: u64,
    pub(crate) record_seed: u32,
}

/// What the first bytes of a segment are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    /// A header.
    Valid(SegmentHeader),
    /// Zeros, or nothing: never used, or lost before it was synced.
    Empty,
    /// Written by another version, a newer one or one that is read no more.
    OtherVersion(u32),
    /// A header, but of an encrypted file, or with nonsense about encryption.
    Undecodable(DecodeError),
    /// A header with exactly one bit flipped.
    Flipped,
    /// Anything else.
    Garbage,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let fields = [
            self.number,
            self.start,
            self.predecessor,
            self.predecessor_bytes,
            self.predecessor_checksum,
            self.seed,
            self.synced,
            self.window,
        ];
        for (slot, field) in bytes[16..80].chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        bytes[ENCRYPTION].copy_from_slice(&Encryption::NONE.encode());
        bytes[RECORD_SEED].copy_from_slice(&self.record_seed.to_le_bytes());
        let crc = crc64(0, &bytes[..COVERED_BYTES]);
        bytes[COVERED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether the first bytes of segment `number` are a part of its header, as a power cut may leave one: each is zero,
    /// or what the header has there.
    pub(crate) fn is_part(bytes: &[u8], number: u64) -> bool {
        let known = Self { number, ..Self::default() }.encode();
        let fits = |(at, (&byte, known)): (usize, (&u8, u8))| {
            byte == 0 || byte == known || VARIABLE.iter().any(|range| range.contains(&at))
        };
        bytes.iter().zip(known).enumerate().all(fits)
    }

    /// Reads the first bytes of a segment, as many as there are.
    pub(crate) fn decode(bytes: &[u8]) -> HeaderState {
        if bytes.iter().all(|&byte| byte == 0) {
            return HeaderState::Empty;
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return HeaderState::Garbage };
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        let syndrome = crc64(0, &bytes[..COVERED_BYTES]) ^ word(15);
        let version = word(1) as u32;
        if syndrome != 0 {
            let flipped = syndrome.is_power_of_two()
                || bit_flip::bits_after_flip(syndrome, COVERED_BYTES as u64 * 8).is_some();
            return match flipped {
                true => HeaderState::Flipped,
                false if bytes[..8] == MAGIC && version > VERSION => HeaderState::OtherVersion(version),
                false => HeaderState::Garbage,
            };
        }
        if bytes[..8] != MAGIC {
            return HeaderState::Garbage;
        }
        if version != VERSION {
            return HeaderState::OtherVersion(version);
        }
        if let Some(Err(error)) = bytes[ENCRYPTION].first_chunk().map(Encryption::decode) {
            return HeaderState::Undecodable(error);
        }
        HeaderState::Valid(Self {
            number: word(2),
            start: word(3),
            predecessor: word(4),
            predecessor_bytes: word(5),
            predecessor_checksum: word(6),
            seed: word(7),
            synced: word(8),
            window: word(9),
            record_seed: (word(1) >> 32) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        number: 1,
        start: 2,
        predecessor: 3,
        predecessor_bytes: 4,
        predecessor_checksum: 5,
        seed: 6,
        synced: 7,
        window: 8,
        record_seed: 9,
    };

    #[test]
    fn a_header_survives_and_a_flipped_bit_is_told_from_garbage() {
        let bytes = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Valid(HEADER));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), HeaderState::Flipped, "bit {bit}");
        }
        let mut garbage = bytes;
        garbage[20] ^= 3;
        assert_eq!(SegmentHeader::decode(&garbage), HeaderState::Garbage);
        assert_eq!(SegmentHeader::decode(&bytes[..100]), HeaderState::Garbage);
        assert_eq!(SegmentHeader::decode(&[0; HEADER_BYTES]), HeaderState::Empty);
        assert_eq!(SegmentHeader::decode(&[]), HeaderState::Empty);
    }

    #[test]
    fn another_version_is_named_whatever_its_layout() {
        let mut bytes = HEADER.encode();
        bytes[8] = 5;
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::OtherVersion(5));
        let crc = crc64(0, &bytes[..COVERED_BYTES]);
        bytes[COVERED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::OtherVersion(5));
    }

    #[test]
    fn an_encrypted_file_is_told_from_a_damaged_one() {
        for at in ENCRYPTION {
            let mut bytes = HEADER.encode();
            bytes[at] = 3;
            let crc = crc64(0, &bytes[..COVERED_BYTES]);
            bytes[COVERED_BYTES..].copy_from_slice(&crc.to_le_bytes());
            match SegmentHeader::decode(&bytes) {
                HeaderState::Undecodable(DecodeError::Unknown(what)) => {
                    assert!(at == ENCRYPTION.start && what.contains("encrypted"), "{what}");
                }
                HeaderState::Undecodable(DecodeError::Malformed(_)) => assert_ne!(at, ENCRYPTION.start),
                state => panic!("byte {at}: {state:?}"),
            }
        }
    }
}
