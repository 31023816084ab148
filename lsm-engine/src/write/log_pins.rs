//! Log pins: who needs the log for longer than the database itself does.
//!
//! Recovery needs the log from the position that the manifest names. Below that, a segment is removed once no pin needs
//! it. A pin has a limit: when it alone keeps more than so many bytes, it is lost, and the log is truncated all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lsm_core::env::Event;
use parking_lot::Mutex;

use crate::pins::{Pin, PinKind};

/// All pins of the log.
pub(crate) struct LogPins {
    state: Mutex<State>,
    /// Notified when segments may have become free.
    released: Event,
}

#[derive(Default)]
struct State {
    pins: BTreeMap<u64, Pinned>,
    next_id: u64,
    /// The database needs the log from here on.
    needed: u64,
    /// The log before this may be gone.
    removed: u64,
    /// A pin was released or moved since the log was truncated last.
    is_released: bool,
}

/// What a pin keeps, and for whom.
struct Pinned {
    owner: LogPinOwner,
    /// The log is kept from here on.
    position: u64,
    since_micros: u64,
    lost: Arc<AtomicBool>,
}

/// Who needs the log, and how much of it at most.
#[derive(Clone, Debug)]
pub(crate) struct LogPinOwner {
    pub(crate) kind: PinKind,
    pub(crate) label: Option<Arc<str>>,
    /// How many bytes that the database does not need the pin may keep.
    pub(crate) bytes_max: u64,
}

/// Keeps the log from a position on, until it is dropped.
pub(crate) struct LogPin {
    pins: Arc<LogPins>,
    id: u64,
    lost: Arc<AtomicBool>,
}

impl LogPins {
    /// `released` is notified when a pin no longer keeps what it kept.
    pub(super) fn new(released: Event) -> Self {
        Self { state: Mutex::default(), released }
    }

    /// Keeps the log from `position` on. Fails with the position from which on there is a log, if that is higher.
    pub(crate) fn pin(
        self: &Arc<Self>,
        position: u64,
        owner: LogPinOwner,
        now_micros: u64,
    ) -> Result<LogPin, u64> {
        let mut state = self.state.lock();
        if position < state.removed {
            return Err(state.removed);
        }
        let (id, lost) = (state.next_id, Arc::<AtomicBool>::default());
        state.next_id += 1;
        let pinned = Pinned { owner, position, since_micros: now_micros, lost: Arc::clone(&lost) };
        state.pins.insert(id, pinned);
        Ok(LogPin { pins: Arc::clone(self), id, lost })
    }

    /// The database does not need the log below `needed`. Returns up to where it may be removed, and who lost a pin
    /// thereby. `None` for `needed`: as before.
    ///
    /// Followers read the log from `followed` on: what they keep counts as released, so that it is asked for again.
    pub(super) fn release(&self, needed: Option<u64>, followed: Option<u64>) -> (u64, Vec<LogPinOwner>) {
        let mut state = self.state.lock();
        state.is_released = false;
        state.needed = state.needed.max(needed.unwrap_or(0));
        let needed = state.needed;
        let mut lost = Vec::new();
        state.pins.retain(|_, pinned| {
            let is_lost = needed.saturating_sub(pinned.position) > pinned.owner.bytes_max;
            if is_lost {
                pinned.lost.store(true, Ordering::Release);
                lost.push(pinned.owner.clone());
            }
            !is_lost
        });
        let free = state.first().min(needed);
        let followed = followed.unwrap_or(u64::MAX);
        state.is_released = followed < free;
        state.removed = state.removed.max(free.min(followed));
        (state.removed, lost)
    }

    /// At an open: the log from `kept` on is there, and the database needs it from `needed` on.
    pub(crate) fn begin(&self, kept: u64, needed: u64) {
        let mut state = self.state.lock();
        (state.removed, state.needed) = (kept, needed);
    }

    /// The log before this may be gone.
    pub(crate) fn start(&self) -> u64 {
        self.state.lock().removed
    }

