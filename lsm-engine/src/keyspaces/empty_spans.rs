//! Empty spans: ranges of keys without a live entry, which cursors pass by one seek however many dead ones they hold.
//!
//! A range delete leaves such a span, and so does a cursor that walked over many deleted keys. A span holds for
//! readers at its sequence number and later, until a key is put into it. That is the invariant: *nobody put a key of
//! the span after its sequence number*. Three things keep it:
//!
//! - Who puts a key cuts the spans, under the commit lock and before the write becomes visible.
//! - A range delete makes its span under the commit lock: nothing newer is there yet.
//! - A cursor that learns a span by walking first announces the keys to come ([`Watch`]), under the commit lock, and
//!   walks over them afterwards: what was put before is found on the way, what is put later cuts the watch.
//!
//! This is knowledge in memory only. A span that is forgotten costs time and nothing else.

use std::cmp::Ordering::{Greater, Less};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use lsm_core::{SequenceNumber, Slice};
use parking_lot::Mutex;

/// Spans remembered for a keyspace. Every put of a key compares it with some of them.
const SPANS_MAX: usize = 16;
/// Longer keys bound no span.
const KEY_BYTES_MAX: usize = 256;

/// From `start` up to `end`, exclusive, nobody put a key after `sequence`, and all that was there is dead.
#[derive(Clone, Debug)]
struct EmptySpan {
    start: Slice,
    /// `None`: to the last key of all.
    end: Option<Slice>,
    sequence: SequenceNumber,
}

/// The empty spans of one keyspace.
#[derive(Debug, Default)]
pub(crate) struct EmptySpans {
    /// Whether there is a span or a watch: a put without is spared the lock.
    any: AtomicBool,
    spans: Mutex<Spans>,
    /// How often a memtable was begun or data dropped: a state with a lower count lacks writes, or has more.
    begun_count: AtomicU64,
    /// Who writes to it, and the number of the keyspace, in a database opened for writing.
    writers: OnceLock<(Weak<dyn WriteExclusion>, u32)>,
}

/// What keeps writers out for a moment: the commit lock.
pub(crate) trait WriteExclusion: Send + Sync {
    /// Does `then` while nobody writes, if nobody does just now and the newest state of the keyspace is of this generation.
    fn if_newest(&self, keyspace: u32, generation: u64, then: &mut dyn FnMut());
}

impl std::fmt::Debug for dyn WriteExclusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteExclusion")
    }
}

#[derive(Debug, Default)]
struct Spans {
    /// In order, and apart from each other.
    list: Vec<EmptySpan>,
    watched: Vec<Watched>,
    next_watch: u64,
}

/// Keys that a cursor is walking over.
#[derive(Debug)]
struct Watched {
    id: u64,
    start: Slice,
    end: Option<Slice>,
    forward: bool,
}

impl EmptySpans {
    /// Lets cursors learn.
    pub(crate) fn written_by(&self, writers: Weak<dyn WriteExclusion>, keyspace: u32) {
        self.writers.get_or_init(|| (writers, keyspace));
    }

    /// Spans may come up that do not hold for older states: the next write goes into a fresh memtable, which they lack,
    /// or tables are dropped, which they have. Before that becomes visible.
    pub(crate) fn leave_older_states(&self) {
        self.begun_count.fetch_add(1, Ordering::Release);
    }

