//! What the threads of a log share and wait for.
//!
//! In this crate's unit tests each operation on it is a point where shuttle may go on with another thread, so that
//! they explore how threads interleave; see `interleavings.rs`.

#[cfg(not(test))]
pub(crate) use std::{sync::atomic::AtomicU64, thread::yield_now};

#[cfg(not(test))]
pub(crate) use lsm_core::env::Event;
#[cfg(not(test))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

#[cfg(test)]
pub(crate) use explored::{Event, Mutex};
#[cfg(test)]
pub(crate) use shuttle::{
    sync::{MutexGuard, atomic::AtomicU64},
    thread::yield_now,
};

#[cfg(test)]
mod explored {
    use std::ops::Deref;
    use std::sync::PoisonError;
    use std::sync::atomic::Ordering;

    use shuttle::sync::atomic::AtomicBool;

    use super::MutexGuard;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// The event itself knows nothing of shuttle: touching the flag first lets another thread come between.
    #[derive(Default)]
    pub(crate) struct Event(lsm_core::env::Event, AtomicBool);

    impl Event {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn epoch(&self) -> u64 {
            self.1.load(Ordering::SeqCst);
            self.0.epoch()
        }

        pub(crate) fn notify(&self) {
            self.1.load(Ordering::SeqCst);
            self.0.notify();
        }
    }

    impl Deref for Event {
        type Target = lsm_core::env::Event;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}
