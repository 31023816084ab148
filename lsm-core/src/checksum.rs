//! Checksums of files: CRC-32 for what is small, CRC-64 where a false alarm or a miss must be out of the question.
//!
//! Both are linear over XOR, which is what lets recovery tell a single flipped bit from a torn write.

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
    let mut digest = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc64Nvme, !seed);
    digest.update(bytes);
    digest.finalize()
}
