//! Memory of one table: chunks that grow from 64 KiB to huge pages, addressed by 32-bit offsets.
//!
//! ```text
//! offset     0      64 K   128 K    256 K    512 K    1 M      2 M      4 M          4 G
//! chunk      | 64 K | 64 K | 128 K  | 256 K  | 512 K  | 1 M    | 2 M    | 2 M | ...  |
//! ```
//!
//! Nothing is freed before the whole arena is, so whoever holds the table may follow any reference at any time.
//! One [`Allocator`] writes; readers find what it wrote through references that were stored with release and
//! loaded with acquire order, which is all that [`AtomicRef`] can do. Hence the rule on which every `unsafe` here
//! rests: **a [`Ref`] exists only after what it refers to is initialised, and whoever has one, has synchronised
//! with its maker.** References are never carried from one table to another: they live in the nodes of a table,
//! in its writer and in its cursors, which own the table.
#![expect(
    unsafe_code,
    reason = "an arena turns offsets into references; the argument is above and at each block"
)]

mod chunk;
mod record;

use std::alloc::Layout;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::Mutex;

pub(crate) use self::chunk::ChunkPool;
use self::chunk::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Chunk};
pub(crate) use self::record::{Chain, NewRecord, Record, RecordView};
use crate::Full;
use crate::sync::{AtomicPtr, AtomicU32, Ordering};

/// Chunks below the first of the largest size.
const SMALL_CHUNKS: usize = (CHUNK_BYTES_MAX / CHUNK_BYTES_MIN).ilog2() as usize + 1;

/// All chunks. A model checker tracks every atomic, so it gets a short directory.
const CHUNKS: usize = SMALL_CHUNKS + if cfg!(loom) { 1 } else { (1 << 32) / CHUNK_BYTES_MAX - 1 };

/// Alignment of chunks, hence the largest alignment of anything inside.
const ALIGN_MAX: usize = 64;

/// Which chunk an offset is in.
#[inline]
const fn chunk_index(offset: u32) -> usize {
    if offset as usize >= CHUNK_BYTES_MAX {
        offset as usize / CHUNK_BYTES_MAX + SMALL_CHUNKS - 1
    } else {
        (u32::BITS - (offset / CHUNK_BYTES_MIN as u32).leading_zeros()) as usize
    }
}

/// First offset and size of a chunk.
const fn chunk_range(index: usize) -> (usize, usize) {
    if index >= SMALL_CHUNKS {
        ((index - SMALL_CHUNKS + 1) * CHUNK_BYTES_MAX, CHUNK_BYTES_MAX)
    } else if index == 0 {
        (0, CHUNK_BYTES_MIN)
    } else {
        (CHUNK_BYTES_MIN << (index - 1), CHUNK_BYTES_MIN << (index - 1))
    }
}

/// Where something in an arena is: an offset that is known to lead to an initialised `T`.
pub(crate) struct Ref<T> {
    offset: NonZeroU32,
    target: PhantomData<fn() -> T>,
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.offset)
    }
}

impl<T> Ref<T> {
    /// The offset, with the lowest bit free for the caller: everything is aligned to at least four bytes.
    pub(crate) fn to_bits(self) -> u32 {
        self.offset.get()
    }
}

/// A reference that one thread stores and others load. Stores release, loads acquire.
pub(crate) struct AtomicRef<T> {
    offset: AtomicU32,
    target: PhantomData<fn() -> T>,
}

impl<T> AtomicRef<T> {
    pub(crate) fn new(target: Option<Ref<T>>) -> Self {
        Self { offset: AtomicU32::new(target.map_or(0, Ref::to_bits)), target: PhantomData }
    }

    #[inline]
    pub(crate) fn load(&self) -> Option<Ref<T>> {
        let offset = NonZeroU32::new(self.offset.load(Ordering::Acquire))?;
        Some(Ref { offset, target: PhantomData })
    }

    #[inline]
    pub(crate) fn store(&self, target: Option<Ref<T>>) {
        self.offset.store(target.map_or(0, Ref::to_bits), Ordering::Release);
    }
}

/// A reference to one of two types, in one word.
pub(crate) enum Either<A, B> {
    A(Ref<A>),
    B(Ref<B>),
}

impl<A, B> Clone for Either<A, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, B> Copy for Either<A, B> {}

impl<A, B> Either<A, B> {
    fn to_bits(self) -> u32 {
        match self {
            Self::A(target) => target.to_bits(),
            Self::B(target) => target.to_bits() | 1,
        }
    }
}

impl<A, B> PartialEq for Either<A, B> {
    fn eq(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits()
    }
}

