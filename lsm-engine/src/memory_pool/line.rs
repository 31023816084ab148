//! The line of writers that wait for memory of a pool, across its databases.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lsm_core::env::Event;
use parking_lot::Mutex;

/// Those that wait for memory, first come, first served: otherwise small writes of one database could keep a large write
/// of another waiting forever. Who waits for a database that cannot flush now lets others pass.
#[derive(Default)]
pub(super) struct Line {
    waiters: Mutex<VecDeque<Arc<Waiter>>>,
    count: AtomicUsize,
}

struct Waiter {
    event: Event,
    /// Others may pass.
    lets_pass: AtomicBool,
}

/// A place in the line.
pub(crate) struct Place<'l> {
    line: &'l Line,
    waiter: Arc<Waiter>,
}

impl Line {
    /// Joins the end of the line. `event` is notified whenever memory may have become free.
    pub(super) fn join(&self, event: Event) -> Place<'_> {
        let waiter = Arc::new(Waiter { event, lets_pass: AtomicBool::new(false) });
        let mut waiters = self.waiters.lock();
        waiters.push_back(Arc::clone(&waiter));
        self.count.store(waiters.len(), Ordering::SeqCst);
        drop(waiters);
        Place { line: self, waiter }
    }

    /// Wakes all that wait.
    pub(super) fn wake(&self) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let events: Vec<Event> = self.waiters.lock().iter().map(|waiter| waiter.event.clone()).collect();
            events.iter().for_each(Event::notify);
        }
    }

    /// Whether somebody must be served before who is at `place`, or before who is in no place.
    pub(super) fn is_ahead(&self, place: Option<&Place<'_>>) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let waiters = self.waiters.lock();
        let mut ahead =
            waiters.iter().take_while(|it| place.is_none_or(|place| !Arc::ptr_eq(it, &place.waiter)));
        ahead.any(|waiter| !waiter.lets_pass.load(Ordering::SeqCst))
    }
}

impl Place<'_> {
    /// Sets whether others may pass. They are woken if that is new.
    pub(crate) fn let_pass(&self, may: bool) {
        if self.waiter.lets_pass.swap(may, Ordering::SeqCst) != may && may {
            self.line.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiters = self.line.waiters.lock();
        waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        self.line.count.store(waiters.len(), Ordering::SeqCst);
        drop(waiters);
        self.line.wake();
    }
}
