//! The read state (RocksDB: super version): the memtables and the version that a reader loads together.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lsm_core::hash::key_hash;
use lsm_core::{Cursor, Entry, MergingCursor, SequenceNumber, Slice, ValueKind};
use lsm_sstable::CursorAccess;

use crate::error::{Error, Result};
use crate::keyspaces::empty_spans::EmptySpans;
use crate::keyspaces::memtable::Memtable;
use crate::keyspaces::merging::Merging;
use crate::keyspaces::read_point::{Meaning, Now, ReadPoint};
use crate::metrics::{Call, Probe, ReadStatistics};
use crate::version::{Lookup, Version};

/// The contents of a keyspace at one moment.
#[derive(Clone)]
pub(crate) struct ReadState {
    /// The active memtable, if there was a write since the last rotation.
    pub(crate) memtable: Option<Arc<Memtable>>,
    /// The immutable memtables, newest first.
    pub(crate) immutable: Vec<Arc<Memtable>>,
    pub(crate) version: Arc<Version>,
    /// The sequence number of the last clear or drop of tables. A reader at a lower number must use `before_clear`.
    pub(crate) cleared: SequenceNumber,
    /// The state before that clear, for older snapshots.
    pub(crate) before_clear: Option<Arc<ReadState>>,
    /// Changes up to this number may have left no trace, because of a clear or because a policy dropped their tables.
    pub(crate) untraced: SequenceNumber,
    /// The number of the last ingest if there are memtables from before it. Entries of memtables with lower numbers may be
    /// older than those of tables. 0 if all memtables are newer than all tables.
    pub(crate) ingested: SequenceNumber,
    /// The run of those tables.
    pub(crate) ingested_run: u64,
    /// Number of new memtables and drops of data so far; see [`EmptySpans::readable_up_to`].
    pub(crate) begun_count: u64,
    /// Number of this state: each state of the keyspace has a higher one than the state before.
    pub(crate) generation: u64,
    /// All states of the keyspace share it.
    pub(crate) empty_spans: Arc<EmptySpans>,
    /// Set when this state has been out of date for longer than
    /// [`Options::snapshot_age_max`](crate::Options::snapshot_age_max): cursors over it expire. `None` without that option.
    pub(crate) expired: Option<Arc<AtomicBool>>,
    pub(crate) merging: Arc<Merging>,
    /// All states of the keyspace share it. `None` if the database keeps no statistics.
    pub(crate) statistics: Option<Arc<ReadStatistics>>,
}

impl ReadState {
    /// The state of a keyspace without memtables.
    pub(super) fn new(version: Version, merging: Merging) -> Self {
        Self {
            memtable: None,
            immutable: Vec::new(),
            version: Arc::new(version),
            cleared: 0,
            before_clear: None,
            untraced: 0,
            ingested: 0,
            ingested_run: 0,
            begun_count: 0,
            generation: 0,
            empty_spans: Arc::default(),
            expired: None,
            merging: Arc::new(merging),
            statistics: None,
        }
    }

    /// The state with tables that were ingested at `sequence`. `standing_for` is the memtable that stands for them.
    pub(crate) fn with_ingested(
        &self,
        run: u64,
        sequence: SequenceNumber,
        standing_for: &Arc<Memtable>,
    ) -> Self {
        Self {
            version: Arc::new(self.version.changed(&[], standing_for.ingested.clone())),
            immutable: std::iter::once(standing_for).chain(&self.immutable).cloned().collect(),
            begun_count: self.begun_count + 1,
            ingested: sequence,
            ingested_run: run,
            ..self.clone()
        }
    }

    /// Notes that memtables were flushed: those from before the last ingest may be gone.
    #[must_use]
    pub(crate) fn settled(mut self) -> Self {
        if self.ingested > 0 && self.memtables().all(|memtable| memtable.number > self.ingested_run) {
            self.ingested = 0;
        }
        self
    }

    /// The number from which on runs are newer than some memtable. They are not in the manifest, and must stay above what
    /// the memtables become.
    pub(crate) fn unsettled_from(&self) -> Option<u64> {
        let oldest = || self.memtables().map(|memtable| memtable.number).min();
        if self.ingested > 0 { oldest() } else { None }
    }

    /// A state without data, over which cursors have expired.
    #[cold]
    pub(crate) fn expired(&self) -> Arc<Self> {
        Arc::new(Self {
            memtable: None,
            immutable: Vec::new(),
            version: Arc::default(),
            before_clear: None,
            expired: Some(Arc::new(AtomicBool::new(true))),
            ..self.clone()
        })
    }

    /// The state that a reader at `sequence` must use.
    #[inline]
    pub(crate) fn at(&self, sequence: SequenceNumber) -> &Self {
        let mut state = self;
        while sequence < state.cleared {
            match &state.before_clear {
                Some(before) => state = before,
                None => break,
            }
        }
        state
    }

