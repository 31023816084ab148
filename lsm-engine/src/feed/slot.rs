use std::sync::Arc;

use super::changes::Changes;
use crate::change_position::ChangePosition;
use crate::database::{Database, WriteSide};
use crate::error::{Error, Result};
use crate::lock_order::OrderedGuard;
use crate::version::edit::VersionEdit;
use crate::version::history::{SlotRecord, gone};
use crate::version::manifest::Manifest;
use crate::write::{Slot, slot_owner};

/// Longest name of a slot in bytes.
const NAME_BYTES_MAX: usize = 255;
/// How many slots a database may have.
const SLOTS_MAX: usize = 1024;

/// Keeps the history for a reader of changes that may be away, also while the database is closed; see
/// [`Db::change_slot`](crate::Db::change_slot).
///
/// A slot is not held by its handle: it stays until [`Db::drop_change_slot`](crate::Db::drop_change_slot).
#[derive(Clone)]
pub struct ChangeSlot {
    database: Arc<Database>,
    slot: Arc<Slot>,
}

impl ChangeSlot {
    /// The name of the slot.
    pub fn name(&self) -> &str {
        &self.slot.name
    }

    /// The history is kept from here on.
    pub fn position(&self) -> ChangePosition {
        self.slot.record().position
    }

    /// How many bytes of log that the database does not need the slot may keep.
    pub fn bytes_max(&self) -> u64 {
        self.slot.record().bytes_max
    }

    /// How many bytes of log that the database does not need it keeps now, those counted that other slots keep, too.
    pub fn held_bytes(&self) -> u64 {
        self.slot.held_bytes()
    }

    /// Whether it had to keep more than [`bytes_max`](Self::bytes_max) and lost the history.
    ///
    /// Then take a snapshot, copy what it has, and [acknowledge](Self::acknowledge) its position: the slot goes on there.
    pub fn is_lost(&self) -> bool {
        self.slot.is_lost()
    }

    /// The changes from the position of the slot on.
    pub fn changes(&self) -> Result<Changes> {
        self.check()?;
        let position = self.position();
        if self.slot.is_lost() {
            let why =
                format!("slot {:?} would have had to keep more than {} bytes", self.name(), self.bytes_max());
            return Err(gone(&position, &why));
        }
        Changes::new(&self.database, &position)
    }

    /// The history before `position` is not needed any more. A position before that of the slot changes nothing.
    ///
    /// Syncs the log if the position is not durable. This takes effect on the disk within about a second, or when the database is closed. A crash may set the slot back
    /// to an earlier position, from which more is kept, never less.
    pub fn acknowledge(&self, position: &ChangePosition) -> Result<()> {
        self.check()?;
        let side = self.database.write_side()?;
        let last_sequence = side.write.committer.lock().last_sequence();
        let history = self.database.history.lock();
        let database = self.database.history.database_id;
        let start = history.start(position, database, last_sequence)?;
        let position = history.position(database, start.log, start.sequence, start.events);
        drop(history);
        // The position of a snapshot may lie beyond that: a power cut must not leave the slot in the future.
        side.write.wait_durable(position.log)?;
        self.slot.acknowledge(position, &side.write.log_pins, side.versions.clock_micros());
        Ok(())
    }

    fn check(&self) -> Result<()> {
        self.database.check_open()?;
        if self.slot.is_dropped() { Err(no_such_slot(self.name())) } else { Ok(()) }
    }
}

impl std::fmt::Debug for ChangeSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeSlot").field("name", &self.slot.name).finish_non_exhaustive()
    }
}

fn no_such_slot(name: &str) -> Error {
    Error::invalid(format!("there is no change slot {name:?}"))
}

/// Opens or makes a slot.
pub(crate) fn change_slot(database: &Arc<Database>, name: &str, bytes_max: u64) -> Result<ChangeSlot> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let bytes = name.len();
        return Err(Error::invalid(format!(
            "the name of a change slot must have 1 to {NAME_BYTES_MAX} bytes; this one has {bytes}"
        )));
    }
    let (side, mut manifest) = lock(database)?;
    let (write, now_micros) = (&side.write, side.versions.clock_micros());
    if let Some(slot) = write.change_slots.get(name) {
        let record = SlotRecord { bytes_max, ..slot.record() };
        if slot.record() != record {
            store(side, &mut manifest, &record)?;
            slot.note_stored(&record, now_micros);
        }
        return Ok(ChangeSlot { database: Arc::clone(database), slot });
    }
    if write.change_slots.all().len() >= SLOTS_MAX {
        return Err(Error::invalid(format!("a database may have {SLOTS_MAX} change slots; drop one")));
    }
    let name: Arc<str> = name.into();
    let (log, sequence) = {
        let committer = write.committer.lock();
        (committer.log_end(), committer.last_sequence())
    };
    let events = manifest.state().history.event_count;
    let owner = slot_owner(&name, bytes_max);
    let pin = write.log_pins.pin(log, owner, now_micros).map_err(|_| Error::Closed)?;
    // Nothing before the slot may be lost when it is there.
    write.wait_durable(log)?;
    let record = SlotRecord { name, position: database.history.position(log, sequence, events), bytes_max };
    store(side, &mut manifest, &record)?;
    let slot = write.change_slots.insert(Slot::new(&record, Some(pin)));
    Ok(ChangeSlot { database: Arc::clone(database), slot })
}

/// Drops a slot.
pub(crate) fn drop_change_slot(database: &Arc<Database>, name: &str) -> Result<()> {
    let (side, mut manifest) = lock(database)?;
    if side.write.change_slots.get(name).is_none() {
        return Err(no_such_slot(name));
    }
    let edit = VersionEdit { dropped_slots: vec![name.into()], ..VersionEdit::default() };
    side.versions.log_edit(&mut manifest, edit)?;
    side.write.change_slots.remove(name);
    Ok(())
}

/// All slots, by name.
pub(crate) fn change_slots(database: &Arc<Database>) -> Vec<ChangeSlot> {
    let slots = database.writer.iter().flat_map(|side| side.write.change_slots.all());
    slots.map(|slot| ChangeSlot { database: Arc::clone(database), slot }).collect()
}

fn lock(database: &Database) -> Result<(&WriteSide, OrderedGuard<'_, Manifest>)> {
    let side = database.write_side()?;
    database.resources.check_may_change_keyspaces()?;
    let manifest = side.versions.lock_for_call(&database.resources.waits);
    Ok((side, manifest))
}

fn store(side: &WriteSide, manifest: &mut Manifest, record: &SlotRecord) -> Result<()> {
    let edit = VersionEdit { slots: vec![record.clone()], ..VersionEdit::default() };
    side.versions.log_edit(manifest, edit)
}
