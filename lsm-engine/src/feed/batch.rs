use std::sync::Arc;

use lsm_core::{BlobPointer, SequenceNumber, Slice, ValueKind, expiry};
use lsm_wal::Record;

use crate::change_position::ChangePosition;
use crate::error::{Error, Result};
use crate::version::edit::{AddedTable, decode_ingested};
use crate::version::history::KeyspaceEvent;
use crate::write::{Operation, Operations};

/// Changes that were made together: those of one write, batch or transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeBatch {
    /// The changes, in the order in which they were made. At least one.
    pub changes: Vec<Change>,
    /// The place after this batch. Who stores it together with what the batch did goes on with the next one, whatever
    /// happens.
    pub position: ChangePosition,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Its sequence number. The creation and the drop of a keyspace have the number of the last write before them.
    pub sequence: SequenceNumber,
    /// The name of the keyspace.
    pub keyspace: Arc<str>,
    /// The id of the keyspace, which is never used again: a keyspace that was dropped and created again has another.
    pub keyspace_id: u32,
    /// What was done.
    pub kind: ChangeKind,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A key got a value.
    Put {
        /// The key.
        key: Slice,
        /// Its value.
        value: Slice,
    },
    /// A key got a value until some time. That it expires then is no further change.
    PutExpiring {
        /// The key.
        key: Slice,
        /// Its value.
        value: Slice,
        /// When it expires, in microseconds since 1970.
        expires_at_micros: u64,
    },
    /// A key was deleted.
    Delete {
        /// The key.
        key: Slice,
    },
    /// A key that was put at most once was deleted.
    SingleDelete {
        /// The key.
        key: Slice,
    },
    /// All keys of a range were deleted.
    DeleteRange {
        /// The first key.
        start: Slice,
        /// Where the range ends; this key is not part of it.
        end: Slice,
    },
    /// An operand was added to the value of a key.
    Merge {
        /// The key.
        key: Slice,
        /// The operand, for the merge operator of the keyspace.
        operand: Slice,
    },
    /// Everything in the keyspace was deleted.
    Clear,
    /// Tables from outside were ingested. What they hold is not told: read it from a snapshot, as said in "Change feed" in
    /// docs/GUIDE.md.
    Ingest {
        /// The tables, which overlap nothing among each other.
        tables: Vec<IngestedTable>,
    },
    /// The keyspace was created.
    KeyspaceCreated,
    /// The keyspace was dropped, with all that it held.
    KeyspaceDropped,
}

/// A table that was ingested.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngestedTable {
    /// Its first key.
    pub smallest: Slice,
    /// Its last key, or the end of a range that it deletes.
    pub largest: Slice,
    /// Number of its entries.
    pub entries: u64,
}

impl ChangeBatch {
    /// The batch for the creation or drop of a keyspace.
    pub(super) fn of_event(event: &KeyspaceEvent, position: ChangePosition) -> Self {
        let kind = if event.is_drop { ChangeKind::KeyspaceDropped } else { ChangeKind::KeyspaceCreated };
        let (keyspace, keyspace_id) = (Arc::clone(&event.name), event.keyspace);
        Self { changes: vec![Change { sequence: event.sequence, keyspace, keyspace_id, kind }], position }
    }
}

/// The changes in a record of the log. `name_of` knows the names of keyspaces, and `read` the values in blob files.
pub(super) fn decode(
    record: &Record<'_>,
    mut name_of: impl FnMut(u32) -> Option<Arc<str>>,
    mut read: impl FnMut(&BlobPointer) -> Result<Slice>,
) -> Result<Vec<Change>> {
    let malformed = |detail: &str| {
        let detail = format!("in the record at position {}: {detail}", record.start);
        Error::corruption(record.path, record.offset, detail)
    };
    let mut changes = Vec::new();
    for operation in Operations::new(record.payload, record.tag) {
        let operation = operation.map_err(&malformed)?;
        let (sequence, keyspace_id) = (operation.sequence, operation.keyspace);
        let keyspace = name_of(keyspace_id)
            .ok_or_else(|| malformed(&format!("keyspace {keyspace_id} was never created")))?;
        let kind = match (operation.kind, BlobPointer::decode(operation.value)) {
            (ValueKind::BlobPointer, Some(pointer)) => of_pointer(operation.key, &pointer, read(&pointer)?),
            (ValueKind::Ingest, _) => {
                let tables = decode_ingested(operation.value, keyspace_id, sequence)
                    .map_err(|error| error.at(record.path, record.offset))?;
                ChangeKind::Ingest { tables: tables.into_iter().map(ingested).collect() }
            }
            _ => kind_of(&operation).ok_or_else(|| malformed("an operation that is no change"))?,
        };
        changes.push(Change { sequence, keyspace, keyspace_id, kind });
    }
    if changes.is_empty() {
        return Err(malformed("it holds no operation"));
    }
    Ok(changes)
}

fn ingested(table: AddedTable) -> IngestedTable {
    let (smallest, largest) = (table.meta.smallest, table.meta.largest);
    IngestedTable { smallest, largest, entries: table.meta.entries }
}

/// A put whose value is in a blob file.
fn of_pointer(key: &[u8], pointer: &BlobPointer, value: Slice) -> ChangeKind {
    let (key, expires_at_micros) = (Slice::copy_from(key), pointer.expiry_micros);
    if pointer.expires() {
        ChangeKind::PutExpiring { key, value, expires_at_micros }
    } else {
        ChangeKind::Put { key, value }
    }
}

fn kind_of(operation: &Operation<'_>) -> Option<ChangeKind> {
    let (key, value) = (Slice::copy_from(operation.key), operation.value);
    Some(match operation.kind {
        ValueKind::Put => ChangeKind::Put { key, value: Slice::copy_from(value) },
        ValueKind::PutWithExpiry => {
            let (expires_at_micros, value) = expiry::split(value)?;
            ChangeKind::PutExpiring { key, value: Slice::copy_from(value), expires_at_micros }
        }
        ValueKind::Delete => ChangeKind::Delete { key },
        ValueKind::SingleDelete => ChangeKind::SingleDelete { key },
        ValueKind::RangeDelete => ChangeKind::DeleteRange { start: key, end: Slice::copy_from(value) },
        ValueKind::Merge => ChangeKind::Merge { key, operand: Slice::copy_from(value) },
        ValueKind::KeyspaceClear => ChangeKind::Clear,
        _ => return None,
    })
}
