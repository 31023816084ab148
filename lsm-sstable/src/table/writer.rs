//! Writes a table file from front to back; nothing is ever patched.
//!
//! ```text
//! table := file header  block*  [filter]  [range tombstones]  index  properties  footer
//! ```
//!
//! | part | drawn in | checksum |
//! |---|---|---|
//! | file header, 80 bytes | `format/file_header.rs` | CRC-32 |
//! | data blocks | `block/header.rs` | CRC-32 each, seeded with table id and offset |
//! | filter: the bytes of the filter policy | `format/section.rs`, `filter/bloom.rs` | the same |
//! | range tombstones | `format/section.rs`, `format/range_tombstones.rs` | the same |
//! | index | `format/section.rs`, `index/mod.rs` | the same |
//! | properties | `format/section.rs`, `format/properties.rs` | the same |
//! | footer, 128 bytes | `format/footer.rs` | the same; it holds a CRC-64 of everything before it |
//!
//! Integers are little-endian, offsets have 64 bits.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::hash::key_hash;
use lsm_core::key::{self, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::vfs::{Vfs, VfsFile};
use lsm_core::{Entry, Error, Result, SEQUENCE_MAX, SequenceNumber, Slice};

use super::block::TableBlock;
use super::read::blocks::KEPT_BUFFER_BYTES_MAX;
use crate::block::{BlockBuilder, ROWS_MAX};
use crate::file_writer::FileWriter;
use crate::format::checksum::BlockChecksum;
use crate::format::compression::Compressor;
use crate::format::file_header;
use crate::format::footer::{FOOTER_BYTES, Footer};
use crate::format::properties::{self, Properties};
use crate::format::range_tombstones::{self, TombstoneBuilder};
use crate::format::section::{self, SectionTag};
use crate::index::IndexBuilder;
use crate::meta::{BlobRefs, TableId, TableMeta};
use crate::options::TableOptions;

/// What properties take while they are encoded, the bounds excepted.
const PROPERTIES_BYTES: usize = 4096;

/// Writes one table. Entries are added in order; the file is complete, and durable, when [`TableWriter::finish`]
/// returns. The directory is for the caller to sync.
///
/// After an error the writer is of no more use: [`TableWriter::abandon`] it and remove the file.
pub struct TableWriter {
    output: FileWriter,
    options: TableOptions,
    checksum: BlockChecksum,
    compressor: Compressor,
    block: BlockBuilder,
    index: IndexBuilder,
    /// Last entry of the last finished block.
    block_end_key: Vec<u8>,
    block_end_sequence: Option<SequenceNumber>,
    /// Of the last entry.
    last_sequence: Option<SequenceNumber>,
    hashes: Vec<u64>,
    /// In place of hashes, if the filter policy needs keys.
    keys: Option<KeyList>,
    last_prefix: Option<Vec<u8>>,
    range_tombstones: TombstoneBuilder,
    meta: TableMeta,
    properties: Properties,
    blobs: BlobRefs,
    copied_bytes: u64,
}

/// Keys one behind the other.
#[derive(Default)]
struct KeyList {
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`.
    ends: Vec<usize>,
}

impl KeyList {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let key = &self.bytes[start..end];
            start = end;
            key
        })
    }

    fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

/// A table that is complete, and that a power cut may still take.
pub struct UnsyncedTable {
    meta: TableMeta,
    file: Arc<dyn VfsFile>,
    path: Arc<PathBuf>,
}

impl UnsyncedTable {
    /// What belongs into a manifest once the file is synced.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Makes the table durable. The directory is for the caller to sync.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }
}

impl TableWriter {
    /// Creates the file, which must not exist. `id` must be random and never used before: checksums and cache
    /// tell tables apart by it.
    pub fn create(vfs: &dyn Vfs, path: &Path, id: TableId, options: &TableOptions) -> Result<Self> {
        options.check()?;
        let compressor = Compressor::new(options.compression)?;
        let file = vfs.create_new(path).map_err(|error| Error::io("create", path, error))?;
        let mut output = FileWriter::new(file, path, options.write_buffer_bytes, options.block_bytes);
        output.put(&file_header::encode(id))?;
        Ok(Self {
            output,
            options: options.clone(),
            checksum: BlockChecksum::new(id),
            compressor,
            block: BlockBuilder::default(),
            index: IndexBuilder::default(),
            block_end_key: Vec::new(),
            block_end_sequence: None,
            last_sequence: None,
            hashes: Vec::new(),
            keys: options.filter.as_ref().filter(|policy| policy.needs_keys()).map(|_| KeyList::default()),
            last_prefix: None,
            range_tombstones: TombstoneBuilder::default(),
            meta: TableMeta { id, smallest_sequence: SEQUENCE_MAX, ..TableMeta::default() },
            properties: Properties {
                compression: options.compression.name().into(),
                ..Properties::default()
            },
            blobs: BlobRefs::default(),
            copied_bytes: 0,
        })
    }

    /// Adds an entry, which must come after all others in the order of internal keys: user key ascending, sequence number descending.
    #[inline]
    pub fn add(&mut self, entry: Entry<'_>) -> Result<()> {
        let is_new_key = self.check(&entry)?;
        let entry_bytes = entry.key.len() + entry.value.len() + 2;
        if self.block.rows() > 0
            && (self.block.record_bytes() + entry_bytes > self.options.block_bytes
                || self.block.rows() == ROWS_MAX)
        {
            self.finish_block()?;
        }
        self.count(&entry, is_new_key);
        self.block.add(entry);
        Ok(())
    }

    /// Adds a block of another table, all of whose entries must come after all others: as it is, without compressing it
    /// again, unless a block has just begun, which then takes its entries in and ends with it.
    ///
    /// `false` if it was not taken, and its entries are to be added one by one: where the compression is another, and
    /// where its size is unlike that of the blocks here.
    ///
    /// ```
    /// use lsm_core::{BlockCursor, Cursor, Entry, ValueKind, vfs::PosixFs};
    /// use lsm_sstable::{CursorAccess, Table, TableId, TableOpen, TableOptions, TableWriter};
    /// # let directory = tempfile::tempdir()?;
    /// # let path = |name: &str| directory.path().join(name);
    /// let options = TableOptions::default();
    /// let mut writer = TableWriter::create(&PosixFs, &path("1.sst"), TableId(1), &options)?;
    /// for number in 0..1000 {
    ///     let key = format!("key {number:03}");
    ///     writer.add(Entry { key: key.as_bytes(), sequence: 0, kind: ValueKind::Put, value: b"value" })?;
    /// }
    /// writer.finish()?;
    ///
    /// let table = Table::open(&PosixFs, &path("1.sst"), None, &TableOpen::default())?;
    /// let mut copy = TableWriter::create(&PosixFs, &path("2.sst"), TableId(2), &options)?;
    /// let mut cursor = table.cursor(CursorAccess::Sequential);
    /// cursor.first();
    /// while let Some(entry) = cursor.entry() {
    ///     if let Some(block) = cursor.table_block()
    ///         && copy.add_block(&block)?
    ///     {
    ///         cursor.skip_block();
    ///     } else {
    ///         copy.add(entry)?;
    ///         cursor.next();
    ///     }
    /// }
    /// assert!(cursor.error().is_none() && copy.copied_bytes() > 0);
    /// assert_eq!(copy.finish()?.entries, 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_block(&mut self, block: &TableBlock<'_>) -> Result<bool> {
        let (raw_bytes, block_bytes) = (block.raw_bytes(), self.options.block_bytes);
        let is_alike = raw_bytes >= block_bytes / 2 && (raw_bytes <= 2 * block_bytes || block.rows() == 1);
        if !is_alike || block.compression != self.options.compression.name() {
            return Ok(false);
        }
        let begun = self.block.record_bytes();
        let fits_begun = begun + raw_bytes <= 2 * block_bytes && self.block.rows() + block.rows() <= ROWS_MAX;
        let is_copied = begun == 0 || begun >= block_bytes / 2 || !fits_begun;
        if is_copied && self.block.rows() > 0 {
            self.finish_block()?;
        }
        let mut before: Option<&[u8]> = None;
        for entry in block.entries() {
            let is_new_key = match before {
                None => self.check(&entry)?,
                Some(before) if before < entry.key => true,
                Some(_) => return Err(Error::invalid(format!("a block is not in order: {block:?}"))),
            };
            self.count(&entry, is_new_key);
            if !is_copied {
                self.block.add(entry);
            }
            before = Some(entry.key);
        }
        if !is_copied {
            self.finish_block()?;
            return Ok(true);
        }
        let offset = self.begin_block(block.first_key(), block.last_key())?;
        let covered = block.covered();
        self.output.put(&self.checksum.compute(offset, covered).to_le_bytes())?;
        self.output.put(covered)?;
        self.copied_bytes += block.stored_bytes() as u64;
        self.end_block(offset, raw_bytes)?;
        Ok(true)
    }

    /// Bytes of the blocks that were copied as they were.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Takes note of an entry, the next.
    #[inline]
    fn count(&mut self, entry: &Entry<'_>, is_new_key: bool) {
        if is_new_key {
            self.properties.distinct_keys += 1;
            if self.options.filter.is_some() {
                self.add_to_filter(entry.key);
                if self.options.prefix_extractor.is_some() {
                    self.add_prefix(entry.key);
                }
            }
        }
        self.last_sequence = Some(entry.sequence);
        self.meta.entries += 1;
        self.meta.tombstones += u64::from(entry.kind.is_tombstone());
        self.properties.count(*entry, &mut self.blobs);
        self.meta.smallest_sequence = self.meta.smallest_sequence.min(entry.sequence);
        self.meta.largest_sequence = self.meta.largest_sequence.max(entry.sequence);
        let bytes = (entry.key.len() + entry.value.len()) as u64;
        self.properties.largest_entry_bytes = self.properties.largest_entry_bytes.max(bytes);
        self.meta.raw_key_bytes += entry.key.len() as u64;
        self.meta.raw_value_bytes += entry.value.len() as u64;
    }

    /// Adds a range tombstone: everything in `[start, end)` older than `sequence` is deleted. In any order, with
    /// respect to the entries too. An empty range is refused. Tombstones that overlap are stored as fragments:
    /// `n` of which all overlap take time and space of `n²`, those of a
    /// [`FragmentedRangeTombstones`] that do not, of `n`.
    pub fn add_range_tombstone(&mut self, start: &[u8], end: &[u8], sequence: SequenceNumber) -> Result<()> {
        if start >= end {
            return Err(Error::invalid(format!(
                "range tombstone from \"{}\" to \"{}\" is empty",
                start.escape_ascii(),
                end.escape_ascii()
            )));
        }
        if end.len() > KEY_BYTES_MAX || start.len() > KEY_BYTES_MAX || sequence > SEQUENCE_MAX {
            return Err(Error::invalid("range tombstone has too long a key or too high a sequence number"));
        }
        self.range_tombstones.add(start, end, sequence);
        self.meta.smallest_sequence = self.meta.smallest_sequence.min(sequence);
        self.meta.largest_sequence = self.meta.largest_sequence.max(sequence);
        Ok(())
    }

    /// About how long the file would be if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        let rest = self.range_tombstones.estimated_bytes()
            + self.block.record_bytes()
            + self.filter_count()
            + self.filter_count() / 4
            + self.index.estimated_bytes()
            + FOOTER_BYTES;
        self.output.offset() + rest as u64
    }

    /// Bytes of memory that the writer holds now, and what it needs on top to compress and write the block under way
    /// and to [`finish`](TableWriter::finish), at most: filter, fragments of range tombstones and sections. Cheap:
    /// may be asked after every few entries.
    ///
    /// Not in it: what the next entries will add, the file system, the moment at which a vector that grows is in two
    /// places, what Zstandard will take for its first block, and, of a filter policy from outside, what
    /// [`FilterPolicy::filter_bytes`](crate::FilterPolicy::filter_bytes) does not say.
    pub fn memory_bytes(&self) -> usize {
        let (compressor, compressing) = self.compressor.heap_bytes(self.block.stream_bytes_max());
        let (index, encoded_index) = self.index.memory_bytes_max(self.block.first_key().len());
        let (tombstones, fragmenting) = self.range_tombstones.memory_bytes_max();
        let hash_bytes =
            self.hashes.capacity() * size_of::<u64>() + self.keys.as_ref().map_or(0, KeyList::heap_bytes);
        let key_bytes = self.block_end_key.capacity() + self.meta.smallest.len() + self.last_key().len();
        let held = size_of::<Self>()
            + self.output.heap_bytes()
            + self.block.heap_bytes_max()
            + compressor
            + index
            + tombstones
            + hash_bytes
            + key_bytes
            + self.blobs.memory_bytes()
            + self.last_prefix.as_ref().map_or(0, Vec::capacity);
        // One after the other: hashes and filter; the sections of range tombstones and index, when hashes and filter
        // are gone; bounds and properties, with copies of the bounds.
        let finishing = self.filter_bytes().max(encoded_index.saturating_sub(hash_bytes));
        held + compressing + fragmenting.saturating_add(finishing + 6 * key_bytes + PROPERTIES_BYTES)
    }

    /// Entries added so far.
    pub fn entry_count(&self) -> u64 {
        self.meta.entries
    }

    /// Writes the rest and syncs the file. What is returned belongs into a manifest.
    pub fn finish(self) -> Result<TableMeta> {
        let table = self.finish_unsynced()?;
        table.sync()?;
        Ok(table.meta)
    }

    /// Writes the rest, and leaves the sync to the caller, who may have more tables to sync.
    pub fn finish_unsynced(mut self) -> Result<UnsyncedTable> {
        if self.block.rows() > 0 {
            self.finish_block()?;
        }
        let range_tombstones = std::mem::take(&mut self.range_tombstones).finish();
        self.complete_meta(&range_tombstones);
        let data_end = self.output.offset();
        self.properties.data_bytes = data_end - file_header::FILE_HEADER_BYTES as u64;
        self.properties.data_blocks = self.index.block_count() as u64;

        let filter_bytes = self.put_filter()?;
        let mut range_tombstone_bytes = 0;
        if !range_tombstones.is_empty() {
            let payload = range_tombstones::encode(&range_tombstones);
            range_tombstone_bytes = self.put(SectionTag::RangeTombstones, &payload)?;
        }
        let payload = self.index.encode();
        let index_bytes = self.put(SectionTag::Index, &payload)?;
        let payload = properties::encode(&self.properties, &self.meta);
        let properties_bytes = self.put(SectionTag::Properties, &payload)?;

        self.output.write()?;
        let footer = Footer {
            data_end,
            filter_bytes,
            range_tombstone_bytes,
            index_bytes,
            properties_bytes,
            file_bytes: self.output.offset() + FOOTER_BYTES as u64,
            body_checksum: self.output.checksum(),
            id: self.meta.id,
        };
        self.output.put(&footer.encode())?;
        self.output.write()?;
        self.meta.file_bytes = footer.file_bytes;
        self.meta.checksum = footer.body_checksum;
        let (file, path) = self.output.into_file();
        Ok(UnsyncedTable { meta: self.meta, file, path })
    }

    /// Closes the file as it is. The caller removes it.
    pub fn abandon(self) {
        drop(self);
    }

    /// Checks lengths and order; returns whether the entry is the first of its user key.
    #[inline]
    fn check(&self, entry: &Entry<'_>) -> Result<bool> {
        let last_key = self.last_key();
        let order = match self.last_sequence {
            None => Some(true),
            Some(last_sequence) => match last_key.cmp(entry.key) {
                std::cmp::Ordering::Less => Some(true),
                std::cmp::Ordering::Equal if entry.sequence < last_sequence => Some(false),
                _ => None,
            },
        };
        match order {
            Some(is_new_key)
                if entry.key.len() <= KEY_BYTES_MAX
                    && entry.value.len() as u64 <= VALUE_BYTES_MAX
                    && entry.sequence <= SEQUENCE_MAX =>
            {
                Ok(is_new_key)
            }
            _ => Err(self.refusal(entry)),
        }
    }

    #[cold]
    fn refusal(&self, entry: &Entry<'_>) -> Error {
        let (last_key, last_sequence) = (self.last_key(), self.last_sequence.unwrap_or_default());
        if entry.key.len() > KEY_BYTES_MAX {
            Error::invalid(format!("key has {} bytes, {KEY_BYTES_MAX} are allowed", entry.key.len()))
        } else if entry.value.len() as u64 > VALUE_BYTES_MAX {
            Error::invalid(format!("value has {} bytes, {VALUE_BYTES_MAX} are allowed", entry.value.len()))
        } else if entry.sequence > SEQUENCE_MAX {
            Error::invalid(format!("sequence number {} exceeds 56 bits", entry.sequence))
        } else {
            debug_assert!(key::compare(last_key, last_sequence, entry.key, entry.sequence).is_ge());
            Error::invalid(format!(
                "entry \"{}\" at {} is out of order after \"{}\" at {last_sequence}",
                entry.key.escape_ascii(),
                entry.sequence,
                last_key.escape_ascii()
            ))
        }
    }

    #[inline]
    fn last_key(&self) -> &[u8] {
        if self.block.rows() > 0 { self.block.last_key() } else { &self.block_end_key }
    }

    #[inline(never)]
    fn finish_block(&mut self) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        let offset = self.begin_block(block.first_key(), block.last_key())?;
        let output = &mut self.output;
        let raw_bytes = block.finish(&mut self.compressor, self.checksum, offset, |header, stored| {
            output.put(header)?;
            output.put(stored)
        })?;
        if raw_bytes > KEPT_BUFFER_BYTES_MAX.max(2 * self.options.block_bytes) {
            block.give_back();
            self.compressor.give_back();
        }
        self.block = block;
        self.end_block(offset, raw_bytes)
    }

    /// Enters a block, whose last entry is the last that was counted, into the index; returns where it goes.
    fn begin_block(&mut self, first_key: &[u8], last_key: &[u8]) -> Result<u64> {
        let before = self.block_end_sequence.map(|sequence| (&self.block_end_key[..], sequence));
        self.index.add(before, first_key)?;
        if before.is_none() {
            self.meta.smallest = Slice::copy_from(first_key);
        }
        self.block_end_key.clear();
        self.block_end_key.extend_from_slice(last_key);
        self.block_end_sequence = self.last_sequence;
        Ok(self.output.offset())
    }

    fn end_block(&mut self, offset: u64, raw_bytes: usize) -> Result<()> {
        self.properties.raw_data_bytes += raw_bytes as u64;
        self.index.set_block_bytes(self.output.offset() - offset);
        self.output.write_if_full()
    }

    #[inline]
    fn add_to_filter(&mut self, key: &[u8]) {
        match &mut self.keys {
            None => self.hashes.push(key_hash(key)),
            Some(keys) => keys.push(key),
        }
    }

    /// Number of keys and prefixes in the filter.
    fn filter_count(&self) -> usize {
        self.keys.as_ref().map_or(self.hashes.len(), |keys| keys.ends.len())
    }

    fn add_prefix(&mut self, key: &[u8]) {
        let Some(extractor) = &self.options.prefix_extractor else { return };
        let Some(prefix) = extractor.prefix(key) else { return };
        if self.last_prefix.as_deref() == Some(prefix) {
            return;
        }
        match &mut self.keys {
            None => self.hashes.push(key_hash(prefix)),
            Some(keys) => keys.push(prefix),
        }
        let last_prefix = self.last_prefix.get_or_insert_default();
        last_prefix.clear();
        last_prefix.extend_from_slice(prefix);
    }

    fn complete_meta(&mut self, range_tombstones: &FragmentedRangeTombstones) {
        let meta = &mut self.meta;
        meta.largest = Slice::copy_from(&self.block_end_key);
        meta.range_tombstones = range_tombstones::count(range_tombstones);
        meta.widen(range_tombstones);
        meta.blobs = std::mem::take(&mut self.blobs).finish();
    }

    /// How long the filter becomes.
    fn filter_bytes(&self) -> usize {
        self.options.filter.as_ref().map_or(0, |policy| policy.filter_bytes(self.filter_count()))
    }

    /// Writes the filter section, if there is to be one; returns its length.
    fn put_filter(&mut self) -> Result<u64> {
        let is_empty = self.filter_count() == 0;
        let (hashes, keys) = (std::mem::take(&mut self.hashes), self.keys.take());
        let Some(policy) = self.options.filter.as_ref().filter(|_| !is_empty) else { return Ok(0) };
        self.properties.filter = policy.name().into();
        if let Some(extractor) = &self.options.prefix_extractor {
            self.properties.prefix_extractor = extractor.name();
        }
        let filter = match &keys {
            None => policy.build(&hashes),
            Some(keys) => policy.build_from_keys(&mut keys.iter()),
        };
        drop((hashes, keys));
        self.put(SectionTag::Filter, &filter)
    }

    /// Writes a section; returns its length.
    fn put(&mut self, tag: SectionTag, payload: &[u8]) -> Result<u64> {
        let offset = self.output.offset();
        self.output.put(&section::header(tag, payload, self.checksum, offset))?;
        self.output.put(payload)?;
        Ok(self.output.offset() - offset)
    }
}
