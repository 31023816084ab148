//! Checksums of files: CRC-32 for what is small, CRC-64 where a false alarm or a miss must be out of the question.
//!
//! Both are linear over XOR, which is what lets recovery tell a single flipped bit from a torn write.

#[cfg(target_arch = "x86_64")]
mod clmul;
mod polynomial;

/// CRC-32 (IEEE) of `bytes`, started from `seed`, which may be the CRC-32 of what stands before them.
#[inline]
pub fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// CRC-64/NVME of `bytes`, started from `seed`, which may be the CRC-64 of what stands before them; 0 at the
/// beginning.
///
/// ```
/// use lsm_core::checksum::crc64;
/// assert_eq!(crc64(0, b"123456789"), 0xae8b_1486_0a79_9888);
/// assert_eq!(crc64(crc64(0, b"1234"), b"56789"), crc64(0, b"123456789"));
/// ```
#[inline]
pub fn crc64(seed: u64, bytes: &[u8]) -> u64 {
    // `crc-fast` takes some 35 to 80 ns before it gets going; log records are shorter than that.
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= clmul::BYTES_MAX
        && let Some(crc) = clmul::crc64(seed, bytes)
    {
        return crc;
    }
    if bytes.len() < polynomial::BYTES_MAX { polynomial::crc64(seed, bytes) } else { long_crc64(seed, bytes) }
}

fn long_crc64(seed: u64, bytes: &[u8]) -> u64 {
    let mut digest = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc64Nvme, !seed);
    digest.update(bytes);
    digest.finalize()
}

/// The [`crc64`] of bytes that come piece by piece, such as a whole file's.
///
/// ```
/// use lsm_core::checksum::{Checksum, crc64};
/// let mut checksum = Checksum::new();
/// checksum.update(b"hello ");
/// checksum.update(b"world");
/// assert_eq!(checksum.value(), crc64(0, b"hello world"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// The checksum of nothing.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Takes in the bytes that follow.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc64(self.0, bytes);
    }

    /// The checksum of all bytes so far.
    #[inline]
    pub const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit.
    fn reference(seed: u64, bytes: &[u8]) -> u64 {
        let mut crc = !seed;
        for byte in bytes {
            crc ^= u64::from(*byte);
            for _ in 0..8 {
                crc = polynomial::times_x(crc);
            }
        }
        !crc
    }

    #[test]
    fn every_way_to_compute_the_crc_agrees_with_its_definition() {
        let bytes: Vec<u8> =
            (0_u32..1100).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for seed in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            for len in 0..bytes.len() {
                // Every alignment, too.
                let bytes = &bytes[len % 17 % (len + 1)..len];
                let expected = reference(seed, bytes);
                assert_eq!(crc64(seed, bytes), expected, "{} bytes", bytes.len());
                assert_eq!(polynomial::crc64(seed, bytes), expected, "{} bytes by table", bytes.len());
                assert_eq!(long_crc64(seed, bytes), expected, "{} bytes by crc-fast", bytes.len());
            }
        }
    }

    #[test]
    fn pieces_give_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for cut in [0, 1, 7, 16, 300, 513, 4096, 5000] {
            let mut checksum = Checksum::new();
            checksum.update(&bytes[..cut]);
            checksum.update(&bytes[cut..]);
            assert_eq!(checksum.value(), crc64(0, &bytes));
        }
    }
}
