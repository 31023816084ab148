use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::hash::key_hash;
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::vfs::VfsFile;
use lsm_core::{Error, Result, SEQUENCE_MAX, SequenceNumber, Slice, ValueKind};

use super::block_finder::BlockFinder;
use super::lookup::Lookup;
use super::read::{self, BorrowedBlock};
use crate::block::BlockHeader;
use crate::checksum::BlockChecksum;
use crate::footer::Footer;
use crate::{CursorAccess, PrefixExtractor, Properties, TableCursor, TableMeta};

/// About what the open file and the counts of what is shared take.
const SHARED_BYTES: usize = 128;

/// An open table. It never changes; any number of threads may read it at once.
///
/// Index and filter stay in memory as long as the table is open, unless
/// [`TableOpen::pinned_bytes_max`](crate::TableOpen::pinned_bytes_max) is too low for that. Dropping it closes the
/// file and drops the blocks that the cache has of it.
pub struct Table {
    pub(super) path: Arc<PathBuf>,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) meta: TableMeta,
    pub(super) properties: Properties,
    pub(super) footer: Footer,
    pub(super) checksum: BlockChecksum,
    pub(super) lookup: Lookup,
    pub(super) pinnable_bytes: u64,
    /// Set if the filter has the prefixes that this extractor finds.
    pub(super) prefix_extractor: Option<Arc<dyn PrefixExtractor>>,
    pub(super) range_tombstones: Arc<FragmentedRangeTombstones>,
    pub(super) sequential_read_bytes: u64,
}

/// The newest version of a key that a read may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableValue {
    /// When it was written.
    pub sequence: SequenceNumber,
    /// What was done; tombstones are found like any other version.
    pub kind: ValueKind,
    /// With what.
    pub value: Slice,
}

impl Table {
    /// The newest version of `key` at or below `sequence`. Range tombstones are not applied.
    ///
    /// `hash` is [`key_hash`]`(key)`, which a caller with many tables computes once.
    #[inline]
    pub fn get(&self, key: &[u8], hash: u64, sequence: SequenceNumber) -> Result<Option<TableValue>> {
        debug_assert_eq!(hash, key_hash(key));
        let pinned = match &self.lookup {
            Lookup::Pinned(pinned) => pinned,
            Lookup::Paged(paged) => return paged.get(self, key, hash, sequence),
        };
        if let Some(filter) = &pinned.filter
            && !filter.may_contain(hash)
        {
            return Ok(None);
        }
        if pinned.index.block_count() == 0 {
            return Ok(None);
        }
        let block = pinned.index.find(key, sequence);
        read::with_block(self, pinned, block, |block| value_in(&block, key, sequence))
    }

    /// Whether the table may have a key with this prefix. `false` only if it was written, and opened, with the
    /// prefix extractor that says that `prefix` is one. A filter that cannot be read says nothing, and whoever then
    /// reads the table gets the error.
    pub fn may_contain_prefix(&self, prefix: &[u8]) -> bool {
        match &self.prefix_extractor {
            Some(extractor) if self.lookup.has_filter() && extractor.prefix(prefix) == Some(prefix) => {
                let hash = key_hash(prefix);
                let answer =
                    read::with_scratch(|scratch| self.lookup.may_contain(self, hash, &mut scratch.stored));
                answer.unwrap_or(true)
            }
            _ => true,
        }
    }

    /// The table's range tombstones; [`Table::get`] and cursors do not apply them.
    pub fn range_tombstones(&self) -> &Arc<FragmentedRangeTombstones> {
        &self.range_tombstones
    }

    /// A cursor over all entries, standing nowhere.
    pub fn cursor(self: &Arc<Self>, access: CursorAccess) -> TableCursor {
        TableCursor::new(Arc::clone(self), access)
    }

    /// What a manifest keeps about the table.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// What the table says about itself.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Where the table is.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Whether index and filter are in memory: see [`TableOpen::pinned_bytes_max`](crate::TableOpen::pinned_bytes_max).
    pub fn is_pinned(&self) -> bool {
        matches!(self.lookup, Lookup::Pinned(_))
    }

