//! The slot of a cache that holds a frame: readers pin it, the clock takes frames out.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

use super::counted::Frame;
use crate::prefetch::prefetch_address;

/// Set by readers, cleared by the clock's hand.
const REFERENCED: u64 = 1;

/// Frames start at cache lines of a 48-bit address space.
const ADDRESS: u64 = (1 << 48) - 64;

/// One reader.
const PIN: u64 = 1 << 48;

/// More readers find nothing. Half of what the bits could count: so many threads may overshoot meanwhile.
const PINS_MAX: u64 = 1 << 15;

/// Cache lines at the front of a frame that a reader is about to need.
const FRONT_LINES: usize = 6;

/// The place of one frame, or none, in a cache.
///
/// Address, reference flag and the number of readers share one integer: reading is a single atomic addition, and
/// a million slots are 8 MB.
#[derive(Default)]
pub struct FrameSlot(AtomicU64);

/// A frame that stays in its slot as long as this lives.
pub struct PinnedFrame<'a> {
    slot: &'a FrameSlot,
    /// Owned by the slot.
    frame: ManuallyDrop<Frame>,
}

/// What the clock's hand found in a slot.
#[derive(Debug)]
pub enum Visit {
    /// Nothing.
    Empty,
    /// A frame that is being read or was since the last visit.
    Spared,
    /// A frame, which was taken out.
    Taken(Frame),
}

impl FrameSlot {
    /// The frame here, which counts as read.
    #[inline]
    pub fn pin(&self) -> Option<PinnedFrame<'_>> {
        let seen = self.0.load(Ordering::Relaxed) & ADDRESS;
        if seen == 0 {
            return None;
        }
        // An atomic addition waits for all loads before it. The frame need not.
        for line in 0..FRONT_LINES {
            prefetch_address(seen as usize + 64 * line);
        }
        let before = self.0.fetch_add(PIN, Ordering::Acquire);
        if before & ADDRESS == 0 || before / PIN >= PINS_MAX {
            self.unpin();
            return None;
        }
        if before & REFERENCED == 0 {
            self.0.fetch_or(REFERENCED, Ordering::Relaxed);
        }
        // SAFETY: the address is a frame's that the slot owns. It is not taken out while the slot is pinned, and is not dropped here.
        #[expect(unsafe_code, reason = "slots pack the address into an integer")]
        let frame = ManuallyDrop::new(unsafe { Frame::from_address(before & ADDRESS) });
        Some(PinnedFrame { slot: self, frame })
    }

    #[inline]
    fn unpin(&self) {
        // What was read happened before the frame is taken out.
        self.0.fetch_sub(PIN, Ordering::Release);
    }

    /// Puts a frame here, which counts as not read yet. Gives it back if there is one already.
    pub fn fill(&self, frame: Frame) -> Result<(), Frame> {
        let address = frame.into_address();
        let filled = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, |state| {
            let is_free = state & ADDRESS == 0 && address & !ADDRESS == 0;
            is_free.then_some(state & !REFERENCED | address)
        });
        if filled.is_ok() {
            return Ok(());
        }
        // SAFETY: made of a frame above, and not stored.
        #[expect(unsafe_code, reason = "slots pack the address into an integer")]
        Err(unsafe { Frame::from_address(address) })
    }

    /// Whether there is a frame.
    pub fn is_filled(&self) -> bool {
        self.0.load(Ordering::Relaxed) & ADDRESS != 0
    }

    /// Where the frame is, if there is one: to tell which page it is on.
    pub fn address(&self) -> Option<usize> {
        let address = (self.0.load(Ordering::Relaxed) & ADDRESS) as usize;
        (address != 0).then_some(address)
    }

    /// The clock's hand comes by: a frame that was read since the last time is spared once.
    pub fn visit(&self) -> Visit {
        let state = self.0.load(Ordering::Relaxed);
        if state & ADDRESS == 0 {
            return Visit::Empty;
        }
        if state & REFERENCED != 0 {
            self.0.fetch_and(!REFERENCED, Ordering::Relaxed);
            return Visit::Spared;
        }
        self.take().map_or(Visit::Spared, Visit::Taken)
    }

    /// Takes out the frame, unless it is being read, or there is none.
    pub fn take(&self) -> Option<Frame> {
        let taken = self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
            (state & ADDRESS != 0 && state < PIN).then_some(0)
        });
        // SAFETY: the slot owned the frame until the exchange, which only one thread can have made.
        #[expect(unsafe_code, reason = "slots pack the address into an integer")]
        taken.ok().map(|state| unsafe { Frame::from_address(state & ADDRESS) })
    }
}

impl Drop for FrameSlot {
    fn drop(&mut self) {
        let address = self.0.load(Ordering::Relaxed) & ADDRESS;
        if address != 0 {
            // SAFETY: nobody has the slot, so no pin is alive; one that was leaked never reads again.
            #[expect(unsafe_code, reason = "slots pack the address into an integer")]
            drop(unsafe { Frame::from_address(address) });
        }
    }
}

impl fmt::Debug for FrameSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSlot").field("is_filled", &self.is_filled()).finish_non_exhaustive()
    }
}

impl PinnedFrame<'_> {
    /// The frame, to keep.
    #[inline]
    pub fn to_frame(&self) -> Frame {
        Frame::clone(&self.frame)
    }
}

impl Deref for PinnedFrame<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for PinnedFrame<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.unpin();
    }
}

impl fmt::Debug for PinnedFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame.fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_eight_bytes() {
        assert_eq!(size_of::<FrameSlot>(), 8);
    }

    #[test]
    fn a_pinned_frame_is_spared_and_a_full_slot_stays_as_it_is() {
        let slot = FrameSlot::default();
        assert!(slot.pin().is_none());
        assert!(matches!(slot.visit(), Visit::Empty));
        slot.fill(Frame::copy_from(b"first")).expect("empty");
        let refused = slot.fill(Frame::copy_from(b"second")).expect_err("full");
        assert_eq!(*refused, *b"second");
        let pin = slot.pin().expect("full");
        assert!(matches!(slot.visit(), Visit::Spared), "referenced");
        assert!(matches!(slot.visit(), Visit::Spared), "pinned");
        assert!(slot.take().is_none());
        assert_eq!(*pin, *b"first");
        drop(pin);
        assert!(matches!(slot.visit(), Visit::Taken(frame) if *frame == *b"first"));
        assert!(!slot.is_filled());
    }

    #[test]
    fn leaked_pins_end_reading_but_harm_nothing() {
        let slot = FrameSlot::default();
        slot.fill(Frame::copy_from(b"frame")).expect("empty");
        for _ in 0..2 * PINS_MAX {
            if let Some(pin) = slot.pin() {
                std::mem::forget(pin);
            }
        }
        assert!(slot.pin().is_none());
        assert!(slot.take().is_none());
        assert!(slot.is_filled());
    }
}
