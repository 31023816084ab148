use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{Access, LockGuard, LockMode, Metadata, Vfs, VfsFile, Window};

use crate::env::Hook;
use crate::layer::Layer;

/// A file system over another one. Each method does what the one below does, until a type changes it.
#[expect(missing_docs, reason = "the methods are those of `Vfs`")]
pub trait VfsLayer: Send + Sync {
    /// The file system below.
    fn below(&self) -> &dyn Vfs;

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.below().create_new(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.below().open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.below().open_write(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.below().sync_dir(path)
    }
}

impl<L: VfsLayer> Vfs for Layer<L> {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.0.create_new(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.0.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.0.open_write(path)
    }

    fn window(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn Window>> {
        self.0.below().window(path, bytes)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.below().create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.below().remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.below().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.below().remove_file(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.below().hard_link(from, to)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.below().read_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.0.below().metadata(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        self.0.below().lock(path, mode)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.below().free_bytes(path)
    }

    fn raise_open_files_limit(&self) -> Option<u64> {
        self.0.below().raise_open_files_limit()
    }
}

/// A file over another one.
#[expect(missing_docs, reason = "the methods are those of `VfsFile`")]
pub trait FileLayer: Send + Sync {
    /// The file below.
    fn below(&self) -> &dyn VfsFile;

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.below().read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.below().write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.below().sync_data()
    }
}

impl<L: FileLayer> VfsFile for Layer<L> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.below().len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.below().set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.below().allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self, offset: u64, bytes: u64) {
        self.0.below().start_writeback(offset, bytes);
    }

    fn advise(&self, access: Access) {
        self.0.below().advise(access);
    }
}

/// A file system that calls its hook with the path of a file before it is synced.
pub struct Synced<V> {
    /// The file system below.
    pub vfs: V,
    /// What is called; taken out by the call, which may itself sync.
    pub hook: Hook<PathBuf>,
}

struct SyncedFile(Arc<dyn VfsFile>, PathBuf, Hook<PathBuf>);

impl<V: Vfs> Synced<V> {
    fn file(&self, path: &Path, file: Arc<dyn VfsFile>) -> Arc<dyn VfsFile> {
        Arc::new(Layer(SyncedFile(file, path.to_owned(), Arc::clone(&self.hook))))
    }
}

impl FileLayer for SyncedFile {
    fn below(&self) -> &dyn VfsFile {
        &*self.0
    }

    fn sync_data(&self) -> io::Result<()> {
        let hook = self.2.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(self.1.clone());
        }
        self.0.sync_data()
    }
}

impl<V: Vfs> VfsLayer for Synced<V> {
    fn below(&self) -> &dyn Vfs {
        &self.vfs
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.file(path, self.vfs.create_new(path)?))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(self.file(path, self.vfs.open_write(path)?))
    }
}

/// A file system that can do nothing: what is below one that can do a little.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFs;

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Vfs for NoFs {
    fn create_new(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        unsupported()
    }

    fn open_read(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        unsupported()
    }

    fn open_write(&self, _: &Path) -> io::Result<Arc<dyn VfsFile>> {
        unsupported()
    }

    fn window(&self, _: &Path, _: u64) -> io::Result<Box<dyn Window>> {
        unsupported()
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn read_dir(&self, _: &Path) -> io::Result<Vec<String>> {
        unsupported()
    }

    fn metadata(&self, _: &Path) -> io::Result<Metadata> {
        unsupported()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn lock(&self, _: &Path, _: LockMode) -> io::Result<Box<dyn LockGuard>> {
        unsupported()
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        unsupported()
    }
}
