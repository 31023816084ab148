//! What the manifest keeps for those who read the log as history: epochs, slots, and when keyspaces came and went.
//!
//! An *epoch* is the time for which a database is open for writing. A power cut may lose the end of the log, and the next
//! epoch gives the same positions and sequence numbers to other writes. So a position names its epoch.
//!
//! Keyspaces are created and dropped by version edits, not by log records. Each such edit has an *event* with the number
//! of the last write before it, so that a reader of the log can put it where it belongs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::SequenceNumber;
use parking_lot::{Mutex, MutexGuard};

use crate::change_position::ChangePosition;
use crate::error::{Error, Result};

/// How many epochs are kept at least, and at most.
const EPOCHS_MIN: usize = 16;
const EPOCHS_MAX: usize = 1024;
/// How many events of keyspaces are kept at least, and at most.
const EVENTS_MIN: usize = 1024;
const EVENTS_MAX: usize = 65_536;

/// The time for which a database is open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Counts from 1.
    pub number: u64,
    /// Random. Copies of a database go on with epochs of the same number.
    pub id: u64,
    /// Position in the log where it begins.
    pub position: u64,
    /// Sequence number of the last write before it.
    pub sequence: SequenceNumber,
}

/// The creation or drop of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceEvent {
    /// Counts all events of the database from 1.
    pub number: u64,
    /// Whether it was dropped.
    pub is_drop: bool,
    /// The id of the keyspace.
    pub keyspace: u32,
    /// Its name.
    pub name: Arc<str>,
    /// Sequence number of the last write before it.
    pub sequence: SequenceNumber,
}

/// A change slot, as the manifest keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRecord {
    /// Its name.
    pub name: Arc<str>,
    /// The log is kept from here on.
    pub position: ChangePosition,
    /// How many bytes of log that the database does not need it may keep.
    pub bytes_max: u64,
}

/// What is known of the history.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    /// The last epochs, the current one last.
    pub(crate) epochs: Vec<Epoch>,
    /// The last events of keyspaces.
    pub(crate) events: VecDeque<KeyspaceEvent>,
    /// Number of the last event.
    pub(crate) event_count: u64,
}

/// The history of an open database, for readers that do not wait for the manifest.
pub(crate) struct SharedHistory {
    history: Mutex<History>,
    event_count: AtomicU64,
    pub(crate) database_id: u128,
    /// Where the log began when the database was opened.
    pub(crate) log_start: u64,
}

impl SharedHistory {
    pub(crate) fn new(history: History, database_id: u128, log_start: u64) -> Self {
        let event_count = AtomicU64::new(history.event_count);
        Self { history: Mutex::new(history), event_count, database_id, log_start }
    }

    pub(crate) fn set(&self, history: History) {
        let count = history.event_count;
        *self.history.lock() = history;
        self.event_count.store(count, Ordering::Release);
    }

    /// Number of the last event of a keyspace.
    #[inline]
    pub(crate) fn event_count(&self) -> u64 {
        self.event_count.load(Ordering::Acquire)
    }

    /// Held for a short time only.
    pub(crate) fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    /// The place in the current epoch.
    pub(crate) fn position(&self, log: u64, sequence: SequenceNumber, events: u64) -> ChangePosition {
        self.lock().position(self.database_id, log, sequence, events)
    }
}

/// Where to begin to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Position in the log.
    pub(crate) log: u64,
    /// Writes up to this are known.
    pub(crate) sequence: SequenceNumber,
    /// Events up to this are known.
    pub(crate) events: u64,
}

impl History {
    /// Adds epochs and events, in their order, and forgets those that are too many and that no slot needs.
    pub(crate) fn add(
        &mut self,
        epochs: &[Epoch],
        events: &[KeyspaceEvent],
        slots: &BTreeMap<Arc<str>, SlotRecord>,
    ) -> Result<(), String> {
        for epoch in epochs {
            if self.epochs.last().is_some_and(|last| last.number >= epoch.number) {
                return Err(format!("epoch {} begins twice", epoch.number));
            }
            self.epochs.push(*epoch);
        }
        for event in events {
            if event.number <= self.event_count {
                return Err(format!("event {} of a keyspace comes twice", event.number));
            }
            self.event_count = event.number;
            self.events.push_back(event.clone());
        }
        let needed = |number: fn(&ChangePosition) -> u64| {
            slots.values().map(|slot| number(&slot.position)).min().unwrap_or(u64::MAX)
        };
        let (epoch, event) = (needed(|position| position.epoch), needed(|position| position.events));
        let surplus = |len: usize, min: usize, max: usize, unneeded: usize| {
            len.saturating_sub(max).max(unneeded.min(len.saturating_sub(min)))
        };
        let old = self.epochs.iter().take_while(|known| known.number < epoch).count();
        self.epochs.drain(..surplus(self.epochs.len(), EPOCHS_MIN, EPOCHS_MAX, old));
        let old = self.events.iter().take_while(|known| known.number <= event).count();
        self.events.drain(..surplus(self.events.len(), EVENTS_MIN, EVENTS_MAX, old));
        Ok(())
    }

