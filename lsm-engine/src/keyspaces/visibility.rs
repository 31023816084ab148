//! What readers see: the visible sequence number, the live snapshots, and the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lsm_compaction::GarbageRules;
use lsm_core::SequenceNumber;
use parking_lot::Mutex;

use crate::keyspaces::read_point::{Now, ReadPoint};
use crate::keyspaces::read_state::ReadState;
use crate::keyspaces::snapshots::{SnapshotPin, Snapshots, Taken};
use crate::keyspaces::tree::Tree;
use crate::keyspaces::tree_set::TreeSet;
use crate::pins::Pin;
use crate::version::Clock;

/// The visible sequence number, the live snapshots, and the time.
pub(crate) struct Visibility {
    visible: AtomicU64,
    /// What writes up to this number deleted is in no file any more.
    purged: AtomicU64,
    clock: Arc<Clock>,
    snapshots: Mutex<Snapshots>,
    /// Keyspaces that keep a state from before a clear for older snapshots.
    cleared: TreeSet,
}

impl Visibility {
    pub(crate) fn new(visible: SequenceNumber, clock: Arc<Clock>) -> Self {
        Self {
            visible: AtomicU64::new(visible),
            purged: AtomicU64::new(0),
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

    /// What writes up to this number deleted is in no file any more.
    pub(crate) fn purged(&self) -> SequenceNumber {
        self.purged.load(Ordering::Acquire)
    }

    pub(crate) fn set_purged(&self, sequence: SequenceNumber) {
        self.purged.store(sequence, Ordering::Release);
    }

    /// What the oldest snapshot sees, or else what readers see. Later snapshots see no less.
    pub(crate) fn oldest_read(&self) -> SequenceNumber {
        let snapshots = self.snapshots.lock();
        snapshots.iter().next().map_or(self.sequence(), |(sequence, _)| sequence)
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
    pub(crate) fn take_snapshot(&self) -> SnapshotPin {
        let mut snapshots = self.snapshots.lock();
        snapshots.take(self.sequence(), self.now_micros(), self.clock.age_micros())
    }

    /// Ends a snapshot.
    pub(crate) fn release_snapshot(&self, pin: &SnapshotPin) {
        self.snapshots.lock().release(pin);
        self.release_cleared();
    }

    /// Changes what is registered of a snapshot.
    pub(crate) fn change_snapshot(&self, pin: &SnapshotPin, change: impl FnOnce(&mut Taken)) {
        self.snapshots.lock().change(pin, change);
    }

    /// The label of a snapshot.
    pub(crate) fn snapshot_label(&self, pin: &SnapshotPin) -> Option<Arc<str>> {
        let mut label = None;
        self.snapshots.lock().change(pin, |taken| label.clone_from(&taken.label));
        label
    }

    /// Ends the snapshots that are older than `age_max_micros`. Their readers get errors from now on. Returns them with
    /// their sequence numbers and ages.
    pub(crate) fn expire_snapshots(&self, age_max_micros: u64) -> Vec<(SequenceNumber, u64, Taken)> {
        let now_micros = self.clock.age_micros();
        let expired = self.snapshots.lock().expire(now_micros.saturating_sub(age_max_micros));
        if !expired.is_empty() {
            self.release_cleared();
        }
        let age = |taken: &Taken| now_micros.saturating_sub(taken.since_micros);
        expired.into_iter().map(|(sequence, taken)| (sequence, age(&taken), taken)).collect()
    }

    /// The live snapshots.
    pub(crate) fn snapshot_pins(&self) -> Vec<Pin> {
        let now_micros = self.clock.age_micros();
        let pin = |(sequence, taken): (SequenceNumber, &Taken)| Pin {
            kind: taken.kind,
            label: taken.label.clone(),
            keyspace: None,
            sequence: Some(sequence),
            age: Duration::from_micros(now_micros.saturating_sub(taken.since_micros)),
            readers: 1,
            table_bytes: 0,
            log_bytes: 0,
        };
        self.snapshots.lock().iter().map(pin).collect()
    }

    pub(crate) fn snapshot_count(&self) -> usize {
        self.snapshots.lock().len()
    }

    /// What a merge must know of readers: the snapshot stripes and the times of their readers. The lock ensures that later
    /// snapshots have no earlier time than the last one.
    pub(crate) fn garbage_rules(&self) -> GarbageRules {
        let taken = self.snapshots.lock();
        let (mut snapshots, mut times_micros) = taken.stripes();
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
        let (mut stripes, _) = snapshots.stripes();
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
