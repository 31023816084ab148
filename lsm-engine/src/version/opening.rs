//! Opens the tables of a database, several at the same time.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_core::env::{Env, Event, Job, Priority, Step};
use lsm_sstable::{BlobExpectation, Table, TableExpectation, TableOpen};
use parking_lot::Mutex;

use super::blob_file::BlobFile;
use super::edit::{AddedBlob, AddedTable};
use super::manifest::ManifestState;
use super::placement::Placement;
use super::table_file::{ObsoleteFiles, TableFile};
use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::memory::{Charge, Memory, Part};
use crate::options::ResolvedOptions;
use crate::version::files;

/// Number of tables that one step opens. That takes about a millisecond.
const TABLES_PER_STEP: usize = 16;

/// Fewer tables than this are opened by the caller, because waking up a worker would take longer.
const PARALLEL_TABLES_MIN: usize = 64;

/// Opens the tables of a database.
pub(crate) struct TableOpener {
    pub(crate) directory: PathBuf,
    /// By keyspace.
    pub(crate) options: BTreeMap<u32, Arc<ResolvedOptions>>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) obsolete_files: Arc<ObsoleteFiles>,
}

/// The state that the workers share.
struct Opening {
    opener: TableOpener,
    tables: Vec<AddedTable>,
    /// Index of the next table to open.
    next: AtomicUsize,
    opened: Mutex<Vec<(usize, Placement)>>,
    /// The error of the first table, by index, that could not be opened.
    failure: Mutex<Option<(usize, Error)>>,
    workers: AtomicUsize,
    ended: Event,
}

/// Opens all tables of the manifest. Returns them by keyspace. Indexes and filters stay in memory if they fit.
pub(crate) fn open_tables(
    opener: TableOpener,
    env: &dyn Env,
    state: &ManifestState,
) -> Result<BTreeMap<u32, Vec<Placement>>> {
    let mut tables: Vec<AddedTable> =
        state.keyspaces.values().flat_map(|keyspace| keyspace.tables.values().cloned()).collect();
    // Open upper levels first. Most reads ask them, so their indexes and filters should be in memory.
    tables.sort_by_key(|table| table.level);
    let workers = env.worker_count().min(tables.len() / TABLES_PER_STEP);
    let is_parallel = workers > 1 && tables.len() >= PARALLEL_TABLES_MIN;
    let opening = Arc::new(Opening {
        opener,
        tables,
        next: AtomicUsize::new(0),
        opened: Mutex::default(),
        failure: Mutex::default(),
        workers: AtomicUsize::new(if is_parallel { workers } else { 0 }),
        ended: Event::new(),
    });
    if is_parallel {
        for _ in 0..workers {
            env.spawn(Priority::High, Box::new(Worker(Arc::clone(&opening))));
        }
        loop {
            let seen = opening.ended.epoch();
            // Wait for the workers after a failure too: they must not open files while the caller tries again.
            if opening.workers.load(Ordering::Acquire) == 0 {
                break;
            }
            env.wait(&opening.ended, seen, None);
        }
    } else {
        while opening.open_some() {}
    }
    if let Some((_, error)) = opening.failure.lock().take() {
        return Err(error);
    }
    let mut by_keyspace: BTreeMap<u32, Vec<Placement>> = BTreeMap::new();
    for (index, placement) in opening.opened.lock().drain(..) {
        by_keyspace.entry(opening.tables[index].keyspace).or_default().push(placement);
    }
    Ok(by_keyspace)
}

/// Opens all blob files of the manifest. Returns them by keyspace.
pub(crate) fn open_blobs(
    opener: &TableOpener,
    state: &ManifestState,
) -> Result<BTreeMap<u32, Vec<Arc<BlobFile>>>> {
    let mut by_keyspace: BTreeMap<u32, Vec<Arc<BlobFile>>> = BTreeMap::new();
    for added in state.blobs() {
        let file = opener.open_blobs(added)?;
        opener.memory.check_tables()?;
        by_keyspace.entry(added.keyspace).or_default().push(file);
    }
    Ok(by_keyspace)
}

