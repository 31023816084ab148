use std::ops::Range;
use std::sync::{Arc, OnceLock};

use lsm_compaction::{RunShape, TableShape};
use lsm_core::key::common_prefix_bytes;
use lsm_core::range_tombstone::Fragment;
use lsm_core::{Block, BlockCursor, Cursor, Entry, Error, SEQUENCE_MAX, SequenceNumber};
use lsm_sstable::{CursorAccess, TableBlock, TableCursor};
use parking_lot::Mutex;

use super::fence_pointers::FencePointers;
use super::table_file::TableFile;

/// A sorted run: tables with disjoint key ranges, in key order. All versions of a user key are in one table.
///
/// The range of a table with range tombstones may end at the smallest key of the next table; its tombstones do not
/// cover that key.
#[derive(Debug)]
pub(crate) struct Run {
    number: u64,
    /// The smallest key of each table.
    fences: FencePointers,
    tables: Vec<Arc<TableFile>>,
    /// The tables that have range tombstones.
    with_range_tombstones: Vec<Arc<TableFile>>,
    entries: u64,
    /// Number of entries that expire.
    expiring: u64,
    /// The shape for policies, made at the first request.
    shape: OnceLock<RunShape>,
    /// The change that made this run, until the shape is made.
    change: Mutex<Option<RunChange>>,
}

/// The change from an earlier run.
#[derive(Debug)]
struct RunChange {
    /// The shape of the earlier run.
    before: RunShape,
    removed: Vec<usize>,
    added: Vec<Arc<TableFile>>,
}

/// A part of a changed run.
enum Piece {
    /// Tables at these positions of the earlier run.
    Kept(Range<usize>),
    Added(Arc<TableFile>),
}

impl Run {
    pub(crate) fn new(number: u64, tables: Vec<Arc<TableFile>>) -> Self {
        debug_assert!(
            tables.windows(2).all(|pair| pair[0].largest() <= pair[1].smallest()),
            "a run is disjoint"
        );
        let fences = FencePointers::new(tables.iter().map(|table| table.smallest()));
        let with_range_tombstones =
            tables.iter().filter(|table| table.has_range_tombstones()).cloned().collect();
        let entries = tables.iter().map(|table| table.metadata().entries).sum();
        let expiring = tables.iter().map(|table| table.metadata().expiring).sum();
        Self {
            number,
            fences,
            tables,
            with_range_tombstones,
            entries,
            expiring,
            shape: OnceLock::new(),
            change: Mutex::new(None),
        }
    }

    /// The run without `removed` and with `added`; `None` if it would be empty. Does not visit tables that stay.
    pub(crate) fn with_changes(
        &self,
        removed: &[&TableFile],
        mut added: Vec<Arc<TableFile>>,
    ) -> Option<Self> {
        let mut gone: Vec<usize> =
            removed.iter().filter_map(|table| self.position(table.metadata())).collect();
        gone.sort_unstable();
        gone.dedup();
        added.sort_by(|a, b| a.smallest().cmp(b.smallest()));
        let pieces = self.pieces(&gone, &added);
        let mut tables = Vec::with_capacity(self.tables.len() + added.len());
        for piece in &pieces {
            match piece {
                Piece::Kept(range) => tables.extend_from_slice(&self.tables[range.clone()]),
                Piece::Added(table) => tables.push(Arc::clone(table)),
            }
        }
        if tables.is_empty() {
            return None;
        }
        debug_assert!(
            tables.windows(2).all(|pair| pair[0].largest() <= pair[1].smallest()),
            "a run is disjoint"
        );
        let fences = self.changed_fences(&pieces, &tables);
        let leaves =
            |table: &&Arc<TableFile>| gone.iter().any(|position| Arc::ptr_eq(&self.tables[*position], table));
        let stay = self.with_range_tombstones.iter().filter(|table| !leaves(table));
        let come = added.iter().filter(|table| table.has_range_tombstones());
        let mut with_range_tombstones: Vec<_> = stay.chain(come).cloned().collect();
        with_range_tombstones.sort_by(|a, b| a.smallest().cmp(b.smallest()));
        let count = |count: fn(&TableShape) -> u64, all: u64| -> u64 {
            let gone: u64 = gone.iter().map(|position| count(self.tables[*position].metadata())).sum();
            all - gone + added.iter().map(|table| count(table.metadata())).sum::<u64>()
        };
        let entries = count(|table| table.entries, self.entries);
        let expiring = count(|table| table.expiring, self.expiring);
        let before = self.shape.get().cloned();
        Some(Self {
            number: self.number,
            fences: fences.unwrap_or_else(|| FencePointers::new(tables.iter().map(|table| table.smallest()))),
            entries,
            expiring,
            tables,
            with_range_tombstones,
            shape: OnceLock::new(),
            change: Mutex::new(before.map(|before| RunChange { before, removed: gone, added })),
        })
    }

