//! A file as the simulated kernel and disk have it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::content::{Content, PAGE_BYTES, Page, SECTOR_BYTES, SECTOR_COUNT, sector_mask, spans};
use super::crash::{Choice, Fate, Piece, PieceKind, garble};

/// Versions of a page that are remembered between syncs. Beyond, those in the middle are forgotten: they only
/// ever were states that a power cut might have left.
const VERSION_COUNT_MAX: usize = 16;
/// As many lengths.
const LENGTH_COUNT_MAX: usize = 64;

/// A regular file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    /// What reads see: the page cache.
    pub(super) current: Content,
    /// What is on the disk for sure.
    durable: Content,
    /// Pages that differ between the two, or may.
    pending: BTreeMap<u64, PendingPage>,
    /// Lengths since the one on disk, oldest first; the last is the current one.
    lengths: Vec<u64>,
    /// Whether the next sync writes the length.
    length_dirty: bool,
    /// So many pages from the front have blocks, written or not.
    pub(super) reserved_pages: u64,
    /// Open handles; an unlinked file lives as long as there is one.
    pub(super) handles: usize,
}

/// What may have become of a page since it was last durable.
#[derive(Clone, Debug, Default)]
struct PendingPage {
    /// Whether the next sync writes the page. After a failed sync it does not, as on ext4, until the page is
    /// written to again.
    dirty: bool,
    versions: Vec<Version>,
}

/// A page after a write, and a bit for each sector that this write touched.
#[derive(Clone, Debug)]
struct Version {
    page: Arc<Page>,
    touched: u8,
}

impl PendingPage {
    fn push(&mut self, page: Arc<Page>, touched: u8) {
        self.dirty = true;
        self.versions.push(Version { page, touched });
        if self.versions.len() > VERSION_COUNT_MAX {
            let forgotten = self.versions.remove(VERSION_COUNT_MAX / 2);
            self.versions[VERSION_COUNT_MAX / 2].touched |= forgotten.touched;
        }
    }
}

impl FileNode {
    /// So many zeros, on the disk.
    pub(super) fn zeros(len: u64) -> Self {
        let mut content = Content::default();
        content.set_len(len);
        let reserved_pages = len.div_ceil(PAGE_BYTES as u64);
        Self { current: content.clone(), durable: content, reserved_pages, ..Self::default() }
    }

