use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{Entry, Slice};
use lsm_sstable::{Compression, FilterPolicy, TableBlock, TableId, TableOptions, TableWriter, UnsyncedTable};

use crate::error::{Error, Result};
use crate::memory::{Charge, Part};
use crate::options::KeyspaceOptions;
use crate::resources::Resources;
use crate::version::files;
use crate::version::{Placement, TableFile, VersionSet, open_table};

/// A table grows past its target by this factor at most while it waits for a boundary of the next level.
const STRETCH: u64 = 2;

/// Where a stream of kept entries goes: one table after the other, cut where it suits the next level.
pub(crate) struct Output {
    resources: Arc<Resources>,
    versions: Arc<VersionSet>,
    /// What this and its inputs hold.
    charge: Charge,
    /// What they hold at least.
    bytes_min: usize,
    /// The writer of the table holds as much as it may.
    is_large: bool,
    options: OutputOptions,
    table_options: TableOptions,
    /// The table being written, and its number.
    writer: Option<(u64, TableWriter)>,
    finished: Vec<NewTable>,
    /// Range tombstones that go along, clipped to the stretch of keys that each table covers.
    range_tombstones: Arc<FragmentedRangeTombstones>,
    /// Where the stretch of the table being written starts.
    lower: Option<Slice>,
    /// Index of the first boundary that was not passed yet.
    boundary: usize,
    /// The table is due to be cut before the first key after this one.
    cut_after: Option<Vec<u8>>,
}

/// How tables are cut and written.
pub(crate) struct OutputOptions {
    pub(crate) target_bytes: u64,
    /// Everything goes into one table, however much its writer holds.
    pub(crate) is_one_table: bool,
    /// Smallest keys of the tables in the level below the output, ascending: good places to cut.
    pub(crate) boundaries: Vec<Slice>,
    pub(crate) compression: Compression,
    pub(crate) filter: Option<Arc<dyn FilterPolicy>>,
    /// The tables, and their names, are synced later, with others.
    pub(crate) sync_later: bool,
    /// Runs that are read for it.
    pub(crate) sources: usize,
    /// The keys that the output is confined to: its range tombstones end there.
    pub(crate) lower: Option<Slice>,
    pub(crate) upper: Option<Slice>,
}

/// A table that was written and is not part of any version yet.
pub(crate) struct NewTable {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Still to be synced.
    unsynced: Option<UnsyncedTable>,
}

impl Output {
    pub(crate) fn new(
        resources: Arc<Resources>,
        versions: Arc<VersionSet>,
        keyspace: &KeyspaceOptions,
        options: OutputOptions,
        range_tombstones: Arc<FragmentedRangeTombstones>,
    ) -> Self {
        let table_options = TableOptions {
            block_bytes: keyspace.block_bytes,
            write_buffer_bytes: resources.memory.budget.write_buffer_bytes,
            compression: options.compression,
            filter: options.filter.clone(),
            prefix_extractor: keyspace.prefix_extractor.clone(),
        };
        let read_bytes = options.sources * resources.memory.budget.read_buffer_bytes as usize;
        let bytes_min = table_options.write_buffer_bytes + read_bytes + 2 * range_tombstones.memory_bytes();
        Self {
            charge: Charge::new(&resources.memory, Part::Buffers, bytes_min),
            bytes_min,
            is_large: false,
            resources,
            versions,
            table_options,
            writer: None,
            finished: Vec::new(),
            range_tombstones,
            lower: options.lower.clone(),
            options,
            boundary: 0,
            cut_after: None,
        }
    }

    /// Adds the next entry.
    #[inline]
    pub(crate) fn add(&mut self, entry: Entry<'_>) -> Result<()> {
        self.cut(entry.key)?;
        let writer = self.writer()?;
        writer.add(entry)?;
        self.decide_cut(entry.key);
        Ok(())
    }

    /// Adds the next entries as one block of another table; `false` if they are to be added one by one.
    pub(crate) fn add_block(&mut self, block: &TableBlock<'_>) -> Result<bool> {
        let (first_key, last_key) = (block.first_key(), block.last_key());
        let mut boundaries = self.options.boundaries.iter().skip(self.boundary);
        // The table may have to be cut there.
        if boundaries.any(|boundary| **boundary > *first_key && **boundary <= *last_key) {
            return Ok(false);
        }
        self.cut(first_key)?;
        let is_taken = self.writer()?.add_block(block)?;
        if is_taken {
            self.decide_cut(last_key);
        }
        Ok(is_taken)
    }

    /// Ends the table before `key`, the next, if it is time.
    #[inline]
    fn cut(&mut self, key: &[u8]) -> Result<()> {
        // At a boundary half a table is enough. The key there is another than the one before, and belongs to the
        // next table: this one is to end before the table below begins.
        let at_boundary = self.pass_boundaries(key) && self.bytes() >= self.options.target_bytes / 2;
        if at_boundary || self.cut_after.as_deref().is_some_and(|before| before != key) {
            self.finish_table(Some(key))?;
        }
        Ok(())
    }