    /// The pieces of the run without the positions `gone` and with the tables `added`, in key order.
    fn pieces(&self, gone: &[usize], added: &[Arc<TableFile>]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut kept_up_to = 0;
        let mut gone = gone.iter().copied().peekable();
        let mut keep = |pieces: &mut Vec<Piece>, end: usize| {
            while let Some(position) = gone.next_if(|position| *position < end) {
                pieces.push(Piece::Kept(kept_up_to..position));
                kept_up_to = position + 1;
            }
            pieces.push(Piece::Kept(kept_up_to..end));
            kept_up_to = end;
        };
        for table in added {
            let place = self.tables.partition_point(|other| other.smallest() <= table.smallest());
            keep(&mut pieces, place);
            pieces.push(Piece::Added(Arc::clone(table)));
        }
        keep(&mut pieces, self.tables.len());
        pieces
    }

    /// The fences of `tables`, made from the pieces; `None` if the common prefix has changed.
    fn changed_fences(&self, pieces: &[Piece], tables: &[Arc<TableFile>]) -> Option<FencePointers> {
        let common = common_prefix_bytes(tables.first()?.smallest(), tables.last()?.smallest());
        if common != self.fences.prefix_bytes() {
            return None;
        }
        let mut heads = Vec::with_capacity(self.tables.len());
        for piece in pieces {
            match piece {
                Piece::Kept(range) => heads.extend_from_slice(&self.fences.heads()[range.clone()]),
                Piece::Added(table) => heads.push(self.fences.head_of(table.smallest())?),
            }
        }
        Some(self.fences.with_heads(heads))
    }

    /// The shape of the run for policies. Calls `estimate` for each table that has no estimate yet.
    pub(crate) fn shape(&self, estimate: impl Fn(&TableFile, &mut TableShape)) -> &RunShape {
        self.shape.get_or_init(|| {
            let shape = |table: &Arc<TableFile>| table.shape(|shape| estimate(table, shape));
            match self.change.lock().take() {
                Some(change) => {
                    let added = change.added.iter().map(shape).collect();
                    change.before.with_changes(&change.removed, added)
                }
                None => self.tables.iter().map(shape).collect(),
            }
        })
    }

    /// Makes a run of tables in any order.
    pub(crate) fn of_unsorted(number: u64, mut tables: Vec<Arc<TableFile>>) -> Self {
        tables.sort_by(|a, b| a.smallest().cmp(b.smallest()));
        Self::new(number, tables)
    }

    /// The number of the run. In a level, higher numbers are newer.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn tables(&self) -> &[Arc<TableFile>] {
        &self.tables
    }

    /// The tables that have range tombstones.
    pub(crate) fn with_range_tombstones(&self) -> &[Arc<TableFile>] {
        &self.with_range_tombstones
    }

    /// The table with the number and key range of `wanted`.
    pub(crate) fn with_number(&self, wanted: &TableShape) -> Option<&Arc<TableFile>> {
        self.position(wanted).map(|position| &self.tables[position])
    }

    fn position(&self, wanted: &TableShape) -> Option<usize> {
        let first = self.tables.partition_point(|table| *table.smallest() < *wanted.smallest);
        let mut same = self.tables[first..].iter().take_while(|table| *table.smallest() == *wanted.smallest);
        same.position(|table| table.number() == wanted.id).map(|index| first + index)
    }

    /// The tables between the common start and the common end of this run and another one.
    pub(crate) fn tables_beside(&self, other: &Self) -> &[Arc<TableFile>] {
        let same = |(own, other): &(&Arc<TableFile>, &Arc<TableFile>)| Arc::ptr_eq(own, other);
        let first = self.tables.iter().zip(&other.tables).take_while(same).count();
        let (own, other) = (&self.tables[first..], &other.tables[first..]);
        let last = own.iter().rev().zip(other.iter().rev()).take_while(same).count();
        &own[..own.len() - last]
    }

    /// Number of point entries in all tables.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether an entry expires.
    pub(crate) fn may_expire(&self) -> bool {
        self.expiring > 0
    }

    /// The tables that may hold a key from `smallest` to `largest`, both inclusive.
    pub(crate) fn overlapping(&self, smallest: &[u8], largest: &[u8]) -> impl Iterator<Item = &TableFile> {
        let first = self.tables.partition_point(|table| table.largest() < smallest);
        let end = self.tables.partition_point(|table| table.smallest() <= largest);
        self.tables.get(first..end).unwrap_or_default().iter().map(|table| &**table)
    }

    pub(crate) fn has_range_tombstones(&self) -> bool {
        !self.with_range_tombstones.is_empty()
    }

    /// The fragment of range tombstones that contains `key`, or else the next one after it. Fragments are cut at the
    /// ends of tables, so the first one of the next table may continue it.
    pub(crate) fn fragment_at_or_after(&self, key: &[u8]) -> Option<Fragment<'_>> {
        let ends_by = |table: &Arc<TableFile>| {
            table.table().range_tombstones().bounds().is_none_or(|(_, end)| end <= key)
        };
        let table = self.with_range_tombstones.get(self.with_range_tombstones.partition_point(ends_by))?;
        table.table().range_tombstones().fragment_at_or_after(key)
    }

    /// The table whose key range contains the key.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<TableFile>> {
        let table = self.tables.get(self.candidate(key)?)?;
        (key <= table.largest()).then_some(table)
    }

    /// The tables that overlap a key range.
    pub(crate) fn tables_within(
        &self,
        is_below: impl Fn(&[u8]) -> bool,
        is_above: impl Fn(&[u8]) -> bool,
    ) -> impl Iterator<Item = &Arc<TableFile>> {
        let first = self.tables.partition_point(|table| is_below(table.largest()));
        self.tables[first..].iter().take_while(move |table| !is_above(table.smallest()))
    }

    /// Index of the last table that starts at or before the key.
    #[inline]
    fn candidate(&self, key: &[u8]) -> Option<usize> {
        self.fences.last_at_or_before(key, |index| self.tables[index].smallest())
    }
}

