//! The tables of a keyspace at one moment.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use lsm_compaction::{GarbageRules, LevelShape, TreeShape};
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{SequenceNumber, Slice, ValueKind};
use lsm_sstable::TableValue;
use parking_lot::Mutex;

use super::blob_file::BlobFile;
use super::blobs::Blobs;
use super::covered::{CoveredTable, covered_tables};
use super::hidden_bytes;
use super::placement::{BusyTable, Placement};
use super::run::Run;
use super::table_file::TableFile;
use crate::error::Result;
use crate::memory::{Charge, Memory, Part};
use crate::metrics::Probe;
use crate::options::ResolvedOptions;

/// The tables of a keyspace at one moment. A version is immutable: a change makes a new version.
#[derive(Debug, Default)]
pub(crate) struct Version {
    /// Level 0 first; in each level the newest run first.
    levels: Vec<Vec<Arc<Run>>>,
    blobs: Blobs,
    has_range_tombstones: bool,
    may_expire: bool,
    /// The range tombstones of all tables, merged at the first scan.
    range_tombstones: OnceLock<Arc<FragmentedRangeTombstones>>,
    /// The memory of those.
    gathered: Mutex<Gathered>,
    /// Searched for at the first request.
    covered: OnceLock<Vec<CoveredTable>>,
}

/// The memory of the merged range tombstones of a version.
#[derive(Debug, Default)]
struct Gathered {
    charge: Option<Charge>,
    /// The version is not current any more: only readers hold it.
    is_old: bool,
}

/// The result of a lookup in some sources.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The key has this value.
    Found(Slice),
    /// The key was deleted.
    Deleted,
    /// The newest version is neither a put nor a tombstone: its kind, and its value as it is stored.
    Rare(ValueKind, Slice),
    /// These sources have no version of the key.
    Unknown,
}

impl Version {
    pub(crate) fn levels(&self) -> &[Vec<Arc<Run>>] {
        &self.levels
    }

    /// The blob files.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The version with these blob files. Tables that point to them follow, by [`changed`](Self::changed).
    pub(crate) fn with_blobs(&self, files: &[Arc<BlobFile>]) -> Self {
        Self { blobs: self.blobs.with(files), ..Self::of_levels(self.levels.clone()) }
    }

    /// Marks all its files as obsolete, because the manifest names none of them any more.
    pub(crate) fn mark_obsolete(&self) {
        self.tables().for_each(|table| table.mark_obsolete());
        self.blobs.iter().for_each(|live| live.file.mark_obsolete());
    }