/// Like [`AtomicRef`], for one of two types.
pub(crate) struct AtomicEither<A, B> {
    bits: AtomicU32,
    target: PhantomData<fn() -> (A, B)>,
}

impl<A, B> AtomicEither<A, B> {
    pub(crate) fn new(target: Option<Either<A, B>>) -> Self {
        Self { bits: AtomicU32::new(target.map_or(0, Either::to_bits)), target: PhantomData }
    }

    #[inline]
    pub(crate) fn load(&self) -> Option<Either<A, B>> {
        let bits = self.bits.load(Ordering::Acquire);
        let offset = NonZeroU32::new(bits & !1)?;
        Some(if bits & 1 == 0 {
            Either::A(Ref { offset, target: PhantomData })
        } else {
            Either::B(Ref { offset, target: PhantomData })
        })
    }

    #[inline]
    pub(crate) fn store(&self, target: Option<Either<A, B>>) {
        self.bits.store(target.map_or(0, Either::to_bits), Ordering::Release);
    }
}

/// The memory that a table's readers and writer share.
pub(crate) struct Arena {
    /// For each chunk its address minus its first offset, so that one addition leads to any offset in it.
    directory: Box<[AtomicPtr<u8>; CHUNKS]>,
    /// Owners of what the directory points to, and of the values outside.
    owned: Mutex<Owned>,
    allocated_bytes: AtomicUsize,
    pool: Arc<ChunkPool>,
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
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    #[inline]
    fn address(&self, offset: NonZeroU32) -> *mut u8 {
        // Relaxed, because whoever has an offset has synchronised with the allocator, which stored this before.
        let base = self.directory[chunk_index(offset.get())].load(Ordering::Relaxed);
        base.wrapping_add(offset.get() as usize)
    }

    /// The node at `target`.
    #[inline]
    pub(crate) fn node<T>(&self, target: Ref<T>) -> &T {
        // SAFETY: a `Ref<T>` comes from `Allocator::node` of this arena (module documentation), so there is an
        // initialised, aligned `T` at its address, which lives as long as the arena. Nobody makes a `&mut` to it:
        // nodes change through their atomics only.
        unsafe { &*self.address(target.offset).cast::<T>() }
    }

