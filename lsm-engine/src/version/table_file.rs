use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_compaction::TableShape;
use lsm_core::env::Event;
use lsm_sstable::{Table, TableMeta};
use parking_lot::Mutex;

use super::Shape;

/// An open table of a version. The last one to drop it hands the file, once it is obsolete, to the [`Janitor`].
#[derive(Debug)]
pub(crate) struct TableFile {
    number: u64,
    path: PathBuf,
    table: Arc<Table>,
    shape: Shape,
    obsolete: AtomicBool,
    janitor: Arc<Janitor>,
}

impl TableFile {
    /// `oldest_tombstone_micros` is when the oldest tombstone in the table was first written to one.
    pub(crate) fn new(
        number: u64,
        path: PathBuf,
        table: Arc<Table>,
        created_micros: u64,
        oldest_tombstone_micros: Option<u64>,
        janitor: Arc<Janitor>,
    ) -> Self {
        let meta = table.meta();
        let shape = Arc::new(TableShape {
            id: number,
            smallest: meta.smallest.clone(),
            largest: meta.largest.clone(),
            bytes: meta.file_bytes,
            entries: meta.entries,
            tombstones: meta.tombstones,
            range_tombstones: meta.range_tombstones,
            created_micros,
            oldest_tombstone_micros,
            smallest_sequence: meta.smallest_sequence,
            largest_sequence: meta.largest_sequence,
            busy: false,
        });
        Self { number, path, table, shape, obsolete: AtomicBool::new(false), janitor }
    }

    /// The same file, opened in another way.
    pub(crate) fn with_table(&self, table: Arc<Table>) -> Self {
        Self {
            number: self.number,
            path: self.path.clone(),
            table,
            shape: Arc::clone(&self.shape),
            obsolete: AtomicBool::new(false),
            janitor: Arc::clone(&self.janitor),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[inline]
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
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

    pub(crate) fn created_micros(&self) -> u64 {
        self.shape.created_micros
    }

    pub(crate) fn oldest_tombstone_micros(&self) -> Option<u64> {
        self.shape.oldest_tombstone_micros
    }

    pub(crate) fn shape(&self, busy: bool) -> Shape {
        if busy { Arc::new(TableShape { busy, ..(*self.shape).clone() }) } else { Arc::clone(&self.shape) }
    }

    /// The manifest no longer names the table: its file goes when the last reader does.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.janitor.remove_later(std::mem::take(&mut self.path));
        }
    }
}

/// Files that nobody reads any more, on their way to being unlinked by a background job, so that no reader pays
/// for it.
#[derive(Debug, Default)]
pub(crate) struct Janitor {
    paths: Mutex<Vec<PathBuf>>,
    event: Event,
}

impl Janitor {
    pub(crate) fn remove_later(&self, path: PathBuf) {
        self.paths.lock().push(path);
        self.event.notify();
    }

    pub(crate) fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.paths.lock())
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }
}
