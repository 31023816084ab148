//! Builds the index of a table that is being written.

use lsm_core::SequenceNumber;
use lsm_core::coding::{put_bytes, put_varint};
use lsm_core::key::common_prefix_bytes;

use crate::capacity::grown;

/// Longest index that is written: its offsets in memory have 32 bits.
const SEPARATOR_BYTES_MAX: usize = u32::MAX as usize;

/// Gathers separators and block lengths.
#[derive(Default)]
pub(crate) struct IndexBuilder {
    separators: Vec<u8>,
    blocks: Vec<BuiltBlock>,
}

struct BuiltBlock {
    separator_end: usize,
    sequence: Option<SequenceNumber>,
    block_bytes: u64,
}

impl IndexBuilder {
    /// Adds the next block, whose first key is `first`, after a block that ended with `last`.
    pub(crate) fn add(
        &mut self,
        last: Option<(&[u8], SequenceNumber)>,
        first: &[u8],
    ) -> lsm_core::Result<()> {
        let (separator, sequence) = match last {
            None => (first, None),
            // More versions of the same key: the least internal key above the last one.
            Some((last, last_sequence)) if last == first => (first, Some(last_sequence.saturating_sub(1))),
            Some((last, _)) => (&first[..=common_prefix_bytes(last, first)], None),
        };
        if self.separators.len() + separator.len() > SEPARATOR_BYTES_MAX {
            return Err(lsm_core::Error::invalid("table is too large: its index would exceed 4 GiB"));
        }
        self.separators.extend_from_slice(separator);
        self.blocks.push(BuiltBlock { separator_end: self.separators.len(), sequence, block_bytes: 0 });
        Ok(())
    }

    /// Says how long the block added last became.
    pub(crate) fn set_block_bytes(&mut self, block_bytes: u64) {
        if let Some(block) = self.blocks.last_mut() {
            block.block_bytes = block_bytes;
        }
    }

    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// About as many bytes as [`IndexBuilder::encode`] gives.
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.separators.len() + 4 * self.blocks.len()
    }

    /// Bytes of memory that the builder holds after one more block, and what [`IndexBuilder::encode`] then takes.
    pub(crate) fn memory_bytes_max(&self, first_key_bytes: usize) -> (usize, usize) {
        let held = grown(&self.separators, first_key_bytes) + grown(&self.blocks, 1);
        let encoded = encoded_bytes_max(self.separators.len() + first_key_bytes, self.blocks.len() + 1);
        (held, encoded)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(encoded_bytes_max(self.separators.len(), self.blocks.len()));
        let last_start = self.blocks.iter().nth_back(1).map_or(0, |block| block.separator_end);
        let first_end = self.blocks.first().map_or(0, |block| block.separator_end);
        let prefix_bytes = common_prefix_bytes(&self.separators[..first_end], &self.separators[last_start..]);
        put_bytes(&mut out, &self.separators[..prefix_bytes]);
        let mut start = 0;
        for block in &self.blocks {
            let suffix = &self.separators[start + prefix_bytes..block.separator_end];
            put_varint(&mut out, block.block_bytes);
            put_varint(&mut out, (suffix.len() as u64) << 1 | u64::from(block.sequence.is_some()));
            out.extend_from_slice(suffix);
            if let Some(sequence) = block.sequence {
                put_varint(&mut out, sequence);
            }
            start = block.separator_end;
        }
        out
    }
}

/// What so many blocks take at most, encoded: three varints, of which the first is a length in the file.
fn encoded_bytes_max(separator_bytes: usize, blocks: usize) -> usize {
    3 + separator_bytes + blocks * (6 + 3 + 8)
}
