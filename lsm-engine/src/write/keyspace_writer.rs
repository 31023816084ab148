//! The writer of one keyspace, and its active memtable.

use std::sync::Arc;

use lsm_core::range_tombstone::RangeTombstone;
use lsm_core::{Slice, ValueKind};
use lsm_memtable::{MemtableFactory, MemtableWriter, Reservation};

use crate::keyspaces::EmptySpans;
use crate::keyspaces::{Memtable, Tree};
use crate::write::payload::Operation;

/// The writer of one keyspace.
pub(crate) struct KeyspaceWriter {
    pub(crate) tree: Arc<Tree>,
    /// `None` until the first write and after a rotation, so an idle keyspace holds no memtable.
    pub(crate) active: Option<ActiveMemtable>,
}

/// An active memtable and its writer.
pub(crate) struct ActiveMemtable {
    empty_spans: Arc<EmptySpans>,
    pub(crate) memtable: Arc<Memtable>,
    inserter: Box<dyn MemtableWriter>,
    reserved: Reserved,
    /// Its entries point to so much data that it should be flushed.
    pub(crate) is_full_of_blobs: bool,
    /// Memory of the memtable at the last check.
    pub(crate) bytes: usize,
}

/// Entries for which the memtable has memory without being asked: so many, each of at most `longest_bytes`.
#[derive(Default)]
struct Reserved {
    entries: usize,
    longest_bytes: usize,
}

impl KeyspaceWriter {
    pub(crate) fn new(tree: Arc<Tree>) -> Self {
        Self { tree, active: None }
    }

    pub(crate) fn active_bytes_of(&self) -> Option<usize> {
        self.active.as_ref().map(|active| active.bytes)
    }
}

impl ActiveMemtable {
    /// Makes a memtable of a keyspace. It takes log records from `log_start` on.
    pub(crate) fn new(tree: &Tree, factory: &dyn MemtableFactory, number: u64, log_start: u64) -> Self {
        let (inserter, reader) = factory.create();
        let memtable = Arc::new(Memtable::new(number, reader, log_start));
        Self {
            empty_spans: Arc::clone(&tree.empty_spans),
            bytes: memtable.memory_bytes(),
            memtable,
            inserter,
            reserved: Reserved::default(),
            is_full_of_blobs: false,
        }
    }

    /// Bytes that the memtable has allocated but not used yet.
    pub(crate) fn unused_bytes(&self) -> usize {
        self.inserter.unused_bytes()
    }

    /// Takes the memory for a write from what the memtable reserved ahead. Calls no user code. Returns `false` if that
    /// does not suffice.
    #[inline]
    pub(crate) fn take_reserved(&mut self, reservation: &Reservation<'_>) -> bool {
        let Reservation { bytes, longest_bytes, long_values } = *reservation;
        let is_single = bytes == longest_bytes && long_values.is_empty();
        let suffices = is_single && bytes <= self.reserved.longest_bytes && self.reserved.entries > 0;
        self.reserved.entries -= usize::from(suffices);
        suffices
    }

    /// Reserves memory for a write. Returns `false` if there is none, or if the memtable is full.
    pub(crate) fn reserve(&mut self, reservation: &Reservation<'_>) -> bool {
        if reservation.bytes == 0 {
            return true;
        }
        // If it fails or panics, nothing is left.
        self.reserved = Reserved::default();
        let reserved = self.inserter.reserve(reservation);
        if let Ok(entries) = reserved {
            self.reserved = Reserved { entries, longest_bytes: reservation.longest_bytes };
        }
        reserved.is_ok()
    }

    /// Inserts an operation. Returns `false` if the memtable is full.
    #[inline]
    pub(crate) fn insert(&mut self, operation: &Operation<'_>) -> bool {
        let Operation { sequence, kind, key, value, .. } = *operation;
        if kind == ValueKind::RangeDelete {
            if key < value {
                let tombstone =
                    RangeTombstone { start: Slice::copy_from(key), end: Slice::copy_from(value), sequence };
                if self.memtable.range_tombstones.insert(tombstone).is_err() {
                    return false;
                }
                self.empty_spans.deleted(key, value, sequence);
            }
            return true;
        }
        let taken = self.inserter.insert(key, sequence, kind, value).is_ok();
        if kind == ValueKind::PutWithExpiry {
            self.memtable.note_expiry();
        }
        if taken && self.empty_spans.any() && !kind.is_tombstone() {
            self.empty_spans.written(key);
        }
        taken
    }
}
