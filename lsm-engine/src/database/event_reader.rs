use std::sync::Arc;
use std::time::Duration;

use super::Database;
use crate::events::{Event, EventRing, Next};
use crate::reentry::is_called_back;

/// Reads the events of a database, in order; see [`Db::events`](crate::Db::events).
///
/// As an iterator it waits for the next event, and ends when the database is closed or its last handle is dropped.
/// [`try_next`](Self::try_next) and [`next_within`](Self::next_within) wait not at all, or for a limited time. Code that
/// the database itself calls, such as a compaction policy, never waits here: the iterator ends for it instead.
///
/// A database keeps its last 512 events. A reader that is slower gets [`Lagged`](crate::EventKind::Lagged) with the
/// number of events that it missed. The reader does not keep the database open.
pub struct Events {
    ring: Arc<EventRing>,
    /// The place of the database; see [`is_called_back`].
    place: usize,
    next: u64,
}

impl Events {
    /// The next event, if it has happened.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.ring.read(&mut self.next) {
            Next::Event(event) => Some(event),
            Next::NotYet | Next::Ended => None,
        }
    }

    /// The next event, if it happens within `timeout`.
    pub fn next_within(&mut self, timeout: Duration) -> Option<Event> {
        let timeout_micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        let deadline_micros = self.ring.env().monotonic_micros().checked_add(timeout_micros);
        self.wait(deadline_micros)
    }

    fn wait(&mut self, deadline_micros: Option<u64>) -> Option<Event> {
        if is_called_back(self.place) {
            return self.try_next();
        }
        self.ring.wait(&mut self.next, deadline_micros)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.wait(None)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Database {
    /// A reader that begins with the oldest event that the database still has.
    pub(crate) fn events(&self) -> Events {
        let ring = Arc::clone(&self.resources.events);
        Events { next: ring.oldest(), place: self.resources.place(), ring }
    }
}
