//! The change slots of an open database: each keeps the log for one reader of changes that may be away.
//!
//! A slot moves in memory when its reader acknowledges. About once a second the clean-up job logs where slots are now, and
//! only then are the pins moved: the log is never truncated beyond what the manifest says.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::change_position::ChangePosition;
use crate::error::Result;
use crate::pins::PinKind;
use crate::version::VersionSet;
use crate::version::edit::VersionEdit;
use crate::version::history::SlotRecord;
use crate::write::log_pins::{LogPin, LogPinOwner, LogPins};

/// All change slots, by name.
#[derive(Default)]
pub(crate) struct ChangeSlots(Mutex<BTreeMap<Arc<str>, Arc<Slot>>>);

/// A change slot.
pub(crate) struct Slot {
    pub(crate) name: Arc<str>,
    state: Mutex<SlotState>,
}

struct SlotState {
    bytes_max: u64,
    /// Where it is according to the manifest.
    stored: ChangePosition,
    acknowledged: ChangePosition,
    /// `None` if the log does not have what it needs, or if it was dropped.
    pin: Option<LogPin>,
    dropped: bool,
}

/// Who pins the log for a slot.
pub(crate) fn owner(name: &Arc<str>, bytes_max: u64) -> LogPinOwner {
    LogPinOwner { kind: PinKind::ChangeSlot, label: Some(Arc::clone(name)), bytes_max }
}

impl Slot {
    /// A slot that the manifest has. `None` for `pin`: it is lost.
    pub(crate) fn new(record: &SlotRecord, pin: Option<LogPin>) -> Self {
        let SlotRecord { name, position, bytes_max } = record.clone();
        let (stored, acknowledged) = (position, position);
        let state = SlotState { bytes_max, stored, acknowledged, pin, dropped: false };
        Self { name, state: Mutex::new(state) }
    }

    pub(crate) fn record(&self) -> SlotRecord {
        let state = self.state.lock();
        let (name, position, bytes_max) = (Arc::clone(&self.name), state.acknowledged, state.bytes_max);
        SlotRecord { name, position, bytes_max }
    }

    /// Whether the log does not have any more what the slot should keep.
    pub(crate) fn is_lost(&self) -> bool {
        self.state.lock().pin.as_ref().is_none_or(LogPin::is_lost)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.state.lock().dropped
    }

    /// Bytes of log that the database does not need and the slot keeps.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.state.lock().pin.as_ref().map_or(0, LogPin::held_bytes)
    }

    /// Moves the slot forward, in memory. One that is lost comes back, if the log has what is needed from there on.
    pub(crate) fn acknowledge(&self, position: ChangePosition, pins: &Arc<LogPins>, now_micros: u64) {
        let mut state = self.state.lock();
        if state.dropped || position.log < state.acknowledged.log {
            return;
        }
        state.acknowledged = position;
        if state.pin.as_ref().is_none_or(LogPin::is_lost) {
            state.pin = pins.pin(position.log, owner(&self.name, state.bytes_max), now_micros).ok();
        }
    }

    /// Takes note of what the manifest has now.
    pub(crate) fn note_stored(&self, record: &SlotRecord, now_micros: u64) {
        let mut state = self.state.lock();
        (state.stored, state.bytes_max) = (record.position, record.bytes_max);
        if let Some(pin) = &state.pin {
            pin.advance(record.position.log, record.bytes_max, now_micros);
        }
    }

    /// Ends the slot.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.dropped = true;
        state.pin = None;
    }

    fn has_moved(&self) -> bool {
        let state = self.state.lock();
        !state.dropped && state.stored != state.acknowledged
    }
}

impl ChangeSlots {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Slot>> {
        self.0.lock().get(name).cloned()
    }

    pub(crate) fn insert(&self, slot: Slot) -> Arc<Slot> {
        let slot = Arc::new(slot);
        self.0.lock().insert(Arc::clone(&slot.name), Arc::clone(&slot));
        slot
    }

    pub(crate) fn remove(&self, name: &str) {
        if let Some(slot) = self.0.lock().remove(name) {
            slot.end();
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        self.0.lock().values().cloned().collect()
    }

    /// Logs where slots are that have moved, and lets the log go that they have released.
    pub(crate) fn store_moved(&self, versions: &VersionSet) -> Result<()> {
        let moved = || self.all().into_iter().filter(|slot| slot.has_moved());
        if moved().next().is_none() {
            return Ok(());
        }
        // A slot is dropped under this lock.
        let mut manifest = versions.lock();
        let (slots, records): (Vec<_>, Vec<_>) =
            moved().map(|slot| (Arc::clone(&slot), slot.record())).unzip();
        let edit = VersionEdit { slots: records.clone(), ..VersionEdit::default() };
        versions.log_edit(&mut manifest, edit)?;
        let now_micros = versions.clock_micros();
        slots.iter().zip(&records).for_each(|(slot, record)| slot.note_stored(record, now_micros));
        Ok(())
    }
}
