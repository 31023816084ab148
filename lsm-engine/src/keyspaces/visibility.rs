//! Which writes readers see: the visible sequence number, and the numbers at which live snapshots read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::SequenceNumber;
use parking_lot::Mutex;

use crate::keyspaces::read_state::ReadState;
use crate::keyspaces::tree::Tree;
use crate::keyspaces::tree_set::TreeSet;

/// The last write that readers see, and the snapshots of earlier moments.
pub(crate) struct Visibility {
    visible: AtomicU64,
    /// How many snapshots read at each number.
    snapshots: Mutex<BTreeMap<SequenceNumber, usize>>,
    /// Keyspaces that were cleared and keep for older snapshots what they were.
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

    /// The last write that readers see.
    #[inline]
    pub(crate) fn sequence(&self) -> SequenceNumber {
        self.visible.load(Ordering::Acquire)
    }

    /// The last write that a reader of `state`, which it loaded before, sees.
    ///
    /// Its memtable may have been full in the middle of a batch that is visible by now: the rest is in a memtable that
    /// the state does not have, so the reader sees none of it. The cut is marked before the batch becomes visible.
    #[inline]
    pub(crate) fn sequence_in(&self, state: &ReadState) -> SequenceNumber {
        let visible = self.sequence();
        // A memtable that was full in the middle of a batch keeps its place until the next one takes it.
        state.memtable.as_ref().map_or(visible, |memtable| visible.min(memtable.whole_up_to()))
    }

    /// Makes writes up to `sequence` visible. Under the commit lock.
    #[inline]
    pub(crate) fn publish(&self, sequence: SequenceNumber) {
        self.visible.store(sequence, Ordering::Release);
    }

    /// Takes the visible number and registers it, both under the lock from which merges copy the list.
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
        self.forget_cleared();
    }

    pub(crate) fn snapshot_count(&self) -> usize {
        self.snapshots.lock().values().sum()
    }

    /// At which numbers anyone reads, ascending: the snapshots, and the visible number for readers that registered
    /// none. Two versions of a key within one stripe look the same to all of them. Under the lock, so that no number
    /// below the last is taken later.
    pub(crate) fn snapshot_stripes(&self) -> Vec<SequenceNumber> {
        let snapshots = self.snapshots.lock();
        let mut stripes: Vec<_> = snapshots.keys().copied().collect();
        let visible = self.sequence();
        if stripes.last() != Some(&visible) {
            stripes.push(visible);
        }
        stripes
    }

    /// A keyspace was cleared, and keeps what it was for older snapshots.
    pub(crate) fn keep_cleared(&self, tree: &Arc<Tree>) {
        self.cleared.add(tree);
    }

    /// A keyspace was dropped with all that it kept.
    pub(crate) fn look_at_cleared(&self, tree: &Tree) {
        self.cleared.look_at(tree);
    }

    /// Lets go of what was cleared or dropped and no snapshot sees.
    pub(crate) fn forget_cleared(&self) {
        for tree in self.cleared.trees() {
            tree.update(|state| {
                // After the state: numbers that are taken later than this list are not below its last, and so are
                // answered by what that is answered by.
                let read = self.snapshot_stripes();
                ReadState { before_clear: state.still_read(&read), ..(**state).clone() }
            });
            self.cleared.look_at(&tree);
        }
    }
}