    /// Writes as a process does: into the page cache.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for span in spans(offset, bytes.len()) {
            self.current.page_mut(span.page)[span.start..span.start + span.count]
                .copy_from_slice(&bytes[span.from..span.from + span.count]);
            self.note_version(span.page, span.sectors());
        }
        // The length goes out with the pages again, should a failed sync have forgotten it.
        self.length_dirty |= !self.lengths.is_empty();
        let end = offset + bytes.len() as u64;
        if end > self.current.len && !bytes.is_empty() {
            self.current.len = end;
            self.note_length();
        }
    }

    /// Sets the length as a process does.
    pub(super) fn set_len(&mut self, len: u64) {
        if len == self.current.len {
            return;
        }
        let page = len / PAGE_BYTES as u64;
        let cut: Vec<u64> = self.current.page_indexes(page).collect();
        let start = (len % PAGE_BYTES as u64) as usize;
        self.current.set_len(len);
        for index in cut {
            let start = if index == page { start } else { 0 };
            self.note_version(index, sector_mask(start, PAGE_BYTES));
        }
        self.reserved_pages = self.reserved_pages.min(len.div_ceil(PAGE_BYTES as u64));
        self.note_length();
    }

    /// Reserves blocks and extends the file.
    pub(super) fn allocate(&mut self, bytes: u64) {
        self.reserved_pages = self.reserved_pages.max(bytes.div_ceil(PAGE_BYTES as u64));
        if bytes > self.current.len {
            self.set_len(bytes);
        }
    }

    /// How many of the pages of a range have no block yet.
    pub(super) fn pages_missing(&self, first: u64, end: u64) -> u64 {
        let first = first.max(self.reserved_pages);
        let present = self.current.page_indexes(first).take_while(|index| *index < end).count() as u64;
        end.saturating_sub(first) - present
    }

    /// How many pages have a block.
    pub(super) fn pages_used(&self) -> u64 {
        self.reserved_pages + self.current.page_indexes(self.reserved_pages).count() as u64
    }

    fn note_version(&mut self, index: u64, touched: u8) {
        let page = self.current.page(index).map_or_else(|| Arc::new([0; PAGE_BYTES]), Arc::clone);
        self.pending.entry(index).or_default().push(page, touched);
    }

    fn note_length(&mut self) {
        self.lengths.push(self.current.len);
        self.length_dirty = true;
        if self.lengths.len() > LENGTH_COUNT_MAX {
            self.lengths.remove(LENGTH_COUNT_MAX / 2);
        }
    }

    /// Makes dirty pages durable.
    pub(super) fn sync(&mut self) {
        let Self { current, durable, pending, .. } = self;
        pending.retain(|index, page| {
            if page.dirty {
                durable.set_page(*index, current.page(*index).cloned());
            }
            !page.dirty
        });
        if self.length_dirty {
            self.durable.len = self.current.len;
            self.lengths.clear();
            self.length_dirty = false;
        }
    }

    /// Forgets what was dirty without making it durable: what Linux does when writing back fails.
    pub(super) fn fail_sync(&mut self) {
        for page in self.pending.values_mut() {
            page.dirty = false;
        }
        self.length_dirty = false;
    }

    /// Puts bytes on the disk behind everyone's back.
    pub(super) fn overwrite(&mut self, content: Content) {
        *self = Self {
            reserved_pages: self.reserved_pages.min(content.len.div_ceil(PAGE_BYTES as u64)),
            handles: self.handles,
            current: content.clone(),
            durable: content,
            ..Self::default()
        };
    }

    /// Inverts bits on the disk, and in every version of it.
    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) -> io::Result<()> {
        if offset >= self.current.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (index, start) = (offset / PAGE_BYTES as u64, (offset % PAGE_BYTES as u64) as usize);
        self.current.page_mut(index)[start] ^= mask;
        self.durable.page_mut(index)[start] ^= mask;
        if let Some(pending) = self.pending.get_mut(&index) {
            for version in &mut pending.versions {
                Arc::make_mut(&mut version.page)[start] ^= mask;
            }
        }
        Ok(())
    }

    /// The indexes of the pages with something pending.
    pub(super) fn pending_pages(&self) -> impl Iterator<Item = u64> {
        self.pending.keys().copied()
    }

    pub(super) fn has_pending_length(&self) -> bool {
        !self.lengths.is_empty()
    }

    /// The file after a power cut.
    pub(super) fn after_power_cut(&self, id: u64, choice: &mut dyn Choice) -> Self {
        let mut content = self.durable.clone();
        if !self.lengths.is_empty() {
            let piece = Piece { inode: id, kind: PieceKind::Length, version_count: self.lengths.len() };
            if let Some(version) = choice.choose(&piece).version(self.lengths.len()) {
                content.len = self.lengths[version];
            }
        }
        for (index, pending) in &self.pending {
            let mut page = content.page(*index).map_or([0; PAGE_BYTES], |page| **page);
            for sector in 0..SECTOR_COUNT {
                let versions =
                    || pending.versions.iter().filter(|version| version.touched & (1 << sector) != 0);
                let version_count = versions().count();
                if version_count == 0 {
                    continue;
                }
                let start = sector * SECTOR_BYTES;
                let range = start..start + SECTOR_BYTES;
                let offset = index * PAGE_BYTES as u64 + start as u64;
                let piece = Piece { inode: id, kind: PieceKind::Sector { offset }, version_count };
                match choice.choose(&piece) {
                    // A sector that holds durable bytes is replaced whole or not at all.
                    Fate::Garbled if offset >= self.durable.len => garble(&mut page[range], id ^ offset),
                    fate => {
                        if let Some(version) =
                            fate.version(version_count).and_then(|index| versions().nth(index))
                        {
                            page[range.clone()].copy_from_slice(&version.page[range]);
                        }
                    }
                }
            }
            content.set_page(*index, Some(Arc::new(page)));
        }
        content.set_len(content.len);
        let reserved_pages = self.reserved_pages.min(content.len.div_ceil(PAGE_BYTES as u64));
        Self { current: content.clone(), durable: content, reserved_pages, ..Self::default() }
    }
}
