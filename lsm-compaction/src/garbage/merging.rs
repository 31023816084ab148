//! What becomes of the merge operands of a key.

use std::sync::Arc;

use lsm_core::merge_operator::{MergeError, MergeOperator, Operands};
use lsm_core::{Entry, SequenceNumber, ValueKind};

/// Folds the operands of a key that lie in one stripe, one stripe at a time.
pub(super) struct Merging {
    operator: Arc<dyn MergeOperator>,
    /// Those of the stripe, gathered from the newest down.
    operands: Operands,
    /// Number of operands gathered.
    gathered: usize,
    ready: Ready,
    failure: Option<MergeFailure>,
}

/// What is to be returned next.
enum Ready {
    Nothing,
    /// The operands as they are, from this one on.
    Operands(usize),
    /// What they came to.
    One(SequenceNumber, ValueKind, Vec<u8>),
}

/// What the operands of a stripe apply to.
#[derive(Clone, Copy)]
pub(super) enum Base<'v> {
    /// Something outside of this merge, or that this merge cannot read.
    Unknown,
    /// Nothing.
    Missing,
    /// This value.
    Value(&'v [u8]),
}

/// What folding came to.
pub(super) enum Folded {
    /// The operands stay as they are, or as fewer, and hide nothing.
    Operands,
    /// A value at the number of the newest operand.
    Value,
    /// The key has no value, from the newest operand on.
    Absent,
}

/// Why operands stay as they are although their base is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeFailure {
    /// The first key that it happened to.
    pub key: Vec<u8>,
    /// What the operator says.
    pub error: MergeError,
    /// Number of stripes of keys that it happened to.
    pub count: u64,
}

impl Merging {
    pub(super) fn new(operator: Arc<dyn MergeOperator>) -> Self {
        Self { operator, operands: Operands::default(), gathered: 0, ready: Ready::Nothing, failure: None }
    }

    pub(super) fn failure(&self) -> Option<&MergeFailure> {
        self.failure.as_ref()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let value = if let Ready::One(_, _, value) = &self.ready { value.capacity() } else { 0 };
        self.operands.memory_bytes() + value
    }

    /// Adds an operand below the others. Returns `false` if no more fit memory.
    pub(super) fn push(&mut self, key: &[u8], sequence: SequenceNumber, operand: &[u8]) -> bool {
        self.operands.push_older(sequence, operand);
        self.gathered += 1;
        !self.operands.are_many() || self.operands.shrink(&*self.operator, key)
    }

    /// How many entries fewer than were gathered will be returned.
    pub(super) fn folded_count(&self) -> u64 {
        let kept = if let Ready::Operands(_) = self.ready { self.operands.len() } else { 1 };
        self.gathered.saturating_sub(kept) as u64
    }

    /// Folds what was gathered. The result is returned next, but for one that makes the key absent: the caller knows
    /// whether that has anything to hide.
    pub(super) fn fold(&mut self, key: &[u8], base: Base<'_>) -> Folded {
        self.ready = Ready::Operands(0);
        let base = match base {
            Base::Unknown => {
                self.operands.shrink(&*self.operator, key);
                return Folded::Operands;
            }
            Base::Missing => None,
            Base::Value(base) => Some(base),
        };
        let newest = self.operands.newest_sequence().unwrap_or(0);
        match self.operands.full(&*self.operator, key, base) {
            Ok(Some(value)) => {
                self.ready = Ready::One(newest, ValueKind::Put, value);
                Folded::Value
            }
            Ok(None) => {
                self.ready = Ready::One(newest, ValueKind::Delete, Vec::new());
                Folded::Absent
            }
            Err(error) => {
                let none_yet = || MergeFailure { key: key.to_vec(), error, count: 0 };
                self.failure.get_or_insert_with(none_yet).count += 1;
                Folded::Operands
            }
        }
    }

    /// Replaces the value that the operands have made.
    pub(super) fn replace(&mut self, new_kind: ValueKind, new_value: &[u8]) {
        if let Ready::One(_, kind, value) = &mut self.ready {
            *kind = new_kind;
            new_value.clone_into(value);
        }
    }

    /// The result needs no sequence number.
    pub(super) fn zero_sequence(&mut self) {
        if let Ready::One(sequence, ..) = &mut self.ready {
            *sequence = 0;
        }
    }

    /// The entry to return next.
    pub(super) fn ready<'m>(&'m self, key: &'m [u8]) -> Option<Entry<'m>> {
        match &self.ready {
            Ready::Nothing => None,
            Ready::Operands(next) => {
                let (sequence, value) = self.operands.get(*next)?;
                Some(Entry { key, sequence, kind: ValueKind::Merge, value })
            }
            Ready::One(sequence, kind, value) => Some(Entry { key, sequence: *sequence, kind: *kind, value }),
        }
    }

    /// Passes the entry to return next. Returns `false` if it was the last.
    pub(super) fn pass(&mut self) -> bool {
        if let Ready::Operands(next) = &mut self.ready {
            *next += 1;
            if *next < self.operands.len() {
                return true;
            }
        }
        self.ready = Ready::Nothing;
        self.operands.clear();
        self.gathered = 0;
        false
    }
}
