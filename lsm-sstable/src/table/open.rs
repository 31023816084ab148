//! Opening a table: header, footer, properties, range tombstones, and index and filter if they fit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::vfs::{Access, Vfs, VfsFile};
use lsm_core::{Error, Result};

use super::handle::Table;
use super::lookup::{LoadedFilter, Lookup, Paged};
use super::sections::Sections;
use super::tail::{TAIL_BYTES, Tail};
use crate::cache::{BlockCache, CachedTable};
use crate::filter::FilterPolicy;
use crate::format::checksum::BlockChecksum;
use crate::format::file_header::{self, FILE_HEADER_BYTES};
use crate::format::footer::{FOOTER_BYTES, Footer};
use crate::format::properties::{self, Properties};
use crate::format::range_tombstones;
use crate::format::section::{SECTION_HEADER_BYTES, SectionTag};
use crate::index::Index;
use crate::meta::TableMeta;
use crate::options::{TableExpectation, TableOpen};

impl Table {
    /// Opens a table: reads and checks everything but the data blocks, which are checked as they are read, and but an
    /// index and filter that [do not fit memory](TableOpen::pinned_bytes_max), which are checked when they are first
    /// asked.
    ///
    /// Fails with `Corruption` if the file is not the table that `options` expects, or not intact, and with
    /// `UnsupportedVersion` if a newer build wrote it. Nothing is ever changed on disk.
    pub fn open(
        vfs: &dyn Vfs,
        path: &Path,
        cache: Option<Arc<BlockCache>>,
        options: &TableOpen,
    ) -> Result<Arc<Table>> {
        let file = vfs.open_read(path).map_err(|error| Error::io("open", path, error))?;
        Self::from_file(file, Arc::new(path.to_owned()), cache, options)
    }

    /// Opens a table in a file that is open for reading, or that opens itself when it is read. `path` is what errors
    /// name.
    pub fn from_file(
        file: Arc<dyn VfsFile>,
        path: Arc<PathBuf>,
        cache: Option<Arc<BlockCache>>,
        options: &TableOpen,
    ) -> Result<Arc<Table>> {
        let pinned_bytes_max = options.pinned_bytes_max as u64;
        Self::from_file_pinned_if(file, path, cache, options, |bytes| bytes <= pinned_bytes_max)
    }

    /// Like [`from_file`](Table::from_file), for many who share what memory there is: `pin` is asked once, with a bound
    /// of the bytes that index, filter and cache slots would take, whether they are to be in memory.
    pub fn from_file_pinned_if(
        file: Arc<dyn VfsFile>,
        path: Arc<PathBuf>,
        cache: Option<Arc<BlockCache>>,
        options: &TableOpen,
        pin: impl FnOnce(u64) -> bool,
    ) -> Result<Arc<Table>> {
        file.advise(Access::Random);
        let mut buffer = [0; TAIL_BYTES];
        let basics = Basics::read(file, path, options.expected.as_ref(), &mut buffer)?;
        Self::with_lookup(basics, cache, options, pin)
    }

    /// The same table with other options: index and filter are read, or dropped. What was found when it was opened is
    /// not read again.
    pub fn reopened(&self, cache: Option<Arc<BlockCache>>, options: &TableOpen) -> Result<Arc<Table>> {
        let basics = Basics {
            path: Arc::clone(&self.path),
            file: Arc::clone(&self.file),
            footer: self.footer.clone(),
            meta: self.meta.clone(),
            properties: self.properties.clone(),
            range_tombstones: Arc::clone(&self.range_tombstones),
            tail: Tail::default(),
        };
        let pinned_bytes_max = options.pinned_bytes_max as u64;
        Self::with_lookup(basics, cache, options, |bytes| bytes <= pinned_bytes_max)
    }