/// A cursor over the tables of a run. It makes the cursor of a table when it reaches that table.
pub(crate) struct RunCursor {
    run: Arc<Run>,
    access: CursorAccess,
    index: usize,
    cursor: Option<TableCursor>,
}

impl RunCursor {
    pub(crate) fn new(run: Arc<Run>, access: CursorAccess) -> Self {
        Self { run, access, index: 0, cursor: None }
    }

    /// Memory of its buffers.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.cursor.as_ref().map_or(0, TableCursor::memory_bytes)
    }

    /// The block that begins at the current entry; see [`TableCursor::table_block`].
    #[inline]
    pub(crate) fn table_block(&self) -> Option<TableBlock<'_>> {
        self.cursor.as_ref()?.table_block()
    }

    /// Makes a cursor over the table at `index`, or reuses the current one if it belongs to that table.
    fn open(&mut self, index: usize) -> Option<&mut TableCursor> {
        let table = self.run.tables.get(index)?;
        if self.cursor.is_none() || self.index != index {
            self.cursor = Some(table.table().cursor(self.access));
            self.index = index;
        }
        self.cursor.as_mut()
    }

    /// Moves to the next entry. If whole tables up to `end` are older than `sequence`, skips their entries before
    /// `end`.
    pub(crate) fn pass_up_to(&mut self, end: &[u8], sequence: SequenceNumber) {
        let passed = |table: &&Arc<TableFile>| table.is_older_than(sequence) && table.smallest() < end;
        let count = self.run.tables.iter().skip(self.index).take_while(passed).count();
        let next = self.index + count;
        if self.cursor.is_none() || count == 0 {
            self.next();
        } else if self.run.tables[next - 1].largest() >= end {
            self.seek(end, SEQUENCE_MAX);
        } else if let Some(cursor) = self.open(next) {
            cursor.first();
            self.skip_forward();
        } else {
            self.cursor = None;
        }
    }

    /// Moves to the previous entry. If whole tables down to `start` are older than `sequence`, skips their entries from
    /// `start` on.
    pub(crate) fn pass_down_to(&mut self, start: &[u8], sequence: SequenceNumber) {
        let passed = |table: &&Arc<TableFile>| table.is_older_than(sequence) && table.largest() >= start;
        let count = self.run.tables.iter().take(self.index + 1).rev().take_while(passed).count();
        let next = self.index + 1 - count;
        if self.cursor.is_none() || count == 0 {
            self.prev();
        } else if self.run.tables[next].smallest() < start {
            self.seek_for_prev(start, SEQUENCE_MAX);
        } else if let Some(cursor) = next.checked_sub(1).and_then(|index| self.open(index)) {
            cursor.last();
            self.skip_backward();
        } else {
            self.cursor = None;
        }
    }

    fn stands_or_failed(&self) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| cursor.entry().is_some() || cursor.error().is_some())
    }

    /// While the current table has no entry here, moves to the first entry of the next table. After the last table the
    /// cursor has no position, so that `next` and `prev` do nothing.
    fn skip_forward(&mut self) {
        while !self.stands_or_failed() {
            match self.open(self.index + 1) {
                Some(cursor) => cursor.first(),
                None => return self.cursor = None,
            }
        }
    }

    fn skip_backward(&mut self) {
        while !self.stands_or_failed() {
            match self.index.checked_sub(1).and_then(|index| self.open(index)) {
                Some(cursor) => cursor.last(),
                None => return self.cursor = None,
            }
        }
    }
}

