use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Something that happens again and again, and that threads and jobs wait for.
///
/// Whoever waits takes the [`epoch`](Event::epoch), looks whether what it waits for is so already, and if not
/// waits for the epoch to pass: a notification in between is not lost. A notification that nobody waits for costs
/// two atomic operations.
#[derive(Clone, Debug, Default)]
pub struct Event(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    epoch: AtomicU64,
    /// Threads and wakers that wait: `notify` looks here before it takes the lock. A waiter counts itself before
    /// it looks at the epoch, a notifier moves the epoch before it looks here, both sequentially consistent, so
    /// one of the two sees the other.
    waiting: AtomicUsize,
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
    #[inline]
    pub fn notify(&self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let wakers = {
            let mut waiters = self.0.waiters.lock();
            if waiters.threads > 0 {
                self.0.condvar.notify_all();
            }
            let wakers = std::mem::take(&mut waiters.wakers);
            self.0.waiting.fetch_sub(wakers.len(), Ordering::SeqCst);
            wakers
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// Calls `waker` at the next notification, at once if the epoch is past `seen` already. Once only, if the same
    /// waker was registered before and not called since. For implementers of [`Env`](super::Env).
    pub fn register(&self, seen: u64, waker: Waker) {
        let mut waiters = self.0.waiters.lock();
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let passed = self.epoch() != seen;
        if !passed && !waiters.wakers.iter().any(|known| known.will_wake(&waker)) {
            waiters.wakers.push(waker);
            return;
        }
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        drop(waiters);
        if passed {
            waker.wake();
        }
    }

    /// Blocks the thread until the epoch is past `seen` or the time is up; returns whether it is past. For
    /// implementers of [`Env`](super::Env); everyone else waits through it.
    #[expect(clippy::disallowed_methods, reason = "the one place where a thread parks")]
    pub fn park(&self, seen: u64, timeout: Option<Duration>) -> bool {
        // A timeout beyond what the clock can say is none.
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut waiters = self.0.waiters.lock();
        waiters.threads += 1;
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let mut timed_out = false;
        while self.epoch() == seen && !timed_out {
            match until {
                None => self.0.condvar.wait(&mut waiters),
                Some(until) => timed_out = self.0.condvar.wait_until(&mut waiters, until).timed_out(),
            }
        }
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        waiters.threads -= 1;
        self.epoch() != seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waker_is_kept_once_and_called_once() {
        let (event, count) = (Event::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        for _ in 0..100 {
            // As a job does that wakes at its deadline again and again, for an event that never comes.
            event.register(0, waker.clone());
        }
        assert_eq!(event.0.waiters.lock().wakers.len(), 1);
        event.notify();
        event.notify();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(event.0.waiting.load(Ordering::Relaxed), 0);
        event.register(0, waker);
        assert_eq!(count.0.load(Ordering::Relaxed), 2, "the epoch has passed already");
    }
}
