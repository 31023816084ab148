//! The live snapshots: what compactions keep for them, how old they are, and when they expire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_core::SequenceNumber;

use crate::error::{Error, Result};
use crate::keyspaces::read_point::{Now, ReadPoint};
use crate::pins::PinKind;

/// A registered snapshot.
pub(crate) struct SnapshotPin {
    pub(crate) point: ReadPoint<'static>,
    id: u64,
    expired: Arc<AtomicBool>,
}

impl SnapshotPin {
    /// Fails if the snapshot has expired. A reader calls this after it loaded the read state: a state that was loaded
    /// before the snapshot expired has all that the snapshot sees, and a later one may not.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.expired.load(Ordering::Acquire) { Err(self.error()) } else { Ok(()) }
    }

    #[cold]
    fn error(&self) -> Error {
        let sequence = self.point.sequence;
        Error::SnapshotExpired(
            format!("the snapshot at {sequence} is older than Options::snapshot_age_max and has expired: take a new one")
                .into(),
        )
    }
}

/// What is registered of a snapshot.
pub(crate) struct Taken {
    pub(crate) kind: PinKind,
    pub(crate) label: Option<Arc<str>>,
    /// When it was taken, by the clock of ages.
    pub(crate) since_micros: u64,
    /// The time for expiry of entries.
    now_micros: u64,
    expired: Arc<AtomicBool>,
}

/// The live snapshots, by sequence number and then in the order in which they were taken. Higher numbers have later
/// times.
#[derive(Default)]
pub(super) struct Snapshots {
    taken: BTreeMap<(SequenceNumber, u64), Taken>,
    next_id: u64,
}

impl Snapshots {
    pub(super) fn take(
        &mut self,
        sequence: SequenceNumber,
        now_micros: u64,
        since_micros: u64,
    ) -> SnapshotPin {
        let (id, expired) = (self.next_id, Arc::<AtomicBool>::default());
        self.next_id += 1;
        let pin_expired = Arc::clone(&expired);
        let taken = Taken { kind: PinKind::Snapshot, label: None, since_micros, now_micros, expired };
        self.taken.insert((sequence, id), taken);
        SnapshotPin { point: ReadPoint { sequence, now: Now::At(now_micros) }, id, expired: pin_expired }
    }

    /// Does nothing if the snapshot has expired.
    pub(super) fn release(&mut self, pin: &SnapshotPin) {
        self.taken.remove(&(pin.point.sequence, pin.id));
    }

    /// Changes what is registered of a snapshot, unless it has expired.
    pub(super) fn change(&mut self, pin: &SnapshotPin, change: impl FnOnce(&mut Taken)) {
        if let Some(taken) = self.taken.get_mut(&(pin.point.sequence, pin.id)) {
            change(taken);
        }
    }

    /// Removes the snapshots that were taken before `micros`, and returns them with their sequence numbers. First they
    /// are marked, so that no reader uses a state that was made without them.
    pub(super) fn expire(&mut self, micros: u64) -> Vec<(SequenceNumber, Taken)> {
        let is_old = |taken: &Taken| taken.since_micros < micros;
        let old: Vec<_> = self.taken.iter().filter(|(_, taken)| is_old(taken)).map(|(key, _)| *key).collect();
        let expire = |(sequence, id)| {
            let taken = self.taken.remove(&(sequence, id))?;
            taken.expired.store(true, Ordering::Release);
            Some((sequence, taken))
        };
        old.into_iter().filter_map(expire).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SequenceNumber, &Taken)> {
        self.taken.iter().map(|((sequence, _), taken)| (*sequence, taken))
    }

    /// The sequence numbers of the snapshots, ascending, each once, and the time of the first snapshot at each.
    pub(super) fn stripes(&self) -> (Vec<SequenceNumber>, Vec<u64>) {
        let mut stripes: (Vec<SequenceNumber>, Vec<u64>) = Default::default();
        for (sequence, taken) in self.iter() {
            if stripes.0.last() != Some(&sequence) {
                stripes.0.push(sequence);
                stripes.1.push(taken.now_micros);
            }
        }
        stripes
    }
}