    /// Whether the table is to end after `key`, the last.
    #[inline]
    fn decide_cut(&mut self, key: &[u8]) {
        // Elsewhere it takes a full table, or more while a boundary may still come.
        let target = self.options.target_bytes;
        let limit = if self.options.boundaries.len() > self.boundary {
            target.saturating_mul(STRETCH)
        } else {
            target
        };
        if self.cut_after.is_none() && (self.bytes() >= limit || self.is_large) {
            self.cut_after = Some(key.to_vec());
        }
    }

    /// The table being written.
    #[inline]
    fn writer(&mut self) -> Result<&mut TableWriter> {
        if self.writer.is_none() {
            self.start_table()?;
        }
        self.writer.as_mut().map(|(_, writer)| writer).ok_or(Error::Closed)
    }

    /// Accounts for what is held, `read_bytes` of it by the inputs.
    pub(crate) fn charge(&mut self, read_bytes: usize) {
        let written = self.writer.as_ref().map_or(0, |(_, writer)| writer.memory_bytes());
        self.is_large =
            !self.options.is_one_table && written > self.resources.memory.budget.table_writer_bytes_max;
        self.charge.set(self.bytes_min.max(read_bytes + written));
    }

    /// Size of the table being written, about.
    fn bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |(_, writer)| writer.estimated_bytes())
    }

    /// Writes what is left, range tombstones after the last entry included.
    pub(crate) fn finish(&mut self) -> Result<Vec<NewTable>> {
        let upper = self.options.upper.clone();
        if self.writer.is_none() {
            let rest = self.range_tombstones.truncated(self.lower.as_deref(), upper.as_deref());
            if !rest.is_empty() {
                self.start_table()?;
            }
        }
        self.finish_table(upper.as_deref())?;
        if !self.finished.is_empty() && !self.options.sync_later {
            self.resources.sync_directory()?;
        }
        Ok(std::mem::take(&mut self.finished))
    }

    /// Whether the key is the first past a boundary.
    #[inline]
    fn pass_boundaries(&mut self, key: &[u8]) -> bool {
        let mut passed = false;
        while self.options.boundaries.get(self.boundary).is_some_and(|boundary| **boundary <= *key) {
            self.boundary += 1;
            passed = true;
        }
        passed
    }

    fn start_table(&mut self) -> Result<()> {
        let number = self.versions.numbers.next();
        let env = &*self.resources.env;
        let id = TableId(u128::from(env.random()) << 64 | u128::from(env.random()));
        let path = files::table(&self.resources.directory, number);
        let writer = TableWriter::create(&*self.resources.vfs, &path, id, &self.table_options)?;
        self.writer = Some((number, writer));
        Ok(())
    }

    fn finish_table(&mut self, upper: Option<&[u8]>) -> Result<()> {
        self.cut_after = None;
        self.is_large = false;
        let Some((number, mut writer)) = self.writer.take() else { return Ok(()) };
        let path = files::table(&self.resources.directory, number);
        // Known before it is complete, so that a failure cleans it up.
        self.finished.push(NewTable { number, path, bytes: 0, unsynced: None });
        for fragment in self.range_tombstones.truncated(self.lower.as_deref(), upper).iter() {
            for &sequence in fragment.sequences {
                writer.add_range_tombstone(fragment.start, fragment.end, sequence)?;
            }
        }
        self.resources.counters.compaction_bytes_copied.add(writer.copied_bytes());
        let written = writer.finish_unsynced()?;
        if let Some(table) = self.finished.last_mut() {
            table.bytes = written.meta().file_bytes;
            table.unsynced = Some(written);
            if !self.options.sync_later {
                table.sync()?;
            }
        }
        self.lower = upper.map(Slice::copy_from);
        Ok(())
    }
}

impl Drop for Output {
    /// Removes what never became part of a version.
    fn drop(&mut self) {
        if let Some((number, writer)) = self.writer.take() {
            writer.abandon();
            self.resources.obsolete_files.remove_later(files::table(&self.resources.directory, number));
        }
        for table in self.finished.drain(..) {
            self.resources.obsolete_files.remove_later(table.path);
        }
    }
}

impl NewTable {
    /// Makes the file durable, and closes it.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.unsynced.take().map_or(Ok(()), |table| Ok(table.sync()?))
    }

    /// Opens the table for a version. Tombstones in it were first written at `tombstones_since`, or just now.
    pub(crate) fn open(
        &self,
        resources: &Resources,
        versions: &VersionSet,
        keyspace: &KeyspaceOptions,
        (level, run): (usize, u64),
        tombstones_since: Option<u64>,
    ) -> Result<Placement> {
        let table = open_table(&resources.memory, &self.path, keyspace, None)?;
        let created = versions.clock_micros();
        let tombstones = table.0.meta().tombstones + table.0.meta().range_tombstones;
        let since = (tombstones > 0).then(|| tombstones_since.unwrap_or(created));
        let obsolete_files = Arc::clone(&resources.obsolete_files);
        let file = TableFile::new(self.number, table, created, since, obsolete_files);
        Ok(Placement { level, run, table: Arc::new(file) })
    }
}