    /// Whether a pin was released since the log was truncated last.
    pub(super) fn is_released(&self) -> bool {
        self.state.lock().is_released
    }

    /// Whether somebody of this kind needs the log for longer than the database.
    pub(crate) fn has(&self, kind: PinKind) -> bool {
        self.state.lock().pins.values().any(|pinned| pinned.owner.kind == kind)
    }

    /// Whether somebody needs the log for longer than the database.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().pins.is_empty()
    }

    /// Bytes of log that only pins keep.
    pub(crate) fn held_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.needed.saturating_sub(state.first())
    }

    /// What pins keep.
    pub(crate) fn list(&self, now_micros: u64) -> Vec<Pin> {
        let state = self.state.lock();
        let pin = |pinned: &Pinned| Pin {
            kind: pinned.owner.kind,
            label: pinned.owner.label.clone(),
            keyspace: None,
            sequence: None,
            age: Duration::from_micros(now_micros.saturating_sub(pinned.since_micros)),
            readers: 1,
            table_bytes: 0,
            log_bytes: state.needed.saturating_sub(pinned.position),
        };
        state.pins.values().map(pin).collect()
    }
}

impl State {
    /// The lowest position of a pin.
    fn first(&self) -> u64 {
        self.pins.values().map(|pinned| pinned.position).min().unwrap_or(u64::MAX)
    }
}

impl LogPin {
    /// Keeps less: the log from `position` on, and so many bytes at most. `now_micros` is from when on it keeps that.
    pub(crate) fn advance(&self, position: u64, bytes_max: u64, now_micros: u64) {
        let mut state = self.pins.state.lock();
        let Some(pinned) = state.pins.get_mut(&self.id) else { return };
        pinned.owner.bytes_max = bytes_max;
        if pinned.position >= position {
            return;
        }
        (pinned.position, pinned.since_micros) = (position, now_micros);
        state.is_released = true;
        drop(state);
        self.pins.released.notify();
    }

    /// Whether it kept too much, and keeps nothing any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Bytes that the database does not need and this keeps; 0 if it is lost.
    pub(crate) fn held_bytes(&self) -> u64 {
        let state = self.pins.state.lock();
        let position = state.pins.get(&self.id).map_or(u64::MAX, |pinned| pinned.position);
        state.needed.saturating_sub(position)
    }
}

impl Drop for LogPin {
    fn drop(&mut self) {
        let mut state = self.pins.state.lock();
        let is_released = state.pins.remove(&self.id).is_some();
        state.is_released |= is_released;
        drop(state);
        if is_released {
            self.pins.released.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(bytes_max: u64) -> LogPinOwner {
        LogPinOwner { kind: PinKind::ChangeSlot, label: Some("slot".into()), bytes_max }
    }

    #[test]
    fn the_log_is_kept_from_the_lowest_pin_on_until_that_keeps_too_much() {
        let pins = Arc::new(LogPins::new(Event::new()));
        assert_eq!(pins.release(Some(100), None).0, 100);
        assert_eq!(pins.pin(99, owner(1000), 0).err(), Some(100));
        let (first, second) = (pins.pin(100, owner(50), 0).unwrap(), pins.pin(120, owner(1000), 0).unwrap());
        assert_eq!(pins.release(Some(150), None).0, 100);
        assert_eq!((pins.held_bytes(), first.held_bytes(), second.held_bytes()), (50, 50, 30));
        assert!(!first.is_lost());
        let (removed, lost) = pins.release(Some(151), None);
        assert_eq!((removed, lost.len(), first.is_lost()), (120, 1, true));
        assert!(!pins.is_released());
        second.advance(140, 1000, 0);
        assert!(pins.is_released());
        assert_eq!(pins.release(None, None).0, 140);
        drop((first, second));
        assert!(pins.is_empty());
        assert_eq!(pins.release(None, None).0, 151);
        assert_eq!(pins.release(Some(200), Some(160)).0, 160);
        assert!(pins.is_released() && pins.start() == 160, "a follower keeps it");
        assert_eq!(pins.release(None, None).0, 200);
        assert!(!pins.is_released());
    }
}
