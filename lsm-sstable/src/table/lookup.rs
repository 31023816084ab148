//! Index and filter in memory, or where their pages are in the file.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use lsm_core::Result;
use parking_lot::Mutex;

use crate::cache::CachedTable;
use crate::filter::{FilterDirectory, FilterPolicy};
use crate::format::footer::Footer;
use crate::format::section::SECTION_HEADER_BYTES;
use crate::index::{Index, IndexDirectory};

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

/// A table whose index and filter stay in the file.
pub(super) struct Paged {
    /// Who can ask the filter by its pages, if there is one.
    pub(super) policy: Option<Arc<dyn FilterPolicy>>,
    pub(super) directories: OnceLock<Directories>,
    /// Held by who reads them.
    pub(super) reading: Mutex<()>,
}

/// Where the pages of index and filter are.
pub(super) struct Directories {
    pub(super) index: IndexDirectory,
    pub(super) filter: Option<PagedFilter>,
}

pub(super) struct PagedFilter {
    pub(super) policy: Arc<dyn FilterPolicy>,
    pub(super) directory: FilterDirectory,
}

impl Lookup {
    /// Whether the table has a filter that can be asked.
    pub(super) fn has_filter(&self) -> bool {
        match self {
            Self::Pinned(pinned) => pinned.filter.is_some(),
            Self::Paged(paged) => paged.policy.is_some(),
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
    pub(super) fn may_contain(&self, key: &[u8], hash: u64) -> bool {
        self.policy.may_contain_key(&self.buffer[self.filter.clone()], key, hash)
    }
}

impl Paged {
    pub(super) fn new(policy: Option<Arc<dyn FilterPolicy>>) -> Self {
        Self { policy, directories: OnceLock::new(), reading: Mutex::new(()) }
    }

    /// Bytes of memory held, the struct itself excepted; about what will be, before the directories are read.
    pub(super) fn memory_bytes(&self, footer: &Footer) -> usize {
        self.directories
            .get()
            .map_or_else(|| Directories::memory_bytes_about(footer), Directories::memory_bytes)
    }
}

impl Directories {
    fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.filter.as_ref().map_or(0, |filter| filter.directory.memory_bytes())
    }

    /// About what they take.
    fn memory_bytes_about(footer: &Footer) -> usize {
        let bytes = IndexDirectory::memory_bytes_about(footer.index_bytes)
            .saturating_add(FilterDirectory::memory_bytes_about(footer.filter_bytes));
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}