    /// What index, filter and cache slots take when they are in memory, at most: with this as
    /// [`TableOpen::pinned_bytes_max`](crate::TableOpen::pinned_bytes_max) and the same filters, they would be.
    pub fn pinnable_bytes(&self) -> u64 {
        self.pinnable_bytes
    }

    /// Bytes of memory that the table holds while it is open: index, filter and cache slots, or the directories of
    /// their pages, those about before they are read; range tombstones, bounds, path and the rest. Cached blocks are counted by the cache.
    pub fn pinned_bytes(&self) -> usize {
        let shared_bytes = |bytes: &[u8]| bytes.len() + 2 * size_of::<usize>();
        let Properties { compression, filter, prefix_extractor, .. } = &self.properties;
        size_of::<Self>()
            + SHARED_BYTES
            + self.lookup.heap_bytes(&self.footer)
            + self.range_tombstones.memory_bytes()
            + shared_bytes(&self.meta.smallest)
            + shared_bytes(&self.meta.largest)
            + [compression, filter, prefix_extractor].map(String::capacity).iter().sum::<usize>()
            + size_of::<PathBuf>()
            + self.path.capacity()
    }

    /// Up to `count - 1` user keys, ascending, that cut the table into about `count` parts of equal size: each part
    /// starts with its key, whatever its sequence number. Where the index cannot be read, keys are left out.
    pub fn split_keys(&self, count: usize) -> Vec<Slice> {
        let blocks = self.block_count();
        let mut finder = BlockFinder::default();
        let mut keys: Vec<Slice> = Vec::new();
        for part in 1..count {
            let target = (u128::from(self.footer.data_end) * part as u128 / count as u128) as u64;
            let Ok(block) = finder.block_at(self, target) else { continue };
            if block == 0 || block >= blocks {
                continue;
            }
            let Ok((key, _)) = finder.separator(self, block) else { continue };
            let key = Slice::from(key);
            if keys.last().is_none_or(|last| *last < key) && key > self.meta.smallest {
                keys.push(key);
            }
        }
        keys
    }

    /// About how many bytes of the file hold entries below `key`; more roughly, by a megabyte or so, where the index
    /// cannot be read.
    pub fn approximate_offset(&self, key: &[u8]) -> u64 {
        if *key > *self.meta.largest {
            return self.footer.data_end;
        }
        match &self.lookup {
            Lookup::Pinned(pinned) if pinned.index.block_count() > 0 => {
                pinned.index.block_range(pinned.index.find(key, SEQUENCE_MAX)).start
            }
            Lookup::Pinned(_) => 0,
            Lookup::Paged(paged) => paged.approximate_offset(self, key),
        }
    }

    /// Data blocks, as the properties say. The index, when it is read, must say the same.
    #[inline]
    pub(super) fn block_count(&self) -> usize {
        match &self.lookup {
            Lookup::Pinned(pinned) => pinned.index.block_count(),
            Lookup::Paged(_) => usize::try_from(self.properties.data_blocks).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn corruption(&self, offset: u64, detail: String) -> Error {
        Error::Corruption { path: Arc::clone(&self.path), offset, detail: detail.into() }
    }

    /// Why a block whose checksum is right could not be loaded.
    #[cold]
    pub(super) fn refused(&self, offset: u64, covered: &[u8], detail: String) -> Error {
        match BlockHeader::decode(covered) {
            Ok((header, _)) if !header.codec.is_built_in() => Error::Unsupported {
                path: Arc::clone(&self.path),
                detail: format!("the {detail} (at offset {offset})").into(),
            },
            _ => self.corruption(offset, detail),
        }
    }

    pub(super) fn io(&self, operation: &'static str, source: std::io::Error) -> Error {
        Error::Io { operation, path: Arc::clone(&self.path), source: Arc::new(source) }
    }
}

/// The newest version of `key` at or below `sequence` in the only block that can have it.
#[inline]
pub(super) fn value_in(
    block: &BorrowedBlock<'_>,
    key: &[u8],
    sequence: SequenceNumber,
) -> Option<TableValue> {
    let row = block.frame().get(key, sequence)?;
    let entry = row.entry(block.bytes())?;
    let (sequence, kind) = (entry.sequence, entry.kind);
    Some(TableValue { sequence, kind, value: block.slice(row.value_range()) })
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}
