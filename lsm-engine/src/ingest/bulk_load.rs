use std::sync::Arc;

use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{SequenceNumber, ValueKind};
use lsm_sstable::TableMeta;

use super::install::install;
use super::pipeline::Pipeline;
use super::staged::StagedFiles;
use super::table_builder::not_ascending;
use crate::background::{Output, OutputOptions};
use crate::database::{Closer, Database};
use crate::error::{Error, Result};
use crate::keyspaces::Tree;
use crate::write::{check_key, check_value, stored_value};

/// Size at which a table ends and the next one begins.
const TABLE_BYTES: u64 = 64 << 20;
/// Every so many entries the load looks whether the keyspace is still there.
const ENTRIES_PER_CHECK: u32 = 4096;
/// The filters of the last level, to which a bulk load usually goes, count with so many entries beside those of other runs.
const ENTRIES_ABOUT: u64 = 10_000_000;

/// A sorted stream of entries on its way into a keyspace, past the log and the memtables; see
/// [`Keyspace::bulk_load`](crate::Keyspace::bulk_load).
///
/// Nothing is visible before [`finish`](Self::finish). If it is dropped before, or anything fails, nothing is left.
pub struct BulkLoad {
    database: Arc<Database>,
    tree: Arc<Tree>,
    pipeline: Pipeline,
    last_key: Vec<u8>,
    entries: u64,
    until_check: u32,
    /// The error after which it is of no more use.
    failed: Option<Error>,
    _closer: Arc<Closer>,
}

impl BulkLoad {
    pub(crate) fn new(database: &Arc<Database>, tree: &Arc<Tree>, closer: &Arc<Closer>) -> Result<Self> {
        let side = database.write_side()?;
        side.write.check()?;
        database.resources.check_may_wait()?;
        tree.check_usable()?;
        tree.check_writable()?;
        let keyspace = tree.options();
        let others = tree.load_full();
        let options = OutputOptions {
            target_bytes: TABLE_BYTES,
            is_one_table: false,
            boundaries: Vec::new(),
            compression: keyspace.compression,
            filter: keyspace.table_filter(ENTRIES_ABOUT, others.version.runs().map(|run| run.entries())),
            // A compaction moves them there: the log record of an ingest has tables only.
            with_blobs: false,
            sync_later: false,
            sources: 0,
            lower: None,
            upper: None,
        };
        let output = Output::new(
            Arc::clone(&database.resources),
            Arc::clone(&side.versions),
            &keyspace,
            options,
            Arc::new(FragmentedRangeTombstones::empty()),
        );
        Ok(Self {
            database: Arc::clone(database),
            tree: Arc::clone(tree),
            pipeline: Pipeline::new(&side.background, output),
            last_key: Vec::new(),
            entries: 0,
            until_check: ENTRIES_PER_CHECK,
            failed: None,
            _closer: Arc::clone(closer),
        })
    }

    /// Adds `key` with `value`. The key must come after the one before, bytewise; if not, the call fails with
    /// [`ErrorKind::NotAscending`](crate::ErrorKind::NotAscending), adds nothing, and the load can go on.
    ///
    /// In a keyspace with a [time to live](crate::KeyspaceOptions::ttl) the entry expires that long after this call.
    #[inline]
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        if self.entries > 0 && &*self.last_key >= key {
            return Err(not_ascending(&self.last_key, key));
        }
        match self.tree.ttl_micros() {
            None => self.add(key, ValueKind::Put, value),
            Some(ttl) => {
                let micros = self.database.visibility.now_micros().saturating_add(ttl);
                self.add(key, ValueKind::PutWithExpiry, &stored_value(micros, value))
            }
        }
    }

    #[inline]
    fn add(&mut self, key: &[u8], kind: ValueKind, value: &[u8]) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.pipeline.add(key, kind, value).map_err(|error| self.fail(error))?;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.entries += 1;
        self.until_check -= 1;
        if self.until_check == 0 {
            self.check()?;
        }
        Ok(())
    }

    /// Fails if the keyspace is not there any more.
    #[cold]
    fn check(&mut self) -> Result<()> {
        self.until_check = ENTRIES_PER_CHECK;
        let side = self.database.write_side().and_then(|side| side.write.check());
        side.and_then(|()| self.tree.check_usable()).map_err(|error| self.fail(error))
    }

    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.clone());
        error
    }

    /// Number of entries so far.
    pub fn entry_count(&self) -> u64 {
        self.entries
    }

    /// Makes all entries visible, in one step, durably. Returns the number of the write that this is.
    ///
    /// They take the place of what the keyspace had for their keys. Snapshots taken before do not see them.
    pub fn finish(self) -> Result<SequenceNumber> {
        let Self { database, tree, pipeline, failed, _closer, .. } = self;
        failed.map_or(Ok(()), Err)?;
        let side = database.write_side()?;
        side.write.check()?;
        let tables = pipeline.finish()?.tables;
        let mut staged = StagedFiles::new(&database.resources);
        for table in &tables {
            staged.push(table.number, table.path.clone());
        }
        let metas: Vec<TableMeta> = tables.iter().filter_map(|table| table.meta().cloned()).collect();
        let files = tables.iter().zip(&metas).map(|(table, meta)| (table.number, table.path.clone(), meta));
        install(side, &tree, files, None, staged)
    }
}

impl std::fmt::Debug for BulkLoad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keyspace = &*self.tree.name;
        f.debug_struct("BulkLoad")
            .field("keyspace", &keyspace)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}