    /// Begins the epoch after the last one. Events that a power cut left without the writes before them come first in it.
    pub(crate) fn begin_epoch(&mut self, id: u64, position: u64, sequence: SequenceNumber) {
        for event in &mut self.events {
            event.sequence = event.sequence.min(sequence);
        }
        let number = self.epochs.last().map_or(0, |epoch| epoch.number) + 1;
        self.epochs.push(Epoch { number, id, position, sequence });
    }

    /// The event of a keyspace that is about to be created or dropped, after the write `sequence`.
    pub(crate) fn next_event(
        &self,
        keyspace: u32,
        name: &Arc<str>,
        is_drop: bool,
        sequence: SequenceNumber,
    ) -> KeyspaceEvent {
        KeyspaceEvent { number: self.event_count + 1, is_drop, keyspace, name: Arc::clone(name), sequence }
    }

    /// The first event after the one with this number. Fails if some were forgotten.
    pub(crate) fn event_after(&self, number: u64) -> Result<Option<&KeyspaceEvent>, ()> {
        let first = self.events.front().map_or(self.event_count + 1, |event| event.number);
        match (number + 1).checked_sub(first) {
            Some(index) => Ok(self.events.get(index as usize)),
            None => Err(()),
        }
    }

    /// The number of the last event that surely comes before the write after `sequence`, or that is forgotten.
    pub(crate) fn events_before(&self, sequence: SequenceNumber) -> u64 {
        let forgotten = self.events.front().map_or(self.event_count, |event| event.number - 1);
        let before = self.events.iter().take_while(|event| event.sequence < sequence).last();
        before.map_or(forgotten, |event| event.number)
    }

    /// The name of a keyspace that was dropped.
    pub(crate) fn name_of(&self, keyspace: u32) -> Option<Arc<str>> {
        self.events.iter().find(|event| event.keyspace == keyspace).map(|event| Arc::clone(&event.name))
    }

    /// The place in the current epoch.
    pub(crate) fn position(
        &self,
        database: u128,
        log: u64,
        sequence: SequenceNumber,
        events: u64,
    ) -> ChangePosition {
        let (epoch, epoch_id) = self.epochs.last().map_or((0, 0), |epoch| (epoch.number, epoch.id));
        ChangePosition { database, epoch, epoch_id, log, sequence, events }
    }

    /// Whether a later epoch began without writes that a position of this database has.
    pub(crate) fn loses(&self, position: &ChangePosition) -> bool {
        let is_other = |epoch: &Epoch| epoch.number == position.epoch && epoch.id != position.epoch_id;
        let lost = |epoch: &Epoch| epoch.number > position.epoch && epoch.sequence < position.sequence;
        self.epochs.iter().any(|epoch| is_other(epoch) || lost(epoch))
    }

    /// Where to begin to read in order to go on from a position. The last write has the number `last_sequence`.
    pub(crate) fn start(
        &self,
        from: &ChangePosition,
        database: u128,
        last_sequence: SequenceNumber,
    ) -> Result<Start> {
        if from.database != database {
            return Err(Error::ForeignPosition(
                format!("the position {from} is one of another database").into(),
            ));
        }
        let last = self.epochs.last().map_or(0, |epoch| epoch.number);
        if from.epoch > last || from.epoch == 0 {
            return Err(Error::ForeignPosition(
                format!(
                    "the position {from} is of an epoch that this database has not had: its last is {last}"
                )
                .into(),
            ));
        }
        let Some(index) = self.epochs.iter().position(|epoch| epoch.number == from.epoch) else {
            return Err(gone(from, "its epoch is too long ago"));
        };
        let diverged = |log: u64, sequence: SequenceNumber, why: &str| {
            let common = ChangePosition { events: from.events, ..self.position(database, log, sequence, 0) };
            let detail = format!(
                "{why}: what came after the write {sequence} of this database is not what the reader at {from} has; \
                 the last common position is {common}"
            );
            Err(Error::HistoryDiverged { detail: detail.into(), common: Arc::new(common) })
        };
        let (known, later) = self.epochs[index..].split_first().ok_or(Error::Closed)?;
        if known.id != from.epoch_id {
            let why = "the database was restored from a backup";
            return diverged(known.position, known.sequence, why);
        }
        let mut log = from.log;
        if let Some(lost) = later.iter().min_by_key(|epoch| epoch.sequence)
            && from.sequence > lost.sequence
        {
            return diverged(lost.position, lost.sequence, "a power cut lost writes that were not durable");
        }
        for epoch in later {
            // Nothing came in between.
            if from.sequence == epoch.sequence {
                log = log.max(epoch.position);
            }
        }
        if from.sequence > last_sequence || from.events > self.event_count {
            return Err(Error::ForeignPosition(
                format!("the position {from} lies in the future: the last write is {last_sequence}").into(),
            ));
        }
        if self.event_after(from.events).is_err() {
            return Err(gone(from, "too many keyspaces were created and dropped since"));
        }
        Ok(Start { log, sequence: from.sequence, events: from.events })
    }
}

