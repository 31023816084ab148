//! An environment and a file system that call a test back: whenever a caller waits, and before a file is synced.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lsm_engine::env::{Env, Event, Job, Priority, SimEnv};
use lsm_engine::vfs::{Access, LockGuard, LockMode, Metadata, Vfs, VfsFile, Window};

/// What a test wants to be called with; `None` while it does not.
pub(crate) type Hook<T> = Arc<Mutex<Option<Box<dyn FnMut(T) + Send>>>>;

/// A simulated environment that calls its hook whenever a caller begins to wait.
pub(crate) struct Observed {
    pub(crate) env: Arc<SimEnv>,
    pub(crate) hook: Hook<()>,
}

impl Env for Observed {
    fn monotonic_micros(&self) -> u64 {
        self.env.monotonic_micros()
    }

    fn unix_micros(&self) -> u64 {
        self.env.unix_micros()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        self.env.spawn(priority, job);
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        // A millisecond passes at each wait, so that its time is there to be counted.
        if let Some(hook) = &mut *self.hook.lock().unwrap() {
            self.env.advance(1_000);
            hook(());
        }
        self.env.wait(event, seen, deadline_micros)
    }
}

/// A file system that calls its hook with the path of a file before it is synced.
pub(crate) struct Synced<V> {
    pub(crate) vfs: V,
    pub(crate) hook: Hook<PathBuf>,
}

struct SyncedFile(Arc<dyn VfsFile>, PathBuf, Hook<PathBuf>);

impl<V: Vfs> Synced<V> {
    fn file(&self, path: &Path, file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(SyncedFile(file, path.to_owned(), Arc::clone(&self.hook)))
    }
}

impl VfsFile for SyncedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Taken out: it is for one sync, and may itself sync.
        let hook = self.2.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(self.1.clone());
        }
        self.0.sync_data()
    }

    fn start_writeback(&self, offset: u64, bytes: u64) {
        self.0.start_writeback(offset, bytes);
    }

    fn advise(&self, access: Access) {
        self.0.advise(access);
    }
}

impl<V: Vfs> Vfs for Synced<V> {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.file(path, self.vfs.create_new(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.vfs.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.file(path, self.vfs.open_write(path)?))
    }

    fn window(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn Window>> {
        self.vfs.window(path, bytes)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.vfs.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.vfs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.vfs.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.vfs.remove_dir(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.vfs.hard_link(from, to)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.vfs.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.vfs.metadata(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.vfs.sync_dir(path)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        self.vfs.lock(path, mode)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.vfs.free_bytes(path)
    }
}
