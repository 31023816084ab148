//! Internal keys: a user key, the sequence number of the write, and what the write did.
//!
//! Order of internal keys: user key ascending bytewise, then sequence number descending, so that the newest
//! version of a key comes first. No two entries of a store share user key and sequence number, except that
//! entries at the bottom of a tree may all carry sequence number 0, one per user key.
//!
//! Encoded trailer: `sequence << 8 | kind` as a little-endian `u64`. The encoding is never compared bytewise.

use std::cmp::Ordering;

/// Position of a write in the order of all writes of a database: 56 bits, the first write is 1.
pub type SequenceNumber = u64;

/// Largest value of a [`SequenceNumber`]. No write ever carries it, so a seek to it stands before all versions.
pub const SEQUENCE_MAX: SequenceNumber = (1 << 56) - 1;

/// Longest user key in bytes.
pub const KEY_BYTES_MAX: usize = 65_535;

/// Longest value in bytes.
pub const VALUE_BYTES_MAX: u64 = u32::MAX as u64;

/// What a write did to its key. The numbers are part of every file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ValueKind {
    /// The key has this value.
    Put = 1,
    /// The key has no value.
    Delete = 2,
    /// The key has this value until the time stored in front of it.
    PutWithExpiry = 3,
    /// The key has no value, and was put at most once before.
    SingleDelete = 4,
    /// All keys from this one up to the one in the value, exclusive, have no value.
    RangeDelete = 5,
    /// The value is an operand for the merge operator.
    Merge = 6,
    /// The value says where in a blob file the value is.
    BlobPointer = 7,
    /// First phase of a two-phase commit.
    Prepare = 8,
    /// Second phase of a two-phase commit.
    Commit = 9,
    /// Tables from outside became visible.
    Ingest = 10,
    /// Everything in the keyspace is deleted.
    KeyspaceClear = 11,
    /// The keyspace itself is deleted.
    KeyspaceDrop = 12,
}

impl ValueKind {
    /// The kind with this number, if there is one.
    #[inline]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Put,
            2 => Self::Delete,
            3 => Self::PutWithExpiry,
            4 => Self::SingleDelete,
            5 => Self::RangeDelete,
            6 => Self::Merge,
            7 => Self::BlobPointer,
            8 => Self::Prepare,
            9 => Self::Commit,
            10 => Self::Ingest,
            11 => Self::KeyspaceClear,
            12 => Self::KeyspaceDrop,
            _ => return None,
        })
    }

    /// Whether an entry of this kind, being the newest of its key, makes the key absent.
    #[inline]
    pub const fn is_tombstone(self) -> bool {
        matches!(self, Self::Delete | Self::SingleDelete)
    }
}

/// One version of one key, borrowed from wherever it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The user key.
    pub key: &'a [u8],
    /// When it was written.
    pub sequence: SequenceNumber,
    /// What was done.
    pub kind: ValueKind,
    /// With what; empty for deletes.
    pub value: &'a [u8],
}

impl Entry<'_> {
    /// Where this entry stands relative to the internal key `(key, sequence)`.
    #[inline]
    pub fn compare(&self, key: &[u8], sequence: SequenceNumber) -> Ordering {
        compare(self.key, self.sequence, key, sequence)
    }
}

/// Order of two internal keys: user key ascending, sequence number descending.
///
/// ```
/// use std::cmp::Ordering;
/// assert_eq!(lsm_core::key::compare(b"a", 2, b"a", 1), Ordering::Less);
/// assert_eq!(lsm_core::key::compare(b"a", 1, b"b", 9), Ordering::Less);
/// ```
#[inline]
pub fn compare(
    key: &[u8],
    sequence: SequenceNumber,
    other: &[u8],
    other_sequence: SequenceNumber,
) -> Ordering {
    key.cmp(other).then_with(|| other_sequence.cmp(&sequence))
}

/// Packs sequence number and kind into the 8 bytes that files store.
#[inline]
pub const fn pack_trailer(sequence: SequenceNumber, kind: ValueKind) -> u64 {
    debug_assert!(sequence <= SEQUENCE_MAX);
    sequence << 8 | kind as u64
}

/// Undoes [`pack_trailer`]; `None` if the kind is unknown.
#[inline]
pub const fn unpack_trailer(trailer: u64) -> Option<(SequenceNumber, ValueKind)> {
    match ValueKind::from_u8((trailer & 0xff) as u8) {
        Some(kind) => Some((trailer >> 8, kind)),
        None => None,
    }
}

/// The first eight bytes of `key` after `prefix_bytes`, as an integer that orders like the bytes do.
///
/// Shorter keys are padded with zeros, so equal heads say nothing: compare the keys then.
///
/// ```
/// use lsm_core::key::head;
/// assert!(head(b"user1", 4) < head(b"user2", 4));
/// assert_eq!(head(b"user", 4), head(b"user\0", 4));
/// ```
#[inline]
pub fn head(key: &[u8], prefix_bytes: usize) -> u64 {
    let rest = key.get(prefix_bytes..).unwrap_or_default();
    if let Some(first) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    padded[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(padded)
}

/// Length of the longest common prefix of two keys.
#[inline]
pub fn common_prefix_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_survive_packing_and_unknown_kinds_are_refused() {
        for number in 0..=255 {
            let trailer = SEQUENCE_MAX << 8 | u64::from(number);
            match ValueKind::from_u8(number) {
                Some(kind) => {
                    assert_eq!(unpack_trailer(trailer), Some((SEQUENCE_MAX, kind)));
                    assert_eq!(pack_trailer(SEQUENCE_MAX, kind), trailer);
                }
                None => assert_eq!(unpack_trailer(trailer), None),
            }
        }
    }

    #[test]
    fn heads_order_like_keys() {
        let keys: [&[u8]; 6] = [b"", b"\0", b"a", b"a\0b", b"abcdefgh", b"abcdefghi"];
        for pair in keys.windows(2) {
            assert!(head(pair[0], 0) <= head(pair[1], 0));
        }
        assert_eq!(head(b"ab", 5), 0);
    }
}
