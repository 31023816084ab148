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
