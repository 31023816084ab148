use std::cell::RefCell;

use lsm_core::Slice;

use super::own_cursor::OwnCursor;
use super::state::State;
use super::walks::WalkId;
use crate::error::Result;
use crate::keyspaces::successor;
use crate::read::{End, KeyRange, Steps};

/// A cursor over the keys and values of a keyspace, as a transaction sees them: its snapshot, and its own writes up to
/// the moment when the cursor was made.
///
/// It moves like a [`DbCursor`](crate::DbCursor). In a serializable transaction, what lies between the keys that a walk
/// visited counts as read, too: a key that another writer puts there is a conflict.
pub struct TransactionCursor<'t> {
    open: &'t RefCell<State>,
    cursor: OwnCursor,
    /// The range in which the cursor moves.
    limits: KeyRange,
    /// `None` if the reads are not tracked.
    walk: Option<WalkId>,
    /// What was read since the last jump, up to the last change of direction.
    span: Option<Span>,
}

struct Span {
    range: KeyRange,
    is_forward: bool,
}

impl Span {
    /// Adds the current key. Without one, the cursor has passed the end of its limits.
    fn include(&mut self, current: Option<&[u8]>, limits: &KeyRange) {
        let Some(key) = current else {
            if self.is_forward {
                self.range.end.clone_from(&limits.end);
            } else {
                self.range.start = limits.start.clone();
            }
            return;
        };
        if *key < *self.range.start {
            self.range.start = Slice::copy_from(key);
        }
        if self.range.ends_by(key) {
            self.range.end = Some(successor(key));
        }
    }
}

impl<'t> TransactionCursor<'t> {
    pub(super) fn new(
        open: &'t RefCell<State>,
        cursor: OwnCursor,
        limits: KeyRange,
        walk: Option<WalkId>,
    ) -> Self {
        Self { open, cursor, limits, walk, span: None }
    }

    /// Moves to the first key.
    pub fn first(&mut self) -> Result<()> {
        self.end_span();
        let moved = self.cursor.first();
        self.begin_span(None, true);
        moved
    }

    /// Moves to the last key.
    pub fn last(&mut self) -> Result<()> {
        self.end_span();
        let moved = self.cursor.last();
        self.begin_span(None, false);
        moved
    }

    /// Moves to the first key at or after `key`.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        self.end_span();
        let moved = self.cursor.seek(key);
        self.begin_span(Some(key), true);
        moved
    }

    /// Moves to the last key at or before `key`.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        self.end_span();
        let moved = self.cursor.seek_for_prev(key);
        self.begin_span(Some(key), false);
        moved
    }

    /// Moves to the next key. Does nothing if the cursor has no position.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its entries")]
    pub fn next(&mut self) -> Result<()> {
        self.turn(true);
        self.cursor.next()
    }

    /// Moves to the previous key. Does nothing if the cursor has no position.
    pub fn prev(&mut self) -> Result<()> {
        self.turn(false);
        self.cursor.prev()
    }

    /// The current key.
    pub fn key(&self) -> Option<&[u8]> {
        self.entry().map(|(key, _)| key)
    }

    /// The current value.
    pub fn value(&self) -> Option<&[u8]> {
        self.entry().map(|(_, value)| value)
    }

    /// The current key and value.
    #[inline]
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.cursor.entry()
    }

    /// Starts a span after a jump to `from`, or to an end of the limits.
    fn begin_span(&mut self, from: Option<&[u8]>, is_forward: bool) {
        if self.walk.is_none() {
            return;
        }
        let mut range = self.limits.clone();
        let current = self.cursor.entry().map(|(key, _)| key);
        if is_forward {
            range.start = range.start.max(from.map(Slice::copy_from).unwrap_or_default());
            range.end = current.map(successor).or(range.end);
        } else {
            range.start = current.map(Slice::copy_from).unwrap_or(range.start);
            range.end = from.filter(|from| !range.ends_by(from)).map(successor).or(range.end);
        }
        self.span = Some(Span { range, is_forward });
    }

    #[inline]
    fn turn(&mut self, is_forward: bool) {
        if let Some(span) = self.span.as_mut().filter(|span| span.is_forward != is_forward)
            && let Some((key, _)) = self.cursor.entry()
        {
            span.include(Some(key), &self.limits);
            span.is_forward = is_forward;
        }
    }

    fn end_span(&mut self) {
        if let (Some(walk), Some(mut span)) = (self.walk, self.span.take()) {
            span.include(self.cursor.entry().map(|(key, _)| key), &self.limits);
            self.open.borrow_mut().track_span(walk, span.range);
        }
    }
}

impl Steps for TransactionCursor<'_> {
    fn move_to(&mut self, end: End) -> Result<()> {
        match end {
            End::First => self.first(),
            End::Last => self.last(),
        }
    }

    fn step_from(&mut self, end: End) -> Result<()> {
        match end {
            End::First => self.next(),
            End::Last => self.prev(),
        }
    }

    #[inline]
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.entry()
    }
}

impl Drop for TransactionCursor<'_> {
    fn drop(&mut self) {
        self.end_span();
        if let Some(walk) = self.walk.take() {
            self.open.borrow_mut().walks.end(walk);
        }
    }
}

impl std::fmt::Debug for TransactionCursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionCursor").field("key", &self.key()).finish_non_exhaustive()
    }
}
