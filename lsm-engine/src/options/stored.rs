//! The options of a keyspace that the manifest keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the compaction policy. Always stored.
pub(super) const POLICY: &str = "policy";
/// Settings of the compaction policy, as it writes them.
pub(super) const POLICY_SETTINGS: &str = "policy_settings";
/// Name of the merge operator.
pub(super) const MERGE_OPERATOR: &str = "merge_operator";
/// Name of the prefix extractor.
pub(super) const PREFIX_EXTRACTOR: &str = "prefix_extractor";
/// `none`, `bloom:` and the bits per key, or `given:` and the name of a filter policy.
pub(super) const FILTER: &str = "filter";
/// Compression at the last level: `none`, `lz4`, or `zstd:` and a level.
pub(super) const COMPRESSION: &str = "compression";
/// Compression above the last level.
pub(super) const COMPRESSION_ABOVE: &str = "compression_above";
/// Size of a block, a decimal number.
pub(super) const BLOCK_BYTES: &str = "block_bytes";

/// After how many microseconds a put expires, a decimal number; 0 for never.
pub(super) const TTL_MICROS: &str = "ttl_micros";

/// Within how many microseconds deleted data leaves the disk, a decimal number; 0 for when compactions come to it.
pub(super) const PURGE_MICROS: &str = "purge_micros";
/// From which length on values go to blob files, a decimal number, or `none`.
pub(super) const BLOBS_FROM: &str = "blobs_from";
/// The share of garbage in blob files above which they are rewritten, a decimal fraction.
pub(super) const BLOB_GARBAGE_MAX: &str = "blob_garbage_max";

/// The options of a keyspace that the manifest keeps: names and values.
///
/// All values of this version are text. An option that was never given is not stored and has its default, except the name
/// of the compaction policy. Names and values that this version does not know are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredOptions {
    values: BTreeMap<Arc<str>, Box<[u8]>>,
}

impl StoredOptions {
    /// Number of options that a keyspace may have.
    pub const COUNT_MAX: usize = 1000;
    /// Length of a name, from 1 byte to this.
    pub const NAME_BYTES_MAX: usize = 255;
    /// Length of a value.
    pub const VALUE_BYTES_MAX: usize = 64 << 10;

    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(|value| &**value)
    }

    /// The value with this name, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// The name of the compaction policy.
    pub fn policy(&self) -> &str {
        self.text(POLICY).unwrap_or("leveled")
    }

    /// The name of the merge operator, if there is one.
    pub fn merge_operator(&self) -> Option<&str> {
        self.text(MERGE_OPERATOR)
    }

    /// Stores a value. An empty one is stored, too.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref().into();
        match self.values.get_mut(name) {
            Some(stored) => *stored = value,
            None => drop(self.values.insert(name.into(), value)),
        }
    }

    /// All names and values, in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Estimate of the memory that they take.
    pub(crate) fn memory_bytes(&self) -> usize {
        // A node of the map has room for eleven.
        let nodes = self.values.len().div_ceil(6) * 11 * (size_of::<Arc<str>>() + size_of::<Box<[u8]>>());
        nodes + self.iter().map(|(name, value)| name.len() + value.len() + 48).sum::<usize>()
    }
}
