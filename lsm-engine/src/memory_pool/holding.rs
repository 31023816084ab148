//! What one database holds of its pool, and what the pool may ask of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::env::{Env, Event};

use super::line::Place;
use super::member::{Flushing, Member, Wakers};
use super::pool::Pool;
use super::total::Total;
use super::work::{Turn, Work, merge_limits};

/// What a database holds of its pool.
pub(crate) struct Holding {
    pub(crate) pool: Arc<Pool>,
    /// The bytes that its memtables may take: active and immutable ones together stay below.
    granted: AtomicUsize,
    pub(crate) buffers: Total,
    pub(crate) tables: Total,
    pub(crate) windows: Total,
    member: Arc<Member>,
}

/// What is done for a write that finds no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relief {
    /// A flush of some database is on its way.
    Coming,
    /// It is for the database of the write to flush.
    Own,
    /// No database can flush.
    Nothing,
}

impl Holding {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        let holding = Self {
            pool,
            granted: AtomicUsize::new(0),
            buffers: Total::default(),
            tables: Total::default(),
            windows: Total::default(),
            member: Arc::default(),
        };
        holding.pool.add(&holding.member);
        holding
    }

    pub(crate) fn set_wakers(&self, wakers: Wakers) {
        self.member.wakers.get_or_init(|| wakers);
    }

    #[inline]
    pub(crate) fn active_bytes(&self) -> usize {
        self.member.active.load(Ordering::Acquire)
    }

    pub(crate) fn set_active_bytes(&self, bytes: usize) {
        self.member.active.store(bytes, Ordering::Release);
    }

    #[inline]
    pub(crate) fn immutable_bytes(&self) -> usize {
        self.member.immutable.bytes()
    }

    pub(crate) fn add_immutable_bytes(&self, bytes: usize) {
        self.member.immutable.add(bytes);
    }

    /// Immutable memtables were released.
    pub(crate) fn remove_immutable_bytes(&self, bytes: usize) {
        // In this order: in between, the room seems smaller than it is.
        self.give_back(bytes);
        self.member.immutable.remove(bytes);
    }

    /// Bytes by which memtables may still grow without another grant.
    #[inline]
    fn room_bytes(&self) -> usize {
        let used = self.member.memtable_bytes();
        self.granted.load(Ordering::Acquire).saturating_sub(used)
    }

    /// Bytes by which memtables may still grow, as far as others do not take them.
    pub(crate) fn possible_room_bytes(&self) -> usize {
        self.room_bytes() + self.pool.ungranted_bytes()
    }

    /// Whether memtables may grow by `wanted` bytes, so that `kept` bytes are left. The caller holds the commit lock; the
    /// memory stays available while it does. `place` is its place in the line of those that wait, if it has one.
    #[inline]
    pub(crate) fn has_room(&self, wanted: usize, kept: usize, place: Option<&Place<'_>>) -> bool {
        (kept == 0 && self.room_bytes() >= wanted) || self.make_room(wanted, kept, place)
    }

    #[cold]
    fn make_room(&self, wanted: usize, kept: usize, place: Option<&Place<'_>>) -> bool {
        if kept > 0 && self.possible_room_bytes() < wanted.saturating_add(kept) {
            return false;
        }
        let missing = self.missing_bytes(wanted);
        if missing == 0 {
            return true;
        }
        if self.pool.is_shared && self.pool.line.is_ahead(place) {
            return false;
        }
        let Some(granted) = self.pool.grant(self.granted.load(Ordering::Acquire), missing) else {
            return false;
        };
        self.granted.fetch_add(granted, Ordering::AcqRel);
        if self.pool.is_half_granted() {
            // Early, if that frees much.
            self.pool.ask_largest(self.pool.shares.memtables_bytes / 32);
        }
        true
    }

    /// Bytes that are not granted yet of those that memtables need to grow by `wanted`.
    fn missing_bytes(&self, wanted: usize) -> usize {
        let used = self.member.memtable_bytes();
        used.saturating_add(wanted).saturating_sub(self.granted.load(Ordering::Acquire))
    }

    fn give_back(&self, bytes: usize) {
        let smaller = |granted: usize| Some(granted.saturating_sub(bytes));
        let before = self.granted.fetch_update(Ordering::AcqRel, Ordering::Acquire, smaller).unwrap_or(0);
        self.pool.take_back(before.min(bytes));
    }

    /// Gives back what memtables do not use. The caller holds the commit lock.
    pub(crate) fn trim(&self) {
        self.give_back(self.room_bytes());
    }

    /// The database is closed: what is left of its memtables, only readers hold.
    pub(crate) fn leave(&self) {
        self.set_flushing(Flushing::Never);
        self.give_back(usize::MAX);
        self.pool.remove(&self.member);
    }

    /// Joins the line of those that wait for memory. `event` is notified when there may be some.
    pub(crate) fn wait_in_line(&self, event: &Event) -> Place<'_> {
        self.pool.line.join(event.clone())
    }

    /// Whether others are served before who is at `place`.
    pub(crate) fn is_behind(&self, place: &Place<'_>) -> bool {
        self.pool.is_shared && self.pool.line.is_ahead(Some(place))
    }

    /// Whether a write of `wanted` waits for other databases. If there is memory, and its own holds more than the write
    /// needs, it is for its own to take a smaller part of the pool.
    pub(crate) fn waits_for_others(&self, wanted: usize) -> bool {
        let missing = self.missing_bytes(wanted);
        let held = self.granted.load(Ordering::Acquire);
        self.pool.is_shared && (missing > self.pool.ungranted_bytes() || held < missing)
    }

    /// Like [`has_room`](Self::has_room), and waits while other databases flush. For a database that is being opened.
    pub(crate) fn wait_for_room(&self, env: &dyn Env, wanted: usize) -> bool {
        if self.has_room(wanted, 0, None) {
            return true;
        }
        let event = Event::new();
        let place = self.wait_in_line(&event);
        loop {
            let seen = event.epoch();
            if self.has_room(wanted, 0, Some(&place)) {
                return true;
            }
            if !self.is_behind(&place) && self.relieve(wanted) != Relief::Coming {
                return false;
            }
            env.wait(&event, seen, None);
        }
    }

    /// Makes the database with the most unflushed data flush, unless one flushes already.
    pub(crate) fn relieve(&self, wanted: usize) -> Relief {
        if !self.waits_for_others(wanted) {
            return Relief::Own;
        }
        if self.pool.ask_largest(0) { Relief::Coming } else { Relief::Nothing }
    }

    /// Whether another database of the pool may give memory back once it can flush again.
    pub(crate) fn others_may_flush_later(&self) -> bool {
        self.pool.is_shared && self.pool.another_may_flush_later(&self.member)
    }

    /// The flush job tells whether it can flush.
    pub(crate) fn set_flushing(&self, flushing: Flushing) {
        if self.member.set_flushing(flushing) {
            self.pool.line.wake();
        }
    }

    /// Whether the pool wants a flush.
    pub(crate) fn is_asked(&self) -> bool {
        self.member.is_asked.load(Ordering::SeqCst)
    }

    /// The flush job has done what the pool asked for. With `nothing`, there was no memtable that it can flush.
    pub(crate) fn has_answered(&self, nothing: bool) {
        let left = if nothing { self.active_bytes() } else { 0 };
        self.member.unflushable_active.store(left, Ordering::SeqCst);
        self.member.is_asked.store(false, Ordering::SeqCst);
        if nothing {
            self.pool.line.wake();
        }
    }

    /// The flush job has nothing to do: the immutable memtables that are left cannot be flushed now.
    pub(crate) fn note_idle(&self) {
        let left = self.immutable_bytes();
        if self.member.unflushable_immutable.swap(left, Ordering::SeqCst) < left {
            self.pool.line.wake();
        }
    }

    /// Takes the turn for a flush or a merge. Where others share the pool there may be none now. Then the flush job waits
    /// for [`flush_turn`](Self::flush_turn), and the job that starts compactions is woken.
    pub(crate) fn begin(&self, work: Work) -> Option<Turn> {
        if !self.pool.is_shared {
            return Some(Turn::alone());
        }
        let Wakers { merge, progress, .. } = self.member.wakers.get()?;
        let number = Arc::as_ptr(&self.member).addr();
        self.pool.turns.take(work, number, [merge.clone(), progress.clone()])
    }

    pub(crate) fn flush_turn(&self) -> &Event {
        self.pool.turns.flush()
    }

    /// What a merge may take of `bytes` that are left, and into how many parts it may be split.
    pub(crate) fn merge_limits(&self, bytes: usize) -> (usize, usize) {
        if self.pool.is_shared { merge_limits(bytes) } else { (bytes, usize::MAX) }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.give_back(usize::MAX);
    }
}
