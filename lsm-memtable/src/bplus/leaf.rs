//! Leaves: up to 32 keys in the order of their insertion.
//!
//! ```text
//! leaf     := count u32, prefix (bytes u32, guess u32), fingerprints [u8; 32], records [u32; 32], heads [u64; 32]
//! ```
//!
//! A slot is written before `count` covers it and keeps its key; only its record is replaced, when a newer
//! version of the key comes. So readers need no version: what `count` covers is there. A leaf that is full is
//! replaced by two others and stays as it is for those who still read it.
//!
//! A key is found by its fingerprint, one byte, all 32 of which are compared by a few operations on four words.

use super::prefix::{Prefix, Probe, Row};
use crate::arena::{Arena, AtomicRef, Record, Ref};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Keys in a leaf. A model checker must try every interleaving, so it gets few.
pub(super) const LEAF_SLOTS: usize = if cfg!(loom) { 3 } else { 32 };

const FINGERPRINTS_PER_WORD: usize = 8;
const FINGERPRINT_WORDS: usize = LEAF_SLOTS.div_ceil(FINGERPRINTS_PER_WORD);

#[repr(C, align(64))]
pub(super) struct Leaf {
    count: AtomicU32,
    prefix: Prefix,
    fingerprints: [AtomicU64; FINGERPRINT_WORDS],
    records: [AtomicRef<Record>; LEAF_SLOTS],
    heads: [AtomicU64; LEAF_SLOTS],
}

impl Leaf {
    /// What a search reads for sure; of the heads it needs one or none.
    pub(super) const BYTES_TO_FIND: usize = std::mem::offset_of!(Self, heads);

    /// A leaf with these keys, whose heads are taken after this prefix.
    pub(super) fn new(prefix: Prefix, rows: &[Row]) -> Self {
        let mut fingerprints = [0; FINGERPRINT_WORDS];
        for (slot, row) in rows.iter().enumerate() {
            fingerprints[slot / FINGERPRINTS_PER_WORD] |=
                u64::from(row.fingerprint) << (slot % FINGERPRINTS_PER_WORD * 8);
        }
        Self {
            count: AtomicU32::new(rows.len() as u32),
            prefix,
            fingerprints: fingerprints.map(AtomicU64::new),
            records: std::array::from_fn(|slot| AtomicRef::new(rows.get(slot).map(|row| row.record))),
            heads: std::array::from_fn(|slot| AtomicU64::new(rows.get(slot).map_or(0, |row| row.head))),
        }
    }

    #[inline]
    pub(super) fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Whether there is no room. For the writer.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) as usize == LEAF_SLOTS
    }

    /// The slot of `key`, and its newest version.
    #[inline]
    pub(super) fn find(&self, arena: &Arena, key: &[u8]) -> Option<(usize, Ref<Record>)> {
        let count = self.count.load(Ordering::Acquire) as usize;
        let probe = Probe::new(key, self.prefix.bytes);
        let mut candidates = 0_u64;
        for (index, word) in self.fingerprints.iter().enumerate() {
            let equal = equal_bytes(word.load(Ordering::Relaxed), probe.fingerprint);
            candidates |= u64::from(equal) << (index * FINGERPRINTS_PER_WORD);
        }
        candidates &= (1 << count) - 1;
        while candidates != 0 {
            let slot = candidates.trailing_zeros() as usize % LEAF_SLOTS;
            candidates &= candidates - 1;
            if self.heads[slot].load(Ordering::Relaxed) == probe.head {
                let newest = self.records[slot].load()?;
                if arena.record(newest).key() == key {
                    return Some((slot, newest));
                }
            }
        }
        None
    }

    /// Appends a key that is not there yet, to a leaf that is not full and whose prefix the key has.
    #[inline]
    pub(super) fn push(&self, probe: Probe, record: Ref<Record>) {
        let count = self.count.load(Ordering::Relaxed);
        let slot = count as usize;
        self.heads[slot].store(probe.head, Ordering::Relaxed);
        let word = &self.fingerprints[slot / FINGERPRINTS_PER_WORD];
        let fingerprint = u64::from(probe.fingerprint) << (slot % FINGERPRINTS_PER_WORD * 8);
        word.store(word.load(Ordering::Relaxed) | fingerprint, Ordering::Relaxed);
        self.records[slot].store(Some(record));
        self.count.store(count + 1, Ordering::Release);
    }

    /// Makes `record` the newest version of the key in `slot`.
    #[inline]
    pub(super) fn replace(&self, slot: usize, record: Ref<Record>) {
        self.records[slot].store(Some(record));
    }

    /// The newest version of the key that came first.
    pub(super) fn oldest_key(&self) -> Option<Ref<Record>> {
        self.records[0].load()
    }

    /// Copies the keys in order into `rows`, which is cleared before. With `PREFETCH` the records are asked for,
    /// for callers that are going to read them, in another order; sorting gives them time to arrive.
    pub(super) fn copy_sorted<const PREFETCH: bool>(&self, arena: &Arena, rows: &mut Vec<Row>) {
        let count = self.count.load(Ordering::Acquire) as usize;
        rows.clear();
        for slot in 0..count.min(LEAF_SLOTS) {
            let Some(record) = self.records[slot].load() else { break };
            if PREFETCH {
                arena.prefetch(record, 0);
            }
            let fingerprint = self.fingerprints[slot / FINGERPRINTS_PER_WORD].load(Ordering::Relaxed)
                >> (slot % FINGERPRINTS_PER_WORD * 8);
            rows.push(Row {
                head: self.heads[slot].load(Ordering::Relaxed),
                record,
                fingerprint: fingerprint as u8,
            });
        }
        Row::sort(arena, rows);
    }
}

/// One bit for each byte of `word` that equals `byte`.
#[inline]
fn equal_bytes(word: u64, byte: u8) -> u8 {
    const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let difference = word ^ (u64::from(byte) * 0x0101_0101_0101_0101);
    // The top bit of each byte: whether the byte is zero. No carry crosses bytes, so it is exact.
    let zeros = !(((difference & LOW_BITS) + LOW_BITS) | difference | LOW_BITS);
    // Gathers the eight top bits in the top byte.
    ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_are_found_exactly() {
        assert_eq!(equal_bytes(0x00_01_02_80_ff_7f_00_01, 0), 0b1000_0010);
        assert_eq!(equal_bytes(0x00_01_02_80_ff_7f_00_01, 1), 0b0100_0001);
        assert_eq!(equal_bytes(0x00_01_02_80_ff_7f_00_01, 0x80), 0b0001_0000);
        assert_eq!(equal_bytes(u64::MAX, 0xff), 0xff);
    }

    #[test]
    #[cfg(not(loom))]
    fn a_leaf_is_seven_cache_lines() {
        assert_eq!(size_of::<Leaf>(), 7 * 64);
    }
}
