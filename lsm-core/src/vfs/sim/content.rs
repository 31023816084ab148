//! The bytes of a file, in pages that copies share.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What the page cache writes back at once.
pub(super) const PAGE_BYTES: usize = 4096;
/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// Sectors of a page.
pub(super) const SECTOR_COUNT: usize = PAGE_BYTES / SECTOR_BYTES;

pub(super) type Page = [u8; PAGE_BYTES];

/// Sparse bytes; what was never written is zero. Cloning shares the pages. Bytes beyond `len` are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    /// Copies what is at `offset`; returns how much there was.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> usize {
        let count = buffer.len().min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX));
        for span in spans(offset, count) {
            let target = &mut buffer[span.from..span.from + span.count];
            match self.pages.get(&span.page) {
                Some(page) => target.copy_from_slice(&page[span.start..span.start + span.count]),
                None => target.fill(0),
            }
        }
        count
    }

    /// What a file that holds `bytes` consists of.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self { len: bytes.len() as u64, ..Self::default() };
        for span in spans(0, bytes.len()) {
            content.page_mut(span.page)[..span.count]
                .copy_from_slice(&bytes[span.from..span.from + span.count]);
        }
        content
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(usize::MAX)];
        self.read_at(&mut bytes, 0);
        bytes
    }

    pub(super) fn page(&self, index: u64) -> Option<&Arc<Page>> {
        self.pages.get(&index)
    }

    /// The page, to be changed; does not move `len`.
    pub(super) fn page_mut(&mut self, index: u64) -> &mut Page {
        Arc::make_mut(self.pages.entry(index).or_insert_with(|| Arc::new([0; PAGE_BYTES])))
    }

    pub(super) fn set_page(&mut self, index: u64, page: Option<Arc<Page>>) {
        match page {
            Some(page) => self.pages.insert(index, page),
            None => self.pages.remove(&index),
        };
    }

    /// Indexes of the pages at or after `first` that are not holes.
    pub(super) fn page_indexes(&self, first: u64) -> impl Iterator<Item = u64> {
        self.pages.range(first..).map(|(index, _)| *index)
    }

    /// Sets the length; zeroes what is beyond it.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        let (page, start) = (len / PAGE_BYTES as u64, (len % PAGE_BYTES as u64) as usize);
        drop(self.pages.split_off(&(page + u64::from(start > 0))));
        if let Some(last) = self.pages.get_mut(&page)
            && last[start..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(last)[start..].fill(0);
        }
    }

    /// The same for equal bytes, whichever pages are holes.
    pub(super) fn hash(&self, hasher: &mut xxhash_rust::xxh3::Xxh3) {
        hasher.update(&self.len.to_le_bytes());
        for (index, page) in &self.pages {
            if page.iter().any(|byte| *byte != 0) {
                hasher.update(&index.to_le_bytes());
                hasher.update(&page[..]);
            }
        }
    }
}

/// The part of a range of bytes that lies in one page.
pub(super) struct Span {
    /// Index of the page.
    pub(super) page: u64,
    /// Where in the page.
    pub(super) start: usize,
    /// Where in the range.
    pub(super) from: usize,
    /// How many bytes.
    pub(super) count: usize,
}

impl Span {
    /// A bit for each sector of the page that the span touches.
    pub(super) fn sectors(&self) -> u8 {
        sector_mask(self.start, self.start + self.count)
    }
}

/// A bit for each sector that the bytes from `start` to `end` of a page touch.
pub(super) fn sector_mask(start: usize, end: usize) -> u8 {
    let (first, last) = (start / SECTOR_BYTES, end.div_ceil(SECTOR_BYTES));
    (((1_u16 << last) - 1) & !((1_u16 << first) - 1)) as u8
}

/// Cuts the range at page boundaries.
pub(super) fn spans(offset: u64, count: usize) -> impl Iterator<Item = Span> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == count {
            return None;
        }
        let position = offset + from as u64;
        let start = (position % PAGE_BYTES as u64) as usize;
        let span = Span {
            page: position / PAGE_BYTES as u64,
            start,
            from,
            count: (count - from).min(PAGE_BYTES - start),
        };
        from += span.count;
        Some(span)
    })
}
