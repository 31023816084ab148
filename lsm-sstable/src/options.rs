//! How tables are written and opened.

use std::sync::Arc;

use lsm_core::{Error, Result, SequenceNumber};

use crate::filter::{BloomFilter, FilterPolicy};
use crate::format::compression::Compression;
use crate::meta::{TableId, TableMeta};
use crate::prefix::PrefixExtractor;

/// How a table is written.
///
/// ```
/// use lsm_sstable::{Compression, TableOptions};
/// let options = TableOptions { compression: Compression::None, ..TableOptions::default() };
/// assert_eq!(options.block_bytes, 4096);
/// ```
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// A data block is closed before it would grow past this many raw bytes; an entry that is larger has a block
    /// of its own. 256 bytes to 1 MiB; default 4 KiB, which measured best: larger blocks save under 1 % of space
    /// and make each miss dearer.
    pub block_bytes: usize,
    /// Compression of data blocks; default LZ4.
    pub compression: Compression,
    /// The filter; default a [`BloomFilter`] of 10 bits a key. `None` writes no filter.
    pub filter: Option<Arc<dyn FilterPolicy>>,
    /// Adds the prefixes of keys to the filter; default none.
    pub prefix_extractor: Option<Arc<dyn PrefixExtractor>>,
    /// Bytes gathered before they are written to the file; default 1 MiB.
    pub write_buffer_bytes: usize,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            compression: Compression::default(),
            filter: Some(Arc::new(BloomFilter::default())),
            prefix_extractor: None,
            write_buffer_bytes: 1 << 20,
        }
    }
}

impl TableOptions {
    const BLOCK_BYTES_MIN: usize = 256;
    const BLOCK_BYTES_MAX: usize = 1 << 20;

    pub(crate) fn check(&self) -> Result<()> {
        if (Self::BLOCK_BYTES_MIN..=Self::BLOCK_BYTES_MAX).contains(&self.block_bytes) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "block_bytes is {}, it must be from {} to {}",
            self.block_bytes,
            Self::BLOCK_BYTES_MIN,
            Self::BLOCK_BYTES_MAX
        )))
    }
}

/// How a table is opened, and what it must be.
#[derive(Clone, Debug)]
pub struct TableOpen {
    /// What the file must be; anything else is corruption. `None` takes what is there.
    pub expected: Option<TableExpectation>,
    /// The filters that can be read, found by the name stored in the table; default [`BloomFilter`]. A table with
    /// a filter of another name is read without it.
    pub filters: Vec<Arc<dyn FilterPolicy>>,
    /// Must have the name stored in the table for [`Table::may_contain_prefix`](crate::Table::may_contain_prefix)
    /// to say no.
    pub prefix_extractor: Option<Arc<dyn PrefixExtractor>>,
    /// Bytes that a [sequential](crate::CursorAccess::Sequential) cursor reads at a time, and holds. 256 KiB.
    pub sequential_read_bytes: u64,
    /// Index and filter stay in memory if together, and with the slots of the cache, they take no more than this, by
    /// a bound that is known before they are read. If not, only a directory of their pages does, whatever that takes
    /// (about 0.01 % of the file), read when the table is first asked, and each lookup reads a page of each from the file, past the cache, as it does the
    /// data. Range tombstones are in memory either way and do not count. Default: no limit.
    pub pinned_bytes_max: usize,
}

impl Default for TableOpen {
    fn default() -> Self {
        Self {
            expected: None,
            filters: vec![Arc::new(BloomFilter::default())],
            prefix_extractor: None,
            sequential_read_bytes: 256 << 10,
            pinned_bytes_max: usize::MAX,
        }
    }
}

impl TableOpen {
    /// The defaults, and the table must be the one that `meta` describes.
    pub fn expecting(meta: &TableMeta) -> Self {
        Self { expected: Some(TableExpectation::from(meta)), ..Self::default() }
    }
}

/// What is known about a table before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableExpectation {
    /// Identity.
    pub id: TableId,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// [`TableMeta::checksum`].
    pub checksum: Option<u64>,
    /// [`TableMeta::global_sequence`].
    pub global_sequence: SequenceNumber,
}

impl From<&TableMeta> for TableExpectation {
    fn from(meta: &TableMeta) -> Self {
        Self {
            id: meta.id,
            file_bytes: meta.file_bytes,
            checksum: Some(meta.checksum),
            global_sequence: meta.global_sequence,
        }
    }
}
