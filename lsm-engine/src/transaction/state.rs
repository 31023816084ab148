//! What a transaction has read and written so far.

use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use super::overlay::{Overlay, Undo};
use super::tracked::Tracked;
use super::walks::{Walk, WalkId, Walks};
use crate::batch::WriteBatch;
use crate::error::{Error, Result};
use crate::keyspaces::Tree;
use crate::locks::LockOwner;
use crate::memory::TransactionCharge;
use crate::read::KeyRange;
use crate::snapshot::Snapshot;

/// What a transaction has read and written so far.
pub(super) struct State {
    pub(super) snapshot: Arc<Snapshot>,
    /// The keyspaces that the transaction uses.
    pub(super) parts: Vec<Part>,
    pub(super) walks: Walks,
    /// What was read at an older snapshot than the current one.
    pub(super) old_walks: Vec<Walk>,
    /// Earlier states of the writes of a keyspace that iterators may still hold, with the memory of each.
    copies: Vec<(Weak<Overlay>, usize)>,
    /// How to take back the writes since the first savepoint, with the index of the keyspace.
    undo: Vec<(usize, Undo)>,
    undo_bytes: usize,
    /// The first and the last of savepoints without a write between them, with the length of the undo log.
    savepoints: Vec<(RangeInclusive<u64>, usize)>,
    savepoint_count: u64,
    limits: Limits,
    charge: TransactionCharge,
    /// The locks that it holds, if it takes any.
    pub(super) locks: Option<LockOwner>,
    /// It has read something that the commit does not check, so its snapshot must not move.
    pub(super) has_unchecked_reads: bool,
}

/// Limits of the memory of a transaction.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) written_bytes_max: usize,
    pub(super) tracked_bytes_max: usize,
}

/// What a transaction has read and written in one keyspace.
pub(super) struct Part {
    pub(super) tree: Arc<Tree>,
    pub(super) writes: Arc<Overlay>,
    pub(super) tracked: Tracked,
}

impl State {
    pub(super) fn new(
        snapshot: Arc<Snapshot>,
        limits: Limits,
        charge: TransactionCharge,
        locks: Option<LockOwner>,
    ) -> Self {
        Self {
            snapshot,
            parts: Vec::new(),
            walks: Walks::default(),
            old_walks: Vec::new(),
            copies: Vec::new(),
            undo: Vec::new(),
            undo_bytes: 0,
            savepoints: Vec::new(),
            savepoint_count: 0,
            limits,
            charge,
            locks,
            has_unchecked_reads: false,
        }
    }

    /// The index of a keyspace among those of the transaction.
    #[inline]
    pub(super) fn part(&mut self, tree: &Arc<Tree>) -> usize {
        let known = self.parts.iter().position(|part| part.tree.id == tree.id);
        known.unwrap_or_else(|| {
            self.parts.push(Part {
                tree: Arc::clone(tree),
                writes: Arc::default(),
                tracked: Tracked::default(),
            });
            self.parts.len() - 1
        })
    }

    pub(super) fn has_writes(&self) -> bool {
        self.parts.iter().any(|part| !part.writes.is_empty())
    }

    /// Memory of the writes, of what takes them back, of what iterators hold of them, of the locks, and of what is tracked.
    #[inline]
    pub(super) fn memory_bytes(&self) -> usize {
        let of_part = |part: &Part| part.writes.memory_bytes() + part.tracked.memory_bytes();
        let held = self.copies.iter().filter(|(copy, _)| copy.strong_count() > 0).map(|(_, bytes)| bytes);
        let rest = self.locked_bytes() + self.taking_back_bytes() + held.sum::<usize>();
        rest + self.parts.iter().map(of_part).sum::<usize>()
    }

    /// Memory of the savepoints, and of what takes back the writes since the first.
    fn taking_back_bytes(&self) -> usize {
        self.undo_bytes + self.savepoints.len() * size_of::<(RangeInclusive<u64>, usize)>()
    }

    fn locked_bytes(&self) -> usize {
        self.locks.as_ref().map_or(0, LockOwner::memory_bytes)
    }

    /// What is written, as a batch counts it.
    fn batch_bytes(&self) -> usize {
        let writes = self.parts.iter().map(|part| part.writes.batch_bytes()).sum::<usize>();
        self.locked_bytes() + self.taking_back_bytes() + writes
    }

    #[inline]
    pub(super) fn track_key(&mut self, part: usize, key: &[u8]) {
        let bytes_max = self.tracked_bytes_max(part, Tracked::bytes_of_key(key));
        if let Some(part) = self.parts.get_mut(part) {
            part.tracked.add_key(key, bytes_max);
        }
    }

    pub(super) fn track_range(&mut self, part: usize, range: KeyRange) {
        let bytes_max = self.tracked_bytes_max(part, Tracked::bytes_of_range(&range));
        if let Some(part) = self.parts.get_mut(part) {
            part.tracked.add_range(range, bytes_max);
        }
    }