    /// The last write whose spans a reader may use that loaded a state with this count and then read the number
    /// `visible`. Between the two there may have been writes that the state lacks: the reader sees none of them, and must
    /// not see what they deleted as gone.
    pub(crate) fn readable_up_to(&self, begun_count: u64, visible: SequenceNumber) -> SequenceNumber {
        if self.begun_count.load(Ordering::Acquire) == begun_count { visible } else { 0 }
    }

    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Spans) -> T) -> T {
        let mut spans = self.spans.lock();
        let result = change(&mut spans);
        self.any.store(!spans.list.is_empty() || !spans.watched.is_empty(), Ordering::Release);
        result
    }

    /// A range delete was inserted. Under the commit lock.
    pub(crate) fn deleted(&self, start: &[u8], end: &[u8], sequence: SequenceNumber) {
        let span = EmptySpan { start: start.into(), end: Some(end.into()), sequence };
        self.change(|spans| spans.add(span));
    }

    /// A key was put. Under the commit lock, before the write becomes visible.
    #[cold]
    pub(crate) fn written(&self, key: &[u8]) {
        self.change(|spans| spans.cut(key));
    }

    /// Where the span around `key` ends, if a reader at `sequence` may use it.
    pub(crate) fn end_around(&self, key: &[u8], sequence: SequenceNumber) -> Option<Bound<Slice>> {
        let spans = self.spans.lock();
        let span = spans.around(key).filter(|span| span.sequence <= sequence)?;
        Some(span.end.clone().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// Where the span around `key` starts, if a reader at `sequence` may use it.
    pub(crate) fn start_around(&self, key: &[u8], sequence: SequenceNumber) -> Option<Slice> {
        let spans = self.spans.lock();
        spans.around(key).filter(|span| span.sequence <= sequence).map(|span| span.start.clone())
    }

    /// Where the span that reaches beyond all keys starts, if a reader at `sequence` may use it.
    pub(crate) fn start_of_last(&self, sequence: SequenceNumber) -> Option<Slice> {
        let spans = self.spans.lock();
        let last = spans.list.last().filter(|span| span.end.is_none() && span.sequence <= sequence);
        last.map(|span| span.start.clone())
    }

    /// Announces a walk over the keys from `start` on, or down from `end`, by a reader whose state is of this generation.
    /// `None` if it is not, or if a writer is at work: readers do not wait for writers.
    pub(crate) fn watch(
        self: &Arc<Self>,
        generation: u64,
        start: &[u8],
        end: Option<&[u8]>,
        forward: bool,
    ) -> Option<Watch> {
        let (writers, keyspace) = self.writers.get()?;
        let mut watch = None;
        writers.upgrade()?.if_newest(*keyspace, generation, &mut || {
            let id = self.change(|spans| {
                let id = spans.next_watch;
                spans.next_watch += 1;
                spans.watched.push(Watched { id, start: start.into(), end: end.map(Slice::from), forward });
                id
            });
            watch = Some(Watch { spans: Arc::clone(self), id });
        });
        watch
    }
}

/// An announced walk, until it is dropped.
pub(crate) struct Watch {
    spans: Arc<EmptySpans>,
    id: u64,
}

impl Watch {
    /// A walk of a reader at `sequence` found nothing live from `start` up to `end`, nor anything that is newer.
    pub(crate) fn found_empty(self, start: &[u8], end: Option<&[u8]>, sequence: SequenceNumber) {
        self.spans.change(|spans| {
            let Some(watched) = spans.watched.iter().find(|watched| watched.id == self.id) else { return };
            let span = EmptySpan {
                start: watched.start.clone().max(start.into()),
                end: lower_end(watched.end.clone(), end.map(Slice::from)),
                sequence,
            };
            spans.add(span);
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.spans.change(|spans| spans.watched.retain(|watched| watched.id != self.id));
    }
}

fn lower_end(a: Option<Slice>, b: Option<Slice>) -> Option<Slice> {
    a.into_iter().chain(b).min()
}

fn is_before(key: &[u8], end: Option<&Slice>) -> bool {
    end.is_none_or(|end| key < &**end)
}

/// The first key after `key`.
pub(crate) fn successor(key: &[u8]) -> Slice {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}

impl Spans {
    fn around(&self, key: &[u8]) -> Option<&EmptySpan> {
        self.list.get(self.index_around(key)?)
    }

    fn index_around(&self, key: &[u8]) -> Option<usize> {
        let order = |span: &EmptySpan| match &*span.start <= key {
            true if is_before(key, span.end.as_ref()) => std::cmp::Ordering::Equal,
            true => Less,
            false => Greater,
        };
        self.list.binary_search_by(order).ok()
    }

    /// Adds a span, joined with those that it meets. Of too many the oldest is forgotten.
    fn add(&mut self, mut span: EmptySpan) {
        let end_bytes = span.end.as_ref().map_or(0, |end| end.len());
        if !is_before(&span.start, span.end.as_ref()) || span.start.len().max(end_bytes) > KEY_BYTES_MAX {
            return;
        }
        // Up to here they end before it, from there they start after it.
        let from = self.list.partition_point(|other| other.end.as_ref().is_some_and(|end| *end < span.start));
        let meets = |other: &EmptySpan| span.end.as_ref().is_none_or(|end| other.start <= *end);
        let met = self.list[from..].iter().take_while(|other| meets(other)).count();
        for other in self.list.drain(from..from + met) {
            span.start = span.start.min(other.start);
            span.end = span.end.zip(other.end).map(|(a, b)| a.max(b));
            span.sequence = span.sequence.max(other.sequence);
        }
        self.list.insert(from, span);
        if self.list.len() > SPANS_MAX {
            let oldest = self.list.iter().enumerate().min_by_key(|(_, span)| span.sequence);
            let oldest = oldest.map_or(0, |(index, _)| index);
            self.list.remove(oldest);
        }
    }

    fn cut(&mut self, key: &[u8]) {
        for watched in &mut self.watched {
            if *watched.start <= *key && is_before(key, watched.end.as_ref()) {
                if watched.forward {
                    watched.end = Some(key.into());
                } else {
                    watched.start = successor(key);
                }
            }
        }
        let Some(index) = self.index_around(key) else { return };
        let span = self.list.remove(index);
        self.add_apart(EmptySpan { start: successor(key), ..span.clone() }, index);
        self.add_apart(EmptySpan { end: Some(key.into()), ..span }, index);
    }

    /// Puts what is left of a span in its place.
    fn add_apart(&mut self, span: EmptySpan, index: usize) {
        let is_short = |key: &Slice| key.len() <= KEY_BYTES_MAX;
        if is_before(&span.start, span.end.as_ref())
            && is_short(&span.start)
            && span.end.as_ref().is_none_or(is_short)
            && self.list.len() < SPANS_MAX
        {
            self.list.insert(index, span);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(list: &[(&str, Option<&str>, u64)]) -> Spans {
        let mut spans = Spans::default();
        for &(start, end, sequence) in list {
            spans.add(EmptySpan { start: start.into(), end: end.map(Slice::from), sequence });
        }
        spans
    }

    fn shown(spans: &Spans) -> Vec<(String, Option<String>, u64)> {
        let text = |key: &Slice| String::from_utf8_lossy(key).into_owned();
        let show = |span: &EmptySpan| (text(&span.start), span.end.as_ref().map(text), span.sequence);
        spans.list.iter().map(show).collect()
    }

    #[test]
    fn spans_that_meet_are_joined_and_hold_from_the_later_number_on() {
        let joined = spans(&[("a", Some("c"), 1), ("e", Some("g"), 2), ("c", Some("e"), 3)]);
        assert_eq!(shown(&joined), [("a".into(), Some("g".into()), 3)]);
        let apart = spans(&[("a", Some("c"), 1), ("d", None, 2)]);
        assert_eq!(shown(&apart), [("a".into(), Some("c".into()), 1), ("d".into(), None, 2)]);
        let all = spans(&[("c", Some("d"), 1), ("b", None, 2)]);
        assert_eq!(shown(&all), [("b".into(), None, 2)]);
    }

    #[test]
    fn a_put_cuts_its_key_out() {
        let mut cut = spans(&[("a", None, 1)]);
        cut.cut(b"c");
        assert_eq!(shown(&cut), [("a".into(), Some("c".into()), 1), ("c\0".into(), None, 1)]);
        cut.cut(b"a");
        assert_eq!(shown(&cut), [("a\0".into(), Some("c".into()), 1), ("c\0".into(), None, 1)]);
    }

    #[test]
    fn a_watch_keeps_what_no_put_fell_into() {
        let all = Arc::new(EmptySpans::default());
        let watch = |forward| {
            let watched = Watched { id: 0, start: "b".into(), end: Some("m".into()), forward };
            all.change(|spans| spans.watched.push(watched));
            Watch { spans: Arc::clone(&all), id: 0 }
        };
        let forward = watch(true);
        all.written(b"k");
        all.written(b"a");
        forward.found_empty(b"b", Some(b"z"), 5);
        assert_eq!(all.end_around(b"c", 5), Some(Bound::Excluded("k".into())));
        assert_eq!(all.end_around(b"c", 4), None, "an older reader may see something there");
        all.written(b"c");
        let backward = watch(false);
        all.written(b"k");
        backward.found_empty(b"b", Some(b"m"), 6);
        assert_eq!(all.start_around(b"l", 6), Some("k\0".into()));
        assert!(all.any());
    }

    proptest! {
        /// Whatever is deleted and put, no span holds a key that was put after its number.
        #[test]
        fn no_span_holds_a_key_that_was_put_later(
            steps in prop::collection::vec((any::<bool>(), 0u8..32, 1u8..8), 1..200),
        ) {
            let all = EmptySpans::default();
            let mut dead_since = [None; 64];
            for (sequence, (delete, key, length)) in (1..).zip(steps) {
                if delete {
                    all.deleted(&[key], &[key + length], sequence);
                    for key in key..key + length {
                        dead_since[usize::from(key)] = Some(sequence);
                    }
                } else {
                    if all.any() {
                        all.written(&[key]);
                    }
                    dead_since[usize::from(key)] = None;
                }
                for key in 0..40u8 {
                    for reader in 0..=sequence {
                        if all.end_around(&[key], reader).is_some() {
                            let since = dead_since[usize::from(key)];
                            prop_assert!(since.is_some_and(|since| since <= reader));
                        }
                    }
                }
            }
        }
    }
}
