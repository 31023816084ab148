//! The window: a small resident file that takes records by a copy and outlives the process.
//!
//! ```text
//! window := header zeros slot zeros slot zeros area
//! header := magic "lsm-win\0"
//!           version u32     2
//!           record_seed u32 that of the segments that use it
//!           number u64      also the file name
//!           area u64        bytes of the area
//!           encryption 40 bytes     see `lsm_core::Encryption`; 0
//!           zero 48 bytes
//!           crc u64         CRC-64 of the 120 bytes before
//! slot   := base u64        log position of the first byte of the area; at offsets 512 and 1024
//!           check u64       CRC-64 of number and base
//! area   := record*         at offset 4096; records as in a segment, at their positions
//! ```
//!
//! When the area is full, all of it is written to the segment, and it is used again from its front: the older
//! slot is taken back, then gets the new base. What an earlier generation left in the area does not pass for
//! anything else, since records name their positions. Name and length are durable before a segment's header has the
//! window's number; header and slots are never synced. So after a power cut the header may be zeros, but what is no
//! header is damage, and what is found in the area has to continue the chain.

use std::ops::Range;

use lsm_core::Encryption;
use lsm_core::checksum::crc64;

use super::bit_flip;

pub(crate) const MAGIC: [u8; 8] = *b"lsm-win\0";
pub(crate) const HEADER_BYTES: usize = 128;
pub(crate) const COVERED_BYTES: usize = HEADER_BYTES - 8;
/// Where the header tells about encryption.
pub(crate) const ENCRYPTION: Range<usize> = 32..32 + Encryption::BYTES;
pub(crate) const SLOT_OFFSETS: [usize; 2] = [512, 1024];
pub(crate) const SLOT_BYTES: usize = 16;
pub(crate) const AREA_OFFSET: usize = 4096;

/// The part of an area of `area_bytes` that the writer uses when a record of `record_bytes` does not fit `room_bytes` of it:
/// a sixteenth at first, and twice as much each time. So a log of few records takes little memory.
pub(crate) fn room_after(room_bytes: u64, record_bytes: u64, area_bytes: u64) -> u64 {
    (2 * room_bytes).max(area_bytes / 16 / 8 * 8).max(record_bytes).min(area_bytes)
}

pub(crate) fn slot_check(number: u64, base: u64) -> u64 {
    crc64(crc64(0, &number.to_le_bytes()), &base.to_le_bytes())
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
    pub(crate) fn decode(number: u64, bytes: [u8; SLOT_BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        let (base, check) = (word(0), word(1));
        let syndrome = slot_check(number, base) ^ check;
        match syndrome {
            0 => Self::Base(base),
            _ if check == 0 => Self::Open(base),
            _ if syndrome.is_power_of_two() || bit_flip::bits_after_flip(syndrome, 64).is_some() => {
                Self::Flipped
            }
            _ => Self::Bad,
        }
    }

    /// Log position of the area's first byte.
    pub(crate) fn base(self) -> Option<u64> {
        if let Self::Base(base) = self { Some(base) } else { None }
    }
}