    fn with_lookup(
        basics: Basics<'_>,
        cache: Option<Arc<BlockCache>>,
        options: &TableOpen,
        pin: impl FnOnce(u64) -> bool,
    ) -> Result<Arc<Table>> {
        let Basics { path, file, footer, meta, properties, range_tombstones, tail } = basics;
        let checksum = BlockChecksum::new(footer.id);
        let sections = Sections { file: &*file, path: &path, checksum, tail };
        let policy = options.filters.iter().find(|policy| policy.name() == properties.filter).cloned();
        let slot_bytes =
            cache.as_ref().map_or(0, |_| CachedTable::SLOT_BYTES.saturating_mul(properties.data_blocks));
        let pinnable_bytes = Index::memory_bytes_max(footer.index_bytes, properties.data_blocks)
            .saturating_add(policy.as_ref().map_or(0, |_| LoadedFilter::memory_bytes(footer.filter_bytes)))
            .saturating_add(slot_bytes);
        let lookup = if pin(pinnable_bytes) {
            Lookup::Pinned(sections.pinned(&footer, &properties, policy, cache)?)
        } else {
            let filter_bytes = footer.filter_bytes.saturating_sub(SECTION_HEADER_BYTES as u64);
            let has_parts = |policy: &Arc<dyn FilterPolicy>| policy.part(filter_bytes, 0).is_some();
            Lookup::Paged(Paged::new(policy.filter(|policy| footer.filter_bytes > 0 && has_parts(policy))))
        };
        let prefix_extractor = options
            .prefix_extractor
            .as_ref()
            .filter(|extractor| {
                !properties.prefix_extractor.is_empty() && extractor.name() == properties.prefix_extractor
            })
            .map(Arc::clone);
        Ok(Arc::new(Table {
            path,
            file,
            meta,
            properties,
            checksum,
            footer,
            lookup,
            pinnable_bytes,
            prefix_extractor,
            range_tombstones,
            sequential_read_bytes: options.sequential_read_bytes,
        }))
    }
}

/// What is read of every table.
struct Basics<'b> {
    path: Arc<PathBuf>,
    file: Arc<dyn VfsFile>,
    footer: Footer,
    meta: TableMeta,
    properties: Properties,
    range_tombstones: Arc<FragmentedRangeTombstones>,
    tail: Tail<'b>,
}

impl<'b> Basics<'b> {
    fn read(
        file: Arc<dyn VfsFile>,
        path: Arc<PathBuf>,
        expected: Option<&TableExpectation>,
        buffer: &'b mut [u8; TAIL_BYTES],
    ) -> Result<Self> {
        let (footer, tail) = read_ends(&*file, &path, expected, buffer)?;
        let checksum = BlockChecksum::new(footer.id);
        let sections = Sections { file: &*file, path: &path, checksum, tail };
        // One section after the other, each buffer given back before the next, to need little memory at once.
        let (properties, mut meta) =
            sections.decode(footer.properties(), SectionTag::Properties, properties::decode)?;
        meta.id = footer.id;
        meta.file_bytes = footer.file_bytes;
        meta.checksum = footer.body_checksum;
        let mut range_tombstones = FragmentedRangeTombstones::empty();
        if footer.range_tombstone_bytes > 0 {
            let at = footer.range_tombstones();
            range_tombstones = sections.decode(at, SectionTag::RangeTombstones, range_tombstones::decode)?;
        }
        let global_sequence = expected.map_or(0, |expected| expected.global_sequence);
        let range_tombstones = Arc::new(meta.renumber(range_tombstones, global_sequence));
        Ok(Self { path, file, footer, meta, properties, range_tombstones, tail })
    }
}

/// Reads header and footer and checks that they belong together and to the table that is expected. Returns what was read
/// beside the footer, too.
pub(super) fn read_ends<'b>(
    file: &dyn VfsFile,
    path: &Path,
    expected: Option<&TableExpectation>,
    buffer: &'b mut [u8; TAIL_BYTES],
) -> Result<(Footer, Tail<'b>)> {
    let file_bytes = file.len().map_err(|error| Error::io("read", path, error))?;
    if let Some(expected) = expected
        && expected.file_bytes != file_bytes
    {
        let detail =
            format!("file has {file_bytes} bytes, table {} has {}", expected.id, expected.file_bytes);
        return Err(Error::corruption(path, file_bytes.min(expected.file_bytes), detail));
    }
    let ends_bytes = (FILE_HEADER_BYTES + FOOTER_BYTES) as u64;
    if file_bytes < ends_bytes {
        let detail = format!("file has {file_bytes} bytes, a table has at least {ends_bytes}");
        return Err(Error::corruption(path, file_bytes, detail));
    }
    let tail = Tail::read(file, path, file_bytes, buffer)?;
    let mut header = [0; FILE_HEADER_BYTES];
    tail.read_exact(file, path, &mut header, 0)?;
    let id = file_header::decode(&header, path)?;
    if let Some(expected) = expected
        && expected.id != id
    {
        return Err(Error::corruption(
            path,
            16,
            format!("file is table {id}, expected table {}", expected.id),
        ));
    }
    let mut footer = [0; FOOTER_BYTES];
    tail.read_exact(file, path, &mut footer, file_bytes - FOOTER_BYTES as u64)?;
    let footer = Footer::decode(&footer, id, file_bytes, path)?;
    if let Some(checksum) = expected.and_then(|expected| expected.checksum)
        && checksum != footer.body_checksum
    {
        let detail = format!("file has checksum {:#018x}, expected {checksum:#018x}", footer.body_checksum);
        return Err(Error::corruption(path, footer.offset() + 48, detail));
    }
    Ok((footer, tail))
}
