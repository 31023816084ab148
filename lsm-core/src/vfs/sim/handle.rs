//! The traits of the file system, on [`SimFs`].

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::content::{PAGE_BYTES, spans};
use super::directory::{DirectoryNode, InodeId};
use super::faults::{Failure, OperationKind};
use super::file::FileNode;
use super::file_system::{SimFs, State};
use super::tree::Node;
use crate::vfs::file::{Access, VfsFile};
use crate::vfs::file_system::{LockGuard, LockMode, Metadata, Vfs};
use crate::vfs::window::Window;

impl SimFs {
    /// Counts a call; the state is locked until it is done.
    fn enter(&self, kind: OperationKind, path: &Path) -> Result<MutexGuard<'_, State>, Failure> {
        self.enter_range(kind, path, 0, 0)
    }

    fn enter_range(
        &self,
        kind: OperationKind,
        path: &Path,
        offset: u64,
        bytes: u64,
    ) -> Result<MutexGuard<'_, State>, Failure> {
        let mut state = self.state.lock();
        state.faults.enter(kind, path, offset, bytes)?;
        Ok(state)
    }

    /// Counts a call that opens a file, and fails if too many are open.
    fn enter_opening(
        &self,
        kind: OperationKind,
        path: &Path,
        bytes: u64,
    ) -> io::Result<MutexGuard<'_, State>> {
        let state = self.enter_range(kind, path, 0, bytes)?;
        state.check_open_files()?;
        Ok(state)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.enter_opening(OperationKind::Open, path, 0)?;
        let id = state.tree.lookup(path)?;
        Ok(Arc::new(SimFile { handle: self.handle(&mut state, id, path)?, writable }))
    }

    fn handle(&self, state: &mut State, id: InodeId, path: &Path) -> io::Result<Handle> {
        state.tree.file_mut(id)?.handles += 1;
        state.open_files += 1;
        Ok(Handle { fs: self.clone(), id, path: path.to_owned(), is_open_file: true })
    }

    /// Mapped memory, for which no file stays open.
    fn mapping(&self, state: &mut State, id: InodeId, path: &Path) -> io::Result<Handle> {
        state.tree.file_mut(id)?.handles += 1;
        Ok(Handle { fs: self.clone(), id, path: path.to_owned(), is_open_file: false })
    }
}

