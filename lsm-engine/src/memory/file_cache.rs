//! The files of tables: as many stay open as may, and whoever reads another one opens it again.
//!
//! A table is there for as long as a version or a reader holds it; its file need not be open all that time. Which file
//! is closed for another one is decided by the clock algorithm: a hand goes round, and takes the first file that was not
//! read since it last came by. The name of a file leads to the same file for as long as anybody holds the table, since
//! nothing is unlinked before that. Should it lead elsewhere all the same, the checksums of what is read say so: they
//! know which table they belong to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use lsm_core::Error;
use lsm_core::vfs::{Access, Vfs, VfsFile, is_too_many_open_files};
use parking_lot::Mutex;

use crate::metrics::Counter;

/// Of the files that the process may have open, tables get this part; the rest is for the log, for tables that are being
/// written, and for whatever else the process does.
const LIMIT_PART: u64 = 2;

/// Tables get this many files whatever the limit says: those that a few threads read at once.
const COUNT_MIN: usize = 8;

/// Who holds no more than this makes no more way: the descriptors are elsewhere.
const KEPT_COUNT_MIN: usize = 32;

/// What a table's file takes of memory, open or not.
pub(crate) const HANDLE_BYTES: usize = size_of::<TableHandle>() + size_of::<Handle>();

/// The open files of all tables of a database.
pub(crate) struct FileCache {
    vfs: Arc<dyn Vfs>,
    clock: Mutex<Clock>,
    /// How often a file was opened.
    pub(crate) opened: Counter,
}

/// An open file, and whether it was read since the hand came by.
struct Handle {
    file: ArcSwapOption<Arc<dyn VfsFile>>,
    was_read: AtomicBool,
    /// Where it stands in the clock, if it does. Under the lock of the clock.
    place: AtomicUsize,
}

/// Handles that are open or being opened.
struct Clock {
    count_max: usize,
    handles: Vec<Arc<Handle>>,
    hand: usize,
}

/// What is to be closed, once no lock is held.
type Closing = Option<Arc<Arc<dyn VfsFile>>>;

impl FileCache {
    /// With `count_max`, so many stay open; without, as many as the file system allows for.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, count_max: Option<usize>) -> Arc<Self> {
        let count_max = count_max.unwrap_or_else(|| {
            let limit = vfs.raise_open_files_limit().map(|limit| limit / LIMIT_PART);
            limit.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)).max(COUNT_MIN)
        });
        let clock = Clock { count_max, handles: Vec::new(), hand: 0 };
        Arc::new(Self { vfs, clock: Mutex::new(clock), opened: Counter::default() })
    }

    /// Opens the file of a table for reading. It counts for as long as it is held, and is closed and opened again in
    /// between.
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

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.clock.lock().handles.len()
    }

    /// How many may be open.
    pub(crate) fn count_max(&self) -> usize {
        self.clock.lock().count_max
    }

    /// Gives way if that is what somebody else failed for.
    pub(crate) fn give_way_after(&self, error: &Error) {
        if matches!(error, Error::Io { source, .. } if is_too_many_open_files(source)) {
            self.give_way();
        }
    }

    /// Closes a quarter of the files, and has fewer open from now on: somebody else needs descriptors.
    fn give_way(&self) {
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

    /// Opens a file, closing others where the system has no more descriptors.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        loop {
            let before = self.count();
            match self.vfs.open_read(path) {
                Err(error) if is_too_many_open_files(&error) => {
                    self.give_way();
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
    /// Takes a handle in that is about to be opened; returns what must be closed for it.
    fn enter(&mut self, handle: &Arc<Handle>) -> Closing {
        // Reads come next.
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

    /// Takes a handle out, if it is there.
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

    /// Where the handle stands that is to go next.
    fn place_at_hand(&mut self) -> usize {
        // After one round all have been marked as not read; readers may mark them again meanwhile.
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
    /// What each opening is told, locked while the file is being opened.
    access: Mutex<Option<Access>>,
}

impl TableHandle {
    /// Calls with the file, which stays open meanwhile.
    #[inline]
    fn with<R>(&self, call: impl FnOnce(&dyn VfsFile) -> io::Result<R>) -> io::Result<R> {
        let file = self.handle.file.load();
        let Some(file) = &*file else { return call(&**self.reopen()?) };
        // Looked at first: what many threads read is written by one.
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
        // It may have had to make way while it was being opened: then this one call has it.
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
        // It is open for reading only.
    }

    fn advise(&self, access: Access) {
        *self.access.lock() = Some(access);
        if let Some(file) = &*self.handle.file.load() {
            file.advise(access);
        }
    }
}
