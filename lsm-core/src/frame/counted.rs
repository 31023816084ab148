//! The frame: a byte string behind one counted pointer.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::Deref;
use std::ptr::NonNull;
use std::{fmt, process, ptr, slice};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::spans::{ALIGN, Spans};

/// What stands in front of a frame's bytes, in the same cache line.
struct Header {
    count: AtomicU32,
    /// Where in the pool.
    place: u32,
    /// Counts as one owner of the pool; null for a frame of its own.
    pool: *const Spans,
    len: usize,
    /// Under loom, reading the bytes reads this and freeing them writes it, so that a model notices a race.
    #[cfg(loom)]
    witness: loom::cell::UnsafeCell<()>,
}

pub(super) const HEADER_BYTES: usize = size_of::<Header>();

/// An immutable byte string behind one counted pointer.
pub struct Frame(NonNull<Header>);

// SAFETY: the bytes never change while there are owners, and owners are counted atomically.
#[expect(unsafe_code, reason = "a counted pointer, like `Arc`")]
unsafe impl Send for Frame {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a counted pointer, like `Arc`")]
unsafe impl Sync for Frame {}

impl Frame {
    /// A copy of `bytes` in an allocation of its own.
    pub fn copy_from(bytes: &[u8]) -> Self {
        let layout = Self::layout(bytes.len());
        // SAFETY: the layout has room for a header at least.
        #[expect(unsafe_code, reason = "header and bytes in one allocation, so that there is one miss")]
        let memory = unsafe { alloc(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // SAFETY: the allocation is new, aligned, and as long as header and bytes.
        #[expect(unsafe_code, reason = "as above")]
        unsafe {
            Self::write(memory, ptr::null(), 0, bytes)
        }
    }

    /// Whether the bytes lie in a pool; whoever keeps such a frame for long keeps a huge page.
    #[inline]
    pub fn is_pooled(&self) -> bool {
        !self.header().pool.is_null()
    }

    fn layout(len: usize) -> Layout {
        let layout = Layout::from_size_align(HEADER_BYTES.saturating_add(len), ALIGN);
        layout.unwrap_or_else(|_| handle_alloc_error(Layout::new::<Header>()))
    }

    /// Makes a frame.
    ///
    /// # Safety
    /// `memory` must be aligned to [`ALIGN`], have room for header and bytes, and belong to nobody else until the
    /// frame is freed. If `pool` is not null, it comes from `Arc::into_raw`, and `place` is that of `memory`.
    #[expect(unsafe_code, reason = "as above")]
    pub(super) unsafe fn write(memory: NonNull<u8>, pool: *const Spans, place: u32, bytes: &[u8]) -> Self {
        let header = memory.cast::<Header>();
        let value = Header {
            count: AtomicU32::new(1),
            place,
            pool,
            len: bytes.len(),
            #[cfg(loom)]
            witness: loom::cell::UnsafeCell::new(()),
        };
        // SAFETY: promised by the caller.
        unsafe {
            header.write(value);
            memory.add(HEADER_BYTES).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        }
        Self(header)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: `write` initialised it, and it lives as long as there are owners, of which `self` is one.
        #[expect(unsafe_code, reason = "a counted pointer, like `Arc`")]
        unsafe {
            self.0.as_ref()
        }
    }

    /// A number that [`Frame::from_address`] turns back into the frame.
    pub(super) fn into_address(self) -> u64 {
        let address = self.0.as_ptr().expose_provenance() as u64;
        std::mem::forget(self);
        address
    }

    /// # Safety
    /// `address` comes from [`Frame::into_address`] and is turned into a frame only once, or into one that is
    /// never dropped while the other lives.
    #[inline]
    #[expect(unsafe_code, reason = "slots pack the address into an integer")]
    pub(super) unsafe fn from_address(address: u64) -> Self {
        // SAFETY: it was not null when it became an address.
        unsafe { Self(NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address as usize))) }
    }

    #[cold]
    fn free(&mut self) {
        let header = self.header();
        let (pool, place, len) = (header.pool, header.place, header.len);
        #[cfg(loom)]
        header.witness.with_mut(|_| ());
        // SAFETY: this was the last owner. The header is dropped once, and its memory goes back to where `write`
        // was told that it came from; `pool` came from `Arc::into_raw` for this frame.
        #[expect(unsafe_code, reason = "a counted pointer, like `Arc`")]
        unsafe {
            self.0.drop_in_place();
            if pool.is_null() {
                dealloc(self.0.as_ptr().cast(), Self::layout(len));
            } else {
                std::sync::Arc::from_raw(pool).release(place);
            }
        }
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Self {
        let owners = self.header().count.fetch_add(1, Ordering::Relaxed);
        // Only leaked clones get here, and a count that wraps would free what is in use.
        if owners > u32::MAX / 2 {
            process::abort();
        }
        Self(self.0)
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        if self.header().count.fetch_sub(1, Ordering::Release) == 1 {
            // What the other owners read happened before the memory is used anew.
            fence(Ordering::Acquire);
            self.free();
        }
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        #[cfg(loom)]
        self.header().witness.with(|_| ());
        // SAFETY: `write` initialised so many bytes behind the header, and nobody changes them.
        #[expect(unsafe_code, reason = "header and bytes in one allocation, so that there is one miss")]
        unsafe {
            slice::from_raw_parts(self.0.cast::<u8>().add(HEADER_BYTES).as_ptr(), self.header().len)
        }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("bytes", &self.len()).field("is_pooled", &self.is_pooled()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_frame_lives_as_long_as_its_last_owner() {
        for len in [0_usize, 1, 63, 64, 5000] {
            let bytes: Vec<u8> = (0..len).map(|index| index as u8).collect();
            let frame = Frame::copy_from(&bytes);
            let other = frame.clone();
            drop(frame);
            let kept = std::thread::scope(|scope| scope.spawn(move || other.clone()).join()).expect("thread");
            assert_eq!(*kept, *bytes);
        }
    }
}
