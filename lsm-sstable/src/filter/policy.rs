use std::fmt::Debug;
use std::ops::Range;

/// Builds and asks filters over key hashes.
///
/// # Contract
///
/// - `may_contain(&build(hashes), hash)` is true for every `hash` in `hashes`. Nothing else is promised, but each
///   false yes costs a read.
/// - `may_contain` must not panic and must answer `true` for bytes that `build` did not write.
/// - `name` identifies the bytes of the filter: it is stored in each table, and a table whose filter has a name
///   that the reader does not know is read without the filter. Parameters that `may_contain` needs belong into
///   the bytes or the name.
/// - `part` is for tables whose filter is [not in memory](crate::TableOpen::pinned_bytes_max): if it names a range for
///   a hash, then `may_contain` of those bytes alone gives the answer that the whole filter would give. It names a
///   range for all hashes or for none, by the length of the filter. Such a table with a filter that has no parts is
///   read without the filter.
/// - All may be called from several threads at once.
pub trait FilterPolicy: Send + Sync + Debug {
    /// Name of the filter's format.
    fn name(&self) -> &str;

    /// The filter over `hashes`, which are [`lsm_core::hash::key_hash`] of all keys, and of all prefixes if the
    /// table has a prefix extractor. A hash may occur more than once.
    fn build(&self, hashes: &[u64]) -> Vec<u8>;

    /// Whether a key with this hash may be in the set. `filter` starts at a multiple of 64 bytes in memory, if it is
    /// whole.
    fn may_contain(&self, filter: &[u8], hash: u64) -> bool;

    /// How many bytes [`FilterPolicy::build`] returns for so many hashes, at most: what memory is planned by. The
    /// default is what ten bits a key come to.
    fn filter_bytes(&self, hash_count: usize) -> usize {
        hash_count + hash_count / 4 + 64
    }

    /// The part of a filter of `filter_bytes` bytes that decides about `hash`.
    fn part(&self, filter_bytes: u64, hash: u64) -> Option<Range<u64>> {
        let _ = (filter_bytes, hash);
        None
    }
}
