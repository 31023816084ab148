//! Reads a whole table and checks every byte and every count.

use std::cmp::Ordering;
use std::ops::Range;

use lsm_core::checksum::Checksum;
use lsm_core::hash::key_hash;
use lsm_core::{
    BlobPointer, Entry, Error, Result, SEQUENCE_MAX, SequenceNumber, Slice, ValueKind, expiry, key,
};

use super::handle::Table;
use super::open::read_ends;
use super::read::block_finder::BlockFinder;
use super::read::blocks;
use super::tail::TAIL_BYTES;
use crate::block::Frame;
use crate::format::checksum::BlockChecksum;
use crate::format::footer::Footer;
use crate::format::properties::Properties;
use crate::format::range_tombstones;
use crate::meta::{BlobRefs, TableMeta};
use crate::options::TableExpectation;

/// Bytes read at a time, unless a block is larger.
const READ_BYTES: u64 = 1 << 20;

/// What [`Table::verify`] found to be intact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Bytes of the file: all of them were read and proved.
    pub file_bytes: u64,
    /// Data blocks.
    pub blocks: u64,
    /// Entries, whose order, place and presence in the filter were checked.
    pub entries: u64,
    /// Range tombstones, as fragments.
    pub range_tombstones: u64,
}

impl Table {
    /// Reads every byte of the file again and proves it: all checksums, the structure of every block, the order of
    /// all entries, that the index and the filter find each of them, and every count in the properties. Takes about
    /// as long as a scan, a few megabytes of memory, and nothing from the cache. If the filter is not in memory, a
    /// page of it is read for each key, which takes a microsecond more.
    ///
    /// Fails with the first `Corruption`, which names the offset.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_entries(|_| Ok(()))
    }

    /// Like [`verify`](Self::verify), and shows each entry to `check`. What that refuses is an `InvalidArgument`, with
    /// the path of the table in front.
    ///
    /// ```
    /// # use lsm_core::{Entry, ValueKind, vfs::PosixFs};
    /// # use lsm_sstable::{Table, TableId, TableOpen, TableOptions, TableWriter};
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("1.sst");
    /// # let mut writer = TableWriter::create(&PosixFs, &path, TableId(1), &TableOptions::default())?;
    /// # writer.add(Entry { key: b"key", sequence: 0, kind: ValueKind::Delete, value: b"" })?;
    /// # writer.finish()?;
    /// let table = Table::open(&PosixFs, &path, None, &TableOpen::default())?;
    /// let only_puts = |entry: &Entry<'_>| {
    ///     if entry.kind == ValueKind::Put { Ok(()) } else { Err("this is no put".to_owned()) }
    /// };
    /// assert!(table.verify().is_ok() && table.verify_entries(only_puts).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify_entries(
        &self,
        mut check: impl FnMut(&Entry<'_>) -> Result<(), String>,
    ) -> Result<VerifyReport> {
        let expected = TableExpectation::from(&self.meta);
        let (footer, _) = read_ends(&*self.file, &self.path, Some(&expected), &mut [0; TAIL_BYTES])?;
        if footer != self.footer {
            return Err(self.corruption(footer.offset(), "footer changed since the table was opened".into()));
        }
        let mut pass = Pass::new(self);
        pass.header()?;
        pass.blocks(&mut check)?;
        for section in [footer.filter(), footer.range_tombstones(), footer.index(), footer.properties()] {
            pass.section(section)?;
        }
        pass.totals(&footer)?;
        Ok(VerifyReport {
            file_bytes: footer.file_bytes,
            blocks: self.properties.data_blocks,
            entries: self.meta.entries,
            range_tombstones: self.meta.range_tombstones,
        })
    }
}

/// One pass over the file, from front to back.
struct Pass<'t> {
    table: &'t Table,
    /// Of everything read so far.
    checksum: Checksum,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    /// A page of the filter.
    page: Vec<u8>,
    finder: BlockFinder,
    /// The last entry.
    last: Option<(Vec<u8>, SequenceNumber)>,
    /// What the entries add up to.
    meta: TableMeta,
    distinct_keys: u64,
    raw_data_bytes: u64,
    /// The entries of kinds that are counted apart.
    counted: Properties,
    blobs: BlobRefs,
}

impl<'t> Pass<'t> {
    fn new(table: &'t Table) -> Self {
        Self {
            table,
            checksum: Checksum::new(),
            buffer: Vec::new(),
            frame: Vec::new(),
            page: Vec::new(),
            finder: BlockFinder::default(),
            last: None,
            meta: TableMeta { smallest_sequence: SEQUENCE_MAX, ..TableMeta::default() },
            distinct_keys: 0,
            raw_data_bytes: 0,
            counted: Properties::default(),
            blobs: BlobRefs::default(),
        }
    }

    fn read(&mut self, range: &Range<u64>) -> Result<()> {
        let bytes = blocks::read_range(self.table, range.clone(), &mut self.buffer)?;
        self.checksum.update(bytes);
        Ok(())
    }

