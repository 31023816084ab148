use std::collections::BTreeSet;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::{ALIGN, Frame, HEADER_BYTES};
use crate::huge_page::HugePage;

/// A pool gives out huge pages in spans, and a span in frames of one size.
const SPAN_BYTES: usize = 128 << 10;
const SPANS_PER_PAGE: usize = HugePage::BYTES / SPAN_BYTES;

/// Most frames of a span; smaller frames take as much as these.
const FRAMES_MAX: usize = u128::BITS as usize;

/// Most spans, so that span and frame fit the 32 bits of a place.
const SPANS_MAX: usize = 1 << 25;

/// Memory for frames, in huge pages. Frames may outlive it.
///
/// A span holds frames of one size, as many as fit, so that a frame wastes a thirtieth at 4 KiB and at most what a
/// span has left over. An empty span serves any size; a page without frames goes back to the system. New frames
/// go to the front, so that the pages at the end run empty.
#[derive(Debug, Default)]
pub struct FramePool(Arc<Spans>);

#[derive(Default)]
pub(super) struct Spans {
    state: Mutex<State>,
    page_bytes: AtomicUsize,
    live_bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    pages: Vec<Page>,
    spans: Vec<Span>,
    /// Spans of mapped pages that hold nothing.
    empty: BTreeSet<u32>,
    /// Spans with room for another frame, by frames a span and number.
    open: BTreeSet<(u8, u32)>,
}

/// A huge page, or the place of one.
#[derive(Default)]
struct Page {
    memory: Option<HugePage>,
    /// Where the memory is. Taken once: asking the page again would borrow all of its bytes.
    address: usize,
    full_spans: usize,
}

#[derive(Clone, Default)]
struct Span {
    /// How many it is divided into; 0 while it is empty.
    frames: u8,
    live: u8,
    /// A bit for each live frame.
    used: u128,
}

impl FramePool {
    /// Memory comes and goes by so much.
    pub const PAGE_BYTES: usize = HugePage::BYTES;

    /// What a frame of `len` bytes takes; `None` if it is too large for a pool.
    pub fn frame_bytes(len: usize) -> Option<usize> {
        frames_per_span(len).map(span_frame_bytes)
    }

    /// A copy of `bytes`, if there is a place. If there is none, another page is mapped only with `may_grow`.
    pub fn copy_from(&self, bytes: &[u8], may_grow: bool) -> Option<Frame> {
        let frames = frames_per_span(bytes.len())?;
        let (memory, place) = self.0.state.lock().allocate(frames, may_grow, &self.0.page_bytes)?;
        self.0.live_bytes.fetch_add(span_frame_bytes(frames), Ordering::Relaxed);
        let pool = Arc::into_raw(Arc::clone(&self.0));
        // SAFETY: a place is aligned, has room for header and bytes, and belongs to this frame until it is released.
        #[expect(unsafe_code, reason = "frames in huge pages take half the misses")]
        Some(unsafe { Frame::write(memory, pool, place, bytes) })
    }

