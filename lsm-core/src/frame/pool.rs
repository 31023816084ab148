use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::counted::{Frame, HEADER_BYTES};
use super::spans::{Spans, frames_per_span, span_frame_bytes};
use crate::huge_page::HugePage;

/// Memory for frames, in huge pages. Frames may outlive it.
///
/// A span holds frames of one size, as many as fit, so that a frame wastes a thirtieth at 4 KiB and at most what a
/// span has left over. An empty span serves any size; a page without frames goes back to the system. New frames
/// go to the front, so that the pages at the end run empty.
#[derive(Debug, Default)]
pub struct FramePool(Arc<Spans>);

impl FramePool {
    /// The pool maps and unmaps memory in pages of this size.
    pub const PAGE_BYTES: usize = HugePage::BYTES;

    /// What a frame of `len` bytes takes; `None` if it is too large for a pool.
    pub fn frame_bytes(len: usize) -> Option<usize> {
        frames_per_span(len.checked_add(HEADER_BYTES)?).map(span_frame_bytes)
    }

    /// A copy of `bytes`, if there is a place. If there is none, another page is mapped with `may_grow`; without, a frame
    /// that is up to a third longer will do.
    pub fn copy_from(&self, bytes: &[u8], may_grow: bool) -> Option<Frame> {
        let frames = frames_per_span(bytes.len().checked_add(HEADER_BYTES)?)?;
        let (memory, place) = self.0.allocate(frames, may_grow)?;
        let pool = Arc::into_raw(Arc::clone(&self.0));
        // SAFETY: a place is aligned, has room for header and bytes, and belongs to this frame until it is released.
        #[expect(unsafe_code, reason = "frames in huge pages take half the misses")]
        Some(unsafe { Frame::write(memory, pool, place, bytes) })
    }

    /// Where `count` pages start, or all if there are fewer: those whose frames take the least. Once these frames are freed,
    /// the pages go back to the system.
    pub fn emptiest_pages(&self, count: usize) -> Vec<usize> {
        self.0.emptiest_pages(count)
    }

    /// Bytes of the pages that are mapped.
    pub fn page_bytes(&self) -> usize {
        self.0.page_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of all frames that live, header and what their size wastes included.
    pub fn live_bytes(&self) -> usize {
        self.0.live_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use crate::frame::spans::{ALIGN, SPAN_BYTES};

    #[test]
    fn frames_of_every_size_keep_their_bytes_while_others_come_and_go() {
        let pool = FramePool::default();
        let mut frames: Vec<(u8, Frame)> = Vec::new();
        let mut random = 1_u64;
        for step in 0..20_000_u32 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let at = (random >> 33) as usize;
            if at % 5 < 2 && !frames.is_empty() {
                let (byte, frame) = frames.swap_remove(at % frames.len());
                assert!(frame.iter().all(|&found| found == byte), "step {step}");
            } else {
                let len = if at.is_multiple_of(7) { at / 7 % 65_000 } else { 4000 + at / 7 % 500 };
                let byte = step as u8;
                let frame = pool.copy_from(&vec![byte; len], true).expect("memory");
                assert!(frame.is_pooled());
                frames.push((byte, frame));
            }
            let live: usize =
                frames.iter().filter_map(|(_, frame)| FramePool::frame_bytes(frame.len())).sum();
            if step % 100 == 0 {
                assert_eq!(pool.live_bytes(), live);
                assert!(pool.live_bytes() <= pool.page_bytes());
            }
        }
        for (byte, frame) in &frames {
            assert!(frame.iter().all(|found| found == byte));
        }
        // Frames outlive the pool.
        let FramePool(spans) = &pool;
        let spans = Arc::clone(spans);
        drop(pool);
        assert!(frames.iter().all(|(byte, frame)| frame.iter().all(|found| found == byte)));
        drop(frames);
        assert_eq!(spans.live_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(spans.page_bytes.load(Ordering::Relaxed), 0, "empty pages go back to the system");
    }

    #[test]
    fn a_pool_that_may_not_grow_uses_what_it_has() {
        let pool = FramePool::default();
        assert!(pool.copy_from(b"x", false).is_none());
        let first = pool.copy_from(&[1; 4300], true).expect("memory");
        let mut frames = Vec::new();
        while let Some(frame) = pool.copy_from(&[2; 4300], false) {
            frames.push(frame);
        }
        assert_eq!(pool.page_bytes(), FramePool::PAGE_BYTES);
        assert!(pool.live_bytes() > FramePool::PAGE_BYTES * 96 / 100, "{}", pool.live_bytes());
        let [page] = pool.emptiest_pages(5)[..] else { panic!("one page") };
        let is_inside = |frame: &Frame| frame.as_ptr().addr().wrapping_sub(page) < FramePool::PAGE_BYTES;
        assert!(frames.iter().all(is_inside));
        // Other sizes get an empty span once there is one.
        assert!(pool.copy_from(&[3; 9000], false).is_none());
        frames.clear();
        let other = pool.copy_from(&[3; 9000], false).expect("empty spans");
        assert_eq!((first[0], other[8999]), (1, 3));
    }

    #[test]
    fn frames_too_large_for_a_span_are_refused() {
        let pool = FramePool::default();
        assert_eq!(FramePool::frame_bytes(SPAN_BYTES / 2), None);
        assert!(pool.copy_from(&vec![0; SPAN_BYTES / 2], true).is_none());
        for len in 0..SPAN_BYTES / 2 - HEADER_BYTES {
            let bytes = FramePool::frame_bytes(len).expect("fits");
            assert!(bytes >= len + HEADER_BYTES, "{len}");
            assert!(bytes.is_multiple_of(ALIGN));
        }
    }
}
