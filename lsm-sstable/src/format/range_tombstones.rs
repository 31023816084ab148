//! The section of range tombstones.
//!
//! ```text
//! range tombstones := count:varint  fragment*
//! fragment         := start:bytes  end:bytes  count:varint  sequence:varint*     bytes := length:varint byte*
//! ```
//!
//! Fragments ascend and do not overlap; each has the sequence numbers, descending, of all tombstones that cover
//! it. Tombstones that overlap are cut into fragments when the table is written, once, so that opening it takes
//! time and memory linear in the section's length, whatever the bytes say.

use lsm_core::coding::{Decoder, put_bytes, put_varint};
use lsm_core::key::KEY_BYTES_MAX;
use lsm_core::range_tombstone::{Fragment, FragmentedRangeTombstones, RangeTombstone};
use lsm_core::{SEQUENCE_MAX, SequenceNumber};

/// Gathers tombstones.
#[derive(Default)]
pub(crate) struct TombstoneBuilder {
    tombstones: Vec<RangeTombstone>,
    key_bytes: usize,
    /// Whether a tombstone overlaps the one before without covering the same range.
    has_overlaps: bool,
}

impl TombstoneBuilder {
    pub(crate) fn add(&mut self, start: &[u8], end: &[u8], sequence: SequenceNumber) {
        if let Some(last) = self.tombstones.last() {
            self.has_overlaps |= *start < *last.end && (*start != *last.start || *end != *last.end);
        }
        self.key_bytes += start.len() + end.len();
        self.tombstones.push(RangeTombstone { start: start.into(), end: end.into(), sequence });
    }

    /// Bytes of memory held, and how many more [`TombstoneBuilder::finish`] and [`encode`] take, at most.
    pub(crate) fn memory_bytes_max(&self) -> (usize, usize) {
        let count = self.tombstones.len();
        let shared_bytes = 4 * size_of::<usize>() * count;
        let held = self.tombstones.capacity() * size_of::<RangeTombstone>() + self.key_bytes + shared_bytes;
        // Two sorted lists of borrowed ranges, the boundaries and numbers of the fragments in vectors that double,
        // and the section.
        let mut more = 256 * count + 4 * self.key_bytes;
        if self.has_overlaps {
            // Each fragment may have the numbers of all, twice while their vector doubles, and once more encoded.
            more = more.saturating_add(count.saturating_mul(count).saturating_mul(48));
        }
        (held, more)
    }

    /// About how long the section becomes.
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.key_bytes + 8 * self.tombstones.len()
    }

    pub(crate) fn finish(self) -> FragmentedRangeTombstones {
        FragmentedRangeTombstones::new(self.tombstones)
    }
}

pub(crate) fn encode(tombstones: &FragmentedRangeTombstones) -> Vec<u8> {
    let fragment_bytes_max = |fragment: Fragment<'_>| {
        fragment.start.len() + fragment.end.len() + 16 + 8 * fragment.sequences.len()
    };
    let mut out = Vec::with_capacity(10 + tombstones.iter().map(fragment_bytes_max).sum::<usize>());
    put_varint(&mut out, tombstones.iter().count() as u64);
    for fragment in tombstones.iter() {
        put_bytes(&mut out, fragment.start);
        put_bytes(&mut out, fragment.end);
        put_varint(&mut out, fragment.sequences.len() as u64);
        for &sequence in fragment.sequences {
            put_varint(&mut out, sequence);
        }
    }
    out
}

pub(crate) fn decode(payload: &[u8]) -> Result<FragmentedRangeTombstones, String> {
    let mut fields = Decoder::new(payload);
    let count = fields.varint().ok_or("range tombstones have no count")?;
    let mut bounds: Vec<(&[u8], &[u8], usize)> = Vec::new();
    let mut sequences: Vec<SequenceNumber> = Vec::new();
    for number in 0..count {
        let malformed = || format!("range tombstone fragment {number} is malformed");
        let start = fields.bytes().filter(|key| key.len() <= KEY_BYTES_MAX).ok_or_else(malformed)?;
        let end = fields.bytes().filter(|key| key.len() <= KEY_BYTES_MAX).ok_or_else(malformed)?;
        for _ in 0..fields.varint().ok_or_else(malformed)? {
            let sequence = fields.varint().filter(|&sequence| sequence <= SEQUENCE_MAX);
            sequences.push(sequence.ok_or_else(malformed)?);
        }
        bounds.push((start, end, sequences.len()));
    }
    if !fields.is_empty() {
        return Err("range tombstones are followed by stray bytes".into());
    }
    let mut from = 0;
    let fragments = bounds.iter().map(|&(start, end, to)| {
        let sequences = &sequences[from..to];
        from = to;
        Fragment { start, end, sequences }
    });
    FragmentedRangeTombstones::from_fragments(fragments)
        .ok_or_else(|| "range tombstone fragments are out of order".into())
}

/// Number of tombstones that fragments stand for, one for each fragment and sequence number.
pub(crate) fn count(tombstones: &FragmentedRangeTombstones) -> u64 {
    tombstones.iter().map(|fragment| fragment.sequences.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_survive_and_hostile_bytes_are_refused() {
        let tombstone = |start: &str, end: &str, sequence| RangeTombstone {
            start: start.into(),
            end: end.into(),
            sequence,
        };
        let tombstones = FragmentedRangeTombstones::new([
            tombstone("b", "c", 1),
            tombstone("a", "bb", 3),
            tombstone("x", "y", SEQUENCE_MAX),
        ]);
        let encoded = encode(&tombstones);
        let decoded = decode(&encoded).unwrap();
        assert!(decoded.iter().eq(tombstones.iter()));
        assert_eq!(decoded.covering_sequence(b"b", 9), 3);
        assert_eq!(decoded.covering_sequence(b"b", 2), 1);
        for len in 0..encoded.len() {
            assert!(decode(&encoded[..len]).is_err());
        }
        assert!(decode(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
        assert!(decode(&[1, 1, b'b', 1, b'a', 1, 5]).is_err(), "inverted");
        assert!(decode(&[1, 1, b'a', 1, b'b', 2, 5, 5]).is_err(), "equal sequence numbers");
        assert!(decode(&[1, 1, b'a', 1, b'b', 0]).is_err(), "no sequence number");
    }
}