    /// Whether a state is kept for snapshots from before a clear.
    pub(super) fn keeps(&self, state: &Arc<Self>) -> bool {
        let mut kept = self.before_clear.as_ref();
        while let Some(before) = kept {
            if Arc::ptr_eq(before, state) {
                return true;
            }
            kept = before.before_clear.as_ref();
        }
        false
    }

    /// The chain of states before clears that readers at these numbers (ascending) still use. States that no reader uses
    /// are left out, so repeated clears do not make the chain longer.
    pub(crate) fn still_read(&self, numbers: &[SequenceNumber]) -> Option<Arc<Self>> {
        let (mut end, mut next) = (self.cleared, self.before_clear.as_ref());
        while let Some(state) = next {
            let first = numbers.partition_point(|&number| number < state.cleared);
            if numbers.get(first).is_some_and(|&number| number < end) {
                let before_clear = state.still_read(numbers);
                return Some(Arc::new(Self { before_clear, ..(**state).clone() }));
            }
            (end, next) = (state.cleared, state.before_clear.as_ref());
        }
        None
    }

    /// All memtables, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        self.memtable.iter().chain(&self.immutable)
    }

    /// An estimate of the number of keys; see [`Keyspace::len_estimate`](crate::Keyspace::len_estimate).
    pub(crate) fn len_estimate(&self) -> u64 {
        let in_memory: u64 = self.memtables().map(|memtable| memtable.reader.entry_count() as u64).sum();
        let (mut entries, mut tombstones) = (in_memory, 0);
        for table in self.version.tables() {
            entries += table.table().meta().entries;
            tombstones += table.table().meta().tombstones;
        }
        entries.saturating_sub(2 * tombstones)
    }

    /// Whether a reader may meet an entry that expires.
    pub(crate) fn may_expire(&self) -> bool {
        self.version.may_expire() || self.memtables().any(|memtable| memtable.may_expire())
    }

    /// The same point with a fixed time. A reader that cannot meet an entry that expires needs no time.
    ///
    /// The state is loaded before the clock is asked: what a compaction has dropped as expired must have expired for this
    /// reader, too.
    pub(crate) fn fix(&self, point: ReadPoint<'_>) -> ReadPoint<'static> {
        let now = match point.now {
            Now::Clock(clock) if self.at(point.sequence).may_expire() => clock.unix_micros(),
            Now::Clock(_) => 0,
            Now::At(micros) => micros,
        };
        ReadPoint { sequence: point.sequence, now: Now::At(now) }
    }

    pub(crate) fn get(&self, key: &[u8], point: &ReadPoint<'_>) -> Result<Option<Slice>> {
        match &self.statistics {
            None => self.get_noting(key, point, &mut |_, _| ()),
            Some(statistics) => self.get_measured(key, point, statistics),
        }
    }

    /// A get of a database that keeps statistics.
    #[cold]
    fn get_measured(
        &self,
        key: &[u8],
        point: &ReadPoint<'_>,
        statistics: &ReadStatistics,
    ) -> Result<Option<Slice>> {
        statistics.time(Call::Get, || {
            self.get_noting(key, point, &mut |level, probe| statistics.note(level, probe))
        })
    }

    /// A get that notes what it meets in tables; see [`Version::get`].
    #[inline]
    fn get_noting(
        &self,
        key: &[u8],
        point: &ReadPoint<'_>,
        note: &mut impl FnMut(usize, Probe),
    ) -> Result<Option<Slice>> {
        let sequence = point.sequence;
        let state = self.at(sequence);
        let mut covering = 0;
        for memtable in state.memtables() {
            if !memtable.range_tombstones.is_empty() {
                covering = covering.max(memtable.range_tombstones.covering_sequence(key, sequence));
            }
            if let Some(entry) = memtable.reader.get(key, sequence) {
                if entry.sequence < state.ingested {
                    return state.get_by_number(key, point);
                }
                let deleted = entry.sequence < covering;
                return match point.meaning(entry.kind, entry.value) {
                    Meaning::Value(value) => Ok((!deleted).then(|| Slice::copy_from(value))),
                    Meaning::Absent => Ok(None),
                    _ if deleted => Ok(None),
                    Meaning::Blob(pointer) => state.resolve(key, pointer).map(Some),
                    Meaning::Operand(_) => state.get_merged(key, point),
                    Meaning::Malformed => Err(state.malformed(key)),
                };
            }
        }
        match state.version.get(key, key_hash(key), sequence, covering, note)? {
            Lookup::Found(value) => Ok(Some(value)),
            Lookup::Deleted | Lookup::Unknown => Ok(None),
            Lookup::Rare(kind, stored) => state.get_rare(key, point, kind, &stored),
        }
    }

    /// A get while tables may be newer than memtables: the highest number decides.
    #[cold]
    fn get_by_number(&self, key: &[u8], point: &ReadPoint<'_>) -> Result<Option<Slice>> {
        let newest = self.versions(key, point.sequence, |entry, is_covered| {
            let meaning = if is_covered { Meaning::Absent } else { point.meaning(entry.kind, entry.value) };
            Ok(ControlFlow::Break(match meaning {
                Meaning::Value(value) => Some(Slice::copy_from(value)),
                Meaning::Absent => None,
                Meaning::Blob(pointer) => Some(self.resolve(key, pointer)?),
                Meaning::Operand(_) => return self.get_merged(key, point).map(ControlFlow::Break),
                Meaning::Malformed => return Err(self.malformed(key)),
            }))
        })?;
        Ok(match newest {
            ControlFlow::Break(value) => value,
            ControlFlow::Continue(()) => None,
        })
    }

    /// The end of a get that met a version which needs a closer look.
    #[cold]
    fn get_rare(
        &self,
        key: &[u8],
        point: &ReadPoint<'_>,
        kind: ValueKind,
        stored: &[u8],
    ) -> Result<Option<Slice>> {
        match point.meaning(kind, stored) {
            Meaning::Value(value) => Ok(Some(Slice::copy_from(value))),
            Meaning::Absent => Ok(None),
            Meaning::Blob(pointer) => self.resolve(key, pointer).map(Some),
            Meaning::Operand(_) => self.get_merged(key, point),
            Meaning::Malformed => Err(self.malformed(key)),
        }
    }

    /// Shows `visit` the versions of `key` up to a number, the newest first, and whether a range tombstone covers them,
    /// until it breaks.
    pub(crate) fn versions<B>(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        mut visit: impl FnMut(Entry<'_>, bool) -> Result<ControlFlow<B>>,
    ) -> Result<ControlFlow<B>> {
        if self.ingested > 0 {
            return self.versions_by_number(key, sequence, visit);
        }
        let mut covering = 0;
        let mut walk = |cursor: &mut dyn Cursor, covering| {
            cursor.seek(key, sequence);
            while let Some(entry) = cursor.entry().filter(|entry| entry.key == key) {
                if let ControlFlow::Break(value) = visit(entry, entry.sequence < covering)? {
                    return Ok(ControlFlow::Break(value));
                }
                cursor.next();
            }
            cursor.error().map_or(Ok(ControlFlow::Continue(())), |error| Err(Error::from(error.clone())))
        };
        for memtable in self.memtables() {
            covering = covering.max(memtable.range_tombstones.covering_sequence(key, sequence));
            if memtable.reader.get(key, sequence).is_some()
                && let found @ ControlFlow::Break(_) =
                    walk(&mut *Arc::clone(&memtable.reader).cursor(), covering)?
            {
                return Ok(found);
            }
        }
        let hash = key_hash(key);
        for table in self.version.runs().filter_map(|run| run.find(key)) {
            let table = table.table();
            covering = covering.max(table.range_tombstones().covering_sequence(key, sequence));
            // A lookup asks the filter first.
            if table.get(key, hash, sequence)?.is_some()
                && let found @ ControlFlow::Break(_) =
                    walk(&mut table.cursor(CursorAccess::Cached), covering)?
            {
                return Ok(found);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Like [`versions`](Self::versions), while tables may be newer than memtables: merges all sources.
    #[cold]
    fn versions_by_number<B>(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        mut visit: impl FnMut(Entry<'_>, bool) -> Result<ControlFlow<B>>,
    ) -> Result<ControlFlow<B>> {
        let mut covering = 0;
        let mut cursors: Vec<Box<dyn Cursor + Send>> = Vec::new();
        for memtable in self.memtables() {
            covering = covering.max(memtable.range_tombstones.covering_sequence(key, sequence));
            if memtable.reader.get(key, sequence).is_some() {
                cursors.push(Arc::clone(&memtable.reader).cursor());
            }
        }
        for table in self.version.runs().filter_map(|run| run.find(key)) {
            let table = table.table();
            covering = covering.max(table.range_tombstones().covering_sequence(key, sequence));
            if table.get(key, key_hash(key), sequence)?.is_some() {
                cursors.push(Box::new(table.cursor(CursorAccess::Cached)));
            }
        }
        let mut merged = MergingCursor::new(cursors);
        merged.seek(key, sequence);
        while let Some(entry) = merged.entry().filter(|entry| entry.key == key) {
            if let ControlFlow::Break(value) = visit(entry, entry.sequence < covering)? {
                return Ok(ControlFlow::Break(value));
            }
            merged.next();
        }
        merged.error().map_or(Ok(ControlFlow::Continue(())), |error| Err(Error::from(error.clone())))
    }

    /// The error for a version of `key` whose stored value is malformed. Only tables can hold one.
    #[cold]
    pub(crate) fn malformed(&self, key: &[u8]) -> Error {
        let detail = format!("an entry of key \"{}\" has no whole time or blob pointer", key.escape_ascii());
        let mut paths = self.version.runs().filter_map(|run| run.find(key)).map(|table| table.path());
        Error::corruption(paths.next().unwrap_or_else(|| Path::new("memtable")), 0, detail)
    }
}
