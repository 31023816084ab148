//! Empty spans: ranges of keys without a live entry. A cursor passes one by a single seek, however many dead entries it
//! holds.
//!
//! A range delete adds an empty span, and so does a cursor that walked over many dead entries. A span is valid for
//! readers at its sequence number and later, until a writer puts a key into it. The invariant: *no write after the
//! sequence number of a span puts a key of the span*. Three rules keep it:
//!
//! - A put cuts the spans, under the commit lock and before it becomes visible.
//! - A range delete adds its span under the commit lock, so no newer write exists yet.
//! - A cursor first registers a [`Watch`] on the keys ahead, under the commit lock, and then walks over them. It finds
//!   earlier puts on the way; later puts cut the watch.
//!
//! Entries expire, too. A span is valid from a time on: that of the cursor that found it empty.
//!
//! Spans exist in memory only. Forgetting one costs time, never correctness.

use std::cmp::Ordering::{Greater, Less};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use lsm_core::{SequenceNumber, Slice};
use parking_lot::Mutex;

use crate::keyspaces::read_point::ReadPoint;

/// Number of spans kept per keyspace. Every put compares its key with some of them.
const SPANS_MAX: usize = 16;
/// A span is not kept if one of its ends is longer.
const KEY_BYTES_MAX: usize = 256;

/// From `start` up to, but not including, `end`, all entries are dead at `sequence`, and no later write puts a key there.
#[derive(Clone, Debug)]
struct EmptySpan {
    start: Slice,
    /// `None`: the span has no upper end.
    end: Option<Slice>,
    sequence: SequenceNumber,
    /// The entries are dead from this time on. 0 if none of them has expired.
    now_micros: u64,
}

impl EmptySpan {
    /// Whether a reader at this point may use the span.
    fn is_empty_at(&self, point: &ReadPoint<'_>) -> bool {
        self.sequence <= point.sequence && self.now_micros <= point.now.micros()
    }
}

/// The empty spans of one keyspace.
#[derive(Debug, Default)]
pub(crate) struct EmptySpans {
    /// Whether there is a span or a watch. If not, a put need not take the lock.
    any: AtomicBool,
    spans: Mutex<Spans>,
    /// Number of new memtables and drops of data so far. A read state with a lower count lacks writes, or still has dropped
    /// data.
    begun_count: AtomicU64,
    /// The commit lock and the id of the keyspace, if the database is open for writing.
    writers: OnceLock<(Weak<dyn WriteExclusion>, u32)>,
}

/// Excludes writers for a moment. The commit lock implements it.
pub(crate) trait WriteExclusion: Send + Sync {
    /// Calls `then` under the commit lock, if the lock is free and the current state of the keyspace has this generation.
    /// Otherwise does nothing.
    fn if_newest(&self, keyspace: u32, generation: u64, then: &mut dyn FnMut());
}

impl std::fmt::Debug for dyn WriteExclusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteExclusion")
    }
}

#[derive(Debug, Default)]
struct Spans {
    /// In key order. Spans do not touch each other.
    list: Vec<EmptySpan>,
    watched: Vec<Watched>,
    next_watch: u64,
}

/// A range of keys that a cursor is walking over.
#[derive(Debug)]
struct Watched {
    id: u64,
    start: Slice,
    end: Option<Slice>,
    forward: bool,
}

impl EmptySpans {
    /// Sets the commit lock that cursors need to register a watch. Without it they add no spans.
    pub(crate) fn set_write_exclusion(&self, writers: Weak<dyn WriteExclusion>, keyspace: u32) {
        self.writers.get_or_init(|| (writers, keyspace));
    }

    /// Marks that later spans may be wrong for older read states: those lack the new memtable, or still have the dropped
    /// tables. The caller makes this call before the change becomes visible.
    pub(crate) fn outdate_older_states(&self) {
        self.begun_count.fetch_add(1, Ordering::Release);
    }

    /// The highest sequence number of spans that a reader may use. The reader loaded a state with `begun_count` and then
    /// read the number `visible`. If the count has changed, there may be writes that the state lacks. The reader sees none
    /// of them, so it must not use spans that come from them.
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

