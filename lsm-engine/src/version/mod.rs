//! Versions: which tables a keyspace consists of, level by level, run by run, newest first.

mod covered;
pub(crate) mod current;
pub(crate) mod edit;
mod fences;
mod hidden;
pub(crate) mod manifest;
mod opening;
mod run;
mod table_file;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use lsm_compaction::{LevelShape, RunShape, TableShape, TreeShape};
use lsm_core::key::common_prefix_bytes;
use lsm_core::range_tombstone::FragmentedRangeTombstones;
use lsm_core::{SequenceNumber, Slice};
use lsm_sstable::{Table, TableExpectation, TableOpen, TableValue};
use parking_lot::Mutex;

use crate::Result;
use crate::memory::{Charge, Memory, Part};
use crate::options::KeyspaceOptions;
pub(crate) use covered::CoveredTable;
pub(crate) use opening::open_tables;
pub(crate) use run::{Run, RunCursor};
pub(crate) use table_file::{Janitor, TableFile};

/// The tables of a keyspace at one moment. Never changes; a change makes a new one.
#[derive(Debug, Default)]
pub(crate) struct Version {
    /// Level 0 first; in a level the newest run first.
    levels: Vec<Vec<Arc<Run>>>,
    has_range_tombstones: bool,
    /// Gathered for scans, at the first.
    range_tombstones: OnceLock<Arc<FragmentedRangeTombstones>>,
    /// What those take.
    gathered: Mutex<Gathered>,
    /// Found at the first look.
    covered: OnceLock<Vec<CoveredTable>>,
}

/// What a version has gathered.
#[derive(Debug, Default)]
struct Gathered {
    charge: Option<Charge>,
    /// Only readers hold the version.
    is_old: bool,
}

/// A table that joins a version.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) level: usize,
    /// Which run of the level: higher numbers are newer.
    pub(crate) run: u64,
    pub(crate) table: Arc<TableFile>,
}

/// What a key is at a sequence number, as far as the searched sources know.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// It has this value.
    Found(Slice),
    /// It was deleted.
    Deleted,
    /// Older sources must be asked.
    Unknown,
}

impl Version {
    pub(crate) fn levels(&self) -> &[Vec<Arc<Run>>] {
        &self.levels
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

    /// The version without the tables of the given numbers and with others added.
    pub(crate) fn changed(&self, removed: &HashSet<u64>, mut added: Vec<Placement>) -> Self {
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            self.placements().partition(|placement| removed.contains(&placement.table.number()));
        let gone: HashMap<u64, _> = gone.iter().map(|gone| (gone.table.number(), &gone.table)).collect();
        for placement in &mut added {
            // One that only moves stays as it is here: it may have been opened anew since it was picked.
            if let Some(here) = gone.get(&placement.table.number()) {
                placement.table = Arc::clone(here);
            }
        }
        kept.extend(added);
        Self::new(kept)
    }

    /// This version takes the place of `old`: what only that one holds belongs to its readers from now on.
    pub(crate) fn take_over_from(&self, old: &Self) {
        let runs = |version: &Self| version.runs().map(Arc::as_ptr).collect::<HashSet<_>>();
        let (here, there) = (runs(self), runs(old));
        let tables = |version: &Self, others: &HashSet<*const Run>| {
            let own = version.runs().filter(|run| !others.contains(&Arc::as_ptr(run)));
            own.flat_map(|run| run.tables()).cloned().collect::<Vec<_>>()
        };
        let (come, gone) = (tables(self, &there), tables(old, &here));
        let stays: HashSet<*const TableFile> = come.iter().map(Arc::as_ptr).collect();
        gone.iter().filter(|table| !stays.contains(&Arc::as_ptr(table))).for_each(|table| table.let_go());
        let mut gathered = old.gathered.lock();
        gathered.is_old = true;
        if let Some(charge) = &mut gathered.charge {
            charge.move_to(Part::Readers);
        }
    }

    /// The version with some tables in the place of others of the same numbers.
    pub(crate) fn with_tables(&self, tables: &HashMap<u64, Arc<TableFile>>) -> Self {
        let swap = |placement: Placement| match tables.get(&placement.table.number()) {
            Some(table) => Placement { table: Arc::clone(table), ..placement },
            None => placement,
        };
        Self::new(self.placements().map(swap).collect())
    }

    /// The version of these tables.
    pub(crate) fn new(mut placements: Vec<Placement>) -> Self {
        placements.sort_by(|a, b| {
            let order = a.level.cmp(&b.level).then(b.run.cmp(&a.run));
            order.then_with(|| a.table.smallest().cmp(b.table.smallest()))
        });
        let mut levels: Vec<Vec<Arc<Run>>> = Vec::new();
        for run in placements.chunk_by(|a, b| (a.level, a.run) == (b.level, b.run)) {
            let Some(first) = run.first() else { continue };
            if levels.len() <= first.level {
                levels.resize_with(first.level + 1, Vec::new);
            }
            let tables = run.iter().map(|placement| Arc::clone(&placement.table)).collect();
            if let Some(level) = levels.get_mut(first.level) {
                level.push(Arc::new(Run::new(first.run, tables)));
            }
        }
        let has_range_tombstones = placements.iter().any(|placement| placement.table.has_range_tombstones());
        Self { levels, has_range_tombstones, ..Self::default() }
    }

    /// The same tables, opened anew with the filters and prefix extractor of `options`.
    pub(crate) fn reopened(&self, memory: &Arc<Memory>, options: &KeyspaceOptions) -> Result<Self> {
        let reopen = |placement: Placement| {
            let table = placement.table.reopened(memory, options, memory.pinnable_bytes())?;
            Ok(Placement { table: Arc::new(table), ..placement })
        };
        Ok(Self::new(self.placements().map(reopen).collect::<Result<_>>()?))
    }

    /// Searches the runs, newest first. `covering` is the highest sequence number, not above `sequence`, of a
    /// range tombstone in newer sources that covers the key.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        mut covering: SequenceNumber,
    ) -> Result<Lookup> {
        for run in self.runs() {
            let Some(table) = run.find(key) else { continue };
            if table.has_range_tombstones() {
                covering = covering.max(table.table().range_tombstones().covering_sequence(key, sequence));
            }
            if let Some(TableValue { sequence, kind, value }) = table.table().get(key, hash, sequence)? {
                let deleted = kind.is_tombstone() || sequence < covering;
                return Ok(if deleted { Lookup::Deleted } else { Lookup::Found(value) });
            }
        }
        Ok(Lookup::Unknown)
    }

