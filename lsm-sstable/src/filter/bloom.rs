//! The Bloom filter whose bits of a key lie in one cache line.

use std::ops::Range;

use super::policy::FilterPolicy;

const LINE_BYTES: usize = 64;
const PROBES: usize = 6;

/// Odd multipliers, one a probe: powers of 2³² divided by the golden ratio.
const MULTIPLIERS: [u32; PROBES] = {
    let mut multipliers = [0; PROBES];
    let mut power = 1_u32;
    let mut probe = 0;
    while probe < PROBES {
        power = power.wrapping_mul(0x9e37_79b9);
        multipliers[probe] = power;
        probe += 1;
    }
    multipliers
};

/// The default filter: a Bloom filter whose six bits a key lie in one cache line of 512 bits.
///
/// At 10 bits a key about 1 % of absent keys pass. The bits a key are chosen when a table is written; any
/// `BloomFilter` reads the tables of any other.
///
/// ```text
/// filter := line*               each of 64 bytes; none if there are no keys
/// line   = high32(hash) * lines >> 32
/// bit j  = low32(hash) * 0x9e3779b9^(j+1) mod 2^32 >> 23, for j in 0..6
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BloomFilter {
    bits_per_key: f64,
}

impl BloomFilter {
    /// A filter of so many bits a key: 10 lets 1 % of absent keys pass, 16 about 0.2 %. Values are held between 1 and 64.
    pub fn new(bits_per_key: f64) -> Self {
        Self { bits_per_key: if bits_per_key.is_nan() { 10.0 } else { bits_per_key.clamp(1.0, 64.0) } }
    }

    #[expect(clippy::cast_sign_loss, reason = "bits and counts are positive")]
    fn line_count(self, hash_count: usize) -> u64 {
        let bits = hash_count as f64 * self.bits_per_key;
        let line_count = ((bits / 512.0).ceil() as u64).min(u64::from(u32::MAX));
        if hash_count == 0 { 0 } else { line_count.max(1) }
    }
}

impl Default for BloomFilter {
    fn default() -> Self {
        Self::new(10.0)
    }
}

impl FilterPolicy for BloomFilter {
    fn name(&self) -> &'static str {
        "bloom512x6"
    }

    fn filter_bytes(&self, hash_count: usize) -> usize {
        self.line_count(hash_count) as usize * LINE_BYTES
    }

    fn build(&self, hashes: &[u64]) -> Vec<u8> {
        let line_count = self.line_count(hashes.len());
        let mut filter = vec![0_u8; line_count as usize * LINE_BYTES];
        let (lines, _) = filter.as_chunks_mut::<LINE_BYTES>();
        for &hash in hashes {
            if let Some(line) = lines.get_mut(line_of(hash, line_count)) {
                for multiplier in MULTIPLIERS {
                    let bit = (hash as u32).wrapping_mul(multiplier) >> 23;
                    line[(bit >> 3) as usize] |= 1 << (bit & 7);
                }
            }
        }
        filter
    }

    #[inline]
    fn may_contain(&self, filter: &[u8], hash: u64) -> bool {
        let (lines, rest) = filter.as_chunks::<LINE_BYTES>();
        let Some(line) = lines.get(line_of(hash, lines.len() as u64)) else {
            return !rest.is_empty();
        };
        // No early exit: the branch on each bit would be a coin toss, and a missed one costs more than six probes.
        let mut all = 1;
        for multiplier in MULTIPLIERS {
            let bit = (hash as u32).wrapping_mul(multiplier) >> 23;
            all &= line[(bit >> 3) as usize] >> (bit & 7);
        }
        all & 1 != 0 || !rest.is_empty()
    }

    /// A line is a filter of its own: whatever the hash, it is the one line of that.
    fn part(&self, filter_bytes: u64, hash: u64) -> Option<Range<u64>> {
        let line_count = filter_bytes / LINE_BYTES as u64;
        if line_count == 0 || line_count > 1 << 32 || !filter_bytes.is_multiple_of(LINE_BYTES as u64) {
            return None;
        }
        let start = line_of(hash, line_count) as u64 * LINE_BYTES as u64;
        Some(start..start + LINE_BYTES as u64)
    }
}

#[inline]
fn line_of(hash: u64, line_count: u64) -> usize {
    (((hash >> 32) * line_count) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsm_core::hash::key_hash;

    fn hashes(range: std::ops::Range<u64>) -> Vec<u64> {
        range.map(|number| key_hash(&number.to_le_bytes())).collect()
    }

    #[test]
    fn every_member_passes_and_one_percent_of_the_others() {
        let policy = BloomFilter::default();
        let filter = policy.build(&hashes(0..100_000));
        assert!(hashes(0..100_000).iter().all(|&hash| policy.may_contain(&filter, hash)));
        let passed =
            hashes(100_000..200_000).iter().filter(|&&hash| policy.may_contain(&filter, hash)).count();
        assert!((700..1300).contains(&passed), "{passed} of 100000");
    }

    #[test]
    fn a_part_answers_as_the_whole_filter_does() {
        let policy = BloomFilter::default();
        let filter = policy.build(&hashes(0..10_000));
        for hash in hashes(5_000..20_000) {
            let part = policy.part(filter.len() as u64, hash).unwrap();
            let line = &filter[part.start as usize..part.end as usize];
            assert_eq!(policy.may_contain(line, hash), policy.may_contain(&filter, hash));
        }
        assert_eq!((policy.part(0, 1), policy.part(65, 1)), (None, None));
    }

    #[test]
    fn an_empty_filter_has_no_keys_and_a_foreign_one_has_all() {
        let policy = BloomFilter::default();
        assert!(!policy.may_contain(&policy.build(&[]), 1));
        assert!(policy.may_contain(&[0; 65], 1));
    }

    #[test]
    fn the_bits_of_a_key_are_part_of_the_format() {
        let filter = BloomFilter::default().build(&[0x0123_4567_89ab_cdef]);
        let set: Vec<usize> = (0..512).filter(|bit| filter[bit / 8] >> (bit % 8) & 1 == 1).collect();
        assert_eq!(set, [48, 129, 130, 227, 237, 436]);
    }
}