    /// All runs, newest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.levels.iter().flatten()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableFile>> {
        self.runs().flat_map(|run| run.tables())
    }

    pub(crate) fn placements(&self) -> impl Iterator<Item = Placement> {
        self.levels.iter().enumerate().flat_map(|(level, runs)| {
            runs.iter().flat_map(move |run| {
                run.tables().iter().map(move |table| Placement {
                    level,
                    run: run.number(),
                    table: Arc::clone(table),
                })
            })
        })
    }

    /// The version without `removed` and with `added`. Runs without a change are shared. The change is in the manifest:
    /// blob files to which nothing points any more are obsolete.
    pub(crate) fn changed(&self, removed: &[Placement], mut added: Vec<Placement>) -> Self {
        let here = |placement: &Placement| Some((placement.table.number(), self.find(placement)?));
        let gone: HashMap<u64, _> = removed.iter().filter_map(here).collect();
        for placement in &mut added {
            // For a moved table, take the table of this version: it may have been reopened since it was picked.
            if let Some(&here) = gone.get(&placement.table.number()) {
                placement.table = Arc::clone(here);
            }
        }
        self.exchanged(removed, added)
    }

    /// The version in which `tables` replace the tables with the same numbers.
    pub(crate) fn with_tables(&self, tables: &[Placement]) -> Self {
        let known: Vec<_> = tables.iter().filter(|table| self.find(table).is_some()).cloned().collect();
        self.exchanged(&known, known.clone())
    }

    fn exchanged(&self, removed: &[Placement], added: Vec<Placement>) -> Self {
        type Change<'p> = (Vec<&'p TableFile>, Vec<Arc<TableFile>>);
        let blobs = self.blobs.changed(removed, &added);
        let mut changes: BTreeMap<(usize, u64), Change<'_>> = BTreeMap::new();
        for placement in removed {
            changes.entry((placement.level, placement.run)).or_default().0.push(&placement.table);
        }
        for placement in added {
            changes.entry((placement.level, placement.run)).or_default().1.push(placement.table);
        }
        let mut levels = self.levels.clone();
        for ((level, number), (gone, joining)) in changes {
            if levels.len() <= level {
                levels.resize_with(level + 1, Vec::new);
            }
            let runs = &mut levels[level];
            let place = runs.partition_point(|run| run.number() > number);
            let known = runs.get(place).filter(|run| run.number() == number);
            let run = match known {
                Some(run) => run.with_changes(&gone, joining),
                None => (!joining.is_empty()).then(|| Run::of_unsorted(number, joining)),
            };
            let replaced = place..place + usize::from(known.is_some());
            runs.splice(replaced, run.map(Arc::new));
        }
        Self { blobs, ..Self::of_levels(levels) }
    }

    /// The table with the number, level and run of `placement`, if the version has it.
    pub(crate) fn find(&self, placement: &Placement) -> Option<&Arc<TableFile>> {
        let runs = self.levels.get(placement.level)?;
        let run = runs.get(runs.partition_point(|run| run.number() > placement.run))?;
        if run.number() == placement.run { run.with_number(placement.table.metadata()) } else { None }
    }

    /// Makes a version of these tables and blob files.
    pub(crate) fn new(placements: Vec<Placement>, blobs: &[Arc<BlobFile>]) -> Self {
        Self::default().with_blobs(blobs).changed(&[], placements)
    }

    fn of_levels(mut levels: Vec<Vec<Arc<Run>>>) -> Self {
        while levels.pop_if(|runs| runs.is_empty()).is_some() {}
        let has_range_tombstones = levels.iter().flatten().any(|run| run.has_range_tombstones());
        let may_expire = levels.iter().flatten().any(|run| run.may_expire());
        Self { levels, has_range_tombstones, may_expire, ..Self::default() }
    }

    /// Replaces `old`: from now on, memory that only `old` holds is charged to readers.
    pub(crate) fn retire(&self, old: &Self) {
        let runs = |version: &Self| version.runs().map(Arc::as_ptr).collect::<HashSet<_>>();
        let (here, there) = (runs(self), runs(old));
        // A changed run has most tables in common with its predecessor, so compare only the rest.
        let tables = |version: &Self, others: &HashSet<*const Run>, other: &Self| {
            let by_number: HashMap<u64, &Arc<Run>> = other.runs().map(|run| (run.number(), run)).collect();
            let own = version.runs().filter(|run| !others.contains(&Arc::as_ptr(run)));
            let changed = own.flat_map(|run| match by_number.get(&run.number()) {
                Some(other) => run.tables_beside(other),
                None => run.tables(),
            });
            changed.cloned().collect::<Vec<_>>()
        };
        let (come, gone) = (tables(self, &there, old), tables(old, &here, self));
        let stays: HashSet<*const TableFile> = come.iter().map(Arc::as_ptr).collect();
        gone.iter()
            .filter(|table| !stays.contains(&Arc::as_ptr(table)))
            .for_each(|table| table.charge_to_readers());
        let mut gathered = old.gathered.lock();
        gathered.is_old = true;
        if let Some(charge) = &mut gathered.charge {
            charge.move_to(Part::Readers);
        }
    }

    /// The same tables, reopened with the filters and prefix extractor of `options`.
    pub(crate) fn reopened(&self, memory: &Arc<Memory>, options: &ResolvedOptions) -> Result<Self> {
        let reopen = |placement: Placement| {
            let table = placement.table.reopened(memory, options, memory.pinnable_bytes())?;
            Ok(Placement { table: Arc::new(table), ..placement })
        };
        Ok(Self::new(self.placements().map(reopen).collect::<Result<_>>()?, &self.blobs.files()))
    }

    /// Searches the runs, newest first. `covering` is the highest sequence number of range tombstones in newer sources
    /// that cover the key, as far as `sequence` sees them. `note` gets the level of each table that is asked, and what the
    /// lookup met there.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        mut covering: SequenceNumber,
        note: &mut impl FnMut(usize, Probe),
    ) -> Result<Lookup> {
        for (level, runs) in self.levels.iter().enumerate() {
            for run in runs {
                let Some(table) = run.find(key) else { continue };
                if table.has_range_tombstones() {
                    covering =
                        covering.max(table.table().range_tombstones().covering_sequence(key, sequence));
                }
                let mut filter = None;
                let found = table.table().get_noting(key, hash, sequence, |said| filter = Some(said))?;
                note(level, Probe { found: found.is_some(), filter });
                if let Some(TableValue { sequence, kind, value }) = found {
                    return Ok(match kind {
                        _ if sequence < covering => Lookup::Deleted,
                        ValueKind::Put => Lookup::Found(value),
                        ValueKind::Delete | ValueKind::SingleDelete => Lookup::Deleted,
                        _ => Lookup::Rare(kind, value),
                    });
                }
            }
        }
        Ok(Lookup::Unknown)
    }

    /// Whether a table may hold an entry that expires.
    pub(crate) fn may_expire(&self) -> bool {
        self.may_expire
    }

    /// The range tombstones of all tables, merged at the first call.
    pub(crate) fn range_tombstones(&self) -> Option<&Arc<FragmentedRangeTombstones>> {
        let gather = || {
            let with_tombstones = || self.runs().flat_map(|run| run.with_range_tombstones());
            let gathered = Arc::new(gather_range_tombstones(with_tombstones()));
            let any = with_tombstones().next();
            let mut charged = self.gathered.lock();
            let part = if charged.is_old { Part::Readers } else { Part::Tables };
            charged.charge = any.map(|table| Charge::new(&table.memory(), part, gathered.memory_bytes()));
            gathered
        };
        self.has_range_tombstones.then(|| self.range_tombstones.get_or_init(gather))
    }

    /// The tables that newer range tombstones cover completely. A table may occur more than once.
    pub(crate) fn covered_tables(&self) -> &[CoveredTable] {
        if self.has_range_tombstones {
            self.covered.get_or_init(|| covered_tables(&self.levels))
        } else {
            &[]
        }
    }

    /// The shape of the tree for its policy. `readers` are their sequence numbers and times. The cost grows with the
    /// number of runs, of tables changed since the last call, and of busy tables.
    pub(crate) fn shape<'b>(
        &self,
        busy: impl IntoIterator<Item = BusyTable<'b>>,
        level_count: usize,
        now_micros: u64,
        readers: GarbageRules,
    ) -> TreeShape {
        let mut age = 0;
        let mut run_shape = |run: &Arc<Run>| {
            age += 1;
            run.shape(|table, shape| hidden_bytes::estimate(&self.levels, age, table, shape)).clone()
        };
        let level_shape =
            |runs: &Vec<Arc<Run>>| LevelShape { runs: runs.iter().map(&mut run_shape).collect() };
        let mut levels: Vec<LevelShape> = self.levels.iter().map(level_shape).collect();
        levels.resize_with(levels.len().max(level_count), || LevelShape { runs: Vec::new() });
        let mut last = None;
        for busy in busy {
            last = self.mark_busy(&mut levels, busy, last);
        }
        let expired_micros = readers.times_micros.first().copied().unwrap_or(0);
        TreeShape { levels, now_micros, running: Vec::new(), snapshots: readers.snapshots, expired_micros }
    }

    /// Marks a table as busy, if it is there, and returns its position. Most often that is the position after `last`.
    fn mark_busy(
        &self,
        levels: &mut [LevelShape],
        busy: BusyTable<'_>,
        last: Option<usize>,
    ) -> Option<usize> {
        let runs = self.levels.get(busy.level)?;
        let index = runs.partition_point(|run| run.number() > busy.run);
        runs.get(index).filter(|run| run.number() == busy.run)?;
        let run = levels.get_mut(busy.level)?.runs.get_mut(index)?;
        let is_next = |next: &usize| run.get(*next).is_some_and(|table| table.id == busy.table.id);
        let next = last.map(|last| last + 1).filter(is_next);
        let position = next.or_else(|| run.position(busy.table))?;
        run.mark_busy(position);
        Some(position)
    }
}