    /// The range tombstones of all tables, gathered at the first call.
    pub(crate) fn range_tombstones(&self) -> Option<&Arc<FragmentedRangeTombstones>> {
        let gather = || {
            let gathered = Arc::new(gather_range_tombstones(self.tables()));
            let any = self.tables().find(|table| table.has_range_tombstones());
            let mut charged = self.gathered.lock();
            let part = if charged.is_old { Part::Readers } else { Part::Tables };
            charged.charge = any.map(|table| Charge::new(&table.memory(), part, gathered.memory_bytes()));
            gathered
        };
        self.has_range_tombstones.then(|| self.range_tombstones.get_or_init(gather))
    }

    /// The tables that newer range tombstones cover from end to end, some more than once.
    pub(crate) fn covered_tables(&self) -> &[CoveredTable] {
        if self.has_range_tombstones {
            self.covered.get_or_init(|| covered::covered_tables(self))
        } else {
            &[]
        }
    }

    /// What a policy sees; `stripes` are the numbers that anyone reads at.
    pub(crate) fn shape(
        &self,
        busy: &HashSet<u64>,
        level_count: usize,
        now_micros: u64,
        stripes: Vec<SequenceNumber>,
    ) -> TreeShape {
        let mut age = 0;
        let mut level_shape = |runs: &Vec<Arc<Run>>| {
            let mut run_shape = |run: &Arc<Run>| {
                age += 1;
                let is_busy = |table: &TableFile| busy.contains(&table.number());
                let shape = |table: &Arc<TableFile>| {
                    table.shape(is_busy(table), |shape| hidden::estimate(self, age, table, shape))
                };
                RunShape { tables: run.tables().iter().map(shape).collect() }
            };
            LevelShape { runs: runs.iter().map(&mut run_shape).collect() }
        };
        let mut levels: Vec<LevelShape> = self.levels.iter().map(&mut level_shape).collect();
        levels.resize_with(levels.len().max(level_count), || LevelShape { runs: Vec::new() });
        TreeShape { levels, now_micros, running: Vec::new(), snapshots: stripes }
    }
}

/// Opens a table with the filters and prefix extractor of `options`. Index and filter stay in the file, before
/// [`TableFile::pin_if_it_fits`].
pub(crate) fn open_table(
    memory: &Memory,
    path: &Path,
    options: &KeyspaceOptions,
    expected: Option<TableExpectation>,
) -> lsm_core::Result<Arc<Table>> {
    let open = TableOpen { expected, pinned_bytes_max: 0, ..options.table_open() };
    let shared_path = Arc::new(path.to_owned());
    let file =
        memory.open_files.open(&shared_path).map_err(|error| lsm_core::Error::io("open", path, error))?;
    Table::from_file(file, shared_path, Some(Arc::clone(&memory.cache)), &open)
}

/// What all keys of some runs begin with.
pub(crate) fn common_prefix<'r>(runs: impl Iterator<Item = &'r Run>) -> Vec<u8> {
    let bounds =
        runs.filter_map(|run| Some((run.tables().first()?.smallest(), run.tables().last()?.largest())));
    let (smallest, largest) = bounds
        .reduce(|(smallest, largest), (first, last)| (smallest.min(first), largest.max(last)))
        .unwrap_or_default();
    smallest[..common_prefix_bytes(smallest, largest)].to_vec()
}

/// The range tombstones of some tables as one list.
pub(crate) fn gather_range_tombstones<'a>(
    tables: impl Iterator<Item = &'a Arc<TableFile>>,
) -> FragmentedRangeTombstones {
    let with_tombstones = tables.filter(|table| table.has_range_tombstones());
    FragmentedRangeTombstones::merged(with_tombstones.map(|table| &**table.table().range_tombstones()))
}

/// What a policy sees of one table.
pub(crate) type Shape = Arc<TableShape>;
