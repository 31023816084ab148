//! Lookups in tables whose index and filter are not in memory.
//!
//! A directory of their pages is. 100 GB of data make 25 million blocks of 4 KB, which take some 35 bytes each in an
//! index and 45 in a filter: two gigabytes, where the directories take 12 MB. The slots of the cache alone, of 8 bytes
//! a block, would take 200 MB, so such a table has none: its blocks, like the pages, are left to the page cache of the
//! system.
//!
//! The directories are read, and the whole of index and filter proved with them, when the table is first asked: opening
//! a large database would read gigabytes otherwise.

use std::sync::Arc;

use lsm_core::{Result, SEQUENCE_MAX, SequenceNumber};

use super::blocks::{self, BorrowedBlock};
use super::value::{TableValue, value_in};
use crate::filter::FilterPolicy;
use crate::format::section::SectionTag;
use crate::index::{IndexDirectory, PagePlace};
use crate::table::handle::Table;
use crate::table::lookup::{Directories, Lookup, Paged, PagedFilter};
use crate::table::sections::Sections;
use crate::table::tail::Tail;

impl Lookup {
    /// Asks the filter; `true` if there is none.
    pub(in crate::table) fn may_contain(
        &self,
        table: &Table,
        key: &[u8],
        hash: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<bool> {
        match self {
            Self::Pinned(pinned) => {
                Ok(pinned.filter.as_ref().is_none_or(|filter| filter.may_contain(key, hash)))
            }
            Self::Paged(paged) => paged.may_contain(table, key, hash, buffer),
        }
    }
}

impl Paged {
    /// The directories, read at the first call. A failure is the next caller's as well, who reads them again.
    pub(in crate::table) fn directories(&self, table: &Table) -> Result<&Directories> {
        if let Some(directories) = self.directories.get() {
            return Ok(directories);
        }
        let _one_at_a_time = self.reading.lock();
        if let Some(directories) = self.directories.get() {
            return Ok(directories);
        }
        let directories = Directories::read(table, self.policy.as_ref())?;
        Ok(self.directories.get_or_init(|| directories))
    }

    #[cold]
    pub(in crate::table) fn get(
        &self,
        table: &Table,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        note: impl FnOnce(bool),
    ) -> Result<Option<TableValue>> {
        blocks::with_scratch(|scratch| {
            let may_contain = self.may_contain(table, key, hash, &mut scratch.stored)?;
            if self.policy.is_some() {
                note(may_contain);
            }
            if !may_contain {
                return Ok(None);
            }
            let index = &self.directories(table)?.index;
            let target = index.target(key, sequence);
            let Some(place) = index.page_for(target) else { return Ok(None) };
            let page = read_page(table, &place, &mut scratch.stored)?;
            let found = place.find(page, target);
            let (_, range) = found.map_err(|detail| table.corruption(place.range.start, detail))?;
            let frame_bytes = blocks::read_block(table, range, &mut scratch.stored, &mut scratch.frame)?;
            Ok(value_in(&BorrowedBlock::Scratch(&scratch.frame[..frame_bytes]), key, sequence))
        })
    }

    /// Asks the filter, by the pages that have the part which decides; `true` if there is no filter.
    pub(in crate::table) fn may_contain(
        &self,
        table: &Table,
        key: &[u8],
        hash: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<bool> {
        let Some(PagedFilter { policy, directory }) = &self.directories(table)?.filter else {
            return Ok(true);
        };
        let Some((part, pages)) = policy
            .part(directory.filter_bytes(), hash)
            .and_then(|part| directory.pages(&part).map(|pages| (part, pages)))
        else {
            return Ok(true);
        };
        let offset = pages.start;
        let bytes = blocks::read_range(table, pages, buffer)?;
        let part =
            directory.check(offset, bytes, &part).map_err(|detail| table.corruption(offset, detail))?;
        Ok(policy.may_contain_key(part, key, hash))
    }

    /// Where the block starts that a key belongs to; only where its page does, if that cannot be read, and 0 if the
    /// index cannot.
    pub(in crate::table) fn approximate_offset(&self, table: &Table, key: &[u8]) -> u64 {
        let Ok(Directories { index, .. }) = self.directories(table) else { return 0 };
        let target = index.target(key, SEQUENCE_MAX);
        let Some(place) = index.page_for(target) else { return 0 };
        let mut page = Vec::new();
        let found = read_page(table, &place, &mut page).ok().and_then(|page| place.find(page, target).ok());
        found.map_or(place.block_offset, |(_, range)| range.start)
    }
}

impl Directories {
    fn read(table: &Table, policy: Option<&Arc<dyn FilterPolicy>>) -> Result<Self> {
        let (footer, properties) = (&table.footer, &table.properties);
        let (file, tail) = (&*table.file, Tail::default());
        let sections = Sections { file, path: &table.path, checksum: table.checksum, tail };
        let mut index = sections.stream(footer.index(), SectionTag::Index)?;
        let index = IndexDirectory::read(&mut index, properties.data_blocks, footer.data_end)?;
        let mut filter = None;
        if footer.filter_bytes > 0 {
            let directory = sections.filter_directory(footer)?;
            filter = policy.cloned().map(|policy| PagedFilter { policy, directory });
        }
        Ok(Self { index, filter })
    }
}

/// Reads a page of the index to the front of `buffer`, and proves it.
pub(in crate::table) fn read_page<'b>(
    table: &Table,
    place: &PagePlace,
    buffer: &'b mut Vec<u8>,
) -> Result<&'b [u8]> {
    let page = blocks::read_range(table, place.range.clone(), buffer)?;
    place.check(page).map_err(|detail| table.corruption(place.range.start, detail))?;
    Ok(page)
}
