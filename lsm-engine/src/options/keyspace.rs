//! What a user gives for a keyspace.

use std::sync::Arc;
use std::time::Duration;

use lsm_compaction::{CompactionFilter, CompactionPolicy};
use lsm_core::expiry;
use lsm_core::merge_operator::{BuiltInMerge, MergeOperator};
use lsm_memtable::MemtableFactory;
use lsm_sstable::{Compression, FilterPolicy, PrefixExtractor};

use super::filter::Filter;
use super::stored::{self, StoredOptions};
use crate::error::{Error, Result};

/// Shorter values are not worth a pointer.
const BLOBS_FROM_MIN: u64 = 1024;
/// Stands for "no blob files".
const NONE: &str = "none";
const BLOCK_BYTES_MIN: usize = 256;
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// The shortest bound of a purge: what is to be purged is looked for each second.
const PURGE_MICROS_MIN: u64 = 10_000_000;
/// Longest name of a merge operator.
const OPERATOR_NAME_BYTES_MAX: usize = 255;
/// Names that begin so are those of built-in merge operators.
const BUILT_IN_PREFIX: &str = "lsm.";

/// How one keyspace stores its data.
///
/// The database keeps the options of each keyspace. What you do not give is as stored, or has its default if nothing is
/// stored: `KeyspaceOptions::new()` opens a keyspace as it was. What you give is stored. A given compaction policy, prefix
/// extractor or merge operator must have the stored name; otherwise opening fails with
/// [`ErrorKind::OptionsMismatch`](crate::ErrorKind::OptionsMismatch). Memtables are not stored.
///
/// The built-in compaction policies, filters, prefix extractors and merge operators are made from what is stored. The database keeps only
/// the name of your own, so give those each time. A keyspace with your own compaction policy cannot be opened for writing
/// without it; without your filter or prefix extractor, reads are slower and new tables have none; without your merge
/// operator, keys with operands cannot be read.
///
/// You can pass your own memtable, filter, prefix extractor and compaction policy. If one panics in a write or in
/// background work, writes to its keyspace fail with [`ErrorKind::Callback`](crate::ErrorKind::Callback) and the
/// background work of that keyspace stops; other keyspaces are not affected. If one panics in a read, the panic unwinds
/// into the reading thread and nothing else happens.
///
/// A filter, prefix extractor or policy may call the database that calls it: reads work, and so do writes for which there
/// is memory. Calls that would wait for themselves return an error: flushes, compactions, closing, and changes of
/// keyspaces while one is being opened. A memtable is called under the commit lock and must not call the database.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct KeyspaceOptions {
    pub(super) compression: Option<Compression>,
    pub(super) compression_above: Option<Compression>,
    pub(super) block_bytes: Option<usize>,
    /// Zero takes a stored time to live away.
    pub(super) ttl: Option<Duration>,
    /// Zero takes a stored bound away.
    pub(super) purge_within: Option<Duration>,
    /// `u64::MAX` for no blob files.
    pub(super) blobs_from: Option<u64>,
    pub(super) blob_garbage_max: Option<f64>,
    pub(super) filter: Option<Filter>,
    pub(super) prefix_extractor: Option<Arc<dyn PrefixExtractor>>,
    pub(super) compaction_filter: Option<Arc<dyn CompactionFilter>>,
    pub(super) change_prefix_extractor: bool,
    pub(super) compaction: Option<Arc<dyn CompactionPolicy>>,
    pub(super) change_compaction: bool,
    pub(super) merge_operator: Option<Arc<dyn MergeOperator>>,
    pub(crate) memtable: Option<Arc<dyn MemtableFactory>>,
}

impl KeyspaceOptions {
    /// Gives nothing: all options are as stored. A new keyspace has LZ4 at the last level, 4 KiB blocks, a Bloom filter
    /// with 10 bits per key, and leveled compaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compression of blocks at the last level that holds data. Almost all data is there. LZ4 by default. Tables that
    /// exist already keep theirs until a compaction rewrites them.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Compression of blocks in the levels above the last. None by default, because those are rewritten soon.
    pub fn compression_above(mut self, compression: Compression) -> Self {
        self.compression_above = Some(compression);
        self
    }

