//! The simulated file system: its state, its limits, and what crashes leave of it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::{Content, PAGE_BYTES};
use super::crash::{Choice, Seeded};
use super::directory::InodeId;
use super::faults::{Fault, Faults, InjectedFault, Operation};
use super::file::FileNode;
use super::tree::{Node, Tree};
use crate::vfs::platform::TOO_MANY_OPEN_FILES;

/// Free space of a disk that was given no capacity: an exbibyte.
const BOUNDLESS_BYTES: u64 = 1 << 60;

/// A file system in memory, for tests, that knows what a disk would keep. Clones are the same file system.
///
/// It starts with an empty root directory, which `/` and the empty path name; there is no working directory, so
/// that `/a` and `a` are the same file.
///
/// # The model
///
/// - A write goes to the page cache, where every process sees it. [`sync_data`](crate::vfs::VfsFile::sync_data)
///   puts a file's pages and length on the disk, [`sync_dir`](crate::vfs::Vfs::sync_dir) a directory's names, and
///   nothing else does: syncing a file does not make its name durable.
/// - [`process_crash`](SimFs::process_crash) keeps the page cache and releases locks.
/// - [`power_cut`](SimFs::power_cut) loses the page cache. Of what was not synced, each
///   [`Piece`](super::Piece) has a [`Fate`](super::Fate) of its own that a [`Choice`] decides: each sector of 512 bytes
///   has any of the states that it went through, each file any of its lengths, each change of names took place or not. A sector is never half written, and of two
///   writes to one sector the later never survives without the earlier. A renamed file may have both names.
/// - [`Window`](crate::vfs::Window)s are memory that is mapped: files that nobody syncs.
/// - After a failed sync the pages count as clean but are not durable, as on ext4: reads see the new bytes, and
///   another sync does not help, until the page is written to again. Names are kept by a journal: they stay
///   pending.
///
/// # Exhaustive crashing
///
/// Run a workload once to learn how many operations change the state, then once for each of them with
/// [`crash_at`](SimFs::crash_at), and let the program recover from every image of what was left:
///
/// ```
/// use lsm_core::vfs::{SimFs, Vfs};
/// use std::{io, path::Path};
///
/// fn save(fs: &SimFs, text: &[u8]) -> io::Result<()> {
///     let file = fs.create_new(Path::new("new"))?;
///     file.write_at(text, 0)?;
///     file.sync_data()?; // leave this out, and the loop below finds an empty file
///     fs.rename(Path::new("new"), Path::new("saved"))?;
///     fs.sync_dir(Path::new("/"))
/// }
///
/// let fs = SimFs::new();
/// save(&fs, b"text")?;
/// for operation in 0..fs.operations() {
///     let fs = SimFs::new();
///     fs.crash_at(operation);
///     assert!(save(&fs, b"text").is_err());
///     for image in fs.crash_images() {
///         let saved = image.fs.read_all(Path::new("saved"));
///         assert!(saved.is_err() || saved? == b"text", "{}", image.description);
///     }
/// }
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimFs {
    pub(super) state: Arc<Mutex<State>>,
}

pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) faults: Faults,
    /// How many share the lock on a file; 0 if one has it for itself.
    pub(super) locked: BTreeMap<InodeId, usize>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) windows: bool,
    pub(super) short_reads: Option<Seeded>,
    /// Files and locks that are open. A window is memory, and takes no descriptor.
    pub(super) open_files: u64,
    pub(super) open_files_max: Option<(u64, InjectedFault)>,
}

impl State {
    /// The same disk in a machine or process that has just started.
    pub(super) fn restarted(&self, tree: Tree) -> SimFs {
        SimFs::with_state(Self {
            tree,
            faults: Faults::default(),
            locked: BTreeMap::new(),
            capacity_bytes: self.capacity_bytes,
            windows: self.windows,
            short_reads: None,
            open_files: 0,
            open_files_max: self.open_files_max.clone(),
        })
    }

