//! The open table, as all who read it share it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::vfs::VfsFile;
use lsm_core::{Error, SequenceNumber};

use super::lookup::Lookup;
use crate::block::BlockHeader;
use crate::format::checksum::BlockChecksum;
use crate::format::footer::Footer;
use crate::format::properties::Properties;
use crate::meta::TableMeta;
use crate::prefix::PrefixExtractor;

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

impl Table {
    /// Gives everything in the table a number; see [`TableMeta::global_sequence`]. It must have none yet, and all numbers
    /// in the file must be 0. Nothing may have read the table: its blocks are cached with their numbers.
    pub fn set_global_sequence(&mut self, sequence: SequenceNumber) {
        let range_tombstones = (*self.range_tombstones).clone();
        self.range_tombstones = Arc::new(self.meta.renumber(range_tombstones, sequence));
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

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}
