//! Which writes readers see: the visible sequence number and the numbers of live snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::SequenceNumber;
use parking_lot::Mutex;

use crate::keyspaces::read_state::ReadState;
use crate::keyspaces::tree::Tree;
use crate::keyspaces::tree_set::TreeSet;

/// The visible sequence number and the live snapshots.
pub(crate) struct Visibility {
    visible: AtomicU64,
    /// Number of live snapshots by sequence number.
    snapshots: Mutex<BTreeMap<SequenceNumber, usize>>,
    /// Keyspaces that keep a state from before a clear for older snapshots.
    cleared: TreeSet,
}

impl Visibility {
    pub(crate) fn new(visible: SequenceNumber) -> Self {
        Self {
            visible: AtomicU64::new(visible),
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

    /// Makes writes up to `sequence` visible. The caller holds the commit lock.
    #[inline]
    pub(crate) fn publish(&self, sequence: SequenceNumber) {
        self.visible.store(sequence, Ordering::Release);
    }

    /// Reads the visible number and registers it, under the lock from which merges copy the list.
    pub(crate) fn take_snapshot(&self) -> SequenceNumber {
        let mut snapshots = self.snapshots.lock();
        let sequence = self.sequence();
        *snapshots.entry(sequence).or_insert(0) += 1;
        sequence
    }

    pub(crate) fn release_snapshot(&self, sequence: SequenceNumber) {
        let mut snapshots = self.snapshots.lock();
        if let Some(count) = snapshots.get_mut(&sequence) {
            *count -= 1;
            if *count == 0 {
                snapshots.remove(&sequence);
            }
        }
        drop(snapshots);
        self.release_cleared();
    }

    pub(crate) fn snapshot_count(&self) -> usize {
        self.snapshots.lock().values().sum()
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
