//! The writes of a transaction in one keyspace, before they are committed.

use std::collections::BTreeMap;
use std::ops::Bound;

use lsm_core::merge_operator::Operands;
use lsm_core::{SEQUENCE_MAX, Slice, ValueKind, expiry};

use crate::batch::WriteBatch;
use crate::error::Result;
use crate::keyspaces::{ReadPoint, ReadState};
use crate::memory::batch_bytes;

/// Upper bound of what the payload of a batch takes for an operation besides its key and value.
const OPERATION_BYTES: usize = 16;

/// What a key, an operand and a range take here besides their bytes, in nodes that are half full.
const WRITE_BYTES: usize = 2 * size_of::<(Slice, OwnWrite)>();
const OPERAND_BYTES: usize = 2 * size_of::<Slice>();
const RANGE_DELETE_BYTES: usize = 2 * size_of::<(Slice, Slice)>();

/// The last write of a transaction to one key, and the merges after it.
#[derive(Clone, Debug)]
pub(super) struct OwnWrite {
    /// A delete of the same transaction before it. It is written as well: single deletes count the puts of a key.
    pub(super) before: Option<ValueKind>,
    /// `Merge` if there are merges only. They apply to the value that the key had before the transaction.
    pub(super) kind: ValueKind,
    /// The value in the form that a batch has.
    pub(super) stored: Slice,
    /// The operands of the merges, oldest first.
    pub(super) operands: Vec<Slice>,
}

/// What a transaction itself says about a key.
pub(super) enum Own<'o> {
    /// It wrote the key.
    Written(&'o OwnWrite),
    /// One of its range deletes covers the key.
    Deleted,
    /// Nothing.
    Unknown,
}

/// The writes of a transaction in one keyspace: the last write of each key, and the ranges that were deleted before
/// those.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    writes: BTreeMap<Slice, OwnWrite>,
    /// Start and exclusive end of disjoint ranges that do not touch.
    deleted: BTreeMap<Slice, Slice>,
    /// Upper bound of the bytes of a batch with these operations.
    payload_bytes: usize,
    /// Number of operations in `writes`.
    operations: u64,
}

/// How to take back one write.
#[derive(Debug)]
pub(super) enum Undo {
    Write { key: Slice, before: Option<OwnWrite> },
    Merge { key: Slice },
    RangeDelete { added: Slice, writes: Vec<(Slice, OwnWrite)>, deleted: Vec<(Slice, Slice)> },
}

impl OwnWrite {
    fn operations(&self) -> u64 {
        let own = u64::from(self.before.is_some()) + u64::from(self.kind != ValueKind::Merge);
        own + self.operands.len() as u64
    }

    fn payload_bytes(&self, key: &[u8]) -> usize {
        let operands: usize = self.operands.iter().map(|operand| operand.len()).sum();
        self.operations() as usize * (key.len() + OPERATION_BYTES) + self.stored.len() + operands
    }

    /// Whether its value depends on that before the transaction.
    pub(super) fn is_merge(&self) -> bool {
        self.kind == ValueKind::Merge
    }