/// The range tombstones of some tables, merged into one list.
pub(crate) fn gather_range_tombstones<'a>(
    tables: impl Iterator<Item = &'a Arc<TableFile>>,
) -> FragmentedRangeTombstones {
    let with_tombstones = tables.filter(|table| table.has_range_tombstones());
    FragmentedRangeTombstones::merged(with_tombstones.map(|table| &**table.table().range_tombstones()))
}

#[cfg(test)]
mod tests {
    use lsm_core::Entry;
    use lsm_core::vfs::SimFs;
    use lsm_sstable::{TableId, TableOptions, TableWriter};
    use proptest::prelude::*;

    use std::path::Path;

    use super::*;
    use crate::Options;
    use crate::options::StoredOptions;
    use crate::version::{ObsoleteFiles, open_table};

    /// Makes tables with one key each.
    struct Maker {
        fs: SimFs,
        options: Options,
        memory: Arc<Memory>,
    }

    impl Maker {
        fn new() -> Self {
            let fs = SimFs::new();
            let options = Options::new().vfs(Arc::new(fs.clone()));
            Self { fs, memory: Arc::new(Memory::new(&options)), options }
        }

        fn place(&self, level: usize, run: u64, number: u64) -> Placement {
            let path = number.to_string();
            let path = Path::new(&path);
            let key = &number.to_be_bytes();
            let id = TableId(number.into());
            // An existing table is reopened.
            if let Ok(mut writer) = TableWriter::create(&self.fs, path, id, &TableOptions::default()) {
                writer.add(Entry { key, sequence: 1, kind: ValueKind::Put, value: b"" }).unwrap();
                writer.finish().unwrap();
            }
            let options = self.memory.resolve(&self.options.keyspace, &StoredOptions::default());
            let table = open_table(&self.memory, path, &options, None).unwrap();
            let table = TableFile::new(number, table, 0, None, Arc::new(ObsoleteFiles::default()));
            Placement { level, run, table: Arc::new(table) }
        }
    }

