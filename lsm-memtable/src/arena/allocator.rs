#![expect(unsafe_code, reason = "an allocator initialises raw memory; the argument is at each block")]

use std::alloc::Layout;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::chunk::CHUNK_BYTES_MAX;
use super::memory::{ALIGN_MAX, Arena, CHUNKS, SMALL_CHUNKS, chunk_range};
use super::record::{NewRecord, Record};
use super::reference::Ref;
use crate::memtable::{Full, Reservation};

/// Allocates from an arena, and writes there. `Home` is the table that contains the arena.
pub(crate) struct Allocator<Home> {
    home: Arc<Home>,
    /// The next free offset, and the end of its chunk. 64-bit, because the end of the arena is 4 GiB.
    next: u64,
    end: u64,
    /// Chunks from here on, as far as there are any, are spare: for what does not fit the current one.
    next_spare: usize,
    /// The first that is not there yet.
    next_chunk: usize,
    /// Which of the chunks below the largest size are there, a bit for each: some are skipped.
    small_chunks: u32,
    /// Longer values get memory of their own.
    inside_max: usize,
    /// Such a value, of the record that was reserved for last: allocated by `reserve`, consumed by `record`.
    outside: Option<Vec<u8>>,
    /// Lengths of such values that were announced, and memory for each.
    announced: VecDeque<(usize, Vec<u8>)>,
}

/// The part of a chunk that a value may take inside of the arena, so that the end of the chunk that the next record does
/// not fit is small beside it: 8 KiB of the first, 256 KiB of the large ones.
const INSIDE_PART: usize = 8;

/// For how many more entries a reservation may count at most. Fewer than the children of an inner node, so that a tree
/// does not grow by two levels meanwhile.
const MORE_MAX: usize = 32;

/// Empty, with room for so many bytes.
fn memory(bytes: usize) -> Result<Vec<u8>, Full> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| Full)?;
    Ok(memory)
}

impl<Home: AsRef<Arena>> Allocator<Home> {
    /// Takes the table by value, so that there is one allocator per arena.
    pub(crate) fn new(home: Home) -> Self {
        let inside_max = chunk_range(0).1 / INSIDE_PART;
        Self {
            home: Arc::new(home),
            next: 0,
            end: 0,
            next_spare: 0,
            next_chunk: 0,
            small_chunks: 0,
            inside_max,
            outside: None,
            announced: VecDeque::new(),
        }
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
        let is_outside = self.is_outside(value.len());
        let bytes = Record::bytes_max(key, value, is_outside) + node_bytes;
        // A reservation may have been made for a record that was never written.
        self.outside = None;
        if self.end - self.next >= bytes as u64 && !is_outside {
            return Ok(());
        }
        self.reserve_slowly(value, is_outside, bytes)
    }

    /// Whether a value gets memory of its own: also one that had to when it was announced.
    #[inline]
    fn is_outside(&self, length: usize) -> bool {
        length > self.inside_max
            || (length > Reservation::LONG_VALUE_BYTES
                && self.announced.front().is_some_and(|&(announced, _)| announced == length))
    }

    #[cold]
    fn reserve_slowly(&mut self, value: &[u8], is_outside: bool, bytes: usize) -> Result<(), Full> {
        if is_outside {
            let announced = self.announced.pop_front().filter(|&(length, _)| length == value.len());
            let mut outside = announced.map_or_else(|| memory(value.len()), |(_, memory)| Ok(memory))?;
            outside.extend_from_slice(value);
            self.outside = Some(outside);
        }
        if self.end - self.next >= bytes as u64 {
            return Ok(());
        }
        // Those that are too small are passed over.
        let spare = self.spares().find(|&spare| chunk_range(spare).1 >= bytes);
        self.next_spare = spare.unwrap_or(self.next_chunk);
        if spare.is_some() { Ok(()) } else { self.add_spare(bytes) }
    }

    fn spares(&self) -> impl Iterator<Item = usize> {
        let is_there = |index: &usize| *index >= SMALL_CHUNKS || self.small_chunks & (1 << index) != 0;
        (self.next_spare..self.next_chunk).filter(is_there)
    }

    /// Bytes of the chunks that nothing was allocated from.
    pub(crate) fn unused_bytes(&self) -> usize {
        (self.end - self.next) as usize + self.spares().map(|spare| chunk_range(spare).1).sum::<usize>()
    }

    /// Adds a chunk of so many bytes at least.
    fn add_spare(&mut self, bytes: usize) -> Result<(), Full> {
        debug_assert!(bytes <= CHUNK_BYTES_MAX);
        // Chunks that are too small are skipped: their offsets stay unused, their memory unallocated.
        let mut index = self.next_chunk;
        while index < CHUNKS && chunk_range(index).1 < bytes {
            index += 1;
        }
        if index >= CHUNKS {
            return Err(Full);
        }
        let chunk = self.arena().pool.take(chunk_range(index).1).ok_or(Full)?;
        self.arena().add_chunk(index, chunk);
        if index < SMALL_CHUNKS {
            self.small_chunks |= 1 << index;
        }
        self.next_chunk = index + 1;
        Ok(())
    }

    /// Makes sure that there is memory for records to come; each may need `node_bytes` of nodes. Returns for how many
    /// more, no longer than the longest of these, the current chunk has room whatever nodes they need.
    #[inline]
    pub(crate) fn reserve_ahead(
        &mut self,
        reservation: &Reservation<'_>,
        node_bytes: usize,
    ) -> Result<usize, Full> {
        let bytes = reservation.bytes + node_bytes;
        if self.end - self.next >= bytes as u64 && reservation.long_values.is_empty() {
            // What several take in nodes is only an estimate.
            let is_single = reservation.bytes == reservation.longest_bytes;
            let fitting = if is_single { (self.end - self.next) / bytes as u64 } else { 1 };
            return Ok((fitting as usize - 1).min(MORE_MAX));
        }
        self.reserve_ahead_slowly(reservation, bytes, node_bytes).map(|()| 0)
    }

    #[cold]
    fn reserve_ahead_slowly(
        &mut self,
        reservation: &Reservation<'_>,
        mut bytes: usize,
        node_bytes: usize,
    ) -> Result<(), Full> {
        // Those of a write that did not come.
        self.announced.clear();
        let inside_max = self.inside_max;
        for &length in reservation.long_values.iter().filter(|&&length| length > inside_max) {
            self.announced.push_back((length, memory(length)?));
            bytes = bytes.saturating_sub(length);
        }
        // No record goes across the end of a chunk: what is left there may be as much as the largest takes.
        let largest = bytes.min(reservation.longest_bytes + node_bytes).min(CHUNK_BYTES_MAX);
        let fits = |free: usize, enough: usize| free >= bytes || enough >= bytes;
        let at_hand = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        let (mut sum, mut whole) = (at_hand.saturating_sub(largest), at_hand);
        for spare in self.spares() {
            sum += chunk_range(spare).1.saturating_sub(largest);
            whole = whole.max(chunk_range(spare).1);
        }
        while !fits(sum, whole) {
            self.add_spare(largest)?;
            let added = chunk_range(self.next_chunk - 1).1;
            sum += added.saturating_sub(largest);
            whole = whole.max(added);
        }
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
        let spare = self.spares().next().expect("memory was reserved");
        self.next_spare = spare + 1;
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
        (self.next_spare, self.next_chunk) = (CHUNKS - 1, CHUNKS - 1);
    }
}
