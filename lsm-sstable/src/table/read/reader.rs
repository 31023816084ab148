//! Reading an open table: lookups, cursors, and what is known without reading.

use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::hash::key_hash;
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{Result, SEQUENCE_MAX, SequenceNumber, Slice};

use super::block_finder::BlockFinder;
use super::blocks;
use super::cursor::{CursorAccess, TableCursor};
use super::value::{TableValue, value_in};
use crate::format::properties::Properties;
use crate::meta::TableMeta;
use crate::table::handle::Table;
use crate::table::lookup::Lookup;

/// About what the open file and the counts of what is shared take.
const SHARED_BYTES: usize = 128;

impl Table {
    /// The newest version of `key` at or below `sequence`. Range tombstones are not applied.
    ///
    /// `hash` is [`key_hash`]`(key)`, which a caller with many tables computes once.
    #[inline]
    pub fn get(&self, key: &[u8], hash: u64, sequence: SequenceNumber) -> Result<Option<TableValue>> {
        self.get_noting(key, hash, sequence, |_| ())
    }

    /// As [`get`](Self::get), and notes what the filter said, if the table has one: whether it may have the key.
    #[inline]
    pub fn get_noting(
        &self,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        note: impl FnOnce(bool),
    ) -> Result<Option<TableValue>> {
        debug_assert_eq!(hash, key_hash(key));
        let pinned = match &self.lookup {
            Lookup::Pinned(pinned) => pinned,
            Lookup::Paged(paged) => return paged.get(self, key, hash, sequence, note),
        };
        if let Some(filter) = &pinned.filter {
            let may_contain = filter.may_contain(key, hash);
            note(may_contain);
            if !may_contain {
                return Ok(None);
            }
        }
        if pinned.index.block_count() == 0 {
            return Ok(None);
        }
        let block = pinned.index.find(key, sequence);
        blocks::with_block(self, pinned, block, |block| value_in(&block, key, sequence))
    }

    /// Whether the table may have a key with this prefix. `false` only if it was written, and opened, with the
    /// prefix extractor that says that `prefix` is one. A filter that cannot be read says nothing, and whoever then
    /// reads the table gets the error.
    pub fn may_contain_prefix(&self, prefix: &[u8]) -> bool {
        match &self.prefix_extractor {
            Some(extractor) if self.lookup.has_filter() && extractor.prefix(prefix) == Some(prefix) => {
                let hash = key_hash(prefix);
                let answer = blocks::with_scratch(|scratch| {
                    self.lookup.may_contain(self, prefix, hash, &mut scratch.stored)
                });
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
}

#[cfg(all(test, not(feature = "zstd")))]
mod tests {
    use super::*;
    use crate::block::BlockHeader;
    use crate::format::compression::Codec;
    use crate::meta::TableId;
    use crate::options::{TableOpen, TableOptions};
    use crate::table::writer::TableWriter;
    use lsm_core::vfs::PosixFs;
    use lsm_core::{Entry, Error, ValueKind};

    #[test]
    fn a_block_that_this_build_cannot_decompress_is_not_called_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.sst");
        let mut writer = TableWriter::create(&PosixFs, &path, TableId(1), &TableOptions::default()).unwrap();
        writer.add(Entry { key: b"k", sequence: 0, kind: ValueKind::Put, value: b"v" }).unwrap();
        writer.finish().unwrap();
        let table = Table::open(&PosixFs, &path, None, &TableOpen::default()).unwrap();
        let stored = b"not looked into";
        let header = BlockHeader {
            codec: Codec::Zstd,
            rows: 1,
            stored_bytes: stored.len(),
            raw_bytes: 100,
            prefix_bytes: 0,
            width: 0,
            mixed: false,
            base: ValueKind::Put as u64,
        };
        let mut block = Vec::new();
        header.encode(&mut block);
        block.extend_from_slice(stored);
        let checksum = table.checksum.compute(64, &block[4..]);
        block[..4].copy_from_slice(&checksum.to_le_bytes());
        let error = blocks::decode_block(&table, 64, &block, &mut Vec::new()).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { path: named, .. } if **named == path), "{error}");
        assert!(error.to_string().contains("feature `zstd`"), "{error}");
        block[20] ^= 1;
        let error = blocks::decode_block(&table, 64, &block, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Corruption { .. }), "{error}");
    }
}