    /// The header was checked already; it only enters the checksum.
    fn header(&mut self) -> Result<()> {
        self.read(&(0..crate::format::file_header::FILE_HEADER_BYTES as u64))
    }

    fn blocks(&mut self, check: &mut impl FnMut(&Entry<'_>) -> Result<(), String>) -> Result<()> {
        let table = self.table;
        let mut first = 0;
        while first < table.block_count() {
            let mut window = self.finder.block_range(table, first)?;
            let mut end = first + 1;
            let at_hand = self.finder.at_hand(table, first)?;
            while end < at_hand.end {
                let range = self.finder.block_range(table, end)?;
                if range.end - window.start > READ_BYTES {
                    break;
                }
                window.end = range.end;
                end += 1;
            }
            self.read(&window)?;
            for block in first..end {
                let range = self.finder.block_range(table, block)?;
                let at = (range.start - window.start) as usize..(range.end - window.start) as usize;
                self.block(block, range.start, at, check)?;
            }
            first = end;
        }
        Ok(())
    }

    /// Checks a block that stands at `offset` in the file and at `at` in the buffer.
    fn block(
        &mut self,
        block: usize,
        offset: u64,
        at: Range<usize>,
        check: &mut impl FnMut(&Entry<'_>) -> Result<(), String>,
    ) -> Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        let frame_bytes = blocks::decode_block(self.table, offset, &self.buffer[at], &mut frame)?;
        let bytes = &frame[..frame_bytes];
        let view = Frame::new(bytes);
        self.raw_data_bytes += view.shape().raw_bytes(bytes) as u64;
        for row in 0..view.shape().rows() {
            let corruption =
                |detail: String| self.table.corruption(offset, format!("row {row} of the block: {detail}"));
            let entry = view.row(row).entry(bytes);
            let entry = entry.ok_or_else(|| corruption("entry of unknown kind".into()))?;
            if row == 0 {
                let separator = self.finder.separator(self.table, block)?;
                self.separator(separator, &entry).map_err(corruption)?;
            }
            if self.is_new_key(&entry).map_err(corruption)? {
                self.distinct_keys += 1;
                if let Some(detail) = self.filter_denial(entry.key)? {
                    return Err(corruption(detail));
                }
            }
            if entry.kind == ValueKind::PutWithExpiry && expiry::split(entry.value).is_none() {
                let key = entry.key.escape_ascii();
                return Err(corruption(format!("an entry of key \"{key}\" that expires has no whole time")));
            }
            if entry.kind == ValueKind::BlobPointer && BlobPointer::decode(entry.value).is_none() {
                let key = entry.key.escape_ascii();
                return Err(corruption(format!("the blob pointer of key \"{key}\" is malformed")));
            }
            check(&entry)
                .map_err(|detail| Error::invalid(format!("{}: {detail}", self.table.path.display())))?;
            self.counted.count(entry, &mut self.blobs);
            self.count(&entry);
        }
        self.frame = frame;
        Ok(())
    }

    /// The separator must lie above the last entry of the block before, and not above the first of this one.
    fn separator(
        &self,
        (separator, sequence): (Vec<u8>, SequenceNumber),
        first: &Entry<'_>,
    ) -> Result<(), String> {
        let is_above_last = self
            .last
            .as_ref()
            .is_none_or(|(key, last)| key::compare(key, *last, &separator, sequence) == Ordering::Less);
        if is_above_last && key::compare(&separator, sequence, first.key, first.sequence) != Ordering::Greater
        {
            return Ok(());
        }
        Err(format!("separator \"{}\" of the index is not between the blocks", separator.escape_ascii()))
    }

    fn is_new_key(&self, entry: &Entry<'_>) -> Result<bool, String> {
        let Some((key, sequence)) = &self.last else { return Ok(true) };
        if key::compare(key, *sequence, entry.key, entry.sequence) != Ordering::Less {
            return Err(format!("key \"{}\" is out of order", entry.key.escape_ascii()));
        }
        Ok(key != entry.key)
    }

    fn count(&mut self, entry: &Entry<'_>) {
        let meta = &mut self.meta;
        if self.last.is_none() {
            meta.smallest = Slice::copy_from(entry.key);
        }
        meta.entries += 1;
        meta.tombstones += u64::from(entry.kind.is_tombstone());
        meta.smallest_sequence = meta.smallest_sequence.min(entry.sequence);
        meta.largest_sequence = meta.largest_sequence.max(entry.sequence);
        meta.raw_key_bytes += entry.key.len() as u64;
        meta.raw_value_bytes += entry.value.len() as u64;
        let (last, sequence) = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(entry.key);
        *sequence = entry.sequence;
    }

    /// What the filter wrongly denies about a key of the table.
    fn filter_denial(&mut self, key: &[u8]) -> Result<Option<String>> {
        let Table { lookup, prefix_extractor, .. } = self.table;
        if !lookup.has_filter() {
            return Ok(None);
        }
        if !lookup.may_contain(self.table, key, key_hash(key), &mut self.page)? {
            return Ok(Some(format!("filter denies key \"{}\"", key.escape_ascii())));
        }
        match prefix_extractor.as_ref().and_then(|extractor| extractor.prefix(key)) {
            Some(prefix) if !lookup.may_contain(self.table, prefix, key_hash(prefix), &mut self.page)? => {
                Ok(Some(format!("filter denies prefix \"{}\"", prefix.escape_ascii())))
            }
            _ => Ok(None),
        }
    }

    /// Sections were decoded when the table was opened; here the file must still hold the same bytes, as the
    /// checksums prove.
    fn section(&mut self, section: Range<u64>) -> Result<()> {
        if section.is_empty() {
            return Ok(());
        }
        let mut stored = None;
        let mut checksum = BlockChecksum::new(self.table.meta.id).start(section.start);
        let mut at = section.start;
        while at < section.end {
            let window = at..section.end.min(at + READ_BYTES);
            self.read(&window)?;
            let mut bytes = &self.buffer[..(window.end - window.start) as usize];
            if stored.is_none()
                && let Some((first, rest)) = bytes.split_first_chunk::<4>()
            {
                stored = Some(u32::from_le_bytes(*first));
                bytes = rest;
            }
            checksum.update(bytes);
            at = window.end;
        }
        if stored == Some(checksum.value()) {
            Ok(())
        } else {
            Err(self.table.corruption(section.start, "section checksum does not match its bytes".into()))
        }
    }

    fn totals(mut self, footer: &Footer) -> Result<()> {
        if self.checksum.value() != footer.body_checksum {
            let detail = format!(
                "file has checksum {:#018x}, its footer says {:#018x}",
                self.checksum.value(),
                footer.body_checksum
            );
            return Err(self.table.corruption(footer.offset() + 48, detail));
        }
        let Table { meta, properties, range_tombstones: tombstones, .. } = self.table;
        if let Some((last, _)) = &self.last {
            self.meta.largest = Slice::copy_from(last);
        }
        for fragment in tombstones.iter() {
            for &sequence in fragment.sequences {
                self.meta.smallest_sequence = self.meta.smallest_sequence.min(sequence);
                self.meta.largest_sequence = self.meta.largest_sequence.max(sequence);
            }
        }
        self.meta.widen(tombstones);
        self.meta.blobs = std::mem::take(&mut self.blobs).finish();
        self.meta.range_tombstones = range_tombstones::count(tombstones);
        let mut expected = meta.clone();
        (expected.id, expected.file_bytes, expected.checksum) = Default::default();
        self.meta.global_sequence = meta.global_sequence;
        let counts = |own: &Properties| {
            (own.merge_operands, own.expiring, own.earliest_expiry_micros, own.latest_expiry_micros)
        };
        let counted = (self.distinct_keys, self.raw_data_bytes, counts(&self.counted));
        let said = (properties.distinct_keys, properties.raw_data_bytes, counts(properties));
        if self.meta != expected || counted != said {
            let detail = format!(
                "properties say {expected:?} and {said:?} distinct keys, raw bytes, operands and expiries, the entries are {:?} and \
                 {counted:?}",
                self.meta
            );
            return Err(Error::corruption(&self.table.path, footer.properties().start, detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TableId, TableOpen, TableOptions, TableWriter};
    use lsm_core::vfs::PosixFs;
    use std::sync::Arc;

    #[test]
    fn properties_that_do_not_fit_the_entries_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1.sst");
        let mut writer = TableWriter::create(&PosixFs, &path, TableId(1), &TableOptions::default()).unwrap();
        for key in [b"a", b"b"] {
            writer.add(Entry { key, sequence: 5, kind: ValueKind::Put, value: b"v" }).unwrap();
        }
        for (key, micros) in [(b"c", 9), (b"d", 7)] {
            let value = &expiry::prefix(micros);
            writer.add(Entry { key, sequence: 5, kind: ValueKind::PutWithExpiry, value }).unwrap();
        }
        writer.add(Entry { key: b"e", sequence: 5, kind: ValueKind::Merge, value: b"operand" }).unwrap();
        writer.finish().unwrap();
        let tampers: [fn(&mut Table); 10] = [
            |table| table.meta.entries += 1,
            |table| table.meta.largest = Slice::from("f"),
            |table| table.meta.smallest_sequence = 4,
            |table| table.meta.raw_value_bytes = 0,
            |table| table.properties.distinct_keys = 1,
            |table| table.properties.raw_data_bytes += 1,
            |table| table.properties.merge_operands = 0,
            |table| table.properties.expiring -= 1,
            |table| table.properties.earliest_expiry_micros += 1,
            |table| table.properties.latest_expiry_micros += 1,
        ];
        for tamper in tampers {
            let mut table = Table::open(&PosixFs, &path, None, &TableOpen::default()).unwrap();
            assert!(table.verify().is_ok());
            tamper(Arc::get_mut(&mut table).unwrap());
            let message = table.verify().unwrap_err().to_string();
            assert!(message.contains("properties say"), "{message}");
        }
    }
}
