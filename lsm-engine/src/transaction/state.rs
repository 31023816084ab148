//! What a transaction has read and written so far.

use std::sync::Arc;

use super::overlay::{Overlay, Undo};
use super::tracked::Tracked;
use super::walks::{Walk, WalkId, Walks};
use crate::batch::WriteBatch;
use crate::error::{Error, Result};
use crate::keyspaces::Tree;
use crate::locks::LockOwner;
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
    /// How to take back the writes since the first savepoint, with the index of the keyspace.
    undo: Vec<(usize, Undo)>,
    undo_bytes: usize,
    /// The savepoints, with the length of the undo log when they were made.
    savepoints: Vec<(u64, usize)>,
    savepoint_count: u64,
    limits: Limits,
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
    pub(super) fn new(snapshot: Arc<Snapshot>, limits: Limits, locks: Option<LockOwner>) -> Self {
        Self {
            snapshot,
            parts: Vec::new(),
            walks: Walks::default(),
            old_walks: Vec::new(),
            undo: Vec::new(),
            undo_bytes: 0,
            savepoints: Vec::new(),
            savepoint_count: 0,
            limits,
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

    /// Memory of the writes, of what takes them back, and of what is tracked.
    pub(super) fn memory_bytes(&self) -> usize {
        self.written_bytes() + self.parts.iter().map(|part| part.tracked.memory_bytes()).sum::<usize>()
    }

    fn written_bytes(&self) -> usize {
        let locks = self.locks.as_ref().map_or(0, LockOwner::memory_bytes);
        locks + self.undo_bytes + self.parts.iter().map(|part| part.writes.memory_bytes()).sum::<usize>()
    }

    #[inline]
    pub(super) fn track_key(&mut self, part: usize, key: &[u8]) {
        let bytes_max = self.limits.tracked_bytes_max / self.parts.len().max(1);
        if let Some(part) = self.parts.get_mut(part) {
            part.tracked.add_key(key, bytes_max);
        }
    }

    pub(super) fn track_range(&mut self, part: usize, range: KeyRange) {
        let bytes_max = self.limits.tracked_bytes_max / self.parts.len().max(1);
        if let Some(part) = self.parts.get_mut(part) {
            part.tracked.add_range(range, bytes_max);
        }
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
            match self.old_walks.last_mut().filter(same) {
                Some(old) => old.range.widen(&range),
                None => self.old_walks.push(Walk { part, range, snapshot }),
            }
        }
    }

    /// Changes the writes of a keyspace. Fails, and changes nothing, if all writes then take too much memory.
    pub(super) fn write(&mut self, part: usize, change: impl FnOnce(&mut Overlay) -> Undo) -> Result<()> {
        let Some(writes) = self.parts.get_mut(part).map(|part| Arc::make_mut(&mut part.writes)) else {
            return Ok(());
        };
        let undo = change(writes);
        let keeps_undo = !self.savepoints.is_empty();
        let undo_bytes = if keeps_undo { undo.memory_bytes() } else { 0 };
        if let Err(error) = self.check_room(undo_bytes) {
            self.undo_in(part, undo);
            return Err(error);
        }
        if keeps_undo {
            self.undo_bytes += undo_bytes;
            self.undo.push((part, undo));
        }
        Ok(())
    }

    /// Fails if the writes and locks take too much memory with `bytes` more.
    pub(super) fn check_room(&self, bytes: usize) -> Result<()> {
        let (bytes, bytes_max) = (self.written_bytes() + bytes, self.limits.written_bytes_max);
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(Error::TooLarge { what: "transaction", bytes: bytes as u64, bytes_max: bytes_max as u64 })
    }

    fn undo_in(&mut self, part: usize, undo: Undo) {
        if let Some(part) = self.parts.get_mut(part) {
            Arc::make_mut(&mut part.writes).undo(undo);
        }
    }

    pub(super) fn savepoint(&mut self) -> u64 {
        self.savepoint_count += 1;
        self.savepoints.push((self.savepoint_count, self.undo.len()));
        self.savepoint_count
    }

    /// Takes back the writes after a savepoint. Returns `false` if the savepoint was itself taken back.
    pub(super) fn rollback_to(&mut self, number: u64) -> bool {
        let Ok(index) = self.savepoints.binary_search_by_key(&number, |&(number, _)| number) else {
            return false;
        };
        let Some(&(_, length)) = self.savepoints.get(index) else { return false };
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
