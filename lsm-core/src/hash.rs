//! The key hash that filters are built from. It is part of the table format and never changes.

/// XXH3-64 of `key`.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}