    /// The value without the merges; not for merges only.
    fn base(&self) -> Option<Slice> {
        match self.kind {
            ValueKind::Put => Some(self.stored.clone()),
            // The time until it expires counts from the commit.
            ValueKind::PutWithExpiry => expiry::split(&self.stored).map(|(_, value)| Slice::copy_from(value)),
            _ => None,
        }
    }
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.deleted.is_empty()
    }

    /// Memory that the writes take here, about.
    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        self.payload_bytes
            + self.writes.len() * WRITE_BYTES
            + self.operations as usize * OPERAND_BYTES
            + self.deleted.len() * RANGE_DELETE_BYTES
    }

    /// Upper bound of what the writes take in memtables.
    pub(super) fn batch_bytes(&self) -> usize {
        let range_deletes = self.deleted.len() as u64;
        batch_bytes(self.payload_bytes, self.operations + range_deletes, range_deletes)
    }

    #[inline]
    pub(super) fn get(&self, key: &[u8]) -> Own<'_> {
        if let Some(write) = self.writes.get(key) {
            Own::Written(write)
        } else if self.deleted_around(key).is_some() {
            Own::Deleted
        } else {
            Own::Unknown
        }
    }

    /// The deleted range that contains `key`.
    pub(super) fn deleted_around(&self, key: &[u8]) -> Option<(&[u8], &[u8])> {
        let (start, end) =
            self.deleted.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        (**end > *key).then_some((start, end))
    }

    pub(super) fn has_write(&self, key: &[u8]) -> bool {
        self.writes.contains_key(key)
    }

    pub(super) fn writes(&self) -> impl Iterator<Item = (&Slice, &OwnWrite)> {
        self.writes.iter()
    }

    pub(super) fn deleted(&self) -> impl Iterator<Item = (&Slice, &Slice)> {
        self.deleted.iter()
    }

    /// The value that readers of the transaction see after `write` to `key`. `state` is the keyspace before the
    /// transaction.
    pub(super) fn value_of(
        &self,
        key: &[u8],
        write: &OwnWrite,
        state: &ReadState,
        point: &ReadPoint<'_>,
    ) -> Result<Option<Slice>> {
        if write.operands.is_empty() {
            return Ok(write.base());
        }
        let base = if !write.is_merge() {
            write.base()
        } else if self.deleted_around(key).is_some() {
            None
        } else {
            state.get(key, point)?
        };
        let mut operands = Operands::default();
        for operand in write.operands.iter().rev() {
            operands.push_older(SEQUENCE_MAX, operand);
        }
        Ok(state.merging.full(key, base.as_deref(), &operands)?.map(Slice::from))
    }

    /// The own writes from `lower` on.
    pub(super) fn writes_from(
        &self,
        lower: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&Slice, &OwnWrite)> {
        self.writes.range::<[u8], _>((lower, Bound::Unbounded))
    }

    /// The own writes up to `upper`.
    pub(super) fn writes_up_to(
        &self,
        upper: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&Slice, &OwnWrite)> {
        self.writes.range::<[u8], _>((Bound::Unbounded, upper))
    }

    /// Writes a key. Returns how to undo that.
    pub(super) fn write(&mut self, key: Slice, kind: ValueKind, stored: Slice) -> Undo {
        let old = self.remove(&key);
        let deletes = |kind: &ValueKind| kind.is_tombstone();
        let mut write = OwnWrite { before: None, kind, stored, operands: Vec::new() };
        if let Some(old) = &old {
            if write.kind == ValueKind::SingleDelete {
                // The put before it, if any, is never written, so that there may be an older one.
                write.kind = ValueKind::Delete;
            } else if !write.kind.is_tombstone() {
                write.before = old.before.or(Some(old.kind).filter(deletes));
            }
        }
        self.insert(key.clone(), write);
        Undo::Write { key, before: old }
    }

    /// Merges an operand into the value of a key. Returns how to undo that.
    pub(super) fn merge(&mut self, key: Slice, operand: Slice) -> Undo {
        self.payload_bytes += key.len() + OPERATION_BYTES + operand.len();
        self.operations += 1;
        let write = self.writes.entry(key.clone()).or_insert_with(|| OwnWrite {
            before: None,
            kind: ValueKind::Merge,
            stored: Slice::new(),
            operands: Vec::new(),
        });
        write.operands.push(operand);
        Undo::Merge { key }
    }

    /// Deletes a range. Returns how to undo that.
    pub(super) fn delete_range(&mut self, start: &[u8], end: &[u8]) -> Undo {
        let inside = (Bound::Included(start), Bound::Excluded(end));
        let keys: Vec<Slice> = self.writes.range::<[u8], _>(inside).map(|(key, _)| key.clone()).collect();
        let writes = keys.into_iter().filter_map(|key| Some((key.clone(), self.remove(&key)?))).collect();
        let up_to_end = self.deleted.range::<[u8], _>((Bound::Unbounded, Bound::Included(end)));
        let touching = up_to_end.rev().take_while(|(_, other)| ***other >= *start);
        let deleted: Vec<_> = touching.map(|(start, end)| (start.clone(), end.clone())).collect();
        let (mut added, mut last) = (Slice::copy_from(start), Slice::copy_from(end));
        for (start, end) in &deleted {
            self.remove_range(start);
            added = added.min(start.clone());
            last = last.max(end.clone());
        }
        self.insert_range(added.clone(), last);
        Undo::RangeDelete { added, writes, deleted }
    }

    /// Takes back the last write that was not taken back yet.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Write { key, before } => {
                self.remove(&key);
                if let Some(before) = before {
                    self.insert(key, before);
                }
            }
            Undo::Merge { key } => {
                let Some(write) = self.writes.get_mut(&key) else { return };
                let Some(operand) = write.operands.pop() else { return };
                let is_unwritten = write.is_merge() && write.operands.is_empty();
                self.payload_bytes -= key.len() + OPERATION_BYTES + operand.len();
                self.operations -= 1;
                if is_unwritten {
                    self.writes.remove(&key);
                }
            }
            Undo::RangeDelete { added, writes, deleted } => {
                self.remove_range(&added);
                for (start, end) in deleted {
                    self.insert_range(start, end);
                }
                for (key, write) in writes {
                    self.insert(key, write);
                }
            }
        }
    }

    fn insert(&mut self, key: Slice, write: OwnWrite) {
        self.payload_bytes += write.payload_bytes(&key);
        self.operations += write.operations();
        self.writes.insert(key, write);
    }

    fn remove(&mut self, key: &[u8]) -> Option<OwnWrite> {
        let write = self.writes.remove(key)?;
        self.payload_bytes -= write.payload_bytes(key);
        self.operations -= write.operations();
        Some(write)
    }

    fn insert_range(&mut self, start: Slice, end: Slice) {
        self.payload_bytes += start.len() + end.len() + OPERATION_BYTES;
        self.deleted.insert(start, end);
    }

    fn remove_range(&mut self, start: &[u8]) {
        if let Some(end) = self.deleted.remove(start) {
            self.payload_bytes -= start.len() + end.len() + OPERATION_BYTES;
        }
    }

    /// Adds the writes to a batch. The range deletes come first.
    pub(super) fn add_to(&self, batch: &mut WriteBatch, keyspace: u32) {
        for (start, end) in &self.deleted {
            batch.push(keyspace, ValueKind::RangeDelete, start, Some(end));
        }
        for (key, write) in &self.writes {
            if let Some(kind) = write.before {
                batch.push(keyspace, kind, key, None);
            }
            if !write.is_merge() {
                let value = (!write.kind.is_tombstone()).then_some(&*write.stored);
                batch.push(keyspace, write.kind, key, value);
            }
            for operand in &write.operands {
                batch.push(keyspace, ValueKind::Merge, key, Some(operand));
            }
        }
    }
}

impl Undo {
    /// Memory that it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        let written = |key: &Slice, write: &OwnWrite| OVERHEAD_BYTES + write.payload_bytes(key);
        match self {
            Self::Write { key, before } => {
                OVERHEAD_BYTES + before.as_ref().map_or(key.len(), |before| written(key, before))
            }
            Self::Merge { key } => OVERHEAD_BYTES + key.len(),
            Self::RangeDelete { added, writes, deleted } => {
                let writes: usize = writes.iter().map(|(key, write)| written(key, write)).sum();
                let range = |(start, end): &(Slice, Slice)| start.len() + end.len() + OVERHEAD_BYTES;
                OVERHEAD_BYTES + added.len() + writes + deleted.iter().map(range).sum::<usize>()
            }
        }
    }
}

/// Estimate of what a key with a value takes in a list besides their bytes.
const OVERHEAD_BYTES: usize = 128;
