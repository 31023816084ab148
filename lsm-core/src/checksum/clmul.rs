//! CRCs of short inputs by carry-less multiplication, on x86-64.
//!
//! The input is words of 64 bits. A word that has `n` words after it adds `word * x^(64 n + 64)` to the CRC. Every
//! word is multiplied by the power of x that is its own, reduced beforehand to 64 bits, independently of the others;
//! the sum, 128 bits, is reduced once, by Barrett's method (Gopal et al., "Fast CRC Computation for Generic
//! Polynomials Using PCLMULQDQ", Intel 2009). `crc-fast` folds chunk by chunk, which is a chain of multiplications.
//!
//! A CRC-32 is a CRC-64 whose generator, and so whose remainder, is multiplied by x^32.
//!
//! Multiplying two reflected polynomials of 64 bits gives their product times x: constants are one x short.

use std::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_unpackhi_epi64, _mm_xor_si128,
};

use super::polynomial::{CRC32, CRC64, times_x};

const CHUNK_BYTES: usize = 16;
const WORD_COUNT_MAX: usize = 256;

/// The longest input, in bytes.
pub(super) const BYTES_MAX: usize = WORD_COUNT_MAX * 8;

/// What follows from a generator, given without its x^64.
struct Field<const GENERATOR: u64>;

impl<const GENERATOR: u64> Field<GENERATOR> {
    /// What a word is multiplied by that has so many words after it.
    const POWERS: &'static [u64; WORD_COUNT_MAX] = &powers(GENERATOR);

    /// The generator divided by x, without its x^-1.
    const GENERATOR_OVER_X: u64 = (GENERATOR << 1) | 1;

    /// Whether the generator divided by x has an x^-1.
    const HAS_ONE: bool = GENERATOR >> 63 == 1;

    /// The quotient of x^128 by the generator, divided by x, without its x^-1.
    const QUOTIENT_OVER_X: u64 = quotient_over_x(GENERATOR);
}

const fn powers(generator: u64) -> [u64; WORD_COUNT_MAX] {
    let mut powers = [0; WORD_COUNT_MAX];
    let mut power = 1_u64 << 63; // x^0
    let mut exponent = 0;
    while exponent < 64 * WORD_COUNT_MAX {
        if exponent % 64 == 63 {
            powers[exponent / 64] = power;
        }
        power = times_x(generator, power);
        exponent += 1;
    }
    powers
}

const fn quotient_over_x(generator: u64) -> u64 {
    let generator = generator.reverse_bits();
    let mut quotient = 0_u64; // without its x^64
    let mut remainder = generator;
    let mut bit = 64;
    while bit > 0 {
        bit -= 1;
        let top = remainder >> 63;
        remainder <<= 1;
        if top == 1 {
            quotient |= 1 << bit;
            remainder ^= generator;
        }
    }
    ((1 << 63) | (quotient >> 1)).reverse_bits()
}

fn can_multiply() -> bool {
    std::arch::is_x86_feature_detected!("pclmulqdq")
}

/// The CRC-64 of at most [`BYTES_MAX`] bytes; `None` on a machine that cannot multiply so.
#[inline]
#[expect(
    unsafe_code,
    reason = "calls code for a processor feature; a log record is checksummed three times faster"
)]
pub(super) fn crc64(seed: u64, bytes: &[u8]) -> Option<u64> {
    // SAFETY: the one requirement of `of_bytes` is the feature that was just detected.
    can_multiply().then(|| !unsafe { of_bytes::<CRC64>(!seed, bytes) })
}

/// The CRC-32 of at most [`BYTES_MAX`] bytes; `None` on a machine that cannot multiply so.
#[inline]
#[expect(
    unsafe_code,
    reason = "calls code for a processor feature; a record's header is checksummed three times faster"
)]
pub(super) fn crc32(seed: u32, bytes: &[u8]) -> Option<u32> {
    // SAFETY: the one requirement of `of_bytes` is the feature that was just detected.
    can_multiply().then(|| !unsafe { of_bytes::<CRC32>(u64::from(!seed), bytes) } as u32)
}

/// The CRC-32 of `first` and `rest`; `None` on a machine that cannot multiply so.
#[inline]
#[expect(
    unsafe_code,
    reason = "calls code for a processor feature; a record's header is checksummed three times faster"
)]
pub(super) fn crc32_of_words(seed: u32, first: u32, rest: [u64; 3]) -> Option<u32> {
    // Zeros in front change nothing, so the state belongs onto the bytes after them.
    let (first, [second, third, fourth]) = (u64::from(first ^ !seed) << 32, rest);
    // SAFETY: the one requirement of `of_frame` is the feature that was just detected.
    can_multiply().then(|| !unsafe { of_frame::<CRC32>(first, second, third, fourth, &[]) } as u32)
}

/// The CRC-64 of `head`, `body` and zeros up to a multiple of eight bytes, together at most [`BYTES_MAX`]; `None`
/// on a machine that cannot multiply so.
#[inline]
#[expect(
    unsafe_code,
    reason = "calls code for a processor feature; a log record is checksummed three times faster"
)]
pub(super) fn crc64_of_frame(seed: u64, head: [u64; 4], body: &[u8]) -> Option<u64> {
    let [first, second, third, fourth] = head;
    // SAFETY: the one requirement of `of_frame` is the feature that was just detected.
    can_multiply().then(|| !unsafe { of_frame::<CRC64>(first ^ !seed, second, third, fourth, body) })
}

