//! Where the pages of an index are that stays in its file: the top level of a partitioned index.

use std::cmp::Ordering;

use lsm_core::checksum::crc32;
use lsm_core::coding::Decoder;
use lsm_core::key::{self, KEY_BYTES_MAX};
use lsm_core::{Result, SEQUENCE_MAX, SequenceNumber};

use super::entry::IndexEntry;
use super::page::PagePlace;
use super::target::Target;
use crate::format::file_header::FILE_HEADER_BYTES;
use crate::format::section::SectionStream;

/// A page of the index has at least so many bytes, unless it is the last.
const PAGE_BYTES_MIN: u64 = 1024;

/// And at least so many times the bytes of its first suffix, which stands in the directory: the directory is never
/// longer than a fraction of the index, however long the keys.
const SUFFIX_SHARE: u64 = 16;

/// Where the pages of an index are in the file, for a table whose index is not in memory.
///
/// Pages are cut in memory only: the format knows nothing of them. A page is some entries of the encoded index,
/// whole, with the directory's checksum over them, so that what is read later is what was proved when the table was
/// opened.
#[derive(Debug)]
pub(crate) struct IndexDirectory {
    prefix: Box<[u8]>,
    pages: Box<[PageStart]>,
    /// The first suffix of each page.
    suffixes: Box<[u8]>,
    block_count: usize,
    /// Where the index ends in the file.
    end: u64,
}

/// Where a page starts, and what with.
#[derive(Debug)]
struct PageStart {
    offset: u64,
    block_offset: u64,
    sequence: SequenceNumber,
    block: u32,
    checksum: u32,
    suffix_start: u32,
    suffix_bytes: u16,
}

impl IndexDirectory {
    /// Reads the index of a table whose blocks end at `data_end`, and keeps where its pages are.
    pub(crate) fn read(section: &mut SectionStream<'_>, block_count: u64, data_end: u64) -> Result<Self> {
        let Some(block_count) =
            u32::try_from(block_count).ok().filter(|&count| u64::from(count) <= section.payload_bytes() / 2)
        else {
            let bytes = section.payload_bytes();
            return Err(
                section.corruption(format!("index of {bytes} bytes cannot hold {block_count} blocks"))
            );
        };
        let window = section.window(KEY_BYTES_MAX + 3)?;
        let mut fields = Decoder::new(window);
        let prefix: Option<Box<[u8]>> = fields.bytes().map(Into::into);
        let prefix_end = window.len() - fields.rest().len();
        let Some(prefix) = prefix else { return Err(section.corruption("index has no prefix".into())) };
        section.advance(prefix_end);

        let mut pages: Vec<PageStart> = Vec::new();
        let mut suffixes: Vec<u8> = Vec::new();
        let mut page_bytes_min = 0;
        let mut previous: (Vec<u8>, SequenceNumber) = (Vec::new(), SEQUENCE_MAX);
        let mut block_offset = FILE_HEADER_BYTES as u64;
        for block in 0..block_count {
            let offset = section.offset();
            let window = section.window(IndexEntry::BYTES_MAX)?;
            let mut fields = Decoder::new(window);
            let decoded = IndexEntry::next(&mut fields).and_then(|entry| {
                let end = block_offset.checked_add(entry.block_bytes).filter(|&end| end <= data_end)?;
                Some((entry, end))
            });
            let Some((entry, block_end)) = decoded else {
                return Err(section.corruption(format!("entry {block} of the index is malformed")));
            };
            if block > 0
                && key::compare(&previous.0, previous.1, entry.suffix, entry.sequence) != Ordering::Less
            {
                return Err(section.corruption(format!("entry {block} of the index is out of order")));
            }
            if pages.last().is_none_or(|page| offset - page.offset >= page_bytes_min) {
                let starts = (u32::try_from(suffixes.len()), u16::try_from(entry.suffix.len()));
                let (Ok(suffix_start), Ok(suffix_bytes)) = starts else {
                    return Err(section.corruption("index exceeds 4 GiB".into()));
                };
                suffixes.extend_from_slice(entry.suffix);
                page_bytes_min = PAGE_BYTES_MIN.max(SUFFIX_SHARE * u64::from(suffix_bytes));
                let sequence = entry.sequence;
                let checksum = 0;
                pages.push(PageStart {
                    offset,
                    block_offset,
                    sequence,
                    block,
                    checksum,
                    suffix_start,
                    suffix_bytes,
                });
            }
            let entry_bytes = window.len() - fields.rest().len();
            if let Some(page) = pages.last_mut() {
                page.checksum = crc32(page.checksum, &window[..entry_bytes]);
            }
            previous.0.clear();
            previous.0.extend_from_slice(entry.suffix);
            previous.1 = entry.sequence;
            block_offset = block_end;
            section.advance(entry_bytes);
        }
        if section.offset() != section.end() || block_offset != data_end {
            let detail = format!("index accounts for data up to {block_offset}, it ends at {data_end}");
            return Err(section.corruption(detail));
        }
        section.finish()?;
        Ok(Self {
            prefix,
            pages: pages.into(),
            suffixes: suffixes.into(),
            block_count: block_count as usize,
            end: section.end(),
        })
    }

