//! What a pool knows of one of its databases: the memtables that it could flush, and whether it can.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use lsm_core::env::Event;

use super::total::Total;

/// A database of a pool.
pub(super) struct Member {
    /// Memory of active memtables. The committer sets it.
    pub(super) active: AtomicUsize,
    /// Memory of immutable memtables.
    pub(super) immutable: Total,
    flushing: AtomicU8,
    /// The pool wants a flush. The flush job has not seen that yet.
    pub(super) is_asked: AtomicBool,
    /// The memory of active memtables when the flush job could flush none of them.
    pub(super) unflushable_active: AtomicUsize,
    /// The memory of immutable memtables when the flush job had nothing to do.
    pub(super) unflushable_immutable: AtomicUsize,
    pub(super) wakers: OnceLock<Wakers>,
}

/// Whom the pool wakes.
pub(crate) struct Wakers {
    /// The flush job.
    pub(crate) flush: Event,
    /// Callers that wait for background work.
    pub(crate) progress: Event,
    /// The job that starts compactions.
    pub(crate) merge: Event,
}

/// Whether a database can flush, as its flush job knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flushing {
    /// There is no flush job: the database is read-only, closed, or being opened, or it takes no more writes.
    Never,
    Able,
    Paused,
    /// Flushes fail on a full disk, and are tried again.
    DiskFull,
    /// Flushes fail, and are tried again.
    Failing,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            active: AtomicUsize::new(0),
            immutable: Total::default(),
            flushing: AtomicU8::new(Flushing::Never as u8),
            is_asked: AtomicBool::new(false),
            unflushable_active: AtomicUsize::new(0),
            unflushable_immutable: AtomicUsize::new(0),
            wakers: OnceLock::new(),
        }
    }
}

impl Member {
    #[inline]
    pub(super) fn memtable_bytes(&self) -> usize {
        self.active.load(Ordering::Acquire) + self.immutable.bytes()
    }

    pub(super) fn ask(&self) {
        self.is_asked.store(true, Ordering::SeqCst);
        if let Some(wakers) = self.wakers.get() {
            wakers.flush.notify();
        }
    }

    pub(super) fn flushable_bytes(&self) -> usize {
        if self.flushing() == Flushing::Able {
            let unflushable = self.unflushable_active.load(Ordering::SeqCst);
            self.active.load(Ordering::Acquire).saturating_sub(unflushable)
        } else {
            0
        }
    }

    /// Whether a flush runs or is about to.
    pub(super) fn is_flushing(&self) -> bool {
        let immutable = || self.immutable.bytes() > self.unflushable_immutable.load(Ordering::SeqCst);
        self.flushing() == Flushing::Able && (self.is_asked.load(Ordering::SeqCst) || immutable())
    }

    /// Whether it may give memory back once it can flush again.
    pub(super) fn may_flush_later(&self) -> bool {
        matches!(self.flushing(), Flushing::Paused | Flushing::DiskFull) && self.memtable_bytes() > 0
    }

    fn flushing(&self) -> Flushing {
        match self.flushing.load(Ordering::SeqCst) {
            1 => Flushing::Able,
            2 => Flushing::Paused,
            3 => Flushing::DiskFull,
            4 => Flushing::Failing,
            _ => Flushing::Never,
        }
    }

    /// Returns whether that is new.
    pub(super) fn set_flushing(&self, flushing: Flushing) -> bool {
        self.flushing.swap(flushing as u8, Ordering::SeqCst) != flushing as u8
    }
}
