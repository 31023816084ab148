//! The file cache (RocksDB: table cache): keeps a bounded number of table files open. A read of a closed file opens it
//! again.
//!
//! A table lives as long as a version or a reader holds it; its file need not be open all that time. The clock
//! algorithm picks the file to close: a hand goes round and takes the first file that no read used since the hand
//! passed it last. Reopening by name finds the same file, because no file is unlinked while its table is held. If
//! another file took the name anyway, the block checksums would fail, since they are seeded with the id of the table.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use lsm_core::Error;
use lsm_core::vfs::{Access, Vfs, VfsFile, is_too_many_open_files};
use parking_lot::Mutex;

use crate::metrics::Counter;

/// Tables get one part in `LIMIT_PART` of the files that the process may have open. The rest is for the log, for tables
/// being written, and for the rest of the process.
const LIMIT_PART: u64 = 2;

/// Tables get at least this many files, whatever the limit: enough for a few reading threads.
const COUNT_MIN: usize = 8;

/// A cache with this many files or fewer closes none: something else uses up the descriptors.
const KEPT_COUNT_MIN: usize = 32;

/// Memory of one table's handle, whether its file is open or not.
pub(crate) const HANDLE_BYTES: usize = size_of::<TableHandle>() + size_of::<Handle>();

/// The open files of all tables of a database.
pub(crate) struct FileCache {
    vfs: Arc<dyn Vfs>,
    clock: Mutex<Clock>,
    /// Number of times that a file was opened.
    pub(crate) opened: Counter,
}

/// A file that may be open, and whether it was read since the hand passed.
struct Handle {
    file: ArcSwapOption<Arc<dyn VfsFile>>,
    was_read: AtomicBool,
    /// Its index in the clock, if it is there. The lock of the clock protects it.
    place: AtomicUsize,
}

/// The handles whose files are open or being opened.
struct Clock {
    count_max: usize,
    handles: Vec<Arc<Handle>>,
    hand: usize,
}

/// A file to close. Drop it after the lock of the clock is released.
type Closing = Option<Arc<Arc<dyn VfsFile>>>;

