//! The memory that the writer and the readers of one table share.
//!
//! ```text
//! offset     0      64 K   128 K    256 K    512 K    1 M      2 M      4 M          4 G
//! chunk      | 64 K | 64 K | 128 K  | 256 K  | 512 K  | 1 M    | 2 M    | 2 M | ...  |
//! ```
#![expect(
    unsafe_code,
    reason = "an arena turns offsets into references; the argument is in `mod.rs` and at each block"
)]

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

use super::chunk::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Chunk, ChunkPool};
use super::record::{Record, RecordView};
use super::reference::Ref;
use crate::sync::{AtomicPtr, Ordering};

/// Chunks below the first of the largest size.
pub(super) const SMALL_CHUNKS: usize = (CHUNK_BYTES_MAX / CHUNK_BYTES_MIN).ilog2() as usize + 1;

/// All chunks. A model checker tracks every atomic, so it gets a short directory.
pub(super) const CHUNKS: usize =
    SMALL_CHUNKS + if cfg!(loom) { 1 } else { ((1_u64 << 32) / CHUNK_BYTES_MAX as u64) as usize - 1 };

/// Alignment of chunks, hence the largest alignment of anything inside.
pub(super) const ALIGN_MAX: usize = 64;

/// Which chunk an offset is in.
#[inline]
const fn chunk_index(offset: u32) -> usize {
    if offset as usize >= CHUNK_BYTES_MAX {
        offset as usize / CHUNK_BYTES_MAX + SMALL_CHUNKS - 1
    } else {
        (u32::BITS - (offset / CHUNK_BYTES_MIN as u32).leading_zeros()) as usize
    }
}

/// First offset and size of a chunk. The end of the last one does not fit 32 bits.
pub(super) const fn chunk_range(index: usize) -> (u64, usize) {
    if index >= SMALL_CHUNKS {
        ((index - SMALL_CHUNKS + 1) as u64 * CHUNK_BYTES_MAX as u64, CHUNK_BYTES_MAX)
    } else if index == 0 {
        (0, CHUNK_BYTES_MIN)
    } else {
        ((CHUNK_BYTES_MIN as u64) << (index - 1), CHUNK_BYTES_MIN << (index - 1))
    }
}

/// The memory that a table's readers and writer share.
pub(crate) struct Arena {
    /// For each chunk its address minus its first offset, so that one addition leads to any offset in it.
    directory: Box<[AtomicPtr<u8>; CHUNKS]>,
    /// Owners of what the directory points to, and of the values outside.
    owned: Mutex<Owned>,
    allocated_bytes: AtomicUsize,
    pub(super) pool: Arc<ChunkPool>,
}

#[derive(Default)]
struct Owned {
    chunks: Vec<Chunk>,
    values: Vec<Vec<u8>>,
}

impl Owned {
    fn bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Chunk>() + self.values.capacity() * size_of::<Vec<u8>>()
    }
}

impl Arena {
    pub(crate) fn new(pool: Arc<ChunkPool>) -> Self {
        let directory: Box<[_]> = (0..CHUNKS).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect();
        let Ok(directory) = directory.try_into() else { unreachable!("the length is the same constant") };
        Self {
            directory,
            owned: Mutex::default(),
            allocated_bytes: AtomicUsize::new(CHUNKS * size_of::<AtomicPtr<u8>>()),
            pool,
        }
    }

    /// Bytes on the heap and in maps; the arena itself comes on top.
    fn allocated_bytes(&self) -> usize {
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    /// All memory of a table in this arena: the table, which is shared, its writer, and what is allocated here.
    pub(crate) fn table_bytes<Table, Writer>(&self) -> usize {
        /// The two counts in front of what an `Arc` holds.
        const ARC_BYTES: usize = 2 * size_of::<usize>();
        ARC_BYTES + size_of::<Table>() + size_of::<Writer>() + self.allocated_bytes()
    }

    #[inline]
    pub(super) fn address(&self, offset: NonZeroU32) -> *mut u8 {
        // Relaxed, because whoever has an offset has synchronised with the allocator, which stored this before.
        let base = self.directory[chunk_index(offset.get())].load(Ordering::Relaxed);
        base.wrapping_add(offset.get() as usize)
    }

    /// The node at `target`.
    #[inline]
    pub(crate) fn node<T>(&self, target: Ref<T>) -> &T {
        // SAFETY: a `Ref<T>` comes from `Allocator::node` of this arena (see `mod.rs`), so there is an
        // initialised, aligned `T` at its address, which lives as long as the arena. Nobody makes a `&mut` to it:
        // nodes change through their atomics only.
        unsafe { &*self.address(target.offset()).cast::<T>() }
    }

    /// The record at `target`.
    #[inline]
    pub(crate) fn record(&self, target: Ref<Record>) -> RecordView<'_> {
        // SAFETY: as in `node`; records come from `Allocator::record` and are never changed.
        unsafe { RecordView::new(self.address(target.offset())) }
    }

    /// Asks for the cache line at `target`, `skip_bytes` after its start.
    #[inline]
    pub(crate) fn prefetch<T>(&self, target: Ref<T>, skip_bytes: usize) {
        prefetch(self.address(target.offset()).wrapping_add(skip_bytes));
    }

    /// Adds to the counter of bytes. Called by the one writer, so no increment is lost.
    fn count_bytes(&self, bytes: usize) {
        self.allocated_bytes.store(self.allocated_bytes() + bytes, Ordering::Relaxed);
    }

    /// Gives a chunk its offsets.
    pub(super) fn add_chunk(&self, index: usize, mut chunk: Chunk) {
        let (start, bytes) = chunk_range(index);
        debug_assert_eq!(chunk.bytes(), bytes);
        self.directory[index].store(chunk.address().wrapping_sub(start as usize), Ordering::Relaxed);
        let mut owned = self.owned.lock();
        let before = owned.bytes();
        owned.chunks.push(chunk);
        self.count_bytes(bytes + owned.bytes() - before);
    }

    pub(super) fn add_value(&self, value: Vec<u8>) {
        let mut owned = self.owned.lock();
        let before = owned.bytes();
        let bytes = value.capacity();
        owned.values.push(value);
        self.count_bytes(bytes + owned.bytes() - before);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.owned.get_mut().chunks));
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("allocated_bytes", &self.allocated_bytes()).finish_non_exhaustive()
    }
}

/// Asks the processor for a cache line; does nothing where that cannot be said.
#[inline]
fn prefetch(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    // SAFETY: a prefetch reads nothing that could be observed and ignores bad addresses.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_offsets_without_gap_or_overlap() {
        let mut start = 0;
        for index in 0..CHUNKS {
            let (first, bytes) = chunk_range(index);
            assert_eq!(first, start);
            let bytes = bytes as u64;
            for offset in [first, first + bytes / 2, first + bytes - 1] {
                assert_eq!(chunk_index(offset as u32), index);
            }
            start = first + bytes;
        }
        if !cfg!(loom) {
            assert_eq!(start, 1 << 32);
        }
    }
}
