//! From keys, offsets and numbers to data blocks, whether the index is in memory or not.

use std::ops::Range;

use lsm_core::{Result, SequenceNumber};

use super::paged::read_page;
use crate::index::{IndexPage, PagePlace};
use crate::table::handle::Table;
use crate::table::lookup::{Lookup, Paged};

/// Finds the blocks of a table, for someone who stays with it. If the index is not in memory, the page used last is
/// kept, so that whoever goes from block to block reads each page once.
#[derive(Debug, Default)]
pub(in crate::table) struct BlockFinder {
    page: Option<IndexPage>,
}

impl BlockFinder {
    /// As [`Index::find`](crate::index::Index::find).
    #[inline]
    pub(in crate::table) fn find(
        &mut self,
        table: &Table,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> Result<usize> {
        match &table.lookup {
            Lookup::Pinned(pinned) => Ok(pinned.index.find(key, sequence)),
            Lookup::Paged(paged) => self.find_in_page(table, paged, key, sequence),
        }
    }

    #[cold]
    fn find_in_page(
        &mut self,
        table: &Table,
        paged: &Paged,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> Result<usize> {
        let index = &paged.directories(table)?.index;
        let target = index.target(key, sequence);
        let Some(place) = index.page_for(target) else { return Ok(0) };
        let offset = place.range.start;
        self.hold(table, place)?.find(target).map_err(|detail| table.corruption(offset, detail))
    }

    /// Where a block is in the file. The block must exist.
    #[inline]
    pub(in crate::table) fn block_range(&mut self, table: &Table, block: usize) -> Result<Range<u64>> {
        match &table.lookup {
            Lookup::Pinned(pinned) => Ok(pinned.index.block_range(block)),
            Lookup::Paged(paged) => {
                if let Some(range) = self.page.as_ref().and_then(|page| page.block_range(block)) {
                    return Ok(range);
                }
                let page = self.page_with(table, paged, block)?;
                page.block_range(block).ok_or_else(|| missing(table, block))
            }
        }
    }

    /// The blocks around this one, which exists, that can be found without a read.
    pub(in crate::table) fn at_hand(&mut self, table: &Table, block: usize) -> Result<Range<usize>> {
        match &table.lookup {
            Lookup::Pinned(pinned) => Ok(0..pinned.index.block_count()),
            Lookup::Paged(paged) => Ok(self.page_with(table, paged, block)?.blocks()),
        }
    }

    /// A block's separator as an internal key.
    pub(in crate::table) fn separator(
        &mut self,
        table: &Table,
        block: usize,
    ) -> Result<(Vec<u8>, SequenceNumber)> {
        match &table.lookup {
            Lookup::Pinned(pinned) => Ok(pinned.index.separator_with_sequence(block)),
            Lookup::Paged(paged) => {
                let page = self.page_with(table, paged, block)?;
                let (suffix, sequence) = page.separator(block).ok_or_else(|| missing(table, block))?;
                Ok(([paged.directories(table)?.index.prefix(), suffix].concat(), sequence))
            }
        }
    }

    /// The block that holds the byte at `offset` of the file; the last one if that is past all blocks.
    pub(in crate::table) fn block_at(&mut self, table: &Table, offset: u64) -> Result<usize> {
        match &table.lookup {
            Lookup::Pinned(pinned) => Ok(pinned.index.block_at(offset)),
            Lookup::Paged(paged) => match paged.directories(table)?.index.page_at(offset) {
                Some(place) => Ok(self.hold(table, place)?.block_at(offset)),
                None => Ok(0),
            },
        }
    }

    /// Bytes of memory that the finder holds, itself excepted.
    pub(in crate::table) fn heap_bytes(&self) -> usize {
        self.page.as_ref().map_or(0, IndexPage::heap_bytes)
    }

    fn page_with(&mut self, table: &Table, paged: &Paged, block: usize) -> Result<&IndexPage> {
        let index = &paged.directories(table)?.index;
        let place = index.page_with(block).ok_or_else(|| missing(table, block))?;
        self.hold(table, place)
    }

    fn hold(&mut self, table: &Table, place: PagePlace) -> Result<&IndexPage> {
        let mut buffers = <(Vec<u8>, Vec<u64>)>::default();
        if let Some(page) = self.page.take() {
            if page.number() == place.number {
                return Ok(self.page.insert(page));
            }
            buffers = page.into_buffers();
        }
        let (mut bytes, block_offsets) = buffers;
        let page_bytes = read_page(table, &place, &mut bytes)?.len();
        bytes.truncate(page_bytes);
        let offset = place.range.start;
        let page =
            IndexPage::new(place, bytes, block_offsets).map_err(|detail| table.corruption(offset, detail))?;
        Ok(self.page.insert(page))
    }
}

fn missing(table: &Table, block: usize) -> lsm_core::Error {
    table.corruption(table.footer.index().start, format!("block {block} is not in the index"))
}