impl FileCache {
    /// Keeps at most `count_max` files open; without it, a part of what the process may have open.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, count_max: Option<usize>) -> Arc<Self> {
        let count_max = count_max.unwrap_or_else(|| {
            let limit = vfs.raise_open_files_limit().map(|limit| limit / LIMIT_PART);
            limit.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)).max(COUNT_MIN)
        });
        let clock = Clock { count_max, handles: Vec::new(), hand: 0 };
        Arc::new(Self { vfs, clock: Mutex::new(clock), opened: Counter::default() })
    }

    /// Opens the file of a table for reading. The cache may close it and opens it again when it is read.
    pub(crate) fn open(self: &Arc<Self>, path: &Arc<PathBuf>) -> io::Result<Arc<dyn VfsFile>> {
        let handle = Handle {
            file: ArcSwapOption::empty(),
            was_read: AtomicBool::new(false),
            place: AtomicUsize::new(0),
        };
        let file = TableHandle {
            files: Arc::clone(self),
            path: Arc::clone(path),
            handle: Arc::new(handle),
            access: Mutex::new(None),
        };
        file.reopen()?;
        Ok(Arc::new(file))
    }

    /// Number of open files.
    pub(crate) fn count(&self) -> usize {
        self.clock.lock().handles.len()
    }

    /// Limit of open files.
    pub(crate) fn count_max(&self) -> usize {
        self.clock.lock().count_max
    }

    /// Closes files and lowers the limit if `error` says that descriptors ran out.
    pub(crate) fn close_some_after(&self, error: &Error) {
        if matches!(error, Error::Io { source, .. } if is_too_many_open_files(source)) {
            self.close_some();
        }
    }

    /// Closes a quarter of the files and lowers the limit, because something else needs descriptors.
    fn close_some(&self) {
        let closing: Vec<Closing> = {
            let mut clock = self.clock.lock();
            let count = clock.handles.len();
            if count <= KEPT_COUNT_MIN {
                return;
            }
            clock.count_max = (count - count / 4).max(KEPT_COUNT_MIN);
            let over = count.saturating_sub(clock.count_max);
            (0..over).map(|_| clock.leave_at_hand()).collect()
        };
        drop(closing);
    }

    /// Opens a file. Closes other files if the process has run out of descriptors.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        loop {
            let before = self.count();
            match self.vfs.open_read(path) {
                Err(error) if is_too_many_open_files(&error) => {
                    self.close_some();
                    if self.count() >= before {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }
}

impl Clock {
    /// Adds a handle that is about to be opened. Returns the file that must be closed for it.
    fn enter(&mut self, handle: &Arc<Handle>) -> Closing {
        // The opening is for a read.
        handle.was_read.store(true, Ordering::Relaxed);
        if self.handles.len() < self.count_max {
            handle.place.store(self.handles.len(), Ordering::Relaxed);
            self.handles.push(Arc::clone(handle));
            return None;
        }
        let place = self.place_at_hand();
        handle.place.store(place, Ordering::Relaxed);
        self.hand = place + 1;
        let left = std::mem::replace(&mut self.handles[place], Arc::clone(handle));
        left.file.swap(None)
    }

    fn holds(&self, handle: &Arc<Handle>) -> bool {
        let there = self.handles.get(handle.place.load(Ordering::Relaxed));
        there.is_some_and(|there| Arc::ptr_eq(there, handle))
    }

    /// Removes a handle, if it is there, and returns its file to close.
    fn leave(&mut self, handle: &Arc<Handle>) -> Closing {
        if !self.holds(handle) {
            return None;
        }
        let place = handle.place.load(Ordering::Relaxed);
        self.handles.swap_remove(place);
        if let Some(moved) = self.handles.get(place) {
            moved.place.store(place, Ordering::Relaxed);
        }
        handle.file.swap(None)
    }

    fn leave_at_hand(&mut self) -> Closing {
        let place = self.place_at_hand();
        let handle = Arc::clone(self.handles.get(place)?);
        self.leave(&handle)
    }

    /// The index of the handle to remove next.
    fn place_at_hand(&mut self) -> usize {
        // One round clears all marks. Two rounds are enough in most cases; readers may set marks again meanwhile.
        for _ in 0..2 * self.handles.len() {
            if self.hand >= self.handles.len() {
                self.hand = 0;
            }
            if !self.handles[self.hand].was_read.swap(false, Ordering::Relaxed) {
                break;
            }
            self.hand += 1;
        }
        if self.hand < self.handles.len() { self.hand } else { 0 }
    }
}

/// The file of a table, open or not.
struct TableHandle {
    files: Arc<FileCache>,
    path: Arc<PathBuf>,
    handle: Arc<Handle>,
    /// The access hint to give at each opening. Locked while the file is being opened.
    access: Mutex<Option<Access>>,
}

impl TableHandle {
    /// Calls `call` with the file. The file stays open during the call.
    #[inline]
    fn with<R>(&self, call: impl FnOnce(&dyn VfsFile) -> io::Result<R>) -> io::Result<R> {
        let file = self.handle.file.load();
        let Some(file) = &*file else { return call(&**self.reopen()?) };
        // Load before the store: threads that read the same file would otherwise fight for the cache line.
        if !self.handle.was_read.load(Ordering::Relaxed) {
            self.handle.was_read.store(true, Ordering::Relaxed);
        }
        call(&***file)
    }

    #[cold]
    fn reopen(&self) -> io::Result<Arc<Arc<dyn VfsFile>>> {
        let access = self.access.lock();
        if let Some(file) = self.handle.file.load_full() {
            return Ok(file);
        }
        let closing = self.files.clock.lock().enter(&self.handle);
        drop(closing);
        let file = self.files.open_read(&self.path).inspect_err(|_| self.leave())?;
        self.files.opened.add(1);
        if let Some(access) = *access {
            file.advise(access);
        }
        let file = Arc::new(file);
        let clock = self.files.clock.lock();
        // The clock may have removed the handle meanwhile. Then only this call uses the file.
        if clock.holds(&self.handle) {
            self.handle.file.store(Some(Arc::clone(&file)));
        }
        Ok(file)
    }

    fn leave(&self) {
        let closing = self.files.clock.lock().leave(&self.handle);
        drop(closing);
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        self.leave();
    }
}

impl VfsFile for TableHandle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|file| file.read_at(buffer, offset))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|file| file.read_exact_at(buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|file| file.write_at(bytes, offset))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.with(|file| file.set_len(bytes))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.with(|file| file.allocate(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|file| file.sync_data())
    }

    fn start_writeback(&self, _offset: u64, _bytes: u64) {
        // Table files are open for reading only.
    }

    fn advise(&self, access: Access) {
        *self.access.lock() = Some(access);
        if let Some(file) = &*self.handle.file.load() {
            file.advise(access);
        }
    }
}