    /// The record at `target`.
    #[inline]
    pub(crate) fn record(&self, target: Ref<Record>) -> RecordView<'_> {
        // SAFETY: as in `node`; records come from `Allocator::record` and are never changed.
        unsafe { RecordView::new(self.address(target.offset)) }
    }

    /// Asks for the cache line at `target`, `skip_bytes` after its start.
    #[inline]
    pub(crate) fn prefetch<T>(&self, target: Ref<T>, skip_bytes: usize) {
        prefetch(self.address(target.offset).wrapping_add(skip_bytes));
    }

    /// Adds to the counter of bytes. Called by the one writer, so no increment is lost.
    fn count_bytes(&self, bytes: usize) {
        self.allocated_bytes.store(self.allocated_bytes() + bytes, Ordering::Relaxed);
    }

    /// Gives a chunk its offsets.
    fn add_chunk(&self, index: usize, mut chunk: Chunk) {
        let (start, bytes) = chunk_range(index);
        debug_assert_eq!(chunk.bytes(), bytes);
        self.directory[index].store(chunk.address().wrapping_sub(start), Ordering::Relaxed);
        let mut owned = self.owned.lock();
        let before = owned.bytes();
        owned.chunks.push(chunk);
        self.count_bytes(bytes + owned.bytes() - before);
    }

    fn add_value(&self, value: Vec<u8>) {
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

/// The one that writes into an arena. `Home` is the table that contains the arena.
pub(crate) struct Allocator<Home> {
    home: Arc<Home>,
    /// The next free offset, and the end of its chunk. 64-bit, because the end of the arena is 4 GiB.
    next: u64,
    end: u64,
    /// A chunk that is there for what does not fit the current one.
    spare: Option<usize>,
    /// A value that will live outside the arena: allocated by `reserve`, consumed by `record`.
    outside: Option<Vec<u8>>,
}

impl<Home: AsRef<Arena>> Allocator<Home> {
    /// Takes the table by value, so that there is one allocator per arena.
    pub(crate) fn new(home: Home) -> Self {
        Self { home: Arc::new(home), next: 0, end: 0, spare: None, outside: None }
    }

    #[inline]
    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    #[inline]
    pub(crate) fn arena(&self) -> &Arena {
        (*self.home).as_ref()
    }

    /// Makes sure that a record with this key and value and `node_bytes` of nodes can be allocated.
    #[inline]
    pub(crate) fn reserve(&mut self, key: &[u8], value: &[u8], node_bytes: usize) -> Result<(), Full> {
        let bytes = Record::bytes_max(key, value) + node_bytes;
        if self.end - self.next >= bytes as u64 && !Record::is_outside(value) {
            return Ok(());
        }
        self.reserve_slowly(value, bytes)
    }

    #[cold]
    fn reserve_slowly(&mut self, value: &[u8], bytes: usize) -> Result<(), Full> {
        if Record::is_outside(value) {
            let mut outside = Vec::new();
            outside.try_reserve_exact(value.len()).map_err(|_| Full)?;
            outside.extend_from_slice(value);
            self.outside = Some(outside);
        }
        if self.end - self.next >= bytes as u64 {
            return Ok(());
        }
        let mut index = match self.spare {
            Some(spare) if chunk_range(spare).1 >= bytes => return Ok(()),
            Some(spare) => spare + 1,
            None if self.end == 0 => 0,
            None => chunk_index((self.end - 1) as u32) + 1,
        };
        debug_assert!(bytes <= CHUNK_BYTES_MAX);
        // Chunks that are too small are skipped: their offsets stay unused, their memory unallocated.
        while index < CHUNKS && chunk_range(index).1 < bytes {
            index += 1;
        }
        if index >= CHUNKS {
            return Err(Full);
        }
        let chunk = self.arena().pool.take(chunk_range(index).1).ok_or(Full)?;
        self.arena().add_chunk(index, chunk);
        self.spare = Some(index);
        Ok(())
    }

    /// Uninitialised memory that nobody else has.
    ///
    /// # Panics
    /// If it was not reserved.
    #[inline]
    fn allocate(&mut self, layout: Layout) -> NonZeroU32 {
        debug_assert!(layout.align() <= ALIGN_MAX);
        let mut start = self.next.next_multiple_of(layout.align() as u64);
        if start + layout.size() as u64 > self.end {
            start = self.enter_spare();
            assert!(start + layout.size() as u64 <= self.end, "memory was reserved");
        }
        self.next = start + layout.size() as u64;
        // Chunk 0 starts after offset 0, and `end` is at most 2^32.
        NonZeroU32::new(start as u32).expect("offset 0 is never allocated")
    }

    #[cold]
    fn enter_spare(&mut self) -> u64 {
        let spare = self.spare.take().expect("memory was reserved");
        let (start, bytes) = chunk_range(spare);
        self.next = if start == 0 { ALIGN_MAX as u64 } else { start as u64 };
        self.end = (start + bytes) as u64;
        self.next
    }

    /// Moves a node into the arena. It is never dropped.
    pub(crate) fn node<T>(&mut self, node: T) -> Ref<T> {
        #[cfg(not(loom))]
        const {
            assert!(!std::mem::needs_drop::<T>() && align_of::<T>() >= 4);
        };
        let offset = self.allocate(Layout::new::<T>());
        // SAFETY: `allocate` returned room and alignment for a `T` that belongs to us alone: chunks are aligned to
        // ALIGN_MAX and start at multiples of it.
        unsafe { self.arena().address(offset).cast::<T>().write(node) };
        Ref { offset, target: PhantomData }
    }

    /// Writes a record into the arena.
    #[inline]
    pub(crate) fn record(&mut self, record: &NewRecord<'_>) -> Ref<Record> {
        // A reservation may have been made for a record that was never written.
        let outside = if Record::is_outside(record.value) { self.outside.take() } else { None };
        let offset = self.allocate(record.layout());
        // SAFETY: `allocate` returned room and alignment for this record that belongs to us alone. The value
        // outside is kept by the arena and never changed; a vector does not move its buffer when it is moved.
        unsafe { record.write(self.arena().address(offset), outside.as_deref().map(<[u8]>::as_ptr)) };
        if let Some(outside) = outside {
            self.arena().add_value(outside);
        }
        Ref { offset, target: PhantomData }
    }
}

#[cfg(test)]
impl<Home: AsRef<Arena>> Allocator<Home> {
    /// Gives up all chunks but the last, so that tests need not fill 4 GiB.
    pub(crate) fn skip_to_last_chunk(&mut self) {
        self.end = chunk_range(CHUNKS - 1).0 as u64;
        self.next = self.end;
        self.spare = None;
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
            for offset in [first, first + bytes / 2, first + bytes - 1] {
                assert_eq!(chunk_index(offset as u32), index);
            }
            start = first + bytes;
        }
        assert_eq!(start, 1 << 32);
    }
}
