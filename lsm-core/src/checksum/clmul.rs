//! CRC-64 of short inputs by carry-less multiplication, on x86-64.
//!
//! The input is cut into chunks of 16 bytes, from its end; zeros in front, which change no CRC, fill up the first.
//! A chunk that has `d` chunks after it adds `chunk * x^(128 d + 64)` to the CRC. Both halves of every chunk are
//! multiplied by the power of x that is theirs, reduced beforehand to 64 bits, independently of one another; the
//! sum, 128 bits, is reduced once, by Barrett's method (Gopal et al., "Fast CRC Computation for Generic Polynomials
//! Using PCLMULQDQ", Intel 2009). `crc-fast` folds chunk by chunk, which is a chain of multiplications.
//!
//! Multiplying two reflected polynomials of 64 bits gives their product times x: constants are one x short.

use std::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_unpackhi_epi64, _mm_xor_si128,
};

use super::polynomial::{GENERATOR, times_x};

const CHUNK_BYTES: usize = 16;
const CHUNK_COUNT_MAX: usize = 32;

/// The longest input, in bytes.
pub(super) const BYTES_MAX: usize = CHUNK_COUNT_MAX * CHUNK_BYTES;

/// For a chunk with `d` after it: what its first and its last eight bytes are multiplied by.
static POWERS: [(u64, u64); CHUNK_COUNT_MAX] = powers();

const fn powers() -> [(u64, u64); CHUNK_COUNT_MAX] {
    let mut powers = [(0, 0); CHUNK_COUNT_MAX];
    let mut power = 1_u64 << 63; // x^0
    let mut exponent = 0;
    while exponent < 128 * CHUNK_COUNT_MAX {
        let chunk = exponent / 128;
        if exponent % 128 == 63 {
            powers[chunk].1 = power;
        } else if exponent % 128 == 127 {
            powers[chunk].0 = power;
        }
        power = times_x(power);
        exponent += 1;
    }
    powers
}

/// The generator divided by x, without its x^-1.
const GENERATOR_OVER_X: u64 = (GENERATOR << 1) | 1;

/// The quotient of x^128 by the generator, divided by x, without its x^-1.
const QUOTIENT_OVER_X: u64 = quotient_over_x();

const fn quotient_over_x() -> u64 {
    let generator = GENERATOR.reverse_bits();
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

/// The CRC-64 of at most [`BYTES_MAX`] bytes; `None` on a machine that cannot multiply so.
#[inline]
#[expect(
    unsafe_code,
    reason = "calls code for a processor feature; a log record is checksummed three times faster"
)]
pub(super) fn crc64(seed: u64, bytes: &[u8]) -> Option<u64> {
    if !std::arch::is_x86_feature_detected!("pclmulqdq") {
        return None;
    }
    // SAFETY: the one requirement of `multiply_chunks` is the feature that was just detected.
    Some(unsafe { multiply_chunks(seed, bytes) })
}

#[target_feature(enable = "pclmulqdq")]
fn multiply_chunks(seed: u64, bytes: &[u8]) -> u64 {
    let state = u128::from(!seed);
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
            return seed;
        }
        let shift = 8 * (CHUNK_BYTES - count) as u32;
        // What the input is too short to take on remains of the state, shifted.
        let left = (state >> (8 * count as u32)) as u64;
        ((partial(bytes) ^ state) << shift, &[][..], 0, left)
    };
    let mut sum = match (count, POWERS.get(chunks.len())) {
        (1.., Some(power)) => product(first, *power),
        _ => _mm_set_epi64x(0, 0),
    };
    let mut powers = POWERS[..chunks.len()].iter().rev();
    if let (Some((chunk, rest)), Some(power)) = (chunks.split_first(), powers.next()) {
        sum = _mm_xor_si128(sum, product(u128::from_le_bytes(*chunk) ^ carried, *power));
        chunks = rest;
    }
    for (chunk, power) in chunks.iter().zip(powers) {
        sum = _mm_xor_si128(sum, product(u128::from_le_bytes(*chunk), *power));
    }
    !(reduce(sum) ^ left)
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

/// The sum of the products of the halves of `chunk` with the halves of `power`.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn product(chunk: u128, power: (u64, u64)) -> __m128i {
    let chunk = _mm_set_epi64x((chunk >> 64) as i64, chunk as i64);
    let power = _mm_set_epi64x(power.1.cast_signed(), power.0.cast_signed());
    _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(chunk, power), _mm_clmulepi64_si128::<0x11>(chunk, power))
}

/// The remainder of 128 bits by the generator.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn reduce(sum: __m128i) -> u64 {
    let constants = _mm_set_epi64x(GENERATOR_OVER_X.cast_signed(), QUOTIENT_OVER_X.cast_signed());
    let quotient = _mm_clmulepi64_si128::<0x00>(sum, constants);
    let multiple = _mm_clmulepi64_si128::<0x10>(quotient, constants);
    // The x^-1 that the constant lacks is made up for by adding the quotient itself.
    let high = _mm_unpackhi_epi64(_mm_xor_si128(sum, multiple), multiple);
    (_mm_cvtsi128_si64(high) ^ _mm_cvtsi128_si64(quotient)).cast_unsigned()
}
