//! One page of an index that stays in its file.

use std::ops::Range;

use lsm_core::SequenceNumber;
use lsm_core::checksum::crc32;
use lsm_core::coding::Decoder;

use super::entry::IndexEntry;
use super::target::Target;

/// A page: what is to be read, and what it must be.
#[derive(Clone, Debug)]
pub(crate) struct PagePlace {
    pub(crate) number: usize,
    /// Where it is in the file.
    pub(crate) range: Range<u64>,
    /// Its blocks.
    pub(crate) blocks: Range<usize>,
    /// Where the first of them starts.
    pub(crate) block_offset: u64,
    pub(super) checksum: u32,
}

impl PagePlace {
    pub(crate) fn check(&self, page: &[u8]) -> Result<(), String> {
        let computed = crc32(0, page);
        if computed == self.checksum {
            return Ok(());
        }
        Err(format!(
            "page of the index has checksum {computed:#010x}, it had {:#010x} when the table was opened",
            self.checksum
        ))
    }

    /// The block that [`Index::find`](super::Index::find) would find, and where it is; the target is in this page.
    pub(crate) fn find(&self, page: &[u8], target: Target<'_>) -> Result<(usize, Range<u64>), String> {
        let mut fields = Decoder::new(page);
        let mut found = (self.blocks.start, self.block_offset..self.block_offset);
        for block in self.blocks.clone() {
            let entry = IndexEntry::next(&mut fields).ok_or_else(|| malformed(block))?;
            if block > self.blocks.start && target.is_below(entry.suffix, entry.sequence) {
                break;
            }
            found = (block, found.1.end..found.1.end.saturating_add(entry.block_bytes));
        }
        Ok(found)
    }
}

fn malformed(block: usize) -> String {
    format!("entry {block} of the index is malformed")
}

/// A page of an index, in memory, for who asks for one block after the other.
#[derive(Debug)]
pub(crate) struct IndexPage {
    place: PagePlace,
    bytes: Vec<u8>,
    /// Where each block starts, and where the last one ends.
    block_offsets: Vec<u64>,
}

impl IndexPage {
    /// The page whose `bytes` were read; `block_offsets` is to be used again.
    pub(crate) fn new(place: PagePlace, bytes: Vec<u8>, mut block_offsets: Vec<u64>) -> Result<Self, String> {
        let mut fields = Decoder::new(&bytes);
        let mut offset = place.block_offset;
        block_offsets.clear();
        block_offsets.reserve(place.blocks.len() + 1);
        block_offsets.push(offset);
        for block in place.blocks.clone() {
            let entry = IndexEntry::next(&mut fields).ok_or_else(|| malformed(block))?;
            offset = offset.saturating_add(entry.block_bytes);
            block_offsets.push(offset);
        }
        Ok(Self { place, bytes, block_offsets })
    }

    /// What can be used again for another page.
    pub(crate) fn into_buffers(self) -> (Vec<u8>, Vec<u64>) {
        (self.bytes, self.block_offsets)
    }

    pub(crate) fn number(&self) -> usize {
        self.place.number
    }

    /// The numbers of its blocks.
    pub(crate) fn blocks(&self) -> Range<usize> {
        self.place.blocks.clone()
    }

    /// Where a block is in the file; `None` if the page does not have it.
    #[inline]
    pub(crate) fn block_range(&self, block: usize) -> Option<Range<u64>> {
        let at = block.checked_sub(self.place.blocks.start)?;
        Some(*self.block_offsets.get(at)?..*self.block_offsets.get(at + 1)?)
    }

    pub(crate) fn find(&self, target: Target<'_>) -> Result<usize, String> {
        Ok(self.place.find(&self.bytes, target)?.0)
    }

    /// The block that holds the byte at `offset` of the file; the last one if that is past all of the page.
    pub(crate) fn block_at(&self, offset: u64) -> usize {
        let at = self.block_offsets.partition_point(|&start| start <= offset).saturating_sub(1);
        (self.place.blocks.start + at).min(self.place.blocks.end.saturating_sub(1))
    }

    /// What a block's separator has after the prefix of the index, and its sequence number.
    pub(crate) fn separator(&self, block: usize) -> Option<(&[u8], SequenceNumber)> {
        let mut fields = Decoder::new(&self.bytes);
        for _ in self.place.blocks.start..block {
            IndexEntry::next(&mut fields)?;
        }
        IndexEntry::next(&mut fields).map(|entry| (entry.suffix, entry.sequence))
    }

    /// Bytes of memory held, the struct itself excepted.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.block_offsets.capacity() * size_of::<u64>()
    }
}
