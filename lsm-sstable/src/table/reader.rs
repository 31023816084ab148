use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::hash::key_hash;
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::vfs::VfsFile;
use lsm_core::{Error, Result, SequenceNumber, Slice, ValueKind};

use super::read;
use crate::cache::CachedTable;
use crate::checksum::BlockChecksum;
use crate::footer::Footer;
use crate::index::Index;
use crate::{CursorAccess, FilterPolicy, PrefixExtractor, Properties, TableCursor, TableMeta};

/// An open table. It never changes; any number of threads may read it at once.
///
/// Index and filter stay in memory as long as the table is open. Dropping it closes the file and drops the blocks
/// that the cache has of it.
pub struct Table {
    pub(super) path: Arc<PathBuf>,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) meta: TableMeta,
    pub(super) properties: Properties,
    pub(super) footer: Footer,
    pub(super) checksum: BlockChecksum,
    pub(super) index: Index,
    pub(super) filter: Option<LoadedFilter>,
    /// Set if the filter has the prefixes that this extractor finds.
    pub(super) prefix_extractor: Option<Arc<dyn PrefixExtractor>>,
    pub(super) range_tombstones: Arc<FragmentedRangeTombstones>,
    pub(super) cached: Option<CachedTable>,
    pub(super) sequential_read_bytes: u64,
}

/// A filter and who can ask it.
pub(super) struct LoadedFilter {
    pub(super) policy: Arc<dyn FilterPolicy>,
    /// The filter, with up to 63 bytes in front so that it starts at a cache line.
    buffer: Box<[u8]>,
    range: Range<usize>,
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

impl LoadedFilter {
    pub(super) fn new(policy: Arc<dyn FilterPolicy>, filter: &[u8]) -> Self {
        let mut buffer = vec![0; filter.len() + 63].into_boxed_slice();
        let start = buffer.as_ptr().align_offset(64).min(63);
        let range = start..start + filter.len();
        buffer[range.clone()].copy_from_slice(filter);
        Self { policy, buffer, range }
    }

    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.policy.may_contain(&self.buffer[self.range.clone()], hash)
    }
}

impl Table {
    /// The newest version of `key` at or below `sequence`. Range tombstones are not applied.
    ///
    /// `hash` is [`key_hash`]`(key)`, which a caller with many tables computes once.
    #[inline]
    pub fn get(&self, key: &[u8], hash: u64, sequence: SequenceNumber) -> Result<Option<TableValue>> {
        debug_assert_eq!(hash, key_hash(key));
        if let Some(filter) = &self.filter
            && !filter.may_contain(hash)
        {
            return Ok(None);
        }
        if self.index.block_count() == 0 {
            return Ok(None);
        }
        read::with_block(self, self.index.find(key, sequence), |block| {
            let Some(row) = block.frame().get(key, sequence) else { return Ok(None) };
            let Some(entry) = row.entry(block.bytes()) else { return Ok(None) };
            let (sequence, kind) = (entry.sequence, entry.kind);
            Ok(Some(TableValue { sequence, kind, value: block.slice(row.value_range()) }))
        })
    }

    /// Whether the table may have a key with this prefix. `false` only if it was written, and opened, with the
    /// prefix extractor that says that `prefix` is one.
    pub fn may_contain_prefix(&self, prefix: &[u8]) -> bool {
        match (&self.prefix_extractor, &self.filter) {
            (Some(extractor), Some(filter)) if extractor.prefix(prefix) == Some(prefix) => {
                filter.may_contain(key_hash(prefix))
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
        true
    }

    /// Bytes of memory that the table holds while it is open: index, filter, range tombstones and cache slots. Cached blocks are
    /// counted by the cache.
    pub fn pinned_bytes(&self) -> usize {
        size_of::<Self>()
            + self.index.memory_bytes()
            + self.range_tombstones.memory_bytes()
            + self.filter.as_ref().map_or(0, |filter| filter.buffer.len())
            + self.cached.as_ref().map_or(0, CachedTable::slot_bytes)
    }

    /// Up to `count - 1` user keys, ascending, that cut the table into about `count` parts of equal size: each part
    /// starts with its key, whatever its sequence number.
    pub fn split_keys(&self, count: usize) -> Vec<Slice> {
        let blocks = self.index.block_count();
        let mut keys: Vec<Slice> = Vec::new();
        for part in 1..count {
            let target = (u128::from(self.footer.data_end) * part as u128 / count as u128) as u64;
            let block = self.index.block_at(target);
            if block == 0 || block >= blocks {
                continue;
            }
            let key = Slice::from(self.index.separator(block));
            if keys.last().is_none_or(|last| *last < key) && key > self.meta.smallest {
                keys.push(key);
            }
        }
        keys
    }

    /// About how many bytes of the file hold entries below `key`.
    pub fn approximate_offset(&self, key: &[u8]) -> u64 {
        if *key > *self.meta.largest {
            return self.footer.data_end;
        }
        if self.index.block_count() == 0 {
            return 0;
        }
        self.index.block_range(self.index.find(key, lsm_core::SEQUENCE_MAX)).start
    }

    pub(super) fn corruption(&self, offset: u64, detail: String) -> Error {
        Error::Corruption { path: Arc::clone(&self.path), offset, detail: detail.into() }
    }

    pub(super) fn io(&self, operation: &'static str, source: std::io::Error) -> Error {
        Error::Io { operation, path: Arc::clone(&self.path), source: Arc::new(source) }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}
