//! What a merge may leave out.
//!
//! Readers look at the store at certain sequence numbers only: those of the snapshots, and everything from the
//! visible number on. Two neighbouring numbers of that list bound a *stripe*; all versions in a stripe are seen or
//! missed by the same readers, so of each key only the newest matters there. From this all rules follow:
//!
//! - A version is left out if a newer one of its key, or a range tombstone that covers it, lies in its stripe.
//! - A tombstone is left out if it lies in the oldest stripe and nothing older of its key can exist outside the
//!   merge: then there is nothing left for it to hide. The same holds of a range tombstone and its range.
//! - A put that is kept under those conditions needs no sequence number any more: 0 says "older than
//!   everything", and compresses well.
//! - A merge operand hides nothing: the operands of a stripe are kept down to the first put or delete, inclusive. With a
//!   merge operator they become one put, or one operand where what they apply to lies in an older stripe, outside the
//!   merge, or in a kind of value that the merge cannot read. Operands that the operator refuses stay as they are.
//! - Versions above the last number of the list are all kept: a snapshot may be taken between them later.
//! - A put that has expired for all readers of its stripe is a tombstone from then on. Readers of later stripes have
//!   later times, so it has expired for them, too.
//!
//! A single delete goes as soon as nothing older of its key is left to hide, wherever that is: its put lies in its
//! stripe, most often. It must be known, and not be taken from the promise of the user: a put that meets a single
//! delete may have replaced a tombstone in an earlier merge, with an older put still further down, which would come
//! back. So [`OlderVersions::may_hold_precisely`] is asked, and without a precise answer a single delete is a delete.
//!
//! A compaction filter is asked about a put that no snapshot sees, if it is the newest version of its key in the merge. What
//! it deletes is a tombstone from then on, and goes as tombstones do.
//!
//! Blob pointers are puts whose loss is reported.

mod filtering;
mod merging;
mod older;
mod stream;
mod survivors;

pub use merging::MergeFailure;
pub use older::{OlderTables, OlderVersions};
pub use stream::{CompactionStream, GarbageCounts};

use lsm_core::{SequenceNumber, expiry};

/// What a merge must know to tell garbage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GarbageRules {
    /// The sequence numbers that readers may look at, ascending: those of all snapshots, then the visible number.
    /// What lies above the last is kept whole.
    ///
    /// Copy the list after the inputs of the merge are immutable and published. Empty: nobody will ever look at less
    /// than everything.
    pub snapshots: Vec<SequenceNumber>,
    /// For each number of `snapshots` the time of its first reader, in microseconds since 1970; at the end, the present
    /// time. It ascends, and no later reader has an earlier time. Without a time, nothing has expired.
    pub times_micros: Vec<u64>,
    /// The number of the newest snapshot, 0 if there is none: a compaction filter is asked only about newer versions.
    pub newest_snapshot: SequenceNumber,
    /// Nothing older than the inputs exists outside the merge for any key in their range. If not set, an
    /// [`OlderVersions`] is asked key by key.
    pub bottommost: bool,
    /// Puts that everyone sees and below which nothing exists get sequence number 0.
    pub zero_sequences: bool,
}

impl GarbageRules {
    /// Which stripe a version is in: 0 is the oldest, `snapshots.len()` that of versions beyond the last number.
    #[inline]
    fn stripe(&self, sequence: SequenceNumber) -> usize {
        match self.snapshots.first() {
            Some(oldest) if sequence > *oldest => {
                self.snapshots.partition_point(|snapshot| *snapshot < sequence)
            }
            _ => 0,
        }
    }

    /// Whether an entry has expired for all readers of a stripe and of later ones.
    #[cold]
    fn is_expired(&self, stripe: usize, expiry_micros: u64) -> bool {
        self.times_micros.get(stripe).is_some_and(|now| expiry::is_over(expiry_micros, *now))
    }

    /// The highest number that readers of a stripe may look at, `None` for the versions that are kept whole.
    #[inline]
    fn stripe_end(&self, stripe: usize) -> Option<SequenceNumber> {
        if self.snapshots.is_empty() {
            Some(SequenceNumber::MAX)
        } else {
            self.snapshots.get(stripe).copied()
        }
    }
}
