//! The options that a keyspace uses: the given ones, else the stored ones, else the defaults.

use std::sync::Arc;

use lsm_compaction::{CompactionFilter, CompactionPolicy, Leveled, built_in_policy};
use lsm_core::expiry;
use lsm_core::merge_operator::{BuiltInMerge, MergeOperator};
use lsm_memtable::MemtableFactory;
use lsm_sstable::{
    BloomFilter, Compression, FilterPolicy, PrefixExtractor, TableOpen, built_in_prefix_extractor,
};

use super::filter::Filter;
use super::filter_bits::bits_per_key;
use super::keyspace::{KeyspaceOptions, blobs_from_of_text, is_block_size, is_garbage_share};
use super::stored::{self, StoredOptions};
use crate::callbacks::caught;
use crate::error::{Error, Result};

/// The options that a keyspace uses.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedOptions {
    pub(crate) compression: Compression,
    pub(crate) compression_above: Compression,
    pub(crate) block_bytes: usize,
    /// After how many microseconds a put expires; 0 for never.
    pub(crate) ttl_micros: u64,
    /// Within how many microseconds deleted data leaves the disk; 0 for no bound.
    pub(crate) purge_micros: u64,
    /// Values of this length or more go to blob files; `usize::MAX` for none.
    pub(crate) blobs_from: usize,
    /// The share of garbage in blob files above which they are rewritten.
    pub(crate) blob_garbage_max: f64,
    filter: Filter,
    pub(crate) prefix_extractor: Option<Arc<dyn PrefixExtractor>>,
    pub(crate) compaction_filter: Option<Arc<dyn CompactionFilter>>,
    /// Its name differs from the stored one if the stored one is neither built in nor given.
    pub(crate) compaction: Arc<dyn CompactionPolicy>,
    /// `None` if the keyspace stores none, or one that is neither built in nor given.
    pub(crate) merge_operator: Option<Arc<dyn MergeOperator>>,
    pub(crate) memtable: Arc<dyn MemtableFactory>,
    read_buffer_bytes: u64,
}

/// Values of this length or more go to blob files, if the user says nothing.
const BLOBS_FROM: usize = usize::MAX;
/// The share of garbage in blob files, if the user says nothing.
const BLOB_GARBAGE_MAX: f64 = 0.25;

/// A length; `u64::MAX` is longer than all values.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What all keyspaces of a database share.
pub(crate) struct SharedOptions<'d> {
    /// Options of the default keyspace. Their parts serve all keyspaces that store the same names.
    pub(crate) default: &'d KeyspaceOptions,
    pub(crate) memtable: &'d Arc<dyn MemtableFactory>,
    pub(crate) read_buffer_bytes: u64,
}

impl ResolvedOptions {
    /// The options of a keyspace that stores `stored` and is opened with `given`, which does not contradict them. What is
    /// stored and unknown to this version counts as not stored.
    pub(crate) fn new(given: &KeyspaceOptions, stored: &StoredOptions, shared: &SharedOptions<'_>) -> Self {
        let parts = shared.default;
        let compression = |name| stored.text(name)?.parse().ok();
        let block_bytes =
            || stored.text(stored::BLOCK_BYTES)?.parse().ok().filter(|&bytes| is_block_size(bytes));
        let ttl_micros = || -> Option<u64> {
            stored.text(stored::TTL_MICROS)?.parse().ok().filter(|micros| *micros <= expiry::AFTER_MICROS_MAX)
        };
        let purge_micros = || -> Option<u64> { stored.text(stored::PURGE_MICROS)?.parse().ok() };
        let blobs_from = || blobs_from_of_text(stored.text(stored::BLOBS_FROM)?);
        let garbage_max =
            || stored.text(stored::BLOB_GARBAGE_MAX)?.parse().ok().filter(|&share| is_garbage_share(share));
        let filter = || Filter::from_text(stored.text(stored::FILTER)?, parts.filter.as_ref());
        let extractor = || {
            let name = stored.text(stored::PREFIX_EXTRACTOR)?;
            let given = parts.prefix_extractor.as_ref().filter(|given| given.name() == name);
            given.cloned().or_else(|| built_in_prefix_extractor(name))
        };
        let policy = || {
            let given = parts.compaction.as_ref().filter(|given| given.name() == stored.policy());
            let settings = || stored.text(stored::POLICY_SETTINGS).unwrap_or_default();
            built_in_policy(stored.policy(), settings()).or_else(|| given.cloned())
        };
        let operator = || {
            let name = stored.merge_operator()?;
            let built_in = || Some(Arc::new(BuiltInMerge::from_name(name)?) as Arc<dyn MergeOperator>);
            let given = parts.merge_operator.as_ref().filter(|given| given.name() == name);
            built_in().or_else(|| given.cloned())
        };
        let memtable = given.memtable.as_ref().unwrap_or(shared.memtable);
        if !Arc::ptr_eq(memtable, shared.memtable) {
            // The budget has room for one pool, that of the shared factory.
            memtable.set_pool_bytes(0);
        }
        Self {
            compression: given.compression.or_else(|| compression(stored::COMPRESSION)).unwrap_or_default(),
            compression_above: given
                .compression_above
                .or_else(|| compression(stored::COMPRESSION_ABOVE))
                .unwrap_or(Compression::None),
            block_bytes: given.block_bytes.or_else(block_bytes).unwrap_or(4096),
            ttl_micros: match given.ttl {
                Some(ttl) => expiry::micros_until(ttl).unwrap_or(0),
                None => ttl_micros().unwrap_or(0),
            },
            purge_micros: match given.purge_within {
                Some(bound) => expiry::micros_until(bound).unwrap_or(0),
                None => purge_micros().unwrap_or(0),
            },
            blobs_from: given.blobs_from.or_else(blobs_from).map_or(BLOBS_FROM, length),
            blob_garbage_max: given.blob_garbage_max.or_else(garbage_max).unwrap_or(BLOB_GARBAGE_MAX),
            filter: given.filter.clone().or_else(filter).unwrap_or(Filter::Bloom(10.0)),
            prefix_extractor: given.prefix_extractor.clone().or_else(extractor),
            compaction_filter: given.compaction_filter.clone(),
            compaction: given
                .compaction
                .clone()
                .or_else(policy)
                .unwrap_or_else(|| Arc::new(Leveled::default())),
            merge_operator: given.merge_operator.clone().or_else(operator),
            memtable: Arc::clone(memtable),
            read_buffer_bytes: shared.read_buffer_bytes,
        }
    }

