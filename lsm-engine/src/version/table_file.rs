use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use lsm_compaction::TableShape;
use lsm_core::SequenceNumber;
use lsm_core::env::Event;
use lsm_sstable::{Table, TableMeta, TableOpen};
use parking_lot::Mutex;

use super::edit::AddedTable;
use super::lease::EditPosition;
use super::leases::Leases;
use crate::memory::file_cache;
use crate::memory::{Charge, Memory, Part, Unpinned};
use crate::options::ResolvedOptions;

/// The shape of one table for policies.
pub(crate) type Shape = Arc<TableShape>;

/// An open table of a version.
#[derive(Debug)]
pub(crate) struct TableFile {
    table: Arc<Table>,
    shape: Shape,
    /// The shape including the estimate of what its tombstones hide.
    estimated: OnceLock<Shape>,
    file: Arc<FileOnDisk>,
    charge: Mutex<Charge>,
    _unpinned: Option<Unpinned>,
}

/// The file of a table. Two [`TableFile`]s may share it while a reopened table replaces the old one. When the last one
/// is dropped and the file is obsolete, it goes to the [`ObsoleteFiles`].
#[derive(Debug)]
struct FileOnDisk {
    path: PathBuf,
    obsolete: AtomicBool,
    /// Reopening it has failed, so it is not tried again.
    cannot_reopen: AtomicBool,
    obsolete_files: Arc<ObsoleteFiles>,
}

impl TableFile {
    /// `table` comes from [`open_table`](super::opening::open_table). `oldest_tombstone_micros` is the time at which its oldest
    /// tombstone was first written to a table.
    pub(crate) fn new(
        number: u64,
        (table, charge): (Arc<Table>, Charge),
        created_micros: u64,
        oldest_tombstone_micros: Option<u64>,
        obsolete_files: Arc<ObsoleteFiles>,
    ) -> Self {
        let (meta, properties) = (table.meta(), table.properties());
        let shape = Arc::new(TableShape {
            id: number,
            smallest: meta.smallest.clone(),
            largest: meta.largest.clone(),
            bytes: meta.file_bytes,
            entries: meta.entries,
            tombstones: meta.tombstones,
            range_tombstones: meta.range_tombstones,
            expiring: properties.expiring,
            earliest_expiry_micros: properties.earliest_expiry_micros,
            latest_expiry_micros: properties.latest_expiry_micros,
            created_micros,
            oldest_tombstone_micros,
            smallest_sequence: meta.smallest_sequence,
            largest_sequence: meta.largest_sequence,
            ..TableShape::default()
        });
        let path = table.path().to_owned();
        let (obsolete, cannot_reopen) = (AtomicBool::new(false), AtomicBool::new(false));
        let file = FileOnDisk { path, obsolete, cannot_reopen, obsolete_files };
        Self::with_parts(table, shape, Arc::new(file), charge)
    }

    /// Opens the same file again, with other options.
    pub(crate) fn reopened(
        &self,
        memory: &Arc<Memory>,
        options: &ResolvedOptions,
        pinned_bytes_max: usize,
    ) -> lsm_core::Result<Self> {
        let expected = Some(self.meta().into());
        let open = TableOpen { expected, pinned_bytes_max, ..options.table_open() };
        let table = self.table.reopened(Some(Arc::clone(&memory.cache)), &open)?;
        let charge = Charge::new(memory, Part::Tables, 0);
        let reopened = Self::with_parts(table, Arc::clone(&self.shape), Arc::clone(&self.file), charge);
        Ok(Self { estimated: self.estimated.clone(), ..reopened })
    }

    fn with_parts(table: Arc<Table>, shape: Shape, file: Arc<FileOnDisk>, mut charge: Charge) -> Self {
        charge.set(held_bytes(&table, &shape));
        let unpinned = (!table.is_pinned()).then(|| Unpinned::new(charge.memory()));
        Self {
            table,
            shape,
            estimated: OnceLock::new(),
            file,
            charge: Mutex::new(charge),
            _unpinned: unpinned,
        }
    }

    /// Accounts for memory that the table took since it was opened: the directories of its index and filter pages.
    pub(crate) fn update_charge(&self) {
        self.charge.lock().set(held_bytes(&self.table, &self.shape));
    }

    pub(crate) fn number(&self) -> u64 {
        self.shape.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    #[inline]
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Memory that the table takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.charge.lock().bytes()
    }

    /// The memory budget that it is charged to.
    pub(crate) fn memory(&self) -> Arc<Memory> {
        Arc::clone(self.charge.lock().memory())
    }

    pub(crate) fn meta(&self) -> &TableMeta {
        self.table.meta()
    }

    #[inline]
    pub(crate) fn smallest(&self) -> &[u8] {
        &self.shape.smallest
    }

