//! What readers see: the visible sequence number, the live snapshots, and the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_compaction::GarbageRules;
use lsm_core::SequenceNumber;
use parking_lot::Mutex;

use crate::keyspaces::read_point::{Now, ReadPoint};
use crate::keyspaces::read_state::ReadState;
use crate::keyspaces::tree::Tree;
use crate::keyspaces::tree_set::TreeSet;
use crate::version::Clock;

/// The visible sequence number, the live snapshots, and the time.
pub(crate) struct Visibility {
    visible: AtomicU64,
    clock: Arc<Clock>,
    /// The live snapshots by sequence number. Higher numbers have later times.
    snapshots: Mutex<BTreeMap<SequenceNumber, Snapshots>>,
    /// Keyspaces that keep a state from before a clear for older snapshots.
    cleared: TreeSet,
}

/// The live snapshots with one sequence number.
struct Snapshots {
    count: usize,
    /// The time of the first of them. Later ones have later times.
    now_micros: u64,
}

impl Visibility {
    pub(crate) fn new(visible: SequenceNumber, clock: Arc<Clock>) -> Self {
        Self {
            visible: AtomicU64::new(visible),
            clock,
            snapshots: Mutex::default(),
            cleared: TreeSet::new(|state| state.before_clear.is_some()),
        }
    }

    /// The sequence number of the last write that readers see.
    #[inline]
    pub(crate) fn sequence(&self) -> SequenceNumber {
        self.visible.load(Ordering::Acquire)
    }

    /// The sequence number at which a reader of `state` reads. The reader must load the state before this call.
    ///
    /// The active memtable of the state may have become full in the middle of a batch. The rest of that batch is in a
    /// newer memtable that the state lacks, so the reader must not see the batch at all. The writer marks the cut before
    /// the batch becomes visible.
    #[inline]
    pub(crate) fn sequence_in(&self, state: &ReadState) -> SequenceNumber {
        let visible = self.sequence();
        // Only the active memtable matters: until the next one replaces it, a cut memtable stays active.
        state.memtable.as_ref().map_or(visible, |memtable| visible.min(memtable.whole_up_to()))
    }

    /// What a reader of `state` sees now. The reader must load the state before this call.
    #[inline]
    pub(crate) fn point_in(&self, state: &ReadState) -> ReadPoint<'_> {
        ReadPoint { sequence: self.sequence_in(state), now: Now::Clock(&self.clock) }
    }

    /// The time for expiry, in microseconds since 1970. It never runs back.
    pub(crate) fn now_micros(&self) -> u64 {
        self.clock.unix_micros()
    }

    /// Makes writes up to `sequence` visible. The caller holds the commit lock.
    #[inline]
    pub(crate) fn publish(&self, sequence: SequenceNumber) {
        self.visible.store(sequence, Ordering::Release);
    }

    /// Reads the visible number and the time and registers them, under the lock from which merges copy the list.
    pub(crate) fn take_snapshot(&self) -> ReadPoint<'static> {
        let mut snapshots = self.snapshots.lock();
        let (sequence, now_micros) = (self.sequence(), self.now_micros());
        snapshots.entry(sequence).or_insert(Snapshots { count: 0, now_micros }).count += 1;
        ReadPoint { sequence, now: Now::At(now_micros) }
    }

    /// Ends a snapshot at this sequence number.
    pub(crate) fn release_snapshot(&self, sequence: SequenceNumber) {
        let mut snapshots = self.snapshots.lock();
        if let Some(taken) = snapshots.get_mut(&sequence) {
            taken.count -= 1;
            if taken.count == 0 {
                snapshots.remove(&sequence);
            }
        }
        drop(snapshots);
        self.release_cleared();
    }

    pub(crate) fn snapshot_count(&self) -> usize {
        self.snapshots.lock().values().map(|taken| taken.count).sum()
    }

    /// What a merge must know of readers: the snapshot stripes and the times of their readers. The lock ensures that later
    /// snapshots have no earlier time than the last one.
    pub(crate) fn garbage_rules(&self) -> GarbageRules {
        let taken = self.snapshots.lock();
        let mut snapshots: Vec<_> = taken.keys().copied().collect();
        let mut times_micros: Vec<_> = taken.values().map(|taken| taken.now_micros).collect();
        let newest_snapshot = snapshots.last().copied().unwrap_or(0);
        let (visible, now_micros) = (self.sequence(), self.now_micros());
        if snapshots.last() != Some(&visible) {
            snapshots.push(visible);
            times_micros.push(now_micros);
        }
        GarbageRules { snapshots, times_micros, newest_snapshot, ..GarbageRules::default() }
    }

    /// The sequence numbers that bound the snapshot stripes, ascending: those of the snapshots, then the visible number
    /// for readers without a snapshot. Of several versions of a key in one stripe, readers see only the newest. The lock
    /// ensures that later snapshots are not below the last number.
    pub(crate) fn snapshot_stripes(&self) -> Vec<SequenceNumber> {
        let snapshots = self.snapshots.lock();
        let mut stripes: Vec<_> = snapshots.keys().copied().collect();
        let visible = self.sequence();
        if stripes.last() != Some(&visible) {
            stripes.push(visible);
        }
        stripes
    }

    /// Notes that a cleared keyspace keeps its old state for older snapshots.
    pub(crate) fn keep_cleared(&self, tree: &Arc<Tree>) {
        self.cleared.add(tree);
    }

    /// Checks whether a keyspace still keeps a state from before a clear.
    pub(crate) fn recheck_cleared(&self, tree: &Tree) {
        self.cleared.recheck(tree);
    }

    /// Releases the states from before clears that no snapshot sees any more.
    pub(crate) fn release_cleared(&self) {
        for tree in self.cleared.trees() {
            tree.update(|state| {
                // Copy the list after the state was loaded: a later snapshot is not below the last number of the list, so
                // it uses the same state as that number.
                let read = self.snapshot_stripes();
                ReadState { before_clear: state.still_read(&read), ..(**state).clone() }
            });
            self.cleared.recheck(&tree);
        }
    }
}
