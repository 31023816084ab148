use std::fmt::Debug;
use std::ops::Range;

use lsm_core::hash::key_hash;

/// Builds and asks filters, over the hashes of keys or over the keys themselves.
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
/// - A policy that [needs keys](Self::needs_keys) is built by [`build_from_keys`](Self::build_from_keys) and asked by
///   [`may_contain_key`](Self::may_contain_key); its `build` and `may_contain` are not called. Both rules for
///   `may_contain` hold for `may_contain_key`, too.
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

    /// Whether filters are built from the keys instead of their hashes. The writer of a table then holds all keys of the
    /// table in memory until it is finished. It asks once, at the beginning.
    fn needs_keys(&self) -> bool {
        false
    }

    /// The filter over `keys`: all keys of the table, ascending, and behind each key its prefix if the table has a
    /// prefix extractor and it is another prefix than the one before. Only called if the policy
    /// [needs keys](Self::needs_keys).
    fn build_from_keys(&self, keys: &mut dyn Iterator<Item = &[u8]>) -> Vec<u8> {
        self.build(&keys.map(key_hash).collect::<Vec<_>>())
    }

    /// As [`may_contain`](Self::may_contain), with the key or prefix itself beside its hash. Tables ask by this.
    #[inline]
    fn may_contain_key(&self, filter: &[u8], key: &[u8], hash: u64) -> bool {
        let _ = key;
        self.may_contain(filter, hash)
    }

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
