#![expect(unsafe_code, reason = "an allocator initialises raw memory; the argument is at each block")]

use std::alloc::Layout;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::chunk::CHUNK_BYTES_MAX;
use super::{ALIGN_MAX, Arena, CHUNKS, NewRecord, Record, Ref, chunk_index, chunk_range};
use crate::Full;

/// The one that writes into an arena. `Home` is the table that contains the arena.
pub(crate) struct Allocator<Home> {
    home: Arc<Home>,
    /// The next free offset, and the end of its chunk. 64-bit, because the end of the arena is 4 GiB.
    next: u64,
    end: u64,
    /// A chunk that is there for what does not fit the current one.
    spare: Option<usize>,
    /// Longer values get memory of their own.
    inside_max: usize,
    /// Such a value, of the record that was reserved for last: allocated by `reserve`, consumed by `record`.
    outside: Option<Vec<u8>>,
}

/// The part of a chunk that a value may take inside of the arena, so that the end of the chunk that the next record does
/// not fit is small beside it: 8 KiB of the first, 256 KiB of the large ones.
const INSIDE_PART: usize = 8;

impl<Home: AsRef<Arena>> Allocator<Home> {
    /// Takes the table by value, so that there is one allocator per arena.
    pub(crate) fn new(home: Home) -> Self {
        let inside_max = chunk_range(0).1 / INSIDE_PART;
        Self { home: Arc::new(home), next: 0, end: 0, spare: None, inside_max, outside: None }
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
        let is_outside = value.len() > self.inside_max;
        let bytes = Record::bytes_max(key, value, is_outside) + node_bytes;
        // A reservation may have been made for a record that was never written.
        self.outside = None;
        if self.end - self.next >= bytes as u64 && !is_outside {
            return Ok(());
        }
        self.reserve_slowly(value, is_outside, bytes)
    }

    #[cold]
    fn reserve_slowly(&mut self, value: &[u8], is_outside: bool, bytes: usize) -> Result<(), Full> {
        if is_outside {
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
        self.inside_max = bytes / INSIDE_PART;
        self.next = if start == 0 { ALIGN_MAX as u64 } else { start };
        self.end = start + bytes as u64;
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
        Ref::new(offset)
    }

    /// Writes a record into the arena.
    #[inline]
    pub(crate) fn record(&mut self, record: &NewRecord<'_>) -> Ref<Record> {
        let outside = self.outside.take();
        assert!(
            outside.as_ref().is_none_or(|copy| copy.len() == record.value.len()),
            "reserved for another record"
        );
        let offset = self.allocate(record.layout(outside.is_some()));
        // SAFETY: `allocate` returned room and alignment for this record that belongs to us alone. The value
        // outside is as long as the record's, is kept by the arena and never changed; a vector does not move its buffer
        // when it is moved.
        unsafe { record.write(self.arena().address(offset), outside.as_deref().map(<[u8]>::as_ptr)) };
        if let Some(outside) = outside {
            self.arena().add_value(outside);
        }
        Ref::new(offset)
    }
}

#[cfg(test)]
impl<Home: AsRef<Arena>> Allocator<Home> {
    /// Gives up all chunks but the last, so that tests need not fill 4 GiB.
    pub(crate) fn skip_to_last_chunk(&mut self) {
        self.end = chunk_range(CHUNKS - 1).0;
        self.next = self.end;
        self.spare = None;
    }
}
