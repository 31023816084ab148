use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::{Condvar, Mutex};

/// Something that happens again and again, and that threads and jobs wait for.
///
/// Whoever waits takes the [`epoch`](Event::epoch), looks whether what it waits for is so already, and if not
/// waits for the epoch to pass: a notification in between is not lost.
#[derive(Clone, Debug, Default)]
pub struct Event(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    epoch: AtomicU64,
    waiters: Mutex<Waiters>,
    condvar: Condvar,
}

#[derive(Debug, Default)]
struct Waiters {
    threads: usize,
    wakers: Vec<Waker>,
}

impl Event {
    /// An event that was never notified.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the event was notified.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::SeqCst)
    }

    /// Wakes everyone who waits.
    pub fn notify(&self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        let wakers = {
            let mut waiters = self.0.waiters.lock();
            if waiters.threads > 0 {
                self.0.condvar.notify_all();
            }
            std::mem::take(&mut waiters.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// Calls `waker` at the next notification, at once if the epoch is past `seen` already. For implementers of
    /// [`Env`](super::Env).
    pub fn register(&self, seen: u64, waker: Waker) {
        let mut waiters = self.0.waiters.lock();
        if self.epoch() == seen {
            waiters.wakers.push(waker);
        } else {
            drop(waiters);
            waker.wake();
        }
    }

    /// Blocks the thread until the epoch is past `seen` or the time is up. For implementers of
    /// [`Env`](super::Env); everyone else waits through it.
    #[expect(clippy::disallowed_methods, reason = "the one place where a thread parks")]
    pub fn park(&self, seen: u64, timeout: Option<std::time::Duration>) -> bool {
        let mut waiters = self.0.waiters.lock();
        while self.epoch() == seen {
            waiters.threads += 1;
            let timed_out = match timeout {
                None => {
                    self.0.condvar.wait(&mut waiters);
                    false
                }
                Some(timeout) => self.0.condvar.wait_for(&mut waiters, timeout).timed_out(),
            };
            waiters.threads -= 1;
            if timed_out {
                return self.epoch() != seen;
            }
        }
        true
    }
}
