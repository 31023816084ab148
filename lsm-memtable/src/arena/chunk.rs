//! Blocks of raw memory, and the pool in which they wait between two tables.

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::HugePage;
use parking_lot::Mutex;

/// The first chunk of a table.
pub(super) const CHUNK_BYTES_MIN: usize = 64 << 10;

/// One huge page of the platforms that have them.
pub(super) const CHUNK_BYTES_MAX: usize = HugePage::BYTES;

/// Sizes from the smallest to the largest, doubling.
const CLASSES: usize = (CHUNK_BYTES_MAX / CHUNK_BYTES_MIN).ilog2() as usize + 1;

/// Alignment of chunks, and of the nodes in them.
#[repr(align(64))]
pub(super) struct CacheLine {
    _bytes: [u8; 64],
}

/// Uninitialised memory at a fixed address, aligned to a cache line.
pub(super) enum Chunk {
    /// Small ones come from the allocator. The vector is always empty; what counts is its capacity.
    Heap(Vec<MaybeUninit<CacheLine>>),
    /// The largest are huge pages.
    Huge(HugePage),
}

impl Chunk {
    /// `None` if there is no memory.
    fn new(bytes: usize) -> Option<Self> {
        if bytes < CHUNK_BYTES_MAX || cfg!(any(loom, miri)) {
            let mut lines = Vec::new();
            lines.try_reserve_exact(bytes / size_of::<CacheLine>()).ok()?;
            return Some(Self::Heap(lines));
        }
        HugePage::new().map(Self::Huge)
    }

    /// Stays the same when the chunk is moved.
    pub(super) fn address(&mut self) -> *mut u8 {
        match self {
            Self::Heap(lines) => lines.as_mut_ptr().cast(),
            Self::Huge(page) => page.address(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Heap(lines) => lines.capacity() * size_of::<CacheLine>(),
            Self::Huge(_) => CHUNK_BYTES_MAX,
        }
    }

    /// Makes the system back the memory now rather than during an insert.
    fn touch(&mut self) {
        if let Self::Huge(page) = self {
            for page in page.bytes().chunks_mut(4096) {
                page[0] = 0;
            }
        }
    }
}

/// Chunks of dropped tables, kept for the next ones.
///
/// The first touch of fresh memory costs more than the inserts that go there, so memory is handed on. What it
/// holds is stale, not zero: tables initialise what they allocate.
pub(crate) struct ChunkPool {
    free: Mutex<[Vec<Chunk>; CLASSES]>,
    bytes: AtomicUsize,
    /// Changed under the lock.
    bytes_max: AtomicUsize,
}

impl ChunkPool {
    /// What the pool of a factory keeps at most, where nobody said otherwise.
    pub(crate) const BYTES_MAX_DEFAULT: usize = 64 << 20;

    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { free: Mutex::default(), bytes: AtomicUsize::new(0), bytes_max: AtomicUsize::new(bytes_max) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn class(bytes: usize) -> usize {
        (bytes / CHUNK_BYTES_MIN).ilog2() as usize
    }

    /// A chunk of a size between the smallest and the largest, a power of two. `None` if there is no memory.
    pub(super) fn take(&self, bytes: usize) -> Option<Chunk> {
        debug_assert!(bytes.is_power_of_two() && (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes));
        let recycled = {
            let mut free = self.free.lock();
            let chunk = free[Self::class(bytes)].pop();
            if chunk.is_some() {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            chunk
        };
        recycled.or_else(|| Chunk::new(bytes))
    }

    /// Keeps what fits the bound and frees the rest.
    pub(super) fn give(&self, mut chunks: Vec<Chunk>) {
        let mut free = self.free.lock();
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        while self.bytes() < bytes_max {
            let Some(chunk) = chunks.pop() else { return };
            let bytes = chunk.bytes();
            if self.bytes() + bytes <= bytes_max {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                free[Self::class(bytes)].push(chunk);
            }
        }
        // Unmapping is slow; others need not wait for it.
        drop(free);
        drop(chunks);
    }

    /// Changes the bound and frees what is beyond it, the largest chunks first.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        let mut surplus = Vec::new();
        let mut free = self.free.lock();
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        while self.bytes() > bytes_max {
            let Some(chunk) = free.iter_mut().rev().find_map(Vec::pop) else { break };
            self.bytes.fetch_sub(chunk.bytes(), Ordering::Relaxed);
            surplus.push(chunk);
        }
        drop(free);
        drop(surplus);
    }

    /// Fills the pool with touched huge-page chunks, up to `bytes` or its bound, whichever is less.
    pub(crate) fn warm(&self, bytes: usize) {
        while self.bytes() + CHUNK_BYTES_MAX <= self.bytes_max.load(Ordering::Relaxed).min(bytes) {
            let Some(mut chunk) = Chunk::new(CHUNK_BYTES_MAX) else { return };
            chunk.touch();
            self.give(vec![chunk]);
        }
    }
}

impl fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkPool")
            .field("bytes", &self.bytes())
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_aligned_and_as_large_as_asked() {
        for class in 0..CLASSES {
            let bytes = CHUNK_BYTES_MIN << class;
            let mut chunk = Chunk::new(bytes).expect("memory");
            assert_eq!(chunk.bytes(), bytes);
            assert_eq!(chunk.address().align_offset(64), 0);
            if bytes == CHUNK_BYTES_MAX {
                assert_eq!(chunk.address().align_offset(bytes), 0);
            }
        }
    }

    #[test]
    fn the_pool_hands_chunks_on_within_its_bound() {
        let pool = ChunkPool::new(3 * CHUNK_BYTES_MIN);
        let mut chunks: Vec<Chunk> = (0..4).map(|_| pool.take(CHUNK_BYTES_MIN).expect("memory")).collect();
        let addresses: Vec<_> = chunks.iter_mut().map(Chunk::address).collect();
        pool.give(chunks);
        assert_eq!(pool.bytes(), 3 * CHUNK_BYTES_MIN);
        assert!(addresses.contains(&pool.take(CHUNK_BYTES_MIN).expect("memory").address()));
        assert_eq!(pool.bytes(), 2 * CHUNK_BYTES_MIN);
        pool.set_bytes_max(CHUNK_BYTES_MIN);
        assert_eq!(pool.bytes(), CHUNK_BYTES_MIN, "a lower bound frees what is beyond it");
        pool.give(vec![pool.take(2 * CHUNK_BYTES_MIN).expect("memory")]);
        assert_eq!(pool.bytes(), CHUNK_BYTES_MIN, "and holds from then on");
    }
}