    /// Size of a block before compression, from 256 bytes to 1 MiB. 4096 bytes by default.
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = Some(bytes);
        self
    }

    /// The time to live: each put expires so long after it was written, unless it is
    /// [`put_expiring`](crate::Db::put_expiring) with a time of its own. `None` or zero takes a stored time to live away, whereas
    /// a value that is put with a time of zero has expired at once. None by default.
    ///
    /// It is applied when a value is written: values that are there already keep their time when it changes. From 1
    /// microsecond to 292,000 years.
    pub fn ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.ttl = Some(ttl.into().unwrap_or_default());
        self
    }

    /// The time within which deleted and overwritten data leaves all files of the database: tables, the log, and the
    /// manifest, which has keys of tables. It is kept without further writes, too. `None` or zero takes a stored bound away.
    /// None by default: then data leaves when compactions come to it. From 10 seconds to 292,000 years.
    ///
    /// All changes are flushed and merged down to the last level at least twice in that time, so a short bound costs
    /// write bandwidth; the shortest one of all keyspaces counts for all that have one.
    /// [`Db::purged_through`](crate::Db::purged_through) tells how far it has come, and what holds it back. A keyspace
    /// whose compaction policy drops data by age or size, such as FIFO, cannot have a bound: that would make all its data
    /// young again.
    pub fn purge_within(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.purge_within = Some(bound.into().unwrap_or_default());
        self
    }

    /// The length from which on values go to blob files, at least 1 KiB; `None` for no such files. None by default.
    ///
    /// A value in a blob file is written once, when its memtable is flushed, and never copied by compactions, which copy a
    /// pointer of some 20 bytes. A read of it is one more read of a file, past the block cache, and it is stored without
    /// compression. A value longer than an eighth of a memtable goes to a blob file of its own when it is written, and
    /// its log record holds the pointer. Values that are there already move when a compaction rewrites them.
    pub fn blobs_from(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.blobs_from = Some(bytes.into().unwrap_or(u64::MAX));
        self
    }

    /// The share of garbage in blob files above which the files with the most garbage are rewritten, from 0.05 to 0.95. 0.25
    /// by default. Lower means less disk space and more writes.
    pub fn blob_garbage_max(mut self, share: f64) -> Self {
        self.blob_garbage_max = Some(share);
        self
    }

    /// Bits per key of the Bloom filters, on average over all tables; 0 for no filter. 10 by default, which gives about
    /// 1 % false positives. Small runs get more bits per key than large ones, since a lookup asks all of them (Monkey,
    /// Dayan et al., SIGMOD 2017). A negative or infinite number, or NaN, is refused when the keyspace is opened.
    pub fn filter_bits_per_key(mut self, bits: f64) -> Self {
        self.filter = Some(if bits == 0.0 { Filter::None } else { Filter::Bloom(bits) });
        self
    }

    /// Your own filter policy, used for all tables; `None` for no filter.
    pub fn filter(mut self, policy: Option<Arc<dyn FilterPolicy>>) -> Self {
        self.filter = Some(policy.map_or(Filter::None, Filter::Given));
        self
    }

    /// Also adds key prefixes to the filters, so that [`Db::prefix`](crate::Db::prefix) skips tables without the prefix.
    /// Its name is recorded; see [`change_prefix_extractor`](Self::change_prefix_extractor).
    pub fn prefix_extractor(mut self, extractor: Arc<dyn PrefixExtractor>) -> Self {
        self.prefix_extractor = Some(extractor);
        self
    }

    /// User code that decides about values while compactions rewrite them; none by default. It is not stored, so give it at
    /// each opening. If it panics, background work of the keyspace stops and its data is as it was.
    ///
    /// What it deletes or changes is so for all later readers at once. Snapshots and iterators from before keep their view,
    /// and hold the tables that they need. Tables that are moved or copied whole are not looked into: with a filter, blocks
    /// are not copied unchanged, but a table that overlaps nothing is still moved.
    /// [`compact_range`](crate::Keyspace::compact_range) rewrites all.
    pub fn compaction_filter(mut self, filter: Arc<dyn CompactionFilter>) -> Self {
        self.compaction_filter = Some(filter);
        self
    }

    /// Whether the keyspace may be opened with another prefix extractor than the recorded one. False by default: then a
    /// different one is an error. Tables with the prefixes of the old one are read without their prefix filter until a
    /// compaction rewrites them.
    pub fn change_prefix_extractor(mut self, change: bool) -> Self {
        self.change_prefix_extractor = change;
        self
    }

    /// The compaction policy: which tables are merged, and when. Leveled by default. Its name and settings are recorded;
    /// the settings may be other ones at each opening, but see [`change_compaction`](Self::change_compaction).
    pub fn compaction(mut self, policy: Arc<dyn CompactionPolicy>) -> Self {
        self.compaction = Some(policy);
        self
    }

    /// Whether the keyspace may be opened with another compaction policy than the recorded one. False by default: then a
    /// different policy is an error. Compactions bring the tree into the new shape over time. A policy that drops data
    /// by age or size starts to do so at once.
    pub fn change_compaction(mut self, change: bool) -> Self {
        self.change_compaction = change;
        self
    }

    /// The merge operator: what makes one value of the operands of [`merge`](crate::Keyspace::merge). None by default. Its
    /// name is recorded and cannot change, since the operands on the disk mean nothing to another operator.
    ///
    /// Those that come with the store, [`BuiltInMerge`](crate::BuiltInMerge), need not be given again. Without an operator
    /// of your own, a read of a key with operands fails with
    /// [`ErrorKind::OperatorMissing`](crate::ErrorKind::OperatorMissing); compactions keep all operands. An operator is
    /// called in reads and in background work, and must not call the database. If it panics in a read, the read fails
    /// with [`ErrorKind::Callback`](crate::ErrorKind::Callback); if it panics or fails in background work, the operands
    /// stay as they are.
    pub fn merge_operator(mut self, operator: Arc<dyn MergeOperator>) -> Self {
        self.merge_operator = Some(operator);
        self
    }

    /// The factory of memtables; a B+ tree by default. It may differ from open to open. Use a factory for one database
    /// only: the engine sets how many bytes of flushed memtables it may keep for reuse. Those bytes are part of
    /// [`Options::memory`](crate::Options::memory). A factory that only other keyspaces than the default one use may keep
    /// none.
    pub fn memtable(mut self, factory: Arc<dyn MemtableFactory>) -> Self {
        self.memtable = Some(factory);
        self
    }

    /// Fails if no table could be written with these options, or if an operator has a name that cannot be stored.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(bytes) = self.block_bytes.filter(|&bytes| !is_block_size(bytes)) {
            return Err(Error::invalid(format!(
                "KeyspaceOptions::block_bytes is {bytes}; it must be from {BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}"
            )));
        }
        if let Some(Filter::Bloom(bits)) = self.filter
            && !(bits > 0.0 && bits.is_finite())
        {
            return Err(Error::invalid(format!(
                "KeyspaceOptions::filter_bits_per_key is {bits}; it must be a number of at least 0"
            )));
        }
        self.check_blobs()?;
        self.check_ttl()?;
        self.check_purge()?;
        let Some(name) = self.merge_operator.as_ref().map(|operator| operator.name()) else { return Ok(()) };
        if name.is_empty() || name.len() > OPERATOR_NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the name of a merge operator must have 1 to {OPERATOR_NAME_BYTES_MAX} bytes; this one has {}",
                name.len()
            )));
        }
        if name.starts_with(BUILT_IN_PREFIX) && BuiltInMerge::from_name(name).is_none() {
            return Err(Error::invalid(format!(
                "merge operator {name:?} is not built in, so its name must not begin with {BUILT_IN_PREFIX:?}"
            )));
        }
        Ok(())
    }

    fn check_blobs(&self) -> Result<()> {
        if let Some(bytes) = self.blobs_from.filter(|&bytes| bytes < BLOBS_FROM_MIN) {
            return Err(Error::invalid(format!(
                "KeyspaceOptions::blobs_from is {bytes}; it must be at least {BLOBS_FROM_MIN}, or None"
            )));
        }
        if let Some(share) = self.blob_garbage_max.filter(|&share| !is_garbage_share(share)) {
            return Err(Error::invalid(format!(
                "KeyspaceOptions::blob_garbage_max is {share}; it must be from 0.05 to 0.95"
            )));
        }
        Ok(())
    }

    fn check_ttl(&self) -> Result<()> {
        let Some(ttl) = self.ttl.filter(|ttl| !ttl.is_zero()) else { return Ok(()) };
        match expiry::micros_until(ttl) {
            Some(1..) => Ok(()),
            _ => Err(Error::invalid(format!(
                "KeyspaceOptions::ttl is {ttl:?}; it must be from 1 microsecond to {} seconds, or None",
                expiry::AFTER_MICROS_MAX / 1_000_000
            ))),
        }
    }

    fn check_purge(&self) -> Result<()> {
        let Some(bound) = self.purge_within.filter(|bound| !bound.is_zero()) else { return Ok(()) };
        match expiry::micros_until(bound) {
            Some(PURGE_MICROS_MIN..) => Ok(()),
            _ => Err(Error::invalid(format!(
                "KeyspaceOptions::purge_within is {bound:?}; it must be from {} to {} seconds, or None",
                PURGE_MICROS_MIN / 1_000_000,
                expiry::AFTER_MICROS_MAX / 1_000_000
            ))),
        }
    }

    /// Fails if an option is given that cannot change while the keyspace is open.
    pub(crate) fn check_live(&self, keyspace: &Arc<str>) -> Result<()> {
        let fixed = [
            ("prefix_extractor", self.prefix_extractor.is_some()),
            ("merge_operator", self.merge_operator.is_some()),
            ("memtable", self.memtable.is_some()),
        ];
        match fixed.into_iter().find(|&(_, is_given)| is_given) {
            Some((option, _)) => Err(Error::NotLive { keyspace: Arc::clone(keyspace), option }),
            None => Ok(()),
        }
    }

    /// Whether tables must be opened again to be read with these options.
    pub(crate) fn gives_table_readers(&self) -> bool {
        matches!(self.filter, Some(Filter::Given(_))) || self.prefix_extractor.is_some()
    }

    /// `stored` with everything that is given here. Fails if something contradicts what is stored and matters for reading;
    /// `may_change` says whether the options may allow that.
    pub(crate) fn added_to(
        &self,
        stored: &StoredOptions,
        keyspace: &str,
        may_change: bool,
    ) -> Result<StoredOptions> {
        let mut all = stored.clone();
        if let Some(policy) = &self.compaction {
            let given = policy.name();
            if let Some(stored) = stored.text(stored::POLICY).filter(|stored| *stored != given)
                && !(self.change_compaction && may_change)
            {
                return Err(mismatch(keyspace, "compaction policy", stored, given, "change_compaction"));
            }
            all.set(stored::POLICY, given);
            all.set(stored::POLICY_SETTINGS, policy.settings());
        } else {
            all.set(stored::POLICY, stored.policy());
        }
        if let Some(extractor) = &self.prefix_extractor {
            let given = extractor.name();
            if let Some(stored) = stored.text(stored::PREFIX_EXTRACTOR).filter(|stored| *stored != given)
                && !(self.change_prefix_extractor && may_change)
            {
                let change = "change_prefix_extractor";
                return Err(mismatch(keyspace, "prefix extractor", stored, &given, change));
            }
            all.set(stored::PREFIX_EXTRACTOR, given);
        }
        if let Some(operator) = &self.merge_operator {
            let given = operator.name();
            if let Some(stored) = stored.merge_operator().filter(|stored| *stored != given) {
                return Err(Error::OptionsMismatch(
                    format!(
                        "keyspace {keyspace:?} uses merge operator {stored:?}, but the options give {given:?}, to which the \
                         stored operands mean something else; give the same, or none if it is built in"
                    )
                    .into(),
                ));
            }
            all.set(stored::MERGE_OPERATOR, given);
        }
        if let Some(compression) = self.compression {
            all.set(stored::COMPRESSION, compression.to_string());
        }
        if let Some(compression) = self.compression_above {
            all.set(stored::COMPRESSION_ABOVE, compression.to_string());
        }
        if let Some(bytes) = self.block_bytes {
            all.set(stored::BLOCK_BYTES, bytes.to_string());
        }
        if let Some(ttl) = self.ttl {
            all.set(stored::TTL_MICROS, expiry::micros_until(ttl).unwrap_or(0).to_string());
        }
        if let Some(bound) = self.purge_within {
            all.set(stored::PURGE_MICROS, expiry::micros_until(bound).unwrap_or(0).to_string());
        }
        if let Some(bytes) = self.blobs_from {
            let text = if bytes == u64::MAX { NONE.to_owned() } else { bytes.to_string() };
            all.set(stored::BLOBS_FROM, text);
        }
        if let Some(share) = self.blob_garbage_max {
            all.set(stored::BLOB_GARBAGE_MAX, share.to_string());
        }
        if let Some(filter) = &self.filter {
            all.set(stored::FILTER, filter.to_text());
        }
        Ok(all)
    }
}

/// What is stored for [`KeyspaceOptions::blobs_from`].
pub(super) fn blobs_from_of_text(text: &str) -> Option<u64> {
    if text == NONE {
        return Some(u64::MAX);
    }
    text.parse().ok().filter(|&bytes| bytes >= BLOBS_FROM_MIN)
}

pub(super) fn is_garbage_share(share: f64) -> bool {
    (0.05..=0.95).contains(&share)
}

pub(super) fn is_block_size(bytes: usize) -> bool {
    (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes)
}

/// A given option has another name than the stored one. `change` is the option that allows that.
fn mismatch(keyspace: &str, what: &str, stored: &str, given: &str, change: &str) -> Error {
    Error::OptionsMismatch(
        format!(
            "keyspace {keyspace:?} uses {what} {stored:?}, but the options give {given:?}; give the same, or none to \
             use what is stored, or set KeyspaceOptions::{change}(true) to change it"
        )
        .into(),
    )
}
