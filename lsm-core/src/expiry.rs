//! The value of an entry that expires.
//!
//! ```text
//! value := expiry:u64 byte*      expiry: microseconds since 1970, little-endian; byte*: what the user gave
//! ```
//!
//! From the time `expiry` on the entry means what a tombstone means. [`NEVER`] is a time that does not come.

use std::time::Duration;

/// Bytes of the time in front of the value.
pub const EXPIRY_BYTES: usize = 8;

/// The expiry time of an entry that does not expire.
pub const NEVER: u64 = u64::MAX;

/// The longest duration until a value expires, in microseconds: about 292,000 years.
pub const AFTER_MICROS_MAX: u64 = u64::MAX / 2;

/// A duration until a value expires, in microseconds; `None` if it is longer than [`AFTER_MICROS_MAX`].
pub fn micros_until(after: Duration) -> Option<u64> {
    u64::try_from(after.as_micros()).ok().filter(|micros| *micros <= AFTER_MICROS_MAX)
}

/// The expiry time of a stored value, and the value that the user gave; `None` if the time is not whole.
///
/// ```
/// let mut stored = lsm_core::expiry::prefix(7).to_vec();
/// stored.extend_from_slice(b"value");
/// assert_eq!(lsm_core::expiry::split(&stored), Some((7, &b"value"[..])));
/// assert_eq!(lsm_core::expiry::split(b"short"), None);
/// ```
#[inline]
pub fn split(stored: &[u8]) -> Option<(u64, &[u8])> {
    let (micros, value) = stored.split_first_chunk::<EXPIRY_BYTES>()?;
    Some((u64::from_le_bytes(*micros), value))
}

/// What stands in front of a value that expires at this time.
#[inline]
pub const fn prefix(expiry_micros: u64) -> [u8; EXPIRY_BYTES] {
    expiry_micros.to_le_bytes()
}

/// Whether an entry with this expiry time has expired.
#[inline]
pub const fn is_over(expiry_micros: u64, now_micros: u64) -> bool {
    expiry_micros != NEVER && expiry_micros <= now_micros
}
