//! What the tests of this crate share: a file system in memory whose bytes can be damaged, and a way to build tables.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lsm_core::vfs::{Access, Vfs, VfsFile};
use lsm_core::{Entry, Result, ValueKind};
use lsm_dev::{Layer, NoFs, VfsLayer};
use lsm_sstable::{BlockCache, Table, TableId, TableMeta, TableOpen, TableOptions, TableWriter};

pub(crate) const ID: TableId = TableId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

/// A file system in memory.
pub(crate) type MemoryFs = Layer<MemoryFiles>;

#[derive(Clone, Default)]
pub(crate) struct MemoryFiles {
    files: Arc<Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>>,
}

#[derive(Default)]
pub(crate) struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
    reads: AtomicUsize,
}

impl MemoryFiles {
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.files.lock().unwrap()[path].bytes.lock().unwrap().clone()
    }

    /// How often a file was read.
    pub(crate) fn reads(&self, path: &Path) -> usize {
        self.files.lock().unwrap()[path].reads.load(Ordering::Relaxed)
    }

    pub(crate) fn remove(&self, path: &Path) {
        self.files.lock().unwrap().remove(path);
    }

    pub(crate) fn set_bytes(&self, path: &Path, bytes: &[u8]) {
        let file = MemoryFile { bytes: Mutex::new(bytes.to_vec()), ..MemoryFile::default() };
        self.files.lock().unwrap().insert(path.to_owned(), Arc::new(file));
    }
}

impl VfsLayer for MemoryFiles {
    fn below(&self) -> &dyn Vfs {
        &NoFs
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut files = self.files.lock().unwrap();
        if files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(MemoryFile::default());
        files.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        match self.files.lock().unwrap().get(path) {
            Some(file) => Ok(Arc::clone(file) as Arc<dyn VfsFile>),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open_read(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl VfsFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = self.bytes.lock().unwrap();
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let end = start + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(written);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(usize::try_from(bytes).unwrap(), 0);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _: u64, _: u64) {}

    fn advise(&self, _: Access) {}
}

/// An entry that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) key: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) kind: ValueKind,
    pub(crate) value: Vec<u8>,
}

impl Owned {
    pub(crate) fn put(key: impl AsRef<[u8]>, sequence: u64, value: impl AsRef<[u8]>) -> Self {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        Self { key, sequence, kind: ValueKind::Put, value }
    }

    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry { key: &self.key, sequence: self.sequence, kind: self.kind, value: &self.value }
    }
}

impl From<Entry<'_>> for Owned {
    fn from(entry: Entry<'_>) -> Self {
        Self {
            key: entry.key.to_vec(),
            sequence: entry.sequence,
            kind: entry.kind,
            value: entry.value.to_vec(),
        }
    }
}

pub(crate) fn path() -> PathBuf {
    PathBuf::from("1.sst")
}

/// Writes a table of `entries`, in order already.
pub(crate) fn write(fs: &MemoryFs, entries: &[Owned], options: &TableOptions) -> Result<TableMeta> {
    let mut writer = TableWriter::create(fs, &path(), ID, options)?;
    for entry in entries {
        writer.add(entry.entry())?;
    }
    writer.finish()
}

pub(crate) fn open(fs: &MemoryFs, cache: Option<Arc<BlockCache>>) -> Result<Arc<Table>> {
    Table::open(fs, &path(), cache, &TableOpen::default())
}

/// Bounds under which index and filter are in memory, and are not.
pub(crate) const PINNED_BYTES_MAX: [usize; 2] = [usize::MAX, 0];

/// Opens a table both ways.
pub(crate) fn open_both(fs: &MemoryFs, cache: Option<&Arc<BlockCache>>) -> Result<[Arc<Table>; 2]> {
    let open = |pinned_bytes_max| {
        let how = TableOpen { pinned_bytes_max, ..TableOpen::default() };
        Table::open(fs, &path(), cache.map(Arc::clone), &how)
    };
    let tables = [open(PINNED_BYTES_MAX[0])?, open(PINNED_BYTES_MAX[1])?];
    assert_eq!(tables.each_ref().map(|table| table.is_pinned()), [true, false]);
    Ok(tables)
}