    /// The level, run and number of all tables.
    fn seen(version: &Version) -> Vec<(usize, u64, u64)> {
        version.placements().map(|it| (it.level, it.run, it.table.number())).collect()
    }

    #[test]
    fn a_change_shares_the_runs_that_it_does_not_touch() {
        let maker = Maker::new();
        let places = [(0, 9, 1), (0, 8, 2), (1, 5, 3), (1, 5, 4), (3, 4, 5), (3, 4, 6)];
        let placements = places.map(|(level, run, number)| maker.place(level, run, number));
        let version = Version::new(placements.to_vec(), &[]);
        assert_eq!(seen(&version), places);
        let shared = |changed: &Version| {
            let of_old = |run: &&Arc<Run>| version.runs().any(|old| Arc::ptr_eq(run, old));
            changed.runs().filter(of_old).map(|run| run.number()).collect::<Vec<_>>()
        };
        let flushed = version.changed(&[], vec![maker.place(0, 10, 7)]);
        assert_eq!((flushed.runs().count(), shared(&flushed)), (5, vec![9, 8, 5, 4]));
        let merged = version.changed(&placements[2..3], vec![maker.place(3, 4, 8)]);
        assert_eq!(shared(&merged), [9, 8]);
        assert_eq!(seen(&merged)[2..], [(1, 5, 4), (3, 4, 5), (3, 4, 6), (3, 4, 8)]);
        let pinned = version.with_tables(&[maker.place(3, 4, 5), maker.place(1, 4, 99)]);
        assert_eq!((shared(&pinned), seen(&pinned)), (vec![9, 8, 5], places.to_vec()));
        let dropped = version.changed(&placements[4..], Vec::new());
        assert_eq!((dropped.levels().len(), shared(&dropped)), (2, vec![9, 8, 5]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn changes_one_after_the_other_come_to_the_version_of_what_is_left(
            changes in prop::collection::vec((0_usize..3, 0_u64..3, 0_usize..5, 0_usize..3), 1..12),
        ) {
            let maker = Maker::new();
            let (mut version, mut left, mut number) = (Version::default(), Vec::<Placement>::new(), 0);
            for (level, run, added, removed) in changes {
                let run = 10 * (10 - level as u64) + run;
                let removed: Vec<_> = left.extract_if(.., |placement| placement.table.number() as usize % 3 < removed).collect();
                let added: Vec<_> = (0..added).map(|_| { number += 1; maker.place(level, run, number) }).collect();
                left.extend(added.iter().cloned());
                version = version.changed(&removed, added);
                let mut expected: Vec<_> = left.iter().map(|it| (it.level, it.run, it.table.number())).collect();
                expected.sort_by_key(|&(level, run, number)| (level, std::cmp::Reverse(run), number));
                prop_assert_eq!(seen(&version), expected);
                prop_assert!(left.iter().all(|placement| version.find(placement).is_some()));
                prop_assert!(removed.iter().all(|placement| version.find(placement).is_none()));
                prop_assert!(version.levels().last().is_none_or(|runs| !runs.is_empty()));
            }
        }
    }
}