/// The state after a frame, the state before being on its first word. Words come in registers: loading two at once
/// right after they were stored one by one would wait for the stores.
#[target_feature(enable = "pclmulqdq")]
fn of_frame<const GENERATOR: u64>(first: u64, second: u64, third: u64, fourth: u64, body: &[u8]) -> u64 {
    let (chunks, rest) = body.as_chunks::<CHUNK_BYTES>();
    let rest_words = rest.len().div_ceil(8);
    let powers = Field::<GENERATOR>::POWERS;
    let mut sum = match rest_words {
        0 => _mm_set_epi64x(0, 0),
        1 => product(partial(rest), [0, powers[0]]),
        _ => product(partial(rest), [powers[0], powers[1]]),
    };
    let (pairs, _) = powers[rest_words..][..2 * chunks.len() + 4].as_chunks::<2>();
    let (body_pairs, head_pairs) = pairs.split_at(chunks.len());
    for (chunk, pair) in chunks.iter().zip(body_pairs.iter().rev()) {
        sum = _mm_xor_si128(sum, product(u128::from_le_bytes(*chunk), *pair));
    }
    // Last, since the first word may be a checksum that is still being computed.
    for (chunk, pair) in [join(third, fourth), join(first, second)].into_iter().zip(head_pairs) {
        sum = _mm_xor_si128(sum, product(chunk, *pair));
    }
    reduce::<GENERATOR>(sum)
}

/// The state after bytes that stand together.
#[target_feature(enable = "pclmulqdq")]
fn of_bytes<const GENERATOR: u64>(state: u64, bytes: &[u8]) -> u64 {
    let (pairs, _) = Field::<GENERATOR>::POWERS.as_chunks::<2>();
    let state = u128::from(state);
    let count = bytes.len() % CHUNK_BYTES;
    // The state belongs onto the first eight bytes of the input, wherever chunks begin.
    let (first, mut chunks, carried, left) = if let Some(start) = bytes.first_chunk::<CHUNK_BYTES>() {
        let (_, chunks) = bytes.as_rchunks::<CHUNK_BYTES>();
        if count == 0 {
            (0, chunks, state, 0)
        } else {
            let shift = 8 * (CHUNK_BYTES - count) as u32;
            let start = u128::from_le_bytes(*start) ^ state;
            (start << shift, chunks, state >> (8 * count as u32), 0)
        }
    } else {
        if count == 0 {
            return state as u64;
        }
        let shift = 8 * (CHUNK_BYTES - count) as u32;
        // What the input is too short to take on remains of the state, shifted.
        let left = (state >> (8 * count as u32)) as u64;
        ((partial(bytes) ^ state) << shift, &[][..], 0, left)
    };
    let mut sum = match (count, pairs.get(chunks.len())) {
        (1.., Some(pair)) => product(first, *pair),
        _ => _mm_set_epi64x(0, 0),
    };
    let mut pairs = pairs[..chunks.len()].iter().rev();
    if let (Some((chunk, rest)), Some(pair)) = (chunks.split_first(), pairs.next()) {
        sum = _mm_xor_si128(sum, product(u128::from_le_bytes(*chunk) ^ carried, *pair));
        chunks = rest;
    }
    for (chunk, pair) in chunks.iter().zip(pairs) {
        sum = _mm_xor_si128(sum, product(u128::from_le_bytes(*chunk), *pair));
    }
    reduce::<GENERATOR>(sum) ^ left
}

/// Two words as they stand in memory.
#[inline]
fn join(first: u64, second: u64) -> u128 {
    u128::from(first) | u128::from(second) << 64
}

/// Fewer than 16 bytes, zero extended.
#[inline]
fn partial(bytes: &[u8]) -> u128 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let last = u128::from(u64::from_le_bytes(*last));
        u128::from(u64::from_le_bytes(*first)) | (last << (8 * (bytes.len() - 8)))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let last = u64::from(u32::from_le_bytes(*last));
        u128::from(u64::from(u32::from_le_bytes(*first)) | (last << (8 * (bytes.len() - 4))))
    } else {
        bytes.iter().rev().fold(0, |value, byte| (value << 8) | u128::from(*byte))
    }
}

/// The sum of the products of the words of `chunk` with their powers, which stand the other way round.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn product(chunk: u128, powers: [u64; 2]) -> __m128i {
    let chunk = _mm_set_epi64x((chunk >> 64) as i64, chunk as i64);
    let powers = _mm_set_epi64x(powers[1].cast_signed(), powers[0].cast_signed());
    _mm_xor_si128(_mm_clmulepi64_si128::<0x10>(chunk, powers), _mm_clmulepi64_si128::<0x01>(chunk, powers))
}

/// The remainder of 128 bits by the generator.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn reduce<const GENERATOR: u64>(sum: __m128i) -> u64 {
    let (over_x, quotient_over_x) =
        (Field::<GENERATOR>::GENERATOR_OVER_X, Field::<GENERATOR>::QUOTIENT_OVER_X);
    let constants = _mm_set_epi64x(over_x.cast_signed(), quotient_over_x.cast_signed());
    let quotient = _mm_clmulepi64_si128::<0x00>(sum, constants);
    let multiple = _mm_clmulepi64_si128::<0x10>(quotient, constants);
    let high = _mm_unpackhi_epi64(_mm_xor_si128(sum, multiple), multiple);
    let remainder = _mm_cvtsi128_si64(high).cast_unsigned();
    // An x^-1 that the constant lacks is made up for by adding the quotient itself.
    if Field::<GENERATOR>::HAS_ONE {
        remainder ^ _mm_cvtsi128_si64(quotient).cast_unsigned()
    } else {
        remainder
    }
}
