//! Where the pages of a filter are that stays in its file.

use std::ops::Range;

use lsm_core::Result;
use lsm_core::checksum::crc32;

use crate::format::section::SectionStream;

/// Bytes of a page of the filter, the last one excepted: a multiple of 64.
const PAGE_BYTES: usize = 1024;

/// Where the pages of a filter are in the file, and what they must be, for a table whose filter is not in memory.
#[derive(Debug)]
pub(crate) struct FilterDirectory {
    /// Where the filter is in the file.
    range: Range<u64>,
    checksums: Box<[u32]>,
}

impl FilterDirectory {
    /// Reads the filter and keeps the checksums of its pages.
    pub(crate) fn read(section: &mut SectionStream<'_>) -> Result<Self> {
        let range = section.offset()..section.end();
        let mut checksums = Vec::new();
        while section.offset() < range.end {
            let window = section.window(PAGE_BYTES)?;
            let page = &window[..window.len().min(PAGE_BYTES)];
            checksums.push(crc32(0, page));
            let page_bytes = page.len();
            section.advance(page_bytes);
        }
        section.finish()?;
        Ok(Self { range, checksums: checksums.into() })
    }

    /// Length of the filter.
    pub(crate) fn filter_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The range of the file that has to be read for `part` of the filter, whole pages; `None` if there is no such
    /// part.
    pub(crate) fn pages(&self, part: &Range<u64>) -> Option<Range<u64>> {
        if part.start > part.end || part.end > self.filter_bytes() {
            return None;
        }
        let start = part.start - part.start % PAGE_BYTES as u64;
        let end = part.end.next_multiple_of(PAGE_BYTES as u64).min(self.filter_bytes());
        Some(self.range.start + start..self.range.start + end)
    }

    /// Checks the pages that stand at `offset` in the file. Returns what `part` of the filter is.
    pub(crate) fn check<'p>(
        &self,
        offset: u64,
        pages: &'p [u8],
        part: &Range<u64>,
    ) -> Result<&'p [u8], String> {
        let start = offset - self.range.start;
        let first = (start / PAGE_BYTES as u64) as usize;
        for (page, &checksum) in pages.chunks(PAGE_BYTES).zip(&self.checksums[first..]) {
            let computed = crc32(0, page);
            if computed != checksum {
                return Err(format!(
                    "page of the filter has checksum {computed:#010x}, it had {checksum:#010x} when the table was opened"
                ));
            }
        }
        Ok(&pages[(part.start - start) as usize..(part.end - start) as usize])
    }

    /// About what the directory of a filter of so many bytes takes.
    pub(crate) fn memory_bytes_about(filter_bytes: u64) -> u64 {
        let checksums = (filter_bytes / PAGE_BYTES as u64 + 1).saturating_mul(size_of::<u32>() as u64);
        checksums.saturating_add(size_of::<Self>() as u64)
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.checksums)
    }
}
