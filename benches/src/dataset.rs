//! The keys and values that all engines get, made from a seed, and the proof that what they return is right.
//!
//! ```text
//! key   := 16 decimal digits, zero-padded: twice the index of the key (odd numbers are never written)
//! value := mark:u64 version:u32 filler         mark is a hash of seed, index and version; the filler is a
//!                                              window of half-compressible bytes at a place the mark gives
//! ```

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

const MARK_BYTES: usize = 8;
const HEADER_BYTES: usize = MARK_BYTES + 4;

/// Windows start in this many bytes: few enough to stay in the processor's cache, so that making values costs
/// the engines nothing, and many enough that two windows of one block hardly overlap.
const FILLER_STARTS: usize = 1 << 18;

/// A piece of filler: random bytes, then the same bytes once more.
const PIECE_BYTES: usize = 100;

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];

/// Makes and checks values.
#[derive(Debug)]
pub(crate) struct Dataset {
    seed: u64,
    value_bytes: usize,
    filler: Vec<u8>,
}

impl Dataset {
    /// Values of `value_bytes` bytes each, at least 16.
    pub(crate) fn new(seed: u64, value_bytes: usize) -> Self {
        let mut filler = Vec::with_capacity(FILLER_STARTS + value_bytes + PIECE_BYTES);
        let mut state = seed;
        while filler.len() < FILLER_STARTS + value_bytes {
            let start = filler.len();
            while filler.len() < start + PIECE_BYTES / 2 {
                state = state.wrapping_add(1);
                filler.push(mix(state) as u8);
            }
            filler.extend_from_within(start..);
        }
        Self { seed, value_bytes, filler }
    }

    /// Writes the value of key `index` in its `version`th version into `value`, replacing what is there.
    #[inline]
    pub(crate) fn fill_value(&self, value: &mut Vec<u8>, index: u64, version: u32) {
        let mark = self.mark(index, version);
        value.clear();
        value.extend_from_slice(&mark.to_le_bytes());
        value.extend_from_slice(&version.to_le_bytes());
        value.extend_from_slice(self.filler(mark));
    }

    /// The version of a value of key `index`, or `None` if the bytes are no value of that key.
    #[inline]
    pub(crate) fn version_of(&self, value: &[u8], index: u64) -> Option<u32> {
        let (header, filler) = value.split_first_chunk::<HEADER_BYTES>()?;
        let (mark, version) = header.split_first_chunk::<MARK_BYTES>()?;
        let version = u32::from_le_bytes(version.try_into().ok()?);
        let expected = self.mark(index, version);
        (u64::from_le_bytes(*mark) == expected && filler == self.filler(expected)).then_some(version)
    }

    #[inline]
    fn mark(&self, index: u64, version: u32) -> u64 {
        mix(self.seed ^ mix(index ^ u64::from(version) << 32))
    }

    #[inline]
    fn filler(&self, mark: u64) -> &[u8] {
        let start = mark as usize % FILLER_STARTS;
        &self.filler[start..start + self.value_bytes - HEADER_BYTES]
    }
}

/// The key with this index.
#[inline]
pub(crate) fn key(index: u64) -> Key {
    digits(index * 2)
}

/// A key that is never written and sorts right after the one with this index.
#[inline]
pub(crate) fn missing_key(index: u64) -> Key {
    digits(index * 2 + 1)
}

/// The index of a key that [`key`] made.
#[inline]
pub(crate) fn index_of(key: &[u8]) -> Option<u64> {
    let key: &Key = key.try_into().ok()?;
    let number = key
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))?;
    (number % 2 == 0).then_some(number / 2)
}

#[inline]
fn digits(number: u64) -> Key {
    const HALF: u64 = 100_000_000;
    let mut key = [0; KEY_BYTES];
    let (left, right) = key.split_at_mut(KEY_BYTES / 2);
    left.copy_from_slice(&eight_digits(number / HALF).to_le_bytes());
    right.copy_from_slice(&eight_digits(number % HALF).to_le_bytes());
    key
}