/// A missing file is corruption: `who` names it.
pub(crate) fn missing(error: lsm_core::Error, path: impl FnOnce() -> PathBuf, who: &str) -> Error {
    match &error {
        lsm_core::Error::Io { source, .. } if source.kind() == Io::NotFound => {
            Error::corruption(&path(), 0, format!("the file is missing, but {who}"))
        }
        _ => error.into(),
    }
}

/// Opens tables until none is left.
struct Worker(Arc<Opening>);

impl Job for Worker {
    fn step(&mut self) -> Step {
        if self.0.open_some() { Step::Again } else { Step::Done }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.workers.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify();
    }
}

impl Opening {
    /// Opens the next tables. Returns whether there may be more.
    fn open_some(&self) -> bool {
        for _ in 0..TABLES_PER_STEP {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(table) = self.tables.get(index) else { return false };
            match caught("the opening of a table", || self.opener.open(table, "the manifest")) {
                Ok(placement) => self.opened.lock().push((index, placement)),
                Err(error) => {
                    self.next.store(self.tables.len(), Ordering::Relaxed);
                    let mut failure = self.failure.lock();
                    if failure.as_ref().is_none_or(|(first, _)| index < *first) {
                        *failure = Some((index, error));
                    }
                    return false;
                }
            }
        }
        true
    }
}

impl TableOpener {
    /// Opens a blob file that the manifest names.
    pub(crate) fn open_blobs(&self, added: &AddedBlob) -> Result<Arc<BlobFile>> {
        let expected = BlobExpectation::from(&added.meta);
        let numbers = (added.blob, added.number);
        let file =
            BlobFile::open(&self.memory, &self.directory, numbers, Some(&expected), &self.obsolete_files);
        let path = || files::blob(&self.directory, added.number);
        file.map_err(|error| missing(error, path, "the manifest names it"))
    }

    /// Opens a table that `namer` names.
    pub(crate) fn open(&self, added: &AddedTable, namer: &str) -> Result<Placement> {
        let path = files::table(&self.directory, added.number);
        let expected = TableExpectation::from(&added.meta);
        let options = self.options.get(&added.keyspace).ok_or_else(|| Error::invalid("no such keyspace"))?;
        let opened = open_table(&self.memory, &path, options, Some(expected));
        let table = opened.map_err(|error| missing(error, || path.clone(), &format!("{namer} names it")))?;
        let (created, since) = (added.created_micros, added.tombstones_since_micros);
        let obsolete_files = Arc::clone(&self.obsolete_files);
        let file = TableFile::new(added.number, table, created, since, obsolete_files);
        self.memory.check_tables()?;
        Ok(Placement { level: added.level as usize, run: added.run, table: Arc::new(file) })
    }
}

/// Opens a table with the filters and prefix extractor of `options`. Index and filter stay in memory if they fit; their
/// memory is charged before they are read.
pub(crate) fn open_table(
    memory: &Arc<Memory>,
    path: &Path,
    options: &ResolvedOptions,
    expected: Option<TableExpectation>,
) -> lsm_core::Result<(Arc<Table>, Charge)> {
    let open = TableOpen { expected, ..options.table_open() };
    let shared_path = Arc::new(path.to_owned());
    let file =
        memory.file_cache.open(&shared_path).map_err(|error| lsm_core::Error::io("open", path, error))?;
    let (cache, mut charge) = (Some(Arc::clone(&memory.cache)), Charge::new(memory, Part::Tables, 0));
    let pin = |bytes: u64| {
        usize::try_from(bytes).is_ok_and(|bytes| charge.grow_within(bytes, memory.tables_bytes_max()))
    };
    let table = Table::from_file_pinned_if(file, shared_path, cache, &open, pin)?;
    Ok((table, charge))
}