    /// Fails if no further file can be opened.
    pub(super) fn check_open_files(&self) -> io::Result<()> {
        match &self.open_files_max {
            Some((max, refused)) if self.open_files >= *max => {
                refused.fire();
                Err(TOO_MANY_OPEN_FILES.first().map_or_else(
                    || io::Error::other("too many open files"),
                    |&code| io::Error::from_raw_os_error(code),
                ))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn free_pages(&self) -> u64 {
        let capacity = self.capacity_bytes.unwrap_or(BOUNDLESS_BYTES) / PAGE_BYTES as u64;
        capacity.saturating_sub(self.tree.pages_used())
    }
}

impl SimFs {
    /// An empty file system without faults or limits.
    pub fn new() -> Self {
        Self::with_state(State {
            tree: Tree::new(),
            faults: Faults::default(),
            locked: BTreeMap::new(),
            capacity_bytes: None,
            windows: true,
            short_reads: None,
            open_files: 0,
            open_files_max: None,
        })
    }

    fn with_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many calls so far could have changed the state, those that failed included; see
    /// [`OperationKind::changes_state`](super::OperationKind::changes_state).
    pub fn operations(&self) -> u64 {
        self.state.lock().faults.operations
    }

    /// The last call that could have changed the state, for the message of a failed test.
    pub fn last_operation(&self) -> Option<Operation> {
        self.state.lock().faults.last.clone()
    }

    /// Kills the process at the state-changing operation with this number, counted from 0: it does not take
    /// place, and from then on every call fails. Writes to windows, which cannot fail, are ignored.
    pub fn crash_at(&self, operation: u64) {
        self.crash_within(operation, 0);
    }

    /// Like [`crash_at`](SimFs::crash_at), in the middle of the operation: if it is a write, its first `bytes`
    /// bytes take place.
    pub fn crash_within(&self, operation: u64, bytes: u64) {
        self.state.lock().faults.crash_at = Some((operation, bytes));
    }

    /// Whether the process has been killed.
    pub fn crashed(&self) -> bool {
        self.state.lock().faults.crashed
    }

    /// What the next process finds: everything that was written, synced or not, and no locks. Faults and counts
    /// start anew. This file system is left as it is.
    #[must_use]
    pub fn process_crash(&self) -> Self {
        let state = self.state.lock();
        state.restarted(state.tree.after_process_crash())
    }

    /// What the next boot finds when the power is cut now. This file system is left as it is.
    #[must_use]
    pub fn power_cut(&self, choice: &mut dyn Choice) -> Self {
        let state = self.state.lock();
        state.restarted(state.tree.after_power_cut(choice))
    }

    /// Adds a failure to come; several may wait at once, and the first that fits a call strikes. What is returned
    /// tells whether it did.
    pub fn inject(&self, fault: Fault) -> InjectedFault {
        self.state.lock().faults.inject(fault)
    }

    /// Heals the disk: no injected failure strikes any more.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Limits the disk to so many bytes, in blocks of 4096; `None` for no limit. Calls that need more fail with
    /// `StorageFull`. Names need no space.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Limits how many files may be open at once, locks included; `None` for no limit. Calls that would open one more
    /// fail as on a system that has run out of file descriptors. A file stays open until its last handle is dropped. What
    /// is returned counts the calls that this limit makes fail.
    pub fn set_open_files_max(&self, count: Option<u64>) -> InjectedFault {
        let refused = InjectedFault::default();
        self.state.lock().open_files_max = count.map(|count| (count, refused.clone()));
        refused
    }

    /// How many files are open, locks included.
    pub fn open_files(&self) -> u64 {
        self.state.lock().open_files
    }

    /// Whether [`Vfs::window`](crate::vfs::Vfs::window) works; it does at first.
    pub fn set_windows(&self, supported: bool) {
        self.state.lock().windows = supported;
    }

    /// Lets [`read_at`](crate::vfs::VfsFile::read_at) return less than there is, by chance drawn from the seed, but
    /// never nothing.
    pub fn set_short_reads(&self, seed: Option<u64>) {
        self.state.lock().short_reads = seed.map(Seeded::new);
    }

    /// Every path of a file, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().tree.paths().into_iter().map(|(path, _)| path).collect()
    }

    /// All bytes of a file, past all faults and counts.
    pub fn read_all(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        Ok(state.tree.file(state.tree.lookup(path)?)?.current.to_vec())
    }

    /// Puts a file on the disk with its name, durable at once, past all faults and counts; replaces what a file
    /// of that name held.
    pub fn write_all(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let (parent, name) = state.tree.parent(path)?;
        let known = state.tree.directory(parent)?.get(name);
        let id = known.unwrap_or_else(|| state.tree.insert(Node::File(FileNode::default())));
        state.tree.file_mut(id)?.overwrite(Content::from_bytes(bytes));
        state.tree.directory_mut(parent)?.plant(name, id);
        Ok(())
    }

    /// Inverts the bits of `mask` in the byte at `offset`, on the disk and in the page cache, past all faults and
    /// counts. `InvalidInput` if the file is not so long.
    pub fn corrupt(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.tree.lookup(path)?;
        state.tree.file_mut(id)?.corrupt(offset, mask)
    }

    /// Cuts or extends a file on the disk, past all faults and counts.
    pub fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.tree.lookup(path)?;
        let file = state.tree.file_mut(id)?;
        let mut content = file.current.clone();
        content.set_len(bytes);
        file.overwrite(content);
        Ok(())
    }

    /// A number that is the same for file systems that look the same to a process.
    pub fn fingerprint(&self) -> u64 {
        self.state.lock().tree.fingerprint()
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimFs {
    /// Files with their lengths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let files = state.tree.paths().into_iter().map(|(path, id)| {
            let len = state.tree.file(id).map_or(0, |file| file.current.len);
            (path, len)
        });
        f.debug_map().entries(files).finish()
    }
}