/// The error for a position whose history is not there any more.
pub(crate) fn gone(from: &ChangePosition, why: &str) -> Error {
    let detail = format!(
        "the history from position {from} on is gone: {why}; take a snapshot, copy what it has, and go on from its \
         change_position; a change slot keeps history"
    );
    Error::HistoryGone(detail.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const POSITION: ChangePosition =
        ChangePosition { database: 7, epoch: 1, epoch_id: 11, log: 100, sequence: 10, events: 0 };

    fn history() -> History {
        let epoch = |number, id, position, sequence| Epoch { number, id, position, sequence };
        let epochs = vec![epoch(1, 11, 0, 0), epoch(2, 22, 100, 10), epoch(3, 33, 300, 30)];
        History { epochs, ..History::default() }
    }

    fn kind(from: ChangePosition) -> Option<ErrorKind> {
        history().start(&from, 7, 40).err().map(|error| error.kind())
    }

    #[test]
    fn a_position_means_one_thing_whatever_a_power_cut_took() {
        assert_eq!(kind(POSITION), None);
        // It has read more than the next epoch began with.
        let ahead = ChangePosition { sequence: 11, log: 140, ..POSITION };
        match history().start(&ahead, 7, 40) {
            Err(Error::HistoryDiverged { common, .. }) => {
                assert_eq!((common.sequence, common.log, common.epoch), (10, 100, 3));
                assert_eq!(history().start(&common, 7, 40).unwrap().log, 100);
            }
            start => panic!("{start:?}"),
        }
        let second = ChangePosition { epoch: 2, epoch_id: 22, ..ahead };
        assert_eq!(kind(second), None);
        // Another copy of the database has had this epoch.
        assert_eq!(kind(ChangePosition { epoch_id: 23, ..second }), Some(ErrorKind::HistoryDiverged));
        assert_eq!(kind(ChangePosition { epoch: 4, ..POSITION }), Some(ErrorKind::ForeignPosition));
        assert_eq!(kind(ChangePosition { database: 8, ..POSITION }), Some(ErrorKind::ForeignPosition));
        let current = ChangePosition { epoch: 3, epoch_id: 33, sequence: 40, ..POSITION };
        assert_eq!(kind(current), None);
        assert_eq!(kind(ChangePosition { sequence: 41, ..current }), Some(ErrorKind::ForeignPosition));
    }

    #[test]
    fn old_epochs_and_events_are_kept_as_long_as_a_slot_needs_them() {
        let event = |number| KeyspaceEvent {
            number,
            is_drop: false,
            keyspace: 1,
            name: "k".into(),
            sequence: number,
        };
        let slot = SlotRecord { name: "s".into(), position: POSITION, bytes_max: 1 };
        let slots = BTreeMap::from([(Arc::from("s"), slot)]);
        let mut kept = History::default();
        let mut forgotten = History::default();
        for number in 1..=2000 {
            let epoch = Epoch { number, id: 0, position: 0, sequence: 0 };
            kept.add(&[epoch], &[event(number)], &slots).unwrap();
            forgotten.add(&[epoch], &[event(number)], &BTreeMap::new()).unwrap();
        }
        assert_eq!((kept.epochs.len(), kept.events.len()), (EPOCHS_MAX, 2000));
        assert_eq!((forgotten.epochs.len(), forgotten.events.len()), (EPOCHS_MIN, EVENTS_MIN));
        assert!(kept.add(&[], &[event(2000)], &slots).is_err());
    }
}
