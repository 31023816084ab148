//! The two checksums of a table file.
//!
//! Every block and section carries a CRC-32 started from the table's id and the offset at which it stands, so that
//! intact bytes in the wrong place, or of another table, do not pass. (The starting values of two offsets less
//! than 4 GiB apart always differ, and CRCs of equal bytes with different starting values always differ.) The
//! file as a whole has a CRC-64, kept in the footer and by whoever keeps the list of tables.

use crate::meta::TableId;
use lsm_core::checksum::crc32;

/// Computes the checksums of one table's blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockChecksum {
    id_seed: u32,
}

impl BlockChecksum {
    pub(crate) fn new(id: TableId) -> Self {
        Self { id_seed: crc32(0, &id.0.to_le_bytes()) }
    }

    #[inline]
    fn seed(self, offset: u64) -> u32 {
        crc32(self.id_seed, &offset.to_le_bytes())
    }

    /// Checksum of `covered`, which belongs to the block that stands at `offset`.
    #[inline]
    pub(crate) fn compute(self, offset: u64, covered: &[u8]) -> u32 {
        crc32(self.seed(offset), covered)
    }

    /// The checksum of a block that stands at `offset` and comes piece by piece.
    pub(crate) fn start(self, offset: u64) -> RunningChecksum {
        RunningChecksum(self.seed(offset))
    }

    /// Checks a block that starts with its checksum. Returns what follows it.
    #[inline]
    pub(crate) fn verify(self, offset: u64, block: &[u8]) -> Result<&[u8], String> {
        let Some((&stored, covered)) = block.split_first_chunk::<4>() else {
            return Err(format!("block of {} bytes has no room for a checksum", block.len()));
        };
        let stored = u32::from_le_bytes(stored);
        let computed = self.compute(offset, covered);
        if stored == computed {
            Ok(covered)
        } else {
            Err(format!("block checksum is {stored:#010x}, its bytes have {computed:#010x}"))
        }
    }
}

/// A [`BlockChecksum`] under way.
pub(crate) struct RunningChecksum(u32);

impl RunningChecksum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32(self.0, bytes);
    }

    pub(crate) fn value(&self) -> u32 {
        self.0
    }
}
