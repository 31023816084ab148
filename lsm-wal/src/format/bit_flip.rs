//! Finds the one bit whose flip explains a wrong CRC-64.
//!
//! A CRC is linear: flipping a bit of the message changes the checksum by a value, the syndrome, that depends
//! only on how many bits follow. With `t` bits after it, the syndrome is `x^(64 + t)` modulo the polynomial, so
//! `t` is a discrete logarithm. Baby steps and giant steps (Shanks 1971) find it in the square root of the
//! record's length: ten milliseconds for the longest record there can be.

/// The polynomial of CRC-64/NVME without its leading term; bit 63 is the coefficient of `x^0`.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;
/// `x^64` modulo the polynomial: the syndrome of the last bit.
const LAST_BIT: u64 = POLYNOMIAL;

/// `value * x`.
#[inline]
const fn times_x(value: u64) -> u64 {
    value >> 1 ^ if value & 1 == 0 { 0 } else { POLYNOMIAL }
}

fn times(mut a: u64, b: u64) -> u64 {
    let mut product = 0;
    for exponent in 0..64 {
        if b >> (63 - exponent) & 1 == 1 {
            product ^= a;
        }
        a = times_x(a);
    }
    product
}

/// The number of bits that follow the flipped bit, if flipping one of the last `bits` bits of the message
/// changes its CRC-64 by `syndrome`. Bits of a byte follow each other from the lowest to the highest.
pub(crate) fn bits_after_flip(syndrome: u64, bits: u64) -> Option<u64> {
    if syndrome == 0 || bits == 0 {
        return None;
    }
    let stride = bits.isqrt() + 1;
    let giant = (0..stride).fold(1 << 63, |power, _| times_x(power));
    let mut landmarks = Vec::new();
    let mut power = LAST_BIT;
    for multiple in 0..=bits.div_ceil(stride) {
        landmarks.push((power, multiple * stride));
        power = times(power, giant);
    }
    landmarks.sort_unstable();
    let mut value = syndrome;
    for step in 0..stride {
        if let Ok(index) = landmarks.binary_search_by_key(&value, |landmark| landmark.0)
            && let Some(&(_, exponent)) = landmarks.get(index)
            && let Some(after) = exponent.checked_sub(step)
            && after < bits
        {
            return Some(after);
        }
        value = times_x(value);
    }
    None
}

#[cfg(test)]
mod tests {
    use lsm_core::checksum::crc64;

    use super::*;

    #[test]
    fn every_single_flip_is_found_and_double_flips_are_not() {
        for len in [1_u8, 2, 8, 31, 200] {
            let mut message: Vec<u8> = (0..len).map(|byte| byte ^ 0x5a).collect();
            let bits = u64::from(len) * 8;
            let sound = crc64(7, &message);
            for bit in 0..bits {
                message[bit as usize / 8] ^= 1 << (bit % 8);
                assert_eq!(bits_after_flip(sound ^ crc64(7, &message), bits), Some(bits - 1 - bit));
                let second = (bit + 5) % bits;
                message[second as usize / 8] ^= 1 << (second % 8);
                assert_eq!(bits_after_flip(sound ^ crc64(7, &message), bits), None);
                message[second as usize / 8] ^= 1 << (second % 8);
                message[bit as usize / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn the_longest_record_is_searched_in_bounded_steps() {
        let bits = (u64::from(u32::MAX) + 40) * 8;
        let far = (0..36).fold(LAST_BIT, |power, _| times(power, power));
        let _ = bits_after_flip(far, bits);
        let mut power = LAST_BIT;
        for _ in 0..1_000_000 {
            power = times_x(power);
        }
        assert_eq!(bits_after_flip(power, bits), Some(1_000_000));
    }
}
