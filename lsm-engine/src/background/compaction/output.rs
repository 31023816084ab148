use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{Entry, Slice, ValueKind};
use lsm_sstable::{
    Compression, FilterPolicy, TableBlock, TableMeta, TableOptions, TableWriter, UnsyncedTable,
};

use super::blob_output::{BlobOutput, NewBlobs, separable};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::memory::{Charge, Part};
use crate::options::ResolvedOptions;
use crate::resources::{Resources, file_name};
use crate::version::files;
use crate::version::{Placement, TableFile, VersionSet, open_table};

/// While a table waits for a boundary of the next level, it may grow to this multiple of its target size.
const STRETCH: u64 = 2;

/// Writes a stream of entries to tables, and cuts them at the boundaries of the next level.
pub(crate) struct Output {
    resources: Arc<Resources>,
    versions: Arc<VersionSet>,
    /// The memory of the output and its inputs.
    charge: Charge,
    /// Lower bound of that memory.
    bytes_min: usize,
    /// The table writer has reached its memory limit.
    is_large: bool,
    options: OutputOptions,
    table_options: TableOptions,
    /// The table being written, and its number.
    writer: Option<(u64, TableWriter)>,
    finished: Vec<NewTable>,
    /// Values of this length or more go to blob files.
    blobs_from: usize,
    /// Boxed, since most outputs have no such values.
    blobs: Option<Box<BlobOutput>>,
    /// The range tombstones to write. Each table gets the part in its key range.
    range_tombstones: Arc<FragmentedRangeTombstones>,
    /// Lower end of the key range of the current table.
    lower: Option<Slice>,
    /// Index of the next boundary.
    boundary: usize,
    /// If set, the table ends before the first key that differs from this one.
    cut_after: Option<Vec<u8>>,
}

/// Options of how tables are cut and written.
pub(crate) struct OutputOptions {
    pub(crate) target_bytes: u64,
    /// Write everything to one table, however much memory its writer takes.
    pub(crate) is_one_table: bool,
    /// The smallest keys of the tables in the level below the output, ascending. Tables are cut there if possible.
    pub(crate) boundaries: Vec<Slice>,
    pub(crate) compression: Compression,
    pub(crate) filter: Option<Arc<dyn FilterPolicy>>,
    /// Large values go to blob files.
    pub(crate) with_blobs: bool,
    /// The caller syncs the tables and the directory later, together with others.
    pub(crate) sync_later: bool,
    /// Number of runs that are read.
    pub(crate) sources: usize,
    /// The key range of the output. Range tombstones are cut at its ends.
    pub(crate) lower: Option<Slice>,
    pub(crate) upper: Option<Slice>,
}

/// A table that was written and is not installed yet.
pub(crate) struct NewTable {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Set until the table is synced.
    unsynced: Option<UnsyncedTable>,
    /// Set when it is complete.
    meta: Option<TableMeta>,
}

/// The files that an output has written.
#[derive(Default)]
pub(crate) struct NewFiles {
    pub(crate) tables: Vec<NewTable>,
    pub(crate) blobs: Vec<NewBlobs>,
}

impl NewFiles {
    /// Syncs all of them. The directory is for the caller to sync.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.blobs.iter_mut().try_for_each(NewBlobs::sync)?;
        self.tables.iter_mut().try_for_each(NewTable::sync)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let blobs: u64 = self.blobs.iter().map(|blobs| blobs.meta.file_bytes).sum();
        blobs + self.tables.iter().map(|table| table.bytes).sum::<u64>()
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.tables.extend(more.tables);
        self.blobs.extend(more.blobs);
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.tables.iter().map(|table| &table.path).chain(self.blobs.iter().map(|blobs| &blobs.path))
    }
}

impl Output {
    pub(crate) fn new(
        resources: Arc<Resources>,
        versions: Arc<VersionSet>,
        keyspace: &ResolvedOptions,
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
            blobs_from: if options.with_blobs { keyspace.blobs_from } else { usize::MAX },
            blobs: None,
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
        if entry.value.len() >= self.blobs_from {
            return self.add_large(entry);
        }
        self.add_here(entry)
    }

    /// Adds an entry with a large value: if it is of a kind that may be, the value goes to a blob file.
    #[cold]
    fn add_large(&mut self, entry: Entry<'_>) -> Result<()> {
        let separable = separable(&entry).filter(|(_, value)| value.len() >= self.blobs_from);
        let Some((expiry_micros, value)) = separable else { return self.add_here(entry) };
        let mut blobs = self.blobs.take().unwrap_or_else(|| {
            let (resources, versions) = (Arc::clone(&self.resources), Arc::clone(&self.versions));
            Box::new(BlobOutput::new(resources, versions, self.table_options.write_buffer_bytes))
        });
        let written = blobs.add(expiry_micros, value).and_then(|()| {
            self.add_here(Entry { kind: ValueKind::BlobPointer, value: blobs.pointer(), ..entry })
        });
        self.blobs = Some(blobs);
        written
    }

    #[inline]
    fn add_here(&mut self, entry: Entry<'_>) -> Result<()> {
        self.cut(entry.key)?;
        let writer = self.writer()?;
        writer.add(entry)?;
        self.decide_cut(entry.key);
        Ok(())
    }

