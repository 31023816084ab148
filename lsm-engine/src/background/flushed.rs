//! What becomes one run of level 0.

use std::sync::Arc;

use lsm_compaction::{CompactionStream, GarbageRules};
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{Cursor, MergingCursor, SequenceNumber};

use crate::background::compaction::Older;
use crate::keyspaces::{BlobBases, Memtable, ReadState, Tree};
use crate::memory::Memory;
use crate::version::{BlobFile, Placement};

/// The oldest immutable memtables of a keyspace, at least one: the run that they become takes the place of the newest.
pub(crate) struct Flushed {
    /// Newest first.
    memtables: Vec<Arc<Memtable>>,
}

impl Flushed {
    /// As many as come to `bytes_max`, or one. What is newer than ingested tables becomes another run, above theirs.
    pub(crate) fn oldest(tree: &Tree, bytes_max: usize) -> Option<Self> {
        let state = tree.load();
        let (mut bytes, mut is_last) = (0, false);
        let fits = |memtable: &&Arc<Memtable>| {
            let is_beyond = std::mem::replace(&mut is_last, !memtable.ingested.is_empty());
            bytes += memtable.immutable_bytes();
            bytes <= bytes_max && !is_beyond
        };
        let count = state.immutable.iter().rev().take_while(fits).count().max(1);
        let first = state.immutable.len().checked_sub(count)?;
        Some(Self { memtables: state.immutable[first..].to_vec() })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.memtables.iter().map(|memtable| memtable.immutable_bytes()).sum()
    }

    pub(crate) fn entry_count(&self) -> u64 {
        self.memtables.iter().map(|memtable| memtable.reader.entry_count() as u64).sum()
    }

    /// The number of the run.
    pub(crate) fn number(&self) -> u64 {
        self.memtables.iter().map(|memtable| memtable.number).max().unwrap_or(0)
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.memtables.iter().map(|memtable| memtable.number)
    }

    /// The tables that come into the manifest with these memtables, and that the keyspace has already.
    pub(crate) fn ingested(&self) -> impl Iterator<Item = &Placement> {
        self.memtables.iter().flat_map(|memtable| &memtable.ingested)
    }

    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.memtables.iter().map(|memtable| memtable.last_sequence()).max().unwrap_or(0)
    }

    pub(crate) fn log_start(&self) -> u64 {
        self.memtables.iter().map(|memtable| memtable.log_start).min().unwrap_or(0)
    }

    /// Whether the log has the rest of a batch that ends in here.
    pub(crate) fn is_cut(&self) -> bool {
        self.memtables.iter().any(|memtable| memtable.is_cut())
    }

    pub(crate) fn holds(&self, memtable: &Arc<Memtable>) -> bool {
        self.memtables.iter().any(|flushed| Arc::ptr_eq(flushed, memtable))
    }

    /// Whether the keyspace still has all of them.
    pub(crate) fn is_held_by(&self, tree: &Tree) -> bool {
        let state = tree.load();
        let is_there =
            |flushed| state.immutable.iter().any(|immutable: &Arc<Memtable>| Arc::ptr_eq(immutable, flushed));
        self.memtables.iter().all(is_there)
    }

    /// The blob files that their entries point to.
    pub(crate) fn blobs(&self) -> Vec<Arc<BlobFile>> {
        self.memtables.iter().flat_map(|memtable| memtable.blobs()).collect()
    }

    pub(crate) fn into_memtables(self) -> Vec<Arc<Memtable>> {
        self.memtables
    }

    /// What a flush keeps of them. They are part of `state`.
    pub(crate) fn survivors(
        &self,
        state: &ReadState,
        rules: GarbageRules,
        memory: &Memory,
    ) -> CompactionStream<Box<dyn Cursor + Send>, Older> {
        let oldest = self.memtables.iter().map(|memtable| memtable.number).min().unwrap_or(0);
        let older = Older::below_memtable(state, oldest);
        let range_tombstones = Arc::new(self.range_tombstones(&rules.snapshots));
        CompactionStream::with_older(self.cursor(), range_tombstones, rules, older, None, None)
            .with_blobs(BlobBases::of(self.blobs(), memory))
    }

    fn cursor(&self) -> Box<dyn Cursor + Send> {
        let mut cursors: Vec<_> =
            self.memtables.iter().map(|memtable| Arc::clone(&memtable.reader).cursor()).collect();
        match (cursors.pop(), cursors.is_empty()) {
            (Some(cursor), true) => cursor,
            (last, _) => {
                cursors.extend(last);
                Box::new(MergingCursor::new(cursors))
            }
        }
    }

    /// Only what some reader can tell apart: nested range deletes would pile up otherwise.
    fn range_tombstones(&self, snapshots: &[SequenceNumber]) -> FragmentedRangeTombstones {
        let each = self.memtables.iter().map(|memtable| memtable.range_tombstones.for_snapshots(snapshots));
        FragmentedRangeTombstones::merged(&each.collect::<Vec<_>>())
    }
}

impl From<Arc<Memtable>> for Flushed {
    fn from(memtable: Arc<Memtable>) -> Self {
        Self { memtables: vec![memtable] }
    }
}
