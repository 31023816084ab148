//! The order of the locks of a database. Debug builds check it.

use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};

use crate::events::WaitReason;
use crate::waits::Waits;

/// The locks in their order. A thread that holds one may take only later ones, and must not wait for background work.
/// The locks inside a keyspace come last; they are not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The compaction scheduler.
    Scheduler,
    /// The manifest.
    Manifest,
    /// The commit lock: the log and the active memtables.
    Commit,
}

/// A mutex with its rank in the lock order. Each database has its own order, since user code may call another database.
pub(crate) struct OrderedMutex<T> {
    rank: Rank,
    database: usize,
    mutex: Mutex<T>,
}

impl<T> OrderedMutex<T> {
    /// `database` tells the locks of one database from those of others.
    pub(crate) fn new(rank: Rank, database: usize, value: T) -> Self {
        Self { rank, database, mutex: Mutex::new(value) }
    }

    #[inline]
    pub(crate) fn lock(&self) -> OrderedGuard<'_, T> {
        let held = Held::of(self.database, self.rank);
        OrderedGuard { guard: self.mutex.lock(), _held: held }
    }

    /// Takes the lock, which another thread has. The wait is counted, and registered if it is not short.
    #[cold]
    pub(crate) fn lock_and_count(&self, waits: &Waits, why: WaitReason) -> OrderedGuard<'_, T> {
        let held = Held::of(self.database, self.rank);
        let guard = waits.wait_for_lock(why, |time| self.mutex.try_lock_for(time), || self.mutex.lock());
        OrderedGuard { guard, _held: held }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<OrderedGuard<'_, T>> {
        let guard = self.mutex.try_lock()?;
        Some(OrderedGuard { guard, _held: Held::of(self.database, self.rank) })
    }
}

/// A held lock.
pub(crate) struct OrderedGuard<'m, T> {
    guard: MutexGuard<'m, T>,
    _held: Held,
}

impl<T> Deref for OrderedGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for OrderedGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(debug_assertions)]
mod held {
    use std::cell::RefCell;

    use super::Rank;

    thread_local! {
        static HELD: RefCell<Vec<(usize, Rank)>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes that this thread holds a lock, until it is dropped.
    pub(crate) struct Held(usize, Rank);

    fn ranks(held: &[(usize, Rank)], database: usize) -> Vec<Rank> {
        held.iter().filter(|(other, _)| *other == database).map(|(_, rank)| *rank).collect()
    }

    impl Held {
        pub(super) fn of(database: usize, rank: Rank) -> Self {
            HELD.with_borrow_mut(|held| {
                let before = ranks(held, database);
                let last = before.last();
                assert!(last.is_none_or(|last| *last < rank), "{rank:?} is locked while {before:?} are held");
                held.push((database, rank));
            });
            Self(database, rank)
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| held.retain(|lock| *lock != (self.0, self.1)));
        }
    }

    /// Panics if this thread holds one of the locks of a database: the work that it waits for may need it.
    pub(crate) fn assert_none_held(database: usize) {
        let held = HELD.with_borrow(|held| ranks(held, database));
        assert!(held.is_empty(), "waiting for an event while {held:?} are held");
    }
}

#[cfg(not(debug_assertions))]
mod held {
    /// Release builds check nothing.
    pub(crate) struct Held;

    impl Held {
        #[inline]
        pub(super) fn of(_: usize, _: super::Rank) -> Self {
            Self
        }
    }

    #[inline]
    pub(crate) fn assert_none_held(_: usize) {}
}

use held::Held;
pub(crate) use held::assert_none_held;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_can_be_taken_in_their_order() {
        let (manifest, commit) =
            (OrderedMutex::new(Rank::Manifest, 7, 1), OrderedMutex::new(Rank::Commit, 7, 2));
        let held = (manifest.lock(), commit.lock());
        assert_eq!((*held.0, *held.1), (1, 2));
        drop(held);
        assert!(commit.try_lock().is_some());
        assert_none_held(7);
        // The locks of another database have nothing to do with these.
        let other = OrderedMutex::new(Rank::Scheduler, 8, ());
        let held = commit.lock();
        assert_none_held(8);
        drop((other.lock(), held));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "Manifest is locked while [Commit] are held")]
    fn taking_a_lock_out_of_order_panics() {
        let (manifest, commit) =
            (OrderedMutex::new(Rank::Manifest, 7, ()), OrderedMutex::new(Rank::Commit, 7, ()));
        let _held = (commit.lock(), manifest.lock());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "waiting for an event while [Commit] are held")]
    fn waiting_while_holding_a_lock_panics() {
        let commit = OrderedMutex::new(Rank::Commit, 7, ());
        let _held = commit.lock();
        assert_none_held(7);
    }
}