    /// Where `count` pages start, or all if there are fewer: those whose frames take the least. Once these frames are freed,
    /// the pages go back to the system.
    pub fn emptiest_pages(&self, count: usize) -> Vec<usize> {
        let state = self.0.state.lock();
        let live_bytes = |number: usize| -> usize {
            let spans = &state.spans[number * SPANS_PER_PAGE..][..SPANS_PER_PAGE];
            let live =
                |span: &Span| span_frame_bytes(usize::from(span.frames.max(1))) * usize::from(span.live);
            spans.iter().map(live).sum()
        };
        let mut pages: Vec<(usize, usize)> = (state.pages.iter().enumerate())
            .filter(|(_, page)| page.memory.is_some())
            .map(|(number, page)| (live_bytes(number), page.address))
            .collect();
        drop(state);
        pages.sort_unstable();
        pages.truncate(count);
        pages.into_iter().map(|(_, address)| address).collect()
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

impl Spans {
    /// Frees a place.
    pub(super) fn release(&self, place: u32) {
        let (span, frame) = (place / FRAMES_MAX as u32, place % FRAMES_MAX as u32);
        let mut state = self.state.lock();
        let frames = state.spans[span as usize].frames;
        self.live_bytes.fetch_sub(span_frame_bytes(usize::from(frames)), Ordering::Relaxed);
        // Unmapping is slow; others need not wait for it.
        let freed = state.release(span, frame);
        if freed.is_some() {
            self.page_bytes.fetch_sub(HugePage::BYTES, Ordering::Relaxed);
        }
        drop(state);
        drop(freed);
    }
}

impl State {
    fn allocate(
        &mut self,
        frames: usize,
        may_grow: bool,
        page_bytes: &AtomicUsize,
    ) -> Option<(NonNull<u8>, u32)> {
        let class = frames as u8;
        let open = self.open.range((class, 0)..=(class, u32::MAX)).next().map(|&(_, span)| span);
        let number = match open.or_else(|| self.empty.first().copied()) {
            Some(number) => number,
            None if may_grow => self.grow(page_bytes)?,
            None => return None,
        };
        let page = &mut self.pages[number as usize / SPANS_PER_PAGE];
        let span = &mut self.spans[number as usize];
        if span.frames == 0 {
            self.empty.remove(&number);
            self.open.insert((class, number));
            span.frames = class;
            page.full_spans += 1;
        }
        let frame = span.used.trailing_ones() as usize;
        debug_assert!(frame < frames && span.frames == class);
        span.used |= 1 << frame;
        span.live += 1;
        if usize::from(span.live) == frames {
            self.open.remove(&(class, number));
        }
        let at = number as usize % SPANS_PER_PAGE * SPAN_BYTES + frame * span_frame_bytes(frames);
        let memory = NonNull::new(ptr::with_exposed_provenance_mut(page.address + at))?;
        Some((memory, number * FRAMES_MAX as u32 + frame as u32))
    }

    /// Maps a page; returns its first span.
    #[cold]
    fn grow(&mut self, page_bytes: &AtomicUsize) -> Option<u32> {
        let number = self.pages.iter().position(|page| page.memory.is_none()).unwrap_or(self.pages.len());
        let first = number * SPANS_PER_PAGE;
        if first + SPANS_PER_PAGE > SPANS_MAX {
            return None;
        }
        let mut memory = HugePage::new()?;
        let address = memory.address().expose_provenance();
        let page = Page { memory: Some(memory), address, full_spans: 0 };
        if number == self.pages.len() {
            self.pages.push(page);
            self.spans.resize(first + SPANS_PER_PAGE, Span::default());
        } else {
            self.pages[number] = page;
        }
        self.empty.extend(first as u32..(first + SPANS_PER_PAGE) as u32);
        page_bytes.fetch_add(HugePage::BYTES, Ordering::Relaxed);
        Some(first as u32)
    }

    /// Frees a frame; returns its page if that was the last one there.
    fn release(&mut self, number: u32, frame: u32) -> Option<HugePage> {
        let span = &mut self.spans[number as usize];
        debug_assert!(span.used >> frame & 1 == 1);
        span.used &= !(1 << frame);
        if span.live == span.frames {
            self.open.insert((span.frames, number));
        }
        span.live -= 1;
        if span.live > 0 {
            return None;
        }
        self.open.remove(&(span.frames, number));
        span.frames = 0;
        self.empty.insert(number);
        let page = &mut self.pages[number as usize / SPANS_PER_PAGE];
        page.full_spans -= 1;
        if page.full_spans > 0 {
            return None;
        }
        let first = number - number % SPANS_PER_PAGE as u32;
        for span in first..first + SPANS_PER_PAGE as u32 {
            self.empty.remove(&span);
        }
        page.memory.take()
    }
}

/// Into how many frames a span is divided that is to hold frames of `len` bytes.
fn frames_per_span(len: usize) -> Option<usize> {
    let bytes = len.checked_add(HEADER_BYTES)?.checked_next_multiple_of(ALIGN)?;
    let frames = SPAN_BYTES / bytes;
    // Half a span would be wasted on a larger one.
    (frames >= 2).then_some(frames.min(FRAMES_MAX))
}

/// How long each of so many frames is.
fn span_frame_bytes(frames: usize) -> usize {
    SPAN_BYTES / frames / ALIGN * ALIGN
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans")
            .field("page_bytes", &self.page_bytes)
            .field("live_bytes", &self.live_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;

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
