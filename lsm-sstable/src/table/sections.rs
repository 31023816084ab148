//! Reading the sections of a table, and proving them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::VfsFile;
use lsm_core::{DecodeError, Error, Result};

use super::lookup::{LoadedFilter, Pinned};
use super::tail::Tail;
use crate::cache::{BlockCache, CachedTable};
use crate::filter::{FilterDirectory, FilterPolicy};
use crate::format::checksum::BlockChecksum;
use crate::format::footer::Footer;
use crate::format::properties::Properties;
use crate::format::section::{self, SECTION_HEADER_BYTES, SectionStream, SectionTag};
use crate::index::Index;

/// The sections of a table.
pub(super) struct Sections<'a> {
    pub(super) file: &'a dyn VfsFile,
    pub(super) path: &'a Path,
    pub(super) checksum: BlockChecksum,
    pub(super) tail: Tail<'a>,
}

impl Sections<'_> {
    /// Index and filter, to stay in memory.
    pub(super) fn pinned(
        &self,
        footer: &Footer,
        properties: &Properties,
        policy: Option<Arc<dyn FilterPolicy>>,
        cache: Option<Arc<BlockCache>>,
    ) -> Result<Pinned> {
        let index = self.decode(footer.index(), SectionTag::Index, |payload| {
            Index::decode(payload, properties.data_blocks, footer.data_end)
        })?;
        let at = footer.filter();
        let filter = match policy {
            Some(policy) if footer.filter_bytes > 0 => {
                let read = |buffer: &mut [u8]| self.read(&at, SectionTag::Filter, buffer);
                Some(LoadedFilter::read(policy, self.bytes(&at)?, read)?)
            }
            _ if footer.filter_bytes > 0 => {
                self.filter_directory(footer)?;
                None
            }
            _ => None,
        };
        let cached = cache.map(|cache| CachedTable::new(cache, index.block_count()));
        Ok(Pinned { index, filter, cached })
    }

    /// Proves the filter, whether there is someone to ask it or not.
    pub(super) fn filter_directory(&self, footer: &Footer) -> Result<FilterDirectory> {
        FilterDirectory::read(&mut self.stream(footer.filter(), SectionTag::Filter)?)
    }

    pub(super) fn stream(&self, section: Range<u64>, tag: SectionTag) -> Result<SectionStream<'_>> {
        SectionStream::new(self.file, self.path, section, tag, self.checksum)
    }

    /// Reads a section as a whole, and decodes it.
    pub(super) fn decode<T, E: Into<DecodeError>>(
        &self,
        section: Range<u64>,
        tag: SectionTag,
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T> {
        let bytes = self.bytes(&section)?;
        let mut buffer = Vec::new();
        let read = if let Some(read) = self.tail.get(section.start, bytes) {
            self.check(&section, tag, read)?;
            read
        } else {
            buffer.resize(bytes, 0);
            self.read(&section, tag, &mut buffer)?;
            &buffer
        };
        let payload = read.get(SECTION_HEADER_BYTES..).unwrap_or_default();
        decode(payload).map_err(|error| error.into().at(self.path, section.start))
    }

    /// Reads a section, and proves it.
    fn read(&self, section: &Range<u64>, tag: SectionTag, buffer: &mut [u8]) -> Result<()> {
        self.tail.read_exact(self.file, self.path, buffer, section.start)?;
        self.check(section, tag, buffer)
    }

    fn check(&self, section: &Range<u64>, tag: SectionTag, read: &[u8]) -> Result<()> {
        section::check(read, tag, self.checksum, section.start)
            .map_err(|detail| Error::corruption(self.path, section.start, detail))
    }

    fn bytes(&self, section: &Range<u64>) -> Result<usize> {
        usize::try_from(section.end - section.start)
            .map_err(|_| Error::corruption(self.path, section.start, "section does not fit memory"))
    }
}
