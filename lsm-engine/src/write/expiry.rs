//! Expiry times. A user gives a duration; it counts from the commit.
//!
//! In a batch that is not committed yet, the time in front of a value that expires is that duration.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use lsm_core::{ValueKind, expiry};

use crate::error::{Error, Result};
use crate::memory::{Charge, Part};
use crate::write::path::WritePath;
use crate::write::payload::{COUNT_BYTES, Operation, Operations, Payload, encode_operation};

/// The duration until the value of `key` expires, in microseconds. Fails if it is too long.
pub(crate) fn after_micros(key: &[u8], after: Duration) -> Result<u64> {
    expiry::micros_until(after).ok_or_else(|| {
        Error::invalid(format!(
            "key \"{}\" cannot expire after {} seconds: the maximum is {} seconds; use put for a value that does not \
             expire",
            key.escape_ascii(),
            after.as_secs(),
            expiry::AFTER_MICROS_MAX / 1_000_000,
        ))
    })
}

/// A value as it is stored, with a time or a duration in front.
pub(crate) fn stored_value(micros: u64, value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(expiry::EXPIRY_BYTES + value.len());
    stored.extend_from_slice(&expiry::prefix(micros));
    stored.extend_from_slice(value);
    stored
}

/// A batch with the times at which its values expire.
pub(super) struct Timed {
    pub(super) encoded: Vec<u8>,
    pub(super) memory_bytes: usize,
    _charge: Charge,
}

impl WritePath {
    /// The expiry time of a value that is written now.
    fn expiry_micros(&self, after_micros: u64) -> u64 {
        // A clock that far ahead is wrong; then the value does not expire.
        self.visibility.now_micros().saturating_add(after_micros)
    }

    /// A value that expires `after_micros` from now, as it is stored.
    #[cold]
    pub(crate) fn expiring_value(&self, after_micros: u64, value: &[u8]) -> Vec<u8> {
        stored_value(self.expiry_micros(after_micros), value)
    }

    /// Whether the batch needs [`timed`](Self::timed).
    #[inline]
    pub(super) fn may_expire(&self, batch: &Payload<'_>) -> bool {
        batch.expires || self.times_to_live.any()
    }

    /// The batch with the times at which its values expire: those that the user gave, and those of puts into a keyspace
    /// with a time to live.
    #[cold]
    pub(super) fn timed(&self, batch: &Payload<'_>) -> Result<Timed> {
        let Payload { encoded, count, memory_bytes, .. } = *batch;
        let mut ttls: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for operation in Operations::new(encoded, 0) {
            ttls.entry(operation.map_err(Error::invalid)?.keyspace).or_default();
        }
        {
            let committer = self.committer.lock();
            for (keyspace, ttl) in &mut ttls {
                // A keyspace that was dropped is reported later.
                *ttl = committer.tree(*keyspace).and_then(|tree| tree.ttl_micros());
            }
        }
        let times_bytes = count as usize * expiry::EXPIRY_BYTES;
        let bytes_max = encoded.len() + 2 * times_bytes;
        let charge = Charge::new(&self.resources.memory, Part::Buffers, bytes_max);
        let mut timed = Vec::with_capacity(bytes_max);
        timed.extend_from_slice(encoded.get(..COUNT_BYTES).unwrap_or_default());
        for operation in Operations::new(encoded, 0) {
            let Operation { keyspace, kind, key, value, .. } = operation.map_err(Error::invalid)?;
            let (after_micros, plain) = match kind {
                ValueKind::PutWithExpiry => expiry::split(value).map_or((None, value), |(a, v)| (Some(a), v)),
                ValueKind::Put => (ttls.get(&keyspace).copied().flatten(), value),
                _ => (None, value),
            };
            let (kind, value) = match after_micros {
                Some(after) => (ValueKind::PutWithExpiry, Cow::from(self.expiring_value(after, plain))),
                None => (kind, Cow::from(value)),
            };
            let has_value = !kind.is_tombstone() && kind != ValueKind::KeyspaceClear;
            encode_operation(&mut timed, keyspace, kind, key, has_value.then_some(&*value));
        }
        Ok(Timed { encoded: timed, memory_bytes: memory_bytes + times_bytes, _charge: charge })
    }
}