    /// These options with what is given, apart from what [cannot change](KeyspaceOptions::check_live).
    pub(crate) fn changed(&self, given: &KeyspaceOptions) -> Self {
        Self {
            compression: given.compression.unwrap_or(self.compression),
            compression_above: given.compression_above.unwrap_or(self.compression_above),
            block_bytes: given.block_bytes.unwrap_or(self.block_bytes),
            ttl_micros: given.ttl.map_or(self.ttl_micros, |ttl| expiry::micros_until(ttl).unwrap_or(0)),
            purge_micros: given
                .purge_within
                .map_or(self.purge_micros, |bound| expiry::micros_until(bound).unwrap_or(0)),
            blobs_from: given.blobs_from.map_or(self.blobs_from, length),
            blob_garbage_max: given.blob_garbage_max.unwrap_or(self.blob_garbage_max),
            filter: given.filter.clone().unwrap_or_else(|| self.filter.clone()),
            compaction: given.compaction.clone().unwrap_or_else(|| Arc::clone(&self.compaction)),
            compaction_filter: given.compaction_filter.clone().or_else(|| self.compaction_filter.clone()),
            prefix_extractor: self.prefix_extractor.clone(),
            merge_operator: self.merge_operator.clone(),
            memtable: Arc::clone(&self.memtable),
            read_buffer_bytes: self.read_buffer_bytes,
        }
    }

    /// Fails if a bound for purges is set, and the compaction policy may drop data by age or size: merging it all for a
    /// purge would make it young again.
    pub(crate) fn check_purge(&self, keyspace: &str) -> Result<()> {
        let policy = &self.compaction;
        if self.purge_micros == 0 || !caught("a compaction policy's drops_data", || Ok(policy.drops_data()))?
        {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "keyspace {keyspace:?} has KeyspaceOptions::purge_within, which its compaction policy {:?} excludes: it drops \
             data by age or size, and a purge would make all data young again",
            policy.name()
        )))
    }

    /// Fails if the stored compaction policy is neither built in nor given.
    pub(crate) fn check_policy(&self, keyspace: &str, stored: &StoredOptions) -> Result<()> {
        self.check_purge(keyspace)?;
        let policy = stored.policy();
        if self.compaction.name() == policy {
            return Ok(());
        }
        Err(Error::OptionsMismatch(
            format!(
                "keyspace {keyspace:?} uses compaction policy {policy:?}, which this build cannot make from its name \
                 and settings; give it with KeyspaceOptions::compaction, or open read-only"
            )
            .into(),
        ))
    }

    /// Options to open the tables of the keyspace with.
    pub(crate) fn table_open(&self) -> TableOpen {
        let mut open = TableOpen {
            prefix_extractor: self.prefix_extractor.clone(),
            sequential_read_bytes: self.read_buffer_bytes,
            ..TableOpen::default()
        };
        if let Filter::Given(policy) = &self.filter {
            open.filters.push(Arc::clone(policy));
        }
        open
    }

    /// The filter of a new table in a run of `entries` entries. `others` are the entry counts of the other runs.
    pub(crate) fn table_filter(
        &self,
        entries: u64,
        others: impl IntoIterator<Item = u64>,
    ) -> Option<Arc<dyn FilterPolicy>> {
        match &self.filter {
            Filter::None => None,
            Filter::Bloom(average) => {
                Some(Arc::new(BloomFilter::new(bits_per_key(*average, entries, others))))
            }
            Filter::Given(policy) => Some(Arc::clone(policy)),
        }
    }
}
