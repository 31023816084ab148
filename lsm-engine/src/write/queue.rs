//! The write queue: writers that wait for memory. Updates that wait for their turn use such queues, too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Writers that wait for memory, first come, first served. Otherwise small writes could keep a large one waiting
/// forever.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    line: Mutex<VecDeque<u64>>,
    next: AtomicUsize,
    count: AtomicUsize,
}

impl WriteQueue {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Joins the end of the queue.
    pub(crate) fn join(&self) -> Waiting<'_> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed) as u64;
        let mut line = self.line.lock();
        line.push_back(ticket);
        self.count.store(line.len(), Ordering::Release);
        Waiting { line: self, ticket }
    }
}

/// A place in the queue. Dropping it leaves the queue.
pub(crate) struct Waiting<'l> {
    line: &'l WriteQueue,
    ticket: u64,
}

impl Waiting<'_> {
    pub(crate) fn is_first(&self) -> bool {
        self.line.line.lock().front() == Some(&self.ticket)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.line.line.lock();
        line.retain(|&ticket| ticket != self.ticket);
        self.line.count.store(line.len(), Ordering::Release);
    }
}
