//! What opening does for readers of changes: it begins an epoch, and keeps the old log if a change slot needs it.
//!
//! Usually the old log is removed once all its data is in tables. If a slot needs it, the log is continued instead:
//! first what is not known to be durable is made so, before tables have its data. Otherwise a power cut could lose
//! records in the middle of the history.

use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_wal::{Position, Wal};

use super::full_disk::FullDisk;
use super::replay::Unsettled;
use crate::database::WriteSide;
use crate::error::{Error, ErrorKind, Result};
use crate::version::edit::{LogStart, VersionEdit};
use crate::version::history::SlotRecord;
use crate::version::manifest::ManifestState;
use crate::write::{Slot, slot_owner};

/// Begins the epoch of this open, at the end of the old log.
pub(super) fn begin_epoch(
    state: &mut ManifestState,
    end: Position,
    last_sequence: SequenceNumber,
    random: u64,
) {
    state.history.begin_epoch(random, end.0, last_sequence);
    if state.slots.is_empty() {
        // Nobody reads what was before.
        state.history.events.clear();
    }
}

impl FullDisk<'_> {
    /// Continues the old log, if a slot needs what is before `end`. Nothing is flushed yet. Returns the paths of what was
    /// set aside; `None` if the old log is not needed, or if it has gaps and cannot be continued.
    pub(super) fn keep_history(
        &self,
        side: &WriteSide,
        unsettled: &Unsettled,
        old: LogStart,
        end: Position,
        slots: &[SlotRecord],
    ) -> Result<Option<Vec<PathBuf>>> {
        let needed = slots.iter().map(|slot| slot.position.log).filter(|&position| position < end.0).min();
        let Some(needed) = needed.filter(|_| self.report.segment > 0 && self.report.end == end) else {
            return Ok(None);
        };
        let whole = unsettled.read_log(&self.resources.memory)?;
        let segment = self.report.next_segment.max(1);
        let resume = || {
            let (env, options) = (Arc::clone(&self.resources.env), self.options.clone());
            Wal::resume(env, &whole.reader, Position(needed), segment, options)
        };
        let mut resumed = resume();
        if resumed.as_ref().is_err_and(lsm_core::Error::is_disk_full) {
            self.make_room()?;
            resumed = resume();
        }
        let (log, set_aside) = match resumed.map_err(Error::from) {
            Err(error) if error.kind() == ErrorKind::InvalidArgument => return Ok(None),
            resumed => resumed.map_err(|error| self.refused(super::full_disk::LOG_BYTES, error))?,
        };
        drop(whole);
        side.write.committer.lock().set_log_end(end.0, old.segment);
        let begun = VersionEdit { log_begun: Some(segment), ..VersionEdit::default() };
        side.versions.log_edit(&mut side.versions.lock(), begun)?;
        side.write.log_pins.begin(log.start().0, old.position);
        side.write.start_log(Box::new(log));
        Ok(Some(set_aside))
    }

    /// Takes note that replayed data stays in memory and in the log, which is continued already.
    pub(super) fn keep_in_log(
        &self,
        side: &WriteSide,
        unsettled: &Unsettled,
        old: LogStart,
        cause: &Error,
    ) -> Result<()> {
        self.check_fits(unsettled, cause)?;
        side.write.controller.set_log_start(old.position);
        // The replayed clears are durable, so the cleared tables can be removed.
        side.versions.log_edit(&mut side.versions.lock(), unsettled.clears())
    }
}

/// Pins the log for the slots. Those whose history is gone are lost.
pub(super) fn open_slots(side: &WriteSide, slots: &[SlotRecord]) {
    let write = &side.write;
    for record in slots {
        let owner = slot_owner(&record.name, record.bytes_max);
        let now_micros = side.versions.clock_micros();
        let is_ours = record.position.database == side.versions.history.database_id;
        let pin = write.log_pins.pin(record.position.log, owner.clone(), now_micros).ok().filter(|_| is_ours);
        if pin.is_none() {
            write.note_lost_pin(owner);
        }
        write.change_slots.insert(Slot::new(record, pin));
    }
    if let Err(error) = write.truncate_log(write.controller.log_start()) {
        tracing::warn!(%error, "failed to remove log segments that no change slot needs");
    }
}