    /// Adds the next entries by copying a block of another table. Returns `false` if they must be added one by one.
    pub(crate) fn add_block(&mut self, block: &TableBlock<'_>) -> Result<bool> {
        let (first_key, last_key) = (block.first_key(), block.last_key());
        let mut boundaries = self.options.boundaries.iter().skip(self.boundary);
        // The table may have to be cut within the block.
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

    /// Ends the table before `key`, the next key, if it is due.
    #[inline]
    fn cut(&mut self, key: &[u8]) -> Result<()> {
        // At a boundary half a table is enough. The first key at or after the boundary goes to the next table, so that
        // this table ends before the table below begins.
        let at_boundary = self.pass_boundaries(key) && self.bytes() >= self.options.target_bytes / 2;
        if at_boundary || self.cut_after.as_deref().is_some_and(|before| before != key) {
            self.finish_table(Some(key))?;
        }
        Ok(())
    }

    /// Decides whether the table ends after `key`, the last key added.
    #[inline]
    fn decide_cut(&mut self, key: &[u8]) {
        // Elsewhere the table must be full, or larger while a boundary may still come.
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

    /// The writer of the current table. Starts a table if there is none.
    #[inline]
    fn writer(&mut self) -> Result<&mut TableWriter> {
        if self.writer.is_none() {
            self.start_table()?;
        }
        self.writer.as_mut().map(|(_, writer)| writer).ok_or(Error::Closed)
    }

    /// Accounts for the memory of the output and its inputs. The inputs take `read_bytes`.
    pub(crate) fn charge(&mut self, read_bytes: usize) {
        let tables = self.writer.as_ref().map_or(0, |(_, writer)| writer.memory_bytes());
        let written = tables + self.blobs.as_ref().map_or(0, |blobs| blobs.memory_bytes());
        self.is_large =
            !self.options.is_one_table && tables > self.resources.memory.budget.table_writer_bytes_max;
        self.charge.set(self.bytes_min.max(read_bytes + written));
    }

    pub(super) fn count_folded(&self, operands: u64) {
        self.resources.counters.merge_operands_folded.add(operands);
    }

    pub(super) fn count_refused(&self, keys: u64, event: Option<EventKind>) {
        self.resources.counters.merges_refused.add(keys);
        if let Some(event) = event {
            self.resources.events.emit(event);
        }
    }

    /// Estimated size of the current table.
    fn bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |(_, writer)| writer.estimated_bytes())
    }

    /// Estimated bytes of all tables so far.
    pub(super) fn written_bytes(&self) -> u64 {
        let blobs = self.blobs.as_ref().map_or(0, |blobs| blobs.written_bytes());
        self.finished.iter().map(|table| table.bytes).sum::<u64>() + self.bytes() + blobs
    }

    /// Finishes the last table, including range tombstones after the last entry.
    pub(crate) fn finish(&mut self) -> Result<NewFiles> {
        let upper = self.options.upper.clone();
        if self.writer.is_none() {
            let rest = self.range_tombstones.truncated(self.lower.as_deref(), upper.as_deref());
            if !rest.is_empty() {
                self.start_table()?;
            }
        }
        self.finish_table(upper.as_deref())?;
        let mut blobs = match &mut self.blobs {
            Some(blobs) => blobs.finish()?,
            None => Vec::new(),
        };
        if !self.options.sync_later {
            let synced = blobs.iter_mut().try_for_each(NewBlobs::sync);
            let synced = synced.and_then(|()| {
                if self.finished.is_empty() { Ok(()) } else { self.resources.sync_directory() }
            });
            if let Err(error) = synced {
                let paths = blobs.into_iter().map(|blobs| blobs.path);
                paths.for_each(|path| self.resources.obsolete_files.remove_later(path));
                return Err(error);
            }
        }
        Ok(NewFiles { tables: std::mem::take(&mut self.finished), blobs })
    }

    /// Whether the key is the first one at or after a boundary.
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
        let id = self.resources.random_id();
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
        // Add it before it is complete, so that a failure removes its file.
        self.finished.push(NewTable { number, path, bytes: 0, unsynced: None, meta: None });
        for fragment in self.range_tombstones.truncated(self.lower.as_deref(), upper).iter() {
            for &sequence in fragment.sequences {
                writer.add_range_tombstone(fragment.start, fragment.end, sequence)?;
            }
        }
        self.resources.counters.compaction_bytes_copied.add(writer.copied_bytes());
        let written = writer.finish_unsynced()?;
        if let Some(table) = self.finished.last_mut() {
            table.bytes = written.meta().file_bytes;
            table.meta = Some(written.meta().clone());
            table.unsynced = Some(written);
            let (file, bytes) = (file_name(&table.path), table.bytes);
            self.resources.events.emit(EventKind::FileCreated { file, bytes });
            if !self.options.sync_later {
                table.sync()?;
            }
        }
        self.lower = upper.map(Slice::copy_from);
        Ok(())
    }
}

impl Drop for Output {
    /// Removes tables that were not taken by [`finish`](Self::finish).
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
    /// What the table is. `None` before it is complete.
    pub(crate) fn meta(&self) -> Option<&TableMeta> {
        self.meta.as_ref()
    }

    /// Syncs and closes the file.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.unsynced.take().map_or(Ok(()), |table| Ok(table.sync()?))
    }

    /// Opens the table for a version. `tombstones_since` is the time at which its oldest tombstone was first written to
    /// a table; `None` means now.
    pub(crate) fn open(
        &self,
        resources: &Resources,
        versions: &VersionSet,
        keyspace: &ResolvedOptions,
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
