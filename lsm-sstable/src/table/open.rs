use std::io;
use std::path::Path;
use std::sync::Arc;

use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::vfs::{Access, Vfs, VfsFile};
use lsm_core::{Error, Result};

use super::Table;
use super::reader::LoadedFilter;
use crate::cache::CachedTable;
use crate::checksum::BlockChecksum;
use crate::file_header::{self, FILE_HEADER_BYTES};
use crate::footer::{FOOTER_BYTES, Footer};
use crate::index::Index;
use crate::section::{self, SectionTag};
use crate::{BlockCache, TableExpectation, TableOpen, properties, range_tombstones};

impl Table {
    /// Opens a table: reads and checks everything but the data blocks, which are checked as they are read.
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
        file.advise(Access::Random);
        let footer = read_ends(&*file, path, options.expected.as_ref())?;
        let checksum = BlockChecksum::new(footer.id);

        // Everything between data and footer in one read.
        let sections = footer.data_end..footer.offset();
        let bytes = usize::try_from(sections.end - sections.start)
            .map_err(|_| Error::corruption(path, sections.start, "sections do not fit memory"))?;
        let mut buffer = vec![0; bytes];
        read_exact(&*file, path, &mut buffer, sections.start)?;
        let load = |range: std::ops::Range<u64>, tag: SectionTag| {
            let (start, end) =
                ((range.start - sections.start) as usize, (range.end - sections.start) as usize);
            section::payload(&buffer[start..end], tag, checksum, range.start)
                .map_err(|detail| Error::corruption(path, range.start, detail))
        };

        let at = footer.properties();
        let (properties, mut meta) = properties::decode(load(at.clone(), SectionTag::Properties)?)
            .map_err(|detail| Error::corruption(path, at.start, detail))?;
        meta.id = footer.id;
        meta.file_bytes = footer.file_bytes;
        meta.checksum = footer.body_checksum;

        let at = footer.index();
        let index =
            Index::decode(load(at.clone(), SectionTag::Index)?, properties.data_blocks, footer.data_end)
                .map_err(|detail| Error::corruption(path, at.start, detail))?;

        let mut filter = None;
        if footer.filter_bytes > 0 {
            let payload = load(footer.filter(), SectionTag::Filter)?;
            let policy = options.filters.iter().find(|policy| policy.name() == properties.filter);
            filter = policy.map(|policy| LoadedFilter::new(Arc::clone(policy), payload));
        }
        let mut range_tombstones = FragmentedRangeTombstones::empty();
        if footer.range_tombstone_bytes > 0 {
            let at = footer.range_tombstones();
            range_tombstones = range_tombstones::decode(load(at.clone(), SectionTag::RangeTombstones)?)
                .map_err(|detail| Error::corruption(path, at.start, detail))?;
        }
        let prefix_extractor = options
            .prefix_extractor
            .as_ref()
            .filter(|extractor| {
                !properties.prefix_extractor.is_empty() && extractor.name() == properties.prefix_extractor
            })
            .map(Arc::clone);
        let cached = cache.map(|cache| CachedTable::new(cache, index.block_count()));
        Ok(Arc::new(Table {
            path: Arc::new(path.to_owned()),
            file,
            meta,
            properties,
            footer,
            checksum,
            index,
            filter,
            prefix_extractor,
            range_tombstones: Arc::new(range_tombstones),
            cached,
            sequential_read_bytes: options.sequential_read_bytes,
        }))
    }
}

/// Reads header and footer and checks that they belong together and to the table that is expected.
pub(super) fn read_ends(
    file: &dyn VfsFile,
    path: &Path,
    expected: Option<&TableExpectation>,
) -> Result<Footer> {
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
    let mut header = [0; FILE_HEADER_BYTES];
    read_exact(file, path, &mut header, 0)?;
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
    read_exact(file, path, &mut footer, file_bytes - FOOTER_BYTES as u64)?;
    let footer = Footer::decode(&footer, id, file_bytes, path)?;
    if let Some(checksum) = expected.and_then(|expected| expected.checksum)
        && checksum != footer.body_checksum
    {
        let detail = format!("file has checksum {:#018x}, expected {checksum:#018x}", footer.body_checksum);
        return Err(Error::corruption(path, footer.offset() + 48, detail));
    }
    Ok(footer)
}

fn read_exact(file: &dyn VfsFile, path: &Path, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::corruption(path, offset, "file ends while it is read"),
        _ => Error::io("read", path, error),
    })
}
