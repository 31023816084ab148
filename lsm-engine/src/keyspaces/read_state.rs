//! The read state, which RocksDB calls a super version: what a reader takes once and then reads from.

use std::sync::Arc;

use lsm_core::hash::key_hash;
use lsm_core::{SequenceNumber, Slice};

use crate::error::Result;
use crate::keyspaces::empty_spans::EmptySpans;
use crate::keyspaces::memtable::Memtable;
use crate::version::{Lookup, Version};

/// What a keyspace consists of at one moment.
#[derive(Clone)]
pub(crate) struct ReadState {
    /// The one that is being filled, if anything was written since the last rotation.
    pub(crate) memtable: Option<Arc<Memtable>>,
    /// Waiting to be flushed, newest first.
    pub(crate) immutable: Vec<Arc<Memtable>>,
    pub(crate) version: Arc<Version>,
    /// The keyspace was cleared by this write, or its policy dropped tables: older readers must not read this.
    pub(crate) cleared: SequenceNumber,
    /// What it was before, for snapshots that are older.
    pub(crate) before_clear: Option<Arc<ReadState>>,
    /// How often a memtable was begun or data dropped.
    pub(crate) begun_count: u64,
    /// Which state of the keyspace it is: each has a higher number than those before.
    pub(crate) generation: u64,
    /// The same in all states of the keyspace.
    pub(crate) empty_spans: Arc<EmptySpans>,
}

impl ReadState {
    /// Of a keyspace without memtables.
    pub(super) fn new(version: Version) -> Self {
        Self {
            memtable: None,
            immutable: Vec::new(),
            version: Arc::new(version),
            cleared: 0,
            before_clear: None,
            begun_count: 0,
            generation: 0,
            empty_spans: Arc::default(),
        }
    }

    /// The state that a reader at `sequence` must use.
    #[inline]
    pub(crate) fn at(&self, sequence: SequenceNumber) -> &Self {
        let mut state = self;
        while sequence < state.cleared {
            match &state.before_clear {
                Some(before) => state = before,
                None => break,
            }
        }
        state
    }

    /// The states from before clears that readers at one of these numbers, ascending, use: no more of them than there
    /// are readers, however often the keyspace is cleared.
    pub(crate) fn still_read(&self, numbers: &[SequenceNumber]) -> Option<Arc<Self>> {
        let (mut end, mut next) = (self.cleared, self.before_clear.as_ref());
        while let Some(state) = next {
            let first = numbers.partition_point(|&number| number < state.cleared);
            if numbers.get(first).is_some_and(|&number| number < end) {
                let before_clear = state.still_read(numbers);
                return Some(Arc::new(Self { before_clear, ..(**state).clone() }));
            }
            (end, next) = (state.cleared, state.before_clear.as_ref());
        }
        None
    }

    /// Newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.memtable.iter().chain(&self.immutable)
    }

    pub(crate) fn get(&self, key: &[u8], sequence: SequenceNumber) -> Result<Option<Slice>> {
        let state = self.at(sequence);
        let mut covering = 0;
        for memtable in state.memtables() {
            if !memtable.range_tombstones.is_empty() {
                covering = covering.max(memtable.range_tombstones.covering_sequence(key, sequence));
            }
            if let Some(entry) = memtable.reader.get(key, sequence) {
                let deleted = entry.kind.is_tombstone() || entry.sequence < covering;
                return Ok((!deleted).then(|| Slice::copy_from(entry.value)));
            }
        }
        match state.version.get(key, key_hash(key), sequence, covering)? {
            Lookup::Found(value) => Ok(Some(value)),
            Lookup::Deleted | Lookup::Unknown => Ok(None),
        }
    }
}
