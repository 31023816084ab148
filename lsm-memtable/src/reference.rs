//! The plain table: what the others are tested against, and the one to read first.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use lsm_core::{Cursor, Entry, Error, SequenceNumber, ValueKind};
use parking_lot::RwLock;

use crate::memtable::{Full, MemtableFactory, MemtableReader, MemtableWriter};
use crate::memtable::{assert_ascending, assert_insertable};

/// A factory of memtables on the standard library's `BTreeMap`, behind a lock.
///
/// Slow and obviously right: the model in tests. Its `memory_bytes` is an estimate from above, because `BTreeMap`
/// does not tell what it allocates; the other tables count exactly.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceMemtable;

impl MemtableFactory for ReferenceMemtable {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let table = Arc::new(Table::default());
        (Box::new(Writer { table: Arc::clone(&table) }), table)
    }
}

/// Where in [`Versions`] a version is.
type Place = usize;

/// For each key its versions, oldest first.
type Index = BTreeMap<Arc<[u8]>, Vec<(SequenceNumber, Place)>>;

#[derive(Default)]
struct Table {
    index: RwLock<Index>,
    versions: Versions,
    memory_bytes: AtomicUsize,
}

struct Version {
    key: Arc<[u8]>,
    sequence: SequenceNumber,
    kind: ValueKind,
    value: Box<[u8]>,
}

impl Version {
    fn entry(&self) -> Entry<'_> {
        Entry { key: &self.key, sequence: self.sequence, kind: self.kind, value: &self.value }
    }
}

/// Versions in order of insertion, at addresses that never change: segment `n` has room for `2^n` of them. So
/// entries can be borrowed for as long as the table lives while others are added.
struct Versions {
    segments: [OnceLock<Box<[OnceLock<Version>]>>; usize::BITS as usize],
    count: AtomicUsize,
}

impl Default for Versions {
    fn default() -> Self {
        Self { segments: [const { OnceLock::new() }; usize::BITS as usize], count: AtomicUsize::new(0) }
    }
}

impl Versions {
    /// Segment, slot.
    fn split(place: Place) -> (usize, usize) {
        let segment = (place + 1).ilog2();
        (segment as usize, place + 1 - (1 << segment))
    }

    fn get(&self, place: Place) -> Option<&Version> {
        let (segment, slot) = Self::split(place);
        self.segments[segment].get()?.get(slot)?.get()
    }

    /// Called by the writer only.
    fn push(&self, version: Version) -> Place {
        let place = self.count.load(Ordering::Relaxed);
        let (segment, slot) = Self::split(place);
        let slots =
            self.segments[segment].get_or_init(|| (0..1 << segment).map(|_| OnceLock::new()).collect());
        assert!(slots[slot].set(version).is_ok(), "there is one writer");
        self.count.store(place + 1, Ordering::Release);
        place
    }
}

struct Writer {
    table: Arc<Table>,
}

impl MemtableWriter for Writer {
    fn insert(
        &mut self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<(), Full> {
        /// Two reference counts in front of a shared key, a vector of places, and slack of half-full nodes.
        const KEY_BYTES: usize = 2 * (4 * size_of::<usize>() + size_of::<(Arc<[u8]>, Vec<(u64, usize)>)>());
        /// A place in a vector and a slot in a segment, each with the slack of doubling.
        const VERSION_BYTES: usize =
            2 * (size_of::<(SequenceNumber, Place)>() + size_of::<OnceLock<Version>>());

        assert_insertable(key, sequence, value);
        let mut index = self.table.index.write();
        let known =
            index.get_key_value(key).map(|(key, versions)| (Arc::clone(key), versions.last().copied()));
        if let Some((_, Some((newest, _)))) = known {
            assert_ascending(newest, sequence);
        }
        let is_new = known.is_none();
        let shared = known.map_or_else(|| Arc::from(key), |(key, _)| key);
        let version = Version { key: Arc::clone(&shared), sequence, kind, value: value.into() };
        let place = self.table.versions.push(version);
        index.entry(shared).or_default().push((sequence, place));
        let key_bytes = if is_new { KEY_BYTES + key.len() } else { 0 };
        self.table.memory_bytes.fetch_add(key_bytes + VERSION_BYTES + value.len(), Ordering::Relaxed);
        Ok(())
    }
}

impl Table {
    fn first(&self) -> Option<Place> {
        self.index.read().first_key_value().and_then(|(_, versions)| Some(versions.last()?.1))
    }

    fn last(&self) -> Option<Place> {
        self.index.read().last_key_value().and_then(|(_, versions)| Some(versions.first()?.1))
    }

    /// The first version at (`inclusive`) or after the internal key.
    fn at_or_after(&self, key: &[u8], sequence: SequenceNumber, inclusive: bool) -> Option<Place> {
        let index = self.index.read();
        if let Some(versions) = index.get(key) {
            let older = versions.partition_point(|&(s, _)| s < sequence || (inclusive && s == sequence));
            if let Some(&(_, place)) = older.checked_sub(1).and_then(|newest| versions.get(newest)) {
                return Some(place);
            }
        }
        let (_, versions) = index.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded)).next()?;
        versions.last().map(|&(_, place)| place)
    }

    /// The last version at (`inclusive`) or before the internal key.
    fn at_or_before(&self, key: &[u8], sequence: SequenceNumber, inclusive: bool) -> Option<Place> {
        let index = self.index.read();
        if let Some(versions) = index.get(key) {
            let older = versions.partition_point(|&(s, _)| s < sequence || (!inclusive && s == sequence));
            if let Some(&(_, place)) = versions.get(older) {
                return Some(place);
            }
        }
        let (_, versions) = index.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key))).next_back()?;
        versions.first().map(|&(_, place)| place)
    }
}

impl MemtableReader for Table {
    fn get(&self, key: &[u8], sequence: SequenceNumber) -> Option<Entry<'_>> {
        let place = self.at_or_after(key, sequence, true)?;
        let version = self.versions.get(place)?;
        (*version.key == *key).then(|| version.entry())
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(ReferenceCursor { table: self, place: None })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.memory_bytes.load(Ordering::Relaxed)
    }

    fn entry_count(&self) -> usize {
        self.versions.count.load(Ordering::Acquire)
    }
}

struct ReferenceCursor {
    table: Arc<Table>,
    place: Option<Place>,
}

impl ReferenceCursor {
    fn version(&self) -> Option<&Version> {
        self.table.versions.get(self.place?)
    }
}

impl Cursor for ReferenceCursor {
    fn first(&mut self) {
        self.place = self.table.first();
    }

    fn last(&mut self) {
        self.place = self.table.last();
    }

    fn seek(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.place = self.table.at_or_after(key, sequence, true);
    }

    fn seek_for_prev(&mut self, key: &[u8], sequence: SequenceNumber) {
        self.place = self.table.at_or_before(key, sequence, true);
    }

    fn next(&mut self) {
        self.place = self.version().and_then(|v| self.table.at_or_after(&v.key, v.sequence, false));
    }

    fn prev(&mut self) {
        self.place = self.version().and_then(|v| self.table.at_or_before(&v.key, v.sequence, false));
    }

    fn entry(&self) -> Option<Entry<'_>> {
        self.version().map(Version::entry)
    }

    fn error(&self) -> Option<&Error> {
        None
    }
}
