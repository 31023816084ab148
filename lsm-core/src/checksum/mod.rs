//! Checksums of files: CRC-32 for what is small, CRC-64 where a false alarm or a miss must be out of the question.
//!
//! Both are linear over XOR, which is what lets recovery tell a single flipped bit from a torn write.

#[cfg(target_arch = "x86_64")]
mod clmul;
mod polynomial;

/// Longer inputs are faster with `crc32fast`.
#[cfg(target_arch = "x86_64")]
const CRC32_BYTES_MAX: usize = 128;

/// CRC-32 (IEEE) of `bytes`, started from `seed`, which may be the CRC-32 of what stands before them.
#[inline]
pub fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= CRC32_BYTES_MAX
        && let Some(crc) = clmul::crc32(seed, bytes)
    {
        return crc;
    }
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// The [`crc32`] of `first` and `rest`, little-endian: of a header that has not been laid out yet.
///
/// ```
/// use lsm_core::checksum::{crc32, crc32_of_words};
/// let bytes = [&[1; 4][..], &[2; 8], &[3; 8], &[4; 8]].concat();
/// let rest = [[2; 8], [3; 8], [4; 8]].map(u64::from_le_bytes);
/// assert_eq!(crc32_of_words(7, u32::from_le_bytes([1; 4]), rest), crc32(7, &bytes));
/// ```
#[inline]
pub fn crc32_of_words(seed: u32, first: u32, rest: [u64; 3]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if let Some(crc) = clmul::crc32_of_words(seed, first, rest) {
        return crc;
    }
    crc32(crc32(seed, &first.to_le_bytes()), rest.map(u64::to_le_bytes).as_flattened())
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

/// The [`crc64`] of `head`, little-endian, `body` and zeros up to a multiple of eight bytes, as log records are
/// laid out, without the need to bring them together first.
///
/// ```
/// use lsm_core::checksum::{crc64, crc64_of_frame};
/// let head = [[1; 8], [2; 8], [3; 8], [4; 8]];
/// let whole = [head.as_flattened(), b"hello\0\0\0"].concat();
/// assert_eq!(crc64_of_frame(7, head.map(u64::from_le_bytes), b"hello"), crc64(7, &whole));
/// ```
#[inline]
pub fn crc64_of_frame(seed: u64, head: [u64; 4], body: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if body.len() <= clmul::BYTES_MAX - size_of_val(&head)
        && let Some(crc) = clmul::crc64_of_frame(seed, head, body)
    {
        return crc;
    }
    let padding = body.len().next_multiple_of(8) - body.len();
    let crc = crc64(seed, head.map(u64::to_le_bytes).as_flattened());
    crc64(crc64(crc, body), &[0; 7][..padding])
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
    fn reference(generator: u64, seed: u64, bytes: &[u8]) -> u64 {
        let mut crc = !seed;
        for byte in bytes {
            crc ^= u64::from(*byte);
            for _ in 0..8 {
                crc = polynomial::times_x(generator, crc);
            }
        }
        !crc
    }

    fn noise(len: u32) -> Vec<u8> {
        (0..len).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn every_way_to_compute_a_crc_agrees_with_its_definition() {
        let bytes = noise(2200);
        for seed in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            for len in (0..700).chain(2000..bytes.len()) {
                // Every alignment, too.
                let bytes = &bytes[len % 17 % (len + 1)..len];
                let expected = reference(polynomial::CRC64, seed, bytes);
                assert_eq!(crc64(seed, bytes), expected, "{} bytes", bytes.len());
                assert_eq!(polynomial::crc64(seed, bytes), expected, "{} bytes by table", bytes.len());
                assert_eq!(long_crc64(seed, bytes), expected, "{} bytes by crc-fast", bytes.len());
                let state = u64::from(!(seed as u32));
                let expected = reference(polynomial::CRC32, !state, bytes) as u32;
                assert_eq!(crc32(seed as u32, bytes), expected, "CRC-32 of {} bytes", bytes.len());
                #[cfg(target_arch = "x86_64")]
                if bytes.len() <= clmul::BYTES_MAX
                    && let Some(crc) = clmul::crc32(seed as u32, bytes)
                {
                    assert_eq!(crc, expected, "CRC-32 of {} bytes by multiplication", bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_frame_has_the_checksum_of_its_bytes() {
        let bytes = noise(2200);
        let (words, _) = bytes.as_chunks::<8>();
        let head = [words[0], words[1], words[2], words[3]];
        for seed in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            for len in (0..300).chain(1900..bytes.len() - 50) {
                let body = &bytes[50..][..len];
                let mut whole = [head.as_flattened(), body].concat();
                whole.resize(whole.len().next_multiple_of(8), 0);
                let crc = crc64_of_frame(seed, head.map(u64::from_le_bytes), body);
                assert_eq!(crc, reference(polynomial::CRC64, seed, &whole), "{len} bytes");
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