/// Eight decimal digits, the first in the lowest byte. Splits all lanes of a word at once, so that making a key
/// takes a few nanoseconds of what is measured.
#[inline]
fn eight_digits(number: u64) -> u64 {
    let lanes = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((lanes * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let lanes = hundreds | ((lanes - hundreds * 100) << 16);
    let tens = ((lanes * 103) >> 10) & 0x000f_000f_000f_000f;
    let lanes = tens | ((lanes - tens * 10) << 8);
    lanes + 0x3030_3030_3030_3030
}

/// All numbers below a bound, each once, in an order that a seed gives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permutation {
    len: u64,
    mask: u64,
    shift: u32,
    seed: u64,
}

impl Permutation {
    /// An order of the numbers below `len`.
    pub(crate) fn new(len: u64, seed: u64) -> Self {
        let bits = u64::BITS - len.max(2).saturating_sub(1).leading_zeros();
        Self { len, mask: u64::MAX >> (u64::BITS - bits), shift: bits.div_ceil(2), seed: mix(seed) }
    }

    /// The number at `position`, which is below the bound.
    #[inline]
    pub(crate) fn at(&self, position: u64) -> u64 {
        debug_assert!(position < self.len);
        // Each step is a bijection of the numbers of so many bits; those past the bound are walked over.
        let mut number = position;
        loop {
            for round in [0x9e37_79b9_7f4a_7c15_u64, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
                number = (number ^ self.seed & self.mask).wrapping_mul(round) & self.mask;
                number ^= number >> self.shift;
                number = number.wrapping_add(self.seed >> 32) & self.mask;
            }
            if number < self.len {
                return number;
            }
        }
    }
}

/// The finalizer of splitmix64.
#[inline]
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_yields_each_number_once() {
        for len in [1, 2, 3, 16, 17, 1000, 1024, 1025] {
            for seed in 0..4 {
                let permutation = Permutation::new(len, seed);
                let mut numbers: Vec<_> = (0..len).map(|position| permutation.at(position)).collect();
                numbers.sort_unstable();
                assert!(numbers.iter().copied().eq(0..len), "of {len} with seed {seed}");
            }
        }
    }

    #[test]
    fn a_permutation_leaves_few_numbers_beside_their_neighbours() {
        let permutation = Permutation::new(10_000, 7);
        let near = (1..10_000).filter(|&i| permutation.at(i).abs_diff(permutation.at(i - 1)) < 100).count();
        assert!(near < 400, "{near} of 10000 steps are short; about 200 are expected by chance");
    }

    #[test]
    fn digits_are_those_of_the_number() {
        let ends = (1..16).flat_map(|power| [10_u64.pow(power) - 1, 10_u64.pow(power)]);
        for number in (0..20_000).chain(ends).chain([9_999_999_999_999_999, 1_234_567_890_123_456]) {
            assert_eq!(digits(number), *format!("{number:016}").as_bytes());
        }
    }

    #[test]
    fn keys_sort_like_their_indexes_and_are_read_back() {
        assert_eq!(&key(21), b"0000000000000042");
        assert!(key(21) < missing_key(21) && missing_key(21) < key(22));
        assert_eq!(index_of(&key(21)), Some(21));
        assert_eq!(index_of(&missing_key(21)), None);
        assert_eq!(index_of(b"000000000000004x"), None);
        assert_eq!(index_of(b"42"), None);
    }

    #[test]
    fn a_value_belongs_to_one_key_and_any_change_is_noticed() {
        let dataset = Dataset::new(1, 100);
        let mut value = Vec::new();
        dataset.fill_value(&mut value, 5, 3);
        assert_eq!(value.len(), 100);
        assert_eq!(dataset.version_of(&value, 5), Some(3));
        assert_eq!(dataset.version_of(&value, 6), None);
        assert_eq!(dataset.version_of(&value[..99], 5), None);
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert_eq!(dataset.version_of(&changed, 5), None, "byte {at}");
        }
    }
}
