use std::ops::Range;
use std::sync::Arc;

use lsm_core::Result;

use super::Table;
use super::paged::Paged;
use crate::FilterPolicy;
use crate::cache::CachedTable;
use crate::footer::Footer;
use crate::index::Index;
use crate::section::SECTION_HEADER_BYTES;

/// What says where a key can be.
pub(super) enum Lookup {
    /// All of it is in memory.
    Pinned(Pinned),
    /// It is read from the file page by page.
    Paged(Paged),
}

/// Index and filter in memory.
pub(super) struct Pinned {
    pub(super) index: Index,
    pub(super) filter: Option<LoadedFilter>,
    pub(super) cached: Option<CachedTable>,
}

/// A filter and who can ask it.
pub(super) struct LoadedFilter {
    policy: Arc<dyn FilterPolicy>,
    /// The filter's section, behind up to 63 bytes, so that the filter starts at a cache line.
    buffer: Box<[u8]>,
    filter: Range<usize>,
}

impl Lookup {
    /// Whether the table has a filter that can be asked.
    pub(super) fn has_filter(&self) -> bool {
        match self {
            Self::Pinned(pinned) => pinned.filter.is_some(),
            Self::Paged(paged) => paged.policy.is_some(),
        }
    }

    /// Asks the filter; `true` if there is none.
    pub(super) fn may_contain(&self, table: &Table, hash: u64, buffer: &mut Vec<u8>) -> Result<bool> {
        match self {
            Self::Pinned(pinned) => Ok(pinned.filter.as_ref().is_none_or(|filter| filter.may_contain(hash))),
            Self::Paged(paged) => paged.may_contain(table, hash, buffer),
        }
    }

    /// Bytes of memory held, the struct itself excepted.
    pub(super) fn heap_bytes(&self, footer: &Footer) -> usize {
        match self {
            Self::Pinned(pinned) => {
                pinned.index.memory_bytes()
                    + pinned.filter.as_ref().map_or(0, |filter| filter.buffer.len())
                    + pinned.cached.as_ref().map_or(0, CachedTable::slot_bytes)
            }
            Self::Paged(paged) => paged.memory_bytes(footer),
        }
    }
}

impl LoadedFilter {
    /// Most bytes in front of the section.
    const FRONT_BYTES_MAX: usize = 63;

    /// Bytes of memory that the filter in a section of so many bytes takes.
    pub(super) fn memory_bytes(section_bytes: u64) -> u64 {
        section_bytes.saturating_add(Self::FRONT_BYTES_MAX as u64)
    }

    /// A filter whose section `read` reads to where it is going to stay, and proves.
    pub(super) fn read(
        policy: Arc<dyn FilterPolicy>,
        section_bytes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let mut buffer = vec![0; section_bytes + Self::FRONT_BYTES_MAX].into_boxed_slice();
        let header = SECTION_HEADER_BYTES.min(section_bytes);
        let front = buffer[header..].as_ptr().align_offset(64).min(Self::FRONT_BYTES_MAX);
        read(&mut buffer[front..front + section_bytes])?;
        Ok(Self { policy, buffer, filter: front + header..front + section_bytes })
    }

    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.policy.may_contain(&self.buffer[self.filter.clone()], hash)
    }
}