    /// Adds the span of a range delete. The caller holds the commit lock.
    pub(crate) fn deleted(&self, start: &[u8], end: &[u8], sequence: SequenceNumber) {
        let span = EmptySpan { start: start.into(), end: Some(end.into()), sequence, now_micros: 0 };
        self.change(|spans| spans.add(span));
    }

    /// Cuts the spans and watches at a key that is put. The caller holds the commit lock, and the write is not visible yet.
    #[cold]
    pub(crate) fn written(&self, key: &[u8]) {
        self.change(|spans| spans.cut(key));
    }

    /// Forgets all spans and watches, because many keys are put at once. The caller holds the commit lock, and the write is
    /// not visible yet.
    pub(crate) fn forget(&self) {
        self.change(|spans| {
            spans.list.clear();
            spans.watched.clear();
        });
    }

    /// The end of the span around `key`, if a reader at `point` may use that span.
    pub(crate) fn end_around(&self, key: &[u8], point: &ReadPoint<'_>) -> Option<Bound<Slice>> {
        let spans = self.spans.lock();
        let span = spans.around(key).filter(|span| span.is_empty_at(point))?;
        Some(span.end.clone().map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// The start of the span around `key`, if a reader at `point` may use that span.
    pub(crate) fn start_around(&self, key: &[u8], point: &ReadPoint<'_>) -> Option<Slice> {
        let spans = self.spans.lock();
        spans.around(key).filter(|span| span.is_empty_at(point)).map(|span| span.start.clone())
    }

    /// The start of the span without an upper end, if a reader at `point` may use that span.
    pub(crate) fn start_of_last(&self, point: &ReadPoint<'_>) -> Option<Slice> {
        let spans = self.spans.lock();
        let last = spans.list.last().filter(|span| span.end.is_none() && span.is_empty_at(point));
        last.map(|span| span.start.clone())
    }

    /// Registers a walk forward from `start`, or backward from `end`, by a reader whose state has this generation. `None`
    /// if there is a newer state, or if a writer holds the commit lock: readers do not wait for writers.
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

/// A registered walk. Dropping it ends the registration.
pub(crate) struct Watch {
    spans: Arc<EmptySpans>,
    id: u64,
}

impl Watch {
    /// Adds a span: the walk of a reader at `point` found no live entry from `start` up to `end`, and no entry newer than
    /// its sequence number.
    pub(crate) fn found_empty(self, start: &[u8], end: Option<&[u8]>, point: &ReadPoint<'_>) {
        self.spans.change(|spans| {
            let Some(watched) = spans.watched.iter().find(|watched| watched.id == self.id) else { return };
            let span = EmptySpan {
                start: watched.start.clone().max(start.into()),
                end: lower_end(watched.end.clone(), end.map(Slice::from)),
                sequence: point.sequence,
                now_micros: point.now.micros(),
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

    /// Adds a span and joins it with those that it touches. If there are too many spans then, drops the oldest.
    fn add(&mut self, mut span: EmptySpan) {
        let end_bytes = span.end.as_ref().map_or(0, |end| end.len());
        if !is_before(&span.start, span.end.as_ref()) || span.start.len().max(end_bytes) > KEY_BYTES_MAX {
            return;
        }
        // The spans before `from` end before the new one starts.
        let from = self.list.partition_point(|other| other.end.as_ref().is_some_and(|end| *end < span.start));
        let meets = |other: &EmptySpan| span.end.as_ref().is_none_or(|end| other.start <= *end);
        let met = self.list[from..].iter().take_while(|other| meets(other)).count();
        for other in self.list.drain(from..from + met) {
            span.start = span.start.min(other.start);
            span.end = span.end.zip(other.end).map(|(a, b)| a.max(b));
            span.sequence = span.sequence.max(other.sequence);
            span.now_micros = span.now_micros.max(other.now_micros);
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

    /// Inserts the rest of a cut span at `index`, if it is not empty and there is room.
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
    use crate::keyspaces::read_point::Now;

    fn at(sequence: SequenceNumber) -> ReadPoint<'static> {
        ReadPoint { sequence, now: Now::At(0) }
    }

    fn spans(list: &[(&str, Option<&str>, u64)]) -> Spans {
        let mut spans = Spans::default();
        for &(start, end, sequence) in list {
            spans.add(EmptySpan { start: start.into(), end: end.map(Slice::from), sequence, now_micros: 0 });
        }
        spans
    }

    fn shown(spans: &Spans) -> Vec<(String, Option<String>, u64)> {
        let text = |key: &Slice| String::from_utf8_lossy(key).into_owned();
        let show = |span: &EmptySpan| (text(&span.start), span.end.as_ref().map(text), span.sequence);
        spans.list.iter().map(show).collect()
    }

    #[test]
    fn spans_that_touch_are_joined_and_take_the_higher_sequence_number() {
        let joined = spans(&[("a", Some("c"), 1), ("e", Some("g"), 2), ("c", Some("e"), 3)]);
        assert_eq!(shown(&joined), [("a".into(), Some("g".into()), 3)]);
        let apart = spans(&[("a", Some("c"), 1), ("d", None, 2)]);
        assert_eq!(shown(&apart), [("a".into(), Some("c".into()), 1), ("d".into(), None, 2)]);
        let all = spans(&[("c", Some("d"), 1), ("b", None, 2)]);
        assert_eq!(shown(&all), [("b".into(), None, 2)]);
    }

    #[test]
    fn a_put_cuts_its_key_out_of_the_span() {
        let mut cut = spans(&[("a", None, 1)]);
        cut.cut(b"c");
        assert_eq!(shown(&cut), [("a".into(), Some("c".into()), 1), ("c\0".into(), None, 1)]);
        cut.cut(b"a");
        assert_eq!(shown(&cut), [("a\0".into(), Some("c".into()), 1), ("c\0".into(), None, 1)]);
    }

    #[test]
    fn a_watch_adds_a_span_only_where_no_key_was_put() {
        let all = Arc::new(EmptySpans::default());
        let watch = |forward| {
            let watched = Watched { id: 0, start: "b".into(), end: Some("m".into()), forward };
            all.change(|spans| spans.watched.push(watched));
            Watch { spans: Arc::clone(&all), id: 0 }
        };
        let forward = watch(true);
        all.written(b"k");
        all.written(b"a");
        forward.found_empty(b"b", Some(b"z"), &at(5));
        assert_eq!(all.end_around(b"c", &at(5)), Some(Bound::Excluded("k".into())));
        assert_eq!(all.end_around(b"c", &at(4)), None, "an older reader may see something there");
        all.written(b"c");
        let backward = watch(false);
        all.written(b"k");
        backward.found_empty(b"b", Some(b"m"), &at(6));
        assert_eq!(all.start_around(b"l", &at(6)), Some("k\0".into()));
        assert!(all.any());
    }

    #[test]
    fn a_span_of_expired_entries_is_empty_for_later_readers_only() {
        let all = Arc::new(EmptySpans::default());
        let point = |now_micros| ReadPoint { sequence: 5, now: Now::At(now_micros) };
        all.deleted(b"a", b"b", 4);
        assert!(all.end_around(b"a", &point(0)).is_some());
        let watched = Watched { id: 0, start: "b".into(), end: Some("m".into()), forward: true };
        all.change(|spans| spans.watched.push(watched));
        Watch { spans: Arc::clone(&all), id: 0 }.found_empty(b"b", Some(b"z"), &point(100));
        for key in [b"a", b"c"] {
            assert!(all.end_around(key, &point(100)).is_some());
            assert_eq!(all.end_around(key, &point(99)), None, "it may see an entry that expires at 100");
        }
    }

    proptest! {
        /// For any history of puts and range deletes, no span holds a key that was put after the span's number.
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
                        if all.end_around(&[key], &at(reader)).is_some() {
                            let since = dead_since[usize::from(key)];
                            prop_assert!(since.is_some_and(|since| since <= reader));
                        }
                    }
                }
            }
        }
    }
}
