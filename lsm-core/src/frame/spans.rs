//! Huge pages, divided into spans of frames of one size.

use std::collections::BTreeSet;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::huge_page::HugePage;

/// Frames start at cache lines.
pub(super) const ALIGN: usize = 64;

/// A pool gives out huge pages in spans, and a span in frames of one size.
pub(super) const SPAN_BYTES: usize = 128 << 10;
const SPANS_PER_PAGE: usize = HugePage::BYTES / SPAN_BYTES;

/// Most frames of a span; smaller frames take as much as these.
const FRAMES_MAX: usize = u128::BITS as usize;

/// Most spans, so that span and frame fit the 32 bits of a place.
const SPANS_MAX: usize = 1 << 25;

#[derive(Default)]
pub(super) struct Spans {
    state: Mutex<State>,
    /// Bytes of the pages that are mapped.
    pub(super) page_bytes: AtomicUsize,
    /// Bytes of all frames that live, header and what their size wastes included.
    pub(super) live_bytes: AtomicUsize,
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

impl Spans {
    /// Takes a place in a span of so many frames, and its number. If there is none, another page is mapped with
    /// `may_grow`; without, a frame that is up to a third longer will do.
    pub(super) fn allocate(&self, frames: usize, may_grow: bool) -> Option<(NonNull<u8>, u32)> {
        let (memory, place, frame_bytes) = self.state.lock().allocate(frames, may_grow, &self.page_bytes)?;
        self.live_bytes.fetch_add(frame_bytes, Ordering::Relaxed);
        Some((memory, place))
    }

    /// See [`FramePool::emptiest_pages`](super::FramePool::emptiest_pages).
    pub(super) fn emptiest_pages(&self, count: usize) -> Vec<usize> {
        let state = self.state.lock();
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
    /// A place, its number, and how long it is.
    fn allocate(
        &mut self,
        frames: usize,
        may_grow: bool,
        page_bytes: &AtomicUsize,
    ) -> Option<(NonNull<u8>, u32, usize)> {
        let number = match self.open_span(frames).or_else(|| self.empty.first().copied()) {
            Some(number) => number,
            None if may_grow => self.grow(page_bytes)?,
            // A size that few frames have would otherwise have to wait until a whole span is empty.
            None => {
                let longer = ((frames * 3 / 4) as u8, 0)..(frames as u8, 0);
                let &(fewer, _) = self.open.range(longer).next_back()?;
                self.open_span(usize::from(fewer))?
            }
        };
        let page = &mut self.pages[number as usize / SPANS_PER_PAGE];
        let span = &mut self.spans[number as usize];
        if span.frames == 0 {
            self.empty.remove(&number);
            span.frames = frames as u8;
            self.open.insert((span.frames, number));
            page.full_spans += 1;
        }
        let frames = usize::from(span.frames);
        let frame = span.used.trailing_ones() as usize;
        debug_assert!(frame < frames);
        span.used |= 1 << frame;
        span.live += 1;
        if usize::from(span.live) == frames {
            self.open.remove(&(span.frames, number));
        }
        let at = number as usize % SPANS_PER_PAGE * SPAN_BYTES + frame * span_frame_bytes(frames);
        let memory = NonNull::new(ptr::with_exposed_provenance_mut(page.address + at))?;
        Some((memory, number * FRAMES_MAX as u32 + frame as u32, span_frame_bytes(frames)))
    }

    /// The first span with room for another frame, of those divided into so many.
    fn open_span(&self, frames: usize) -> Option<u32> {
        let class = frames as u8;
        self.open.range((class, 0)..=(class, u32::MAX)).next().map(|&(_, span)| span)
    }

    /// Maps a page; returns its first span.
    #[cold]
    fn grow(&mut self, page_bytes: &AtomicUsize) -> Option<u32> {
        let number = self.pages.iter().position(|page| page.memory.is_none()).unwrap_or(self.pages.len());
        let first = number * SPANS_PER_PAGE;
        if first + SPANS_PER_PAGE > SPANS_MAX {
            return None;
        }
        // Whoever reads the first blocks does not wait for a huge page, and small databases need none.
        let mut memory = if number == 0 { HugePage::of_small_pages() } else { HugePage::new() }?;
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

/// Into how many frames a span is divided that is to hold frames of so many bytes, header included.
pub(super) fn frames_per_span(bytes: usize) -> Option<usize> {
    let bytes = bytes.checked_next_multiple_of(ALIGN)?;
    let frames = SPAN_BYTES / bytes;
    // Half a span would be wasted on a larger one.
    (frames >= 2).then_some(frames.min(FRAMES_MAX))
}

/// How long each of so many frames is.
pub(super) fn span_frame_bytes(frames: usize) -> usize {
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
