use std::collections::VecDeque;
use std::sync::Arc;

use lsm_core::env::{self, Env};
use parking_lot::Mutex;

use super::event::{Event, EventKind};

/// Number of events in the ring.
pub(crate) const EVENTS_MAX: usize = 512;

/// The last events of a database.
pub(crate) struct EventRing {
    env: Arc<dyn Env>,
    ring: Mutex<Ring>,
    /// Notified after each event, and when no more will come.
    changed: env::Event,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Event>,
    /// The number of the next event.
    next: u64,
    ended: bool,
}

/// What a reader finds; see [`EventRing::read`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Event(Event),
    /// There is no event yet.
    NotYet,
    /// There will be no more events.
    Ended,
}

impl EventRing {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self { env, ring: Mutex::default(), changed: env::Event::new() }
    }

    /// Adds an event. The oldest one makes room for it.
    #[cold]
    pub(crate) fn emit(&self, kind: EventKind) {
        let unix_micros = self.env.unix_micros();
        let mut ring = self.ring.lock();
        let number = ring.next;
        ring.next += 1;
        if ring.events.len() == EVENTS_MAX {
            ring.events.pop_front();
        }
        ring.events.push_back(Event { number, unix_micros, kind });
        drop(ring);
        self.changed.notify();
    }

    /// Tells readers that no more events will come.
    pub(crate) fn end(&self) {
        self.ring.lock().ended = true;
        self.changed.notify();
    }

    /// The number of the oldest event that is still here.
    pub(crate) fn oldest(&self) -> u64 {
        let ring = self.ring.lock();
        ring.next - ring.events.len() as u64
    }

    /// Number of events from number `next` on, those that are gone included.
    pub(crate) fn count_from(&self, next: u64) -> usize {
        (self.ring.lock().next - next) as usize
    }

    /// The event with the number `*next`, and moves `next` on. If that event is gone, tells how many are.
    pub(crate) fn read(&self, next: &mut u64) -> Next {
        let ring = self.ring.lock();
        let oldest = ring.next - ring.events.len() as u64;
        if let Some(lost) = oldest.checked_sub(*next).filter(|&lost| lost > 0) {
            let unix_micros = ring.events.front().map_or(0, |event| event.unix_micros);
            *next = oldest;
            return Next::Event(Event { number: oldest - 1, unix_micros, kind: EventKind::Lagged(lost) });
        }
        match ring.events.get((*next - oldest) as usize) {
            Some(event) => {
                *next += 1;
                Next::Event(event.clone())
            }
            None if ring.ended => Next::Ended,
            None => Next::NotYet,
        }
    }

    /// Waits until `deadline_micros` for the event with the number `*next`. `None` if there is none until then, or if no
    /// more will come.
    pub(crate) fn wait(&self, next: &mut u64, deadline_micros: Option<u64>) -> Option<Event> {
        loop {
            let seen = self.changed.epoch();
            match self.read(next) {
                Next::Event(event) => return Some(event),
                Next::Ended => return None,
                Next::NotYet => {}
            }
            if deadline_micros.is_some_and(|deadline| self.env.monotonic_micros() >= deadline) {
                return None;
            }
            self.env.wait(&self.changed, seen, deadline_micros);
        }
    }

    pub(crate) fn env(&self) -> &dyn Env {
        &*self.env
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> EventRing {
        EventRing::new(Arc::new(env::SimEnv::new(1)))
    }

    #[test]
    fn a_slow_reader_learns_how_many_events_it_missed() {
        let ring = ring();
        let mut next = 0;
        assert_eq!(ring.read(&mut next), Next::NotYet);
        for number in 0..EVENTS_MAX as u64 + 3 {
            ring.emit(EventKind::Lagged(number));
        }
        let Next::Event(lagged) = ring.read(&mut next) else { panic!("no event") };
        assert_eq!(lagged.kind, EventKind::Lagged(3));
        for number in 3..EVENTS_MAX as u64 + 3 {
            let Next::Event(event) = ring.read(&mut next) else { panic!("no event") };
            assert_eq!((event.number, event.kind), (number, EventKind::Lagged(number)));
        }
        assert_eq!(ring.read(&mut next), Next::NotYet);
        ring.end();
        assert_eq!(ring.read(&mut next), Next::Ended);
        assert_eq!(ring.wait(&mut next, None), None);
    }
}