    /// What a keyspace may track if it tracks `bytes` more. Without memory for that it tracks more coarsely.
    #[inline]
    fn tracked_bytes_max(&mut self, part: usize, bytes: usize) -> usize {
        if self.charge.fit(self.memory_bytes() + bytes).is_ok() {
            return self.limits.tracked_bytes_max / self.parts.len().max(1);
        }
        self.parts.get(part).map_or(0, |part| part.tracked.memory_bytes())
    }

    /// Tracks what a cursor has read.
    pub(super) fn track_span(&mut self, walk: WalkId, range: KeyRange) {
        let Some(walk) = self.walks.get(walk) else { return };
        let part = walk.part;
        if Arc::ptr_eq(&walk.snapshot, &self.snapshot) {
            self.track_range(part, range);
        } else {
            let snapshot = Arc::clone(&walk.snapshot);
            let same = |old: &&mut Walk| old.part == part && Arc::ptr_eq(&old.snapshot, &snapshot);
            match self.old_walks.iter_mut().find(same) {
                Some(old) => old.range.widen(&range),
                None => self.old_walks.push(Walk { part, range, snapshot }),
            }
        }
    }

    /// Changes the writes of a keyspace. Fails, and changes nothing, if all writes then take too much memory.
    pub(super) fn write(&mut self, part: usize, change: impl FnOnce(&mut Overlay) -> Undo) -> Result<()> {
        if self.parts.get(part).is_some_and(|part| Arc::strong_count(&part.writes) > 1) {
            self.note_copy(part);
        }
        let Some(writes) = self.parts.get_mut(part).map(|part| Arc::make_mut(&mut part.writes)) else {
            return Ok(());
        };
        let undo = change(writes);
        let keeps_undo = !self.savepoints.is_empty();
        let undo_bytes = if keeps_undo { undo.memory_bytes() } else { 0 };
        self.undo_bytes += undo_bytes;
        if let Err(error) = self.check_room(0) {
            self.undo_bytes -= undo_bytes;
            self.undo_in(part, undo);
            return Err(error);
        }
        if keeps_undo {
            self.undo.push((part, undo));
        }
        Ok(())
    }

    /// An iterator keeps the writes of a keyspace as they are now.
    #[cold]
    fn note_copy(&mut self, part: usize) {
        self.copies.retain(|(copy, _)| copy.strong_count() > 0);
        if let Some(Part { writes, .. }) = self.parts.get(part) {
            self.copies.push((Arc::downgrade(writes), writes.memory_bytes()));
        }
    }

    /// Fails if the writes and locks take too much memory with `bytes` more, for this transaction or beside others.
    pub(super) fn check_room(&mut self, bytes: usize) -> Result<()> {
        let (batch_bytes, bytes_max) = (self.batch_bytes() + bytes, self.limits.written_bytes_max);
        if batch_bytes > bytes_max {
            let (bytes, bytes_max) = (batch_bytes as u64, bytes_max as u64);
            return Err(Error::TooLarge { what: "transaction", bytes, bytes_max });
        }
        self.charge.fit(self.memory_bytes() + bytes)
    }

    fn undo_in(&mut self, part: usize, undo: Undo) {
        if let Some(part) = self.parts.get_mut(part) {
            Arc::make_mut(&mut part.writes).undo(undo);
        }
    }

    pub(super) fn savepoint(&mut self) -> u64 {
        self.savepoint_count += 1;
        let (number, length) = (self.savepoint_count, self.undo.len());
        // Without a write or a rollback between them, another one takes no memory.
        match self.savepoints.last_mut() {
            Some((numbers, before)) if *before == length && *numbers.end() + 1 == number => {
                *numbers = *numbers.start()..=number;
            }
            _ => self.savepoints.push((number..=number, length)),
        }
        number
    }

    /// Takes back the writes after a savepoint. Returns `false` if the savepoint was itself taken back.
    pub(super) fn rollback_to(&mut self, number: u64) -> bool {
        let index = self.savepoints.partition_point(|(numbers, _)| *numbers.end() < number);
        let Some((numbers, length)) = self.savepoints.get_mut(index) else { return false };
        if !numbers.contains(&number) {
            return false;
        }
        *numbers = *numbers.start()..=number;
        let length = *length;
        self.savepoints.truncate(index + 1);
        while self.undo.len() > length {
            if let Some((part, undo)) = self.undo.pop() {
                self.undo_bytes -= undo.memory_bytes();
                self.undo_in(part, undo);
            }
        }
        true
    }

    /// All writes, in the form of a batch.
    pub(super) fn batch(&self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for part in &self.parts {
            part.writes.add_to(&mut batch, part.tree.id);
        }
        batch
    }
}