    /// A key as pages are searched for it.
    pub(crate) fn target<'k>(&self, key: &'k [u8], sequence: SequenceNumber) -> Target<'k> {
        Target::new(&self.prefix, key, sequence)
    }

    /// What stands before every suffix.
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The page that has the block which [`Index::find`](super::Index::find) would find; `None` without blocks.
    pub(crate) fn page_for(&self, target: Target<'_>) -> Option<PagePlace> {
        let above = self.pages.partition_point(|page| !target.is_below(self.suffix(page), page.sequence));
        self.page(above.saturating_sub(1))
    }

    /// The page that has a block.
    pub(crate) fn page_with(&self, block: usize) -> Option<PagePlace> {
        if block >= self.block_count {
            return None;
        }
        let above = self.pages.partition_point(|page| page.block as usize <= block);
        self.page(above.saturating_sub(1))
    }

    /// The page that has the block which holds the byte at `offset` of the file.
    pub(crate) fn page_at(&self, offset: u64) -> Option<PagePlace> {
        let above = self.pages.partition_point(|page| page.block_offset <= offset);
        self.page(above.saturating_sub(1))
    }

    /// About what the directory of an index of so many bytes takes.
    pub(crate) fn memory_bytes_about(index_bytes: u64) -> u64 {
        // Suffixes are mostly short.
        let page_bytes = size_of::<PageStart>() as u64 + SUFFIX_SHARE;
        (index_bytes / PAGE_BYTES_MIN + 1).saturating_mul(page_bytes).saturating_add(size_of::<Self>() as u64)
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.prefix.len() + size_of_val(&*self.pages) + self.suffixes.len()
    }

    fn suffix(&self, page: &PageStart) -> &[u8] {
        let start = page.suffix_start as usize;
        &self.suffixes[start..start + usize::from(page.suffix_bytes)]
    }

    fn page(&self, number: usize) -> Option<PagePlace> {
        let page = self.pages.get(number)?;
        let next = self.pages.get(number + 1);
        Some(PagePlace {
            number,
            range: page.offset..next.map_or(self.end, |next| next.offset),
            blocks: page.block as usize..next.map_or(self.block_count, |next| next.block as usize),
            block_offset: page.block_offset,
            checksum: page.checksum,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Index, IndexBuilder};
    use super::*;
    use crate::TableId;
    use crate::format::checksum::BlockChecksum;
    use crate::format::section::{self, SectionTag};
    use lsm_core::vfs::{PosixFs, Vfs};

    /// Whatever the bytes, once their checksum is right: both kinds of index read them, and find the same, or neither
    /// does.
    fn compare(payload: &[u8], block_count: u64, data_end: u64, keys: &[Vec<u8>]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.sst");
        let file = PosixFs.create_new(&path).unwrap();
        let checksum = BlockChecksum::new(TableId(1));
        let header = section::header(SectionTag::Index, payload, checksum, 0);
        file.write_at(&[&header, payload].concat(), 0).unwrap();
        let section = 0..(header.len() + payload.len()) as u64;
        let mut stream = SectionStream::new(&*file, &path, section, SectionTag::Index, checksum).unwrap();
        let paged = IndexDirectory::read(&mut stream, block_count, data_end);
        let pinned = Index::decode(payload, block_count, data_end);
        assert_eq!(paged.is_ok(), pinned.is_ok(), "{paged:?} {pinned:?}");
        let (Ok(paged), Ok(pinned)) = (paged, pinned) else { return };
        for key in keys {
            for sequence in [0, 4, SEQUENCE_MAX] {
                let target = paged.target(key, sequence);
                let place = paged.page_for(target).unwrap();
                let page = &payload[place.range.start as usize - header.len()..]
                    [..(place.range.end - place.range.start) as usize];
                place.check(page).unwrap();
                let (block, range) = place.find(page, target).unwrap();
                assert_eq!(block, pinned.find(key, sequence));
                assert_eq!(range, pinned.block_range(block));
                assert_eq!(place.range, paged.page_with(block).unwrap().range);
                assert_eq!(place.range, paged.page_at(range.end - 1).unwrap().range);
            }
        }
    }

    fn sample(keys: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = IndexBuilder::default();
        for (at, key) in keys.iter().enumerate() {
            builder.add(at.checked_sub(1).map(|at| (&keys[at][..], 5)), key).unwrap();
            builder.set_block_bytes(10);
        }
        builder.encode()
    }

    #[test]
    fn pages_of_any_keys_find_what_the_index_in_memory_finds() {
        let short = |n: u32| format!("prefix{:05}", n / 3).into_bytes();
        let long = |n: u32| [&[b'x'; 3000][..], &n.to_be_bytes()].concat();
        let longest = |n: u32| vec![n as u8; 65_535];
        let keys = |count: u32, key: fn(u32) -> Vec<u8>| (0..count).map(key).collect::<Vec<_>>();
        for keys in [keys(3000, short), keys(300, long), keys(30, longest)] {
            let payload = sample(&keys);
            compare(&payload, keys.len() as u64, 80 + 10 * keys.len() as u64, &keys);
        }
    }

    proptest::proptest! {
        #[test]
        fn an_index_that_passes_its_checksum_but_means_nothing_is_refused_like_one_in_memory(
            damage in proptest::collection::vec((0_usize..200, proptest::num::u8::ANY), 0..3),
            cut in 0_usize..3,
            count in 18_u64..22,
        ) {
            let keys: Vec<Vec<u8>> = (0..20).map(|n| format!("prefix{n:03}").into_bytes()).collect();
            let mut bytes = sample(&keys);
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len() - cut);
            compare(&bytes, count, 280, &keys);
        }
    }
}