    #[inline]
    pub(crate) fn largest(&self) -> &[u8] {
        &self.shape.largest
    }

    #[inline]
    pub(crate) fn has_range_tombstones(&self) -> bool {
        self.shape.range_tombstones > 0
    }

    /// Whether all its entries have lower sequence numbers than this.
    pub(crate) fn is_older_than(&self, sequence: SequenceNumber) -> bool {
        self.shape.largest_sequence < sequence
    }

    pub(crate) fn created_micros(&self) -> u64 {
        self.shape.created_micros
    }

    pub(crate) fn oldest_tombstone_micros(&self) -> Option<u64> {
        self.shape.oldest_tombstone_micros
    }

    /// The shape of the table for policies. Calls `estimate` once, to estimate what its tombstones hide.
    pub(crate) fn shape(&self, estimate: impl FnOnce(&mut TableShape)) -> Shape {
        let shape = if self.shape.has_tombstones() {
            self.estimated.get_or_init(|| {
                let mut shape = (*self.shape).clone();
                estimate(&mut shape);
                Arc::new(shape)
            })
        } else {
            &self.shape
        };
        Arc::clone(shape)
    }

    /// The shape without estimates.
    pub(crate) fn metadata(&self) -> &Shape {
        &self.shape
    }

    /// Marks the table as obsolete, because the manifest no longer names it. Its file is removed after the last reader.
    pub(crate) fn mark_obsolete(&self) {
        self.file.obsolete.store(true, Ordering::Release);
    }

    pub(crate) fn is_obsolete(&self) -> bool {
        self.file.obsolete.load(Ordering::Acquire)
    }

    /// Charges its memory to readers, because only old versions have the table.
    pub(super) fn charge_to_readers(&self) {
        self.charge.lock().move_to(Part::Readers);
    }

    /// Prevents further attempts to reopen the table.
    pub(crate) fn disable_reopening(&self) {
        self.file.cannot_reopen.store(true, Ordering::Relaxed);
    }

    pub(crate) fn cannot_reopen(&self) -> bool {
        self.file.cannot_reopen.load(Ordering::Relaxed)
    }
}

fn held_bytes(table: &Table, shape: &TableShape) -> usize {
    // The manifest state has its own copy of the table's metadata.
    let recorded = size_of::<AddedTable>() + shape.smallest.len() + shape.largest.len();
    let shapes = if shape.has_tombstones() { 2 } else { 1 };
    // Its entry in the shape of its run.
    let in_run = size_of::<Shape>() + size_of::<u64>();
    let own = in_run + size_of::<TableFile>() + size_of::<FileOnDisk>() + shapes * size_of::<TableShape>();
    table.pinned_bytes() + own + file_cache::HANDLE_BYTES + recorded
}

impl Drop for FileOnDisk {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.obsolete_files.remove_later(std::mem::take(&mut self.path));
        }
    }
}

/// Obsolete files: no reader uses them any more. A background job unlinks them, so that no reader has to wait for that.
#[derive(Debug, Default)]
pub(crate) struct ObsoleteFiles {
    paths: Mutex<Vec<PathBuf>>,
    /// Files that could not be removed.
    left: Mutex<Vec<PathBuf>>,
    /// Those that followers may read, and the last edit when they became obsolete.
    held: Mutex<BTreeMap<PathBuf, EditPosition>>,
    event: Event,
}

impl ObsoleteFiles {
    pub(crate) fn remove_later(&self, path: PathBuf) {
        self.paths.lock().push(path);
        self.event.notify();
    }

    /// Takes those that no follower needs. The others stay until a later call.
    pub(crate) fn take(&self, leases: &Leases) -> Vec<PathBuf> {
        let paths = std::mem::take(&mut *self.paths.lock());
        let mut held = self.held.lock();
        if paths.is_empty() && held.is_empty() {
            return paths;
        }
        // The edits that removed these files are in the manifest already, so a follower without a lease until now reads
        // them.
        let (needed, last_edit) = (leases.look(), leases.last_edit());
        let Some(needed) = needed.edits else {
            return std::mem::take(&mut *held).into_keys().chain(paths).collect();
        };
        for path in paths {
            held.entry(path).or_insert(last_edit);
        }
        let free: Vec<_> = held
            .iter()
            .filter(|&(_, &removed_by)| removed_by <= needed)
            .map(|(path, _)| path.clone())
            .collect();
        held.retain(|_, removed_by| *removed_by > needed);
        free
    }

    /// Notes that a file could not be removed.
    pub(crate) fn leave(&self, path: PathBuf) {
        self.left.lock().push(path);
    }

    /// Has the files removed next that could not be removed before.
    pub(crate) fn try_again(&self) {
        self.paths.lock().append(&mut self.left.lock());
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }
}