impl BlockCursor for RunCursor {
    #[inline]
    fn block(&self) -> Option<Block<'_>> {
        self.cursor.as_ref()?.block()
    }

    fn skip_block(&mut self) -> u64 {
        let bytes = self.cursor.as_mut().map_or(0, TableCursor::skip_block);
        if self.entry().is_none() {
            self.skip_forward();
        }
        bytes
    }
}

impl Cursor for RunCursor {
    fn first(&mut self) {
        if let Some(cursor) = self.open(0) {
            cursor.first();
            self.skip_forward();
        }
    }

    fn last(&mut self) {
        if let Some(cursor) = self.run.tables.len().checked_sub(1).and_then(|index| self.open(index)) {
            cursor.last();
            self.skip_backward();
        }
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        if let Some(cursor) = self.open(self.run.candidate(key).unwrap_or(0)) {
            cursor.seek(key, sequence);
            self.skip_forward();
        }
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        match self.run.candidate(key).and_then(|index| self.open(index)) {
            Some(cursor) => {
                cursor.seek_for_prev(key, sequence);
                self.skip_backward();
            }
            None => self.cursor = None,
        }
    }

    #[inline]
    fn next(&mut self) {
        let Some(cursor) = &mut self.cursor else { return };
        cursor.next();
        if cursor.entry().is_none() {
            self.skip_forward();
        }
    }

    fn prev(&mut self) {
        let Some(cursor) = &mut self.cursor else { return };
        cursor.prev();
        if cursor.entry().is_none() {
            self.skip_backward();
        }
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        self.cursor.as_ref()?.entry()
    }

    fn error(&self) -> Option<&Error> {
        self.cursor.as_ref()?.error()
    }
}

/// The common prefix of all keys of some runs.
pub(crate) fn common_prefix<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<u8> {
    let bounds =
        runs.filter_map(|run| Some((run.tables().first()?.smallest(), run.tables().last()?.largest())));
    let (smallest, largest) = bounds
        .reduce(|(smallest, largest), (first, last)| (smallest.min(first), largest.max(last)))
        .unwrap_or_default();
    smallest[..common_prefix_bytes(smallest, largest)].to_vec()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;

    use lsm_core::ValueKind;
    use lsm_core::vfs::SimFs;
    use lsm_sstable::{TableId, TableOptions, TableWriter};

    use super::*;
    use crate::Options;
    use crate::memory::Memory;
    use crate::options::StoredOptions;
    use crate::version::{ObsoleteFiles, open_table};

    /// A run of `count` tables. The keys of each are four digits followed by `a` or `c`.
    fn run(count: u64) -> Run {
        let fs = SimFs::new();
        let options = Options::new().vfs(Arc::new(fs.clone()));
        let memory = Arc::new(Memory::new(&options));
        let table = |number: u64| {
            let path = format!("{number:04}");
            let path = Path::new(&path);
            let table_options = TableOptions::default();
            let mut writer = TableWriter::create(&fs, path, TableId(number.into()), &table_options).unwrap();
            for letter in ["a", "c"] {
                let key = format!("{number:04}{letter}");
                let (key, value) = (key.as_bytes(), &b""[..]);
                writer.add(Entry { key, sequence: 1, kind: ValueKind::Put, value }).unwrap();
            }
            writer.finish().unwrap();
            let resolved = memory.resolve(&options.keyspace, &StoredOptions::default());
            let table = open_table(&memory, path, &resolved, None).unwrap();
            Arc::new(TableFile::new(number, table, 0, None, Arc::new(ObsoleteFiles::default())))
        };
        Run::new(1, (0..count).map(table).collect())
    }

    #[test]
    fn the_tables_of_a_range_are_found_by_binary_search() {
        let run = run(1000);
        let looks = Cell::new(0);
        let within = |lower: &str, upper: &str| -> Vec<u64> {
            looks.set(0);
            let count = || looks.set(looks.get() + 1);
            let is_below = |key: &[u8]| (count(), key < lower.as_bytes()).1;
            let is_above = |key: &[u8]| (count(), key > upper.as_bytes()).1;
            run.tables_within(is_below, is_above).map(|table| table.number()).collect()
        };
        for (lower, upper, expected) in [
            ("0900b", "0900b", 900..901),
            ("0900c", "0902a", 900..903),
            ("0900d", "0900z", 900..900),
            ("0999a", "9", 999..1000),
            ("9", "9", 0..0),
            ("", "", 0..0),
        ] {
            let found = within(lower, upper);
            assert_eq!(found, expected.collect::<Vec<_>>(), "{lower} to {upper}");
            assert!(looks.get() <= found.len() + 12, "{lower} to {upper}: {} looks", looks.get());
        }
    }
}
