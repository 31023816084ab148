//! What a read sees: the writes up to a sequence number, at a time.

use lsm_core::expiry;
use lsm_core::{SequenceNumber, ValueKind};

use crate::version::Clock;

/// What a read sees: the writes up to `sequence`, as they are at the time `now`.
///
/// Snapshots, iterators and transactions fix both when they are made, so nothing changes under their reader. A single get
/// asks the clock only when it meets an entry that expires.
#[derive(Clone, Copy)]
pub(crate) struct ReadPoint<'c> {
    pub(crate) sequence: SequenceNumber,
    pub(crate) now: Now<'c>,
}

/// The time of a read.
#[derive(Clone, Copy)]
pub(crate) enum Now<'c> {
    /// Microseconds since 1970.
    At(u64),
    /// What this clock says when it is asked.
    Clock(&'c Clock),
}

/// What the newest visible version of a key means, if no range tombstone covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'v> {
    Value(&'v [u8]),
    /// The value is in a blob file, where this pointer says.
    Blob(&'v [u8]),
    /// The key has the value that the merge operator makes of this operand and of older versions.
    Operand(&'v [u8]),
    /// The key has no value: it was deleted or has expired. Either hides all older versions.
    Absent,
    /// The stored value is not what this kind of entry has.
    Malformed,
}

impl Now<'_> {
    pub(crate) fn micros(self) -> u64 {
        match self {
            Self::At(micros) => micros,
            Self::Clock(clock) => clock.unix_micros(),
        }
    }
}

impl ReadPoint<'_> {
    /// What a version means for this reader, being the newest that it sees.
    #[inline]
    pub(crate) fn meaning<'v>(&self, kind: ValueKind, stored: &'v [u8]) -> Meaning<'v> {
        match kind {
            ValueKind::Put => Meaning::Value(stored),
            ValueKind::Delete | ValueKind::SingleDelete => Meaning::Absent,
            _ => self.rare_meaning(kind, stored),
        }
    }

    #[cold]
    fn rare_meaning<'v>(&self, kind: ValueKind, stored: &'v [u8]) -> Meaning<'v> {
        match kind {
            ValueKind::Merge => return Meaning::Operand(stored),
            ValueKind::PutWithExpiry | ValueKind::BlobPointer => {}
            _ => return Meaning::Value(stored),
        }
        match expiry::split(stored) {
            Some((expiry_micros, _))
                if expiry_micros != expiry::NEVER && expiry::is_over(expiry_micros, self.now.micros()) =>
            {
                Meaning::Absent
            }
            Some(_) if kind == ValueKind::BlobPointer => Meaning::Blob(stored),
            Some((_, value)) => Meaning::Value(value),
            None => Meaning::Malformed,
        }
    }
}

impl std::fmt::Debug for ReadPoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadPoint").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}