impl Vfs for SimFs {
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.enter_opening(OperationKind::Create, path, 0)?;
        let id = state.tree.add(path, Node::File(FileNode::default()))?;
        Ok(Arc::new(SimFile { handle: self.handle(&mut state, id, path)?, writable: true }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open(path, false)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open(path, true)
    }

    fn window(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn Window>> {
        let mut state = self.enter_opening(OperationKind::CreateWindow, path, bytes)?;
        // In the order in which a real file system finds out.
        let (parent, name) = state.tree.parent(path)?;
        if state.tree.directory(parent)?.get(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::Unsupported)?;
        if len == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !state.windows {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = FileNode::zeros(bytes);
        if file.pages_used() > state.free_pages() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = state.tree.add(path, Node::File(file))?;
        Ok(Box::new(SimWindow { handle: self.mapping(&mut state, id, path)?, len }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter(OperationKind::CreateDir, path)?;
        if state.tree.lookup(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.tree.add(path, Node::Directory(DirectoryNode::default())).map(drop)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.enter(OperationKind::Rename, to)?.tree.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter(OperationKind::Remove, path)?;
        let (parent, name) = state.tree.parent(path)?;
        let id = state.tree.directory(parent)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.tree.file(id)?;
        state.tree.directory_mut(parent)?.remove(name, id);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter(OperationKind::RemoveDir, path)?;
        let (parent, name) = state.tree.parent(path)?;
        let id = state.tree.directory(parent)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        if state.tree.directory(id)?.entries().next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.tree.directory_mut(parent)?.remove(name, id);
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter(OperationKind::Link, to)?;
        let id = state.tree.lookup(from)?;
        let (parent, name) = state.tree.parent(to)?;
        if state.tree.directory(parent)?.get(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.tree.directory(id).is_ok() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.tree.directory_mut(parent)?.add(name, id);
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.enter(OperationKind::ReadDir, path)?;
        let directory = state.tree.directory(state.tree.lookup(path)?)?;
        Ok(directory.entries().map(|(name, _)| name.to_owned()).collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.enter(OperationKind::Metadata, path)?;
        let id = state.tree.lookup(path)?;
        let file = state.tree.file(id).ok();
        Ok(Metadata { len: file.map_or(0, |file| file.current.len), is_dir: file.is_none() })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter(OperationKind::SyncDir, path)?;
        let id = state.tree.lookup(path)?;
        state.tree.directory_mut(id)?.sync();
        state.tree.collect();
        Ok(())
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<Box<dyn LockGuard>> {
        let mut state = self.enter_opening(OperationKind::Lock, path, 0)?;
        let exclusive = mode == LockMode::Exclusive;
        let id = match state.tree.lookup(path) {
            Err(error) if exclusive && error.kind() == io::ErrorKind::NotFound => {
                state.tree.add(path, Node::File(FileNode::default()))?
            }
            found => found?,
        };
        match state.locked.get_mut(&id) {
            Some(readers) if !exclusive && *readers > 0 => *readers += 1,
            Some(_) => return Err(io::ErrorKind::WouldBlock.into()),
            None => {
                state.tree.file(id)?;
                state.locked.insert(id, usize::from(!exclusive));
            }
        }
        let handle = self.handle(&mut state, id, path)?;
        Ok(Box::new(SimLock { handle }))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.enter(OperationKind::Metadata, path)?;
        state.tree.lookup(path)?;
        Ok(state.free_pages() * PAGE_BYTES as u64)
    }

    /// What [`SimFs::set_open_files_max`] set: there is nothing to raise it to.
    fn raise_open_files_limit(&self) -> Option<u64> {
        self.state.lock().open_files_max.as_ref().map(|(count, _)| *count)
    }
}

/// An open file of any kind: keeps it alive when it has no name left.
struct Handle {
    fs: SimFs,
    id: InodeId,
    path: PathBuf,
    /// Whether it counts as one.
    is_open_file: bool,
}

impl Handle {
    fn enter(&self, kind: OperationKind, offset: u64, bytes: u64) -> Result<MutexGuard<'_, State>, Failure> {
        self.fs.enter_range(kind, &self.path, offset, bytes)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.fs.state.lock();
        state.open_files -= u64::from(self.is_open_file);
        if let Ok(file) = state.tree.file_mut(self.id) {
            file.handles -= 1;
        }
    }
}

struct SimFile {
    handle: Handle,
    writable: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// Files cannot be longer.
const LEN_MAX: u64 = i64::MAX as u64;

fn check_len(bytes: u64) -> io::Result<()> {
    if bytes > LEN_MAX { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
}

impl VfsFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.handle.enter(OperationKind::Read, offset, buffer.len() as u64)?;
        let mut count = buffer.len();
        if let Some(chance) = &mut state.short_reads
            && count > 1
        {
            count = 1 + chance.draw(count);
        }
        Ok(state.tree.file(self.handle.id)?.current.read_at(&mut buffer[..count], offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        check_len(offset.saturating_add(bytes.len() as u64))?;
        let (mut state, mut count, mut result) =
            match self.handle.enter(OperationKind::Write, offset, bytes.len() as u64) {
                Ok(state) => (state, bytes.len(), Ok(())),
                Err(failure) => {
                    let count =
                        usize::try_from(failure.written).map_or(bytes.len(), |count| count.min(bytes.len()));
                    (self.handle.fs.state.lock(), count, Err(failure.error))
                }
            };
        if state.capacity_bytes.is_some() {
            let mut free = state.free_pages();
            let file = state.tree.file(self.handle.id)?;
            for span in spans(offset, count) {
                let missing = file.pages_missing(span.page, span.page + 1);
                if missing > free {
                    count = span.from;
                    result = Err(io::ErrorKind::StorageFull.into());
                    break;
                }
                free -= missing;
            }
        }
        state.tree.file_mut(self.handle.id)?.write(&bytes[..count], offset);
        result
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.handle.enter(OperationKind::Metadata, 0, 0)?;
        Ok(state.tree.file(self.handle.id)?.current.len)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        check_len(bytes)?;
        self.handle.enter(OperationKind::SetLen, 0, bytes)?.tree.file_mut(self.handle.id)?.set_len(bytes);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        check_len(bytes)?;
        let mut state = self.handle.enter(OperationKind::Allocate, 0, bytes)?;
        let free = state.free_pages();
        let file = state.tree.file_mut(self.handle.id)?;
        if file.pages_missing(0, bytes.div_ceil(PAGE_BYTES as u64)) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.allocate(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.handle.enter(OperationKind::Sync, 0, 0) {
            Ok(mut state) => {
                state.tree.file_mut(self.handle.id)?.sync();
                Ok(())
            }
            Err(failure) => {
                if !failure.dead {
                    self.handle.fs.state.lock().tree.file_mut(self.handle.id)?.fail_sync();
                }
                Err(failure.error)
            }
        }
    }

    fn start_writeback(&self, _offset: u64, _bytes: u64) {}

    fn advise(&self, _access: Access) {}
}

struct SimWindow {
    handle: Handle,
    len: usize,
}

impl SimWindow {
    /// Writes as much as the process lives to write, if all or nothing, all or nothing.
    fn write(&mut self, offset: usize, bytes: &[u8], atomic: bool) {
        assert!(offset <= self.len && bytes.len() <= self.len - offset, "range out of bounds");
        let count = match self.handle.enter(OperationKind::WriteWindow, offset as u64, bytes.len() as u64) {
            Ok(_) => bytes.len(),
            Err(failure) => {
                let count =
                    usize::try_from(failure.written).map_or(bytes.len(), |count| count.min(bytes.len()));
                if atomic && count < bytes.len() { 0 } else { count }
            }
        };
        if count > 0
            && let Ok(file) = self.handle.fs.state.lock().tree.file_mut(self.handle.id)
        {
            file.write(&bytes[..count], offset as u64);
        }
    }
}

impl Window for SimWindow {
    fn len(&self) -> usize {
        self.len
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        self.write(offset, bytes, false);
    }

    fn publish(&mut self, offset: usize, value: u64) {
        assert!(offset.is_multiple_of(8), "offset must be a multiple of 8");
        self.write(offset, &value.to_le_bytes(), true);
    }

    fn write_to(&self, range: Range<usize>, file: &dyn VfsFile, offset: u64) -> io::Result<()> {
        assert!(range.start <= range.end && range.end <= self.len, "range out of bounds");
        let mut bytes = vec![0; range.len()];
        self.handle
            .fs
            .state
            .lock()
            .tree
            .file(self.handle.id)?
            .current
            .read_at(&mut bytes, range.start as u64);
        file.write_at(&bytes, offset)
    }
}

struct SimLock {
    handle: Handle,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.handle.fs.state.lock();
        match state.locked.get_mut(&self.handle.id) {
            Some(readers) if *readers > 1 => *readers -= 1,
            _ => drop(state.locked.remove(&self.handle.id)),
        }
    }
}
