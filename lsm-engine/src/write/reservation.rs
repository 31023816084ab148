//! The memory that a write needs in the memtables of its keyspaces, computed before it is logged.

use lsm_core::ValueKind;
use lsm_memtable::Reservation;

use crate::write::payload::Operation;

/// The reservation of a single operation. `value_bytes` is the length of its value.
#[inline]
pub(crate) fn of_one<'v>(kind: ValueKind, key: &[u8], value_bytes: &'v [usize; 1]) -> Reservation<'v> {
    let [length] = *value_bytes;
    // Range deletes are not kept in the memtable proper.
    let bytes =
        if kind == ValueKind::RangeDelete { 0 } else { key.len() + length + Reservation::OVERHEAD_BYTES };
    let long_values: &[usize] =
        if bytes > 0 && length > Reservation::LONG_VALUE_BYTES { value_bytes } else { &[] };
    Reservation { bytes, longest_bytes: bytes, long_values }
}

/// The part of a batch that goes to one memtable.
#[derive(Default)]
pub(crate) struct Share {
    bytes: usize,
    longest_bytes: usize,
    long_values: Vec<usize>,
}

impl Share {
    #[inline]
    pub(crate) fn add(&mut self, kind: ValueKind, key: &[u8], value: &[u8]) {
        let value_bytes = [value.len()];
        let one = of_one(kind, key, &value_bytes);
        self.bytes += one.bytes;
        self.longest_bytes = self.longest_bytes.max(one.bytes);
        self.long_values.extend_from_slice(one.long_values);
    }

    #[inline]
    pub(crate) fn reservation(&self) -> Reservation<'_> {
        let Self { bytes, longest_bytes, ref long_values } = *self;
        Reservation { bytes, longest_bytes, long_values }
    }
}

/// The keyspaces that a batch writes to, each once, with its share of the batch.
#[derive(Default)]
pub(crate) struct Shares {
    keyspaces: Vec<u32>,
    shares: Vec<Share>,
}

impl Shares {
    /// Adds an operation. Returns whether it is the first one of its keyspace.
    #[inline]
    pub(crate) fn add(&mut self, operation: &Operation<'_>) -> bool {
        let Operation { keyspace, kind, key, value, .. } = *operation;
        let last =
            self.keyspaces.len().checked_sub(1).filter(|&last| self.keyspaces.get(last) == Some(&keyspace));
        let known = last.or_else(|| self.keyspaces.iter().position(|&other| other == keyspace));
        if known.is_none() {
            self.keyspaces.push(keyspace);
            self.shares.push(Share::default());
        }
        let index = known.unwrap_or(self.shares.len() - 1);
        if let Some(share) = self.shares.get_mut(index) {
            share.add(kind, key, value);
        }
        known.is_none()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Share)> {
        self.keyspaces.iter().copied().zip(&self.shares)
    }
}

impl AsRef<[u32]> for Shares {
    fn as_ref(&self) -> &[u32] {
        &self.keyspaces
    }
}
