//! Any sequence of calls gives the same results on `SimFs` and on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::vfs::{LockGuard, LockMode, Metadata, PosixFs, SimFs, Vfs, VfsFile, Window};
use proptest::prelude::*;

/// Locks are taken by name on the disk and by file in the simulator: only a lock file that stays is alike.
const LOCK: &str = "LOCK";
const PATHS: [&str; 7] = ["a", "b", "c", "d", "d/a", "d/b", "a/x"];

#[derive(Clone, Debug)]
enum Call {
    Create(usize),
    OpenRead(usize),
    OpenWrite(usize),
    Window(usize, u64),
    CreateDir(usize),
    Rename(usize, usize),
    Remove(usize),
    RemoveDir(usize),
    Link(usize, usize),
    ReadDir(usize),
    Metadata(usize),
    SyncDir(usize),
    Lock(LockMode),
    Unlock,
    Close(usize),
    Read { file: usize, offset: u64, count: usize },
    Write { file: usize, offset: u64, count: usize, byte: u8 },
    SetLen(usize, u64),
    Allocate(usize, u64),
    Sync(usize),
    WriteWindow { offset: usize, count: usize, byte: u8 },
    Publish { word: usize, value: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    let path = || 0..PATHS.len();
    let file = || 0..8_usize;
    let offset = || prop_oneof![0..600_u64, 4000..4200_u64, 0..20_000_u64];
    prop_oneof![
        3 => path().prop_map(Call::Create),
        1 => path().prop_map(Call::OpenRead),
        2 => path().prop_map(Call::OpenWrite),
        1 => (path(), 1..10_000_u64).prop_map(|(path, bytes)| Call::Window(path, bytes)),
        1 => path().prop_map(Call::CreateDir),
        2 => (path(), path()).prop_map(|(from, to)| Call::Rename(from, to)),
        2 => path().prop_map(Call::Remove),
        1 => path().prop_map(Call::RemoveDir),
        1 => (path(), path()).prop_map(|(from, to)| Call::Link(from, to)),
        1 => path().prop_map(Call::ReadDir),
        1 => path().prop_map(Call::Metadata),
        1 => path().prop_map(Call::SyncDir),
        1 => Just(Call::Lock(LockMode::Exclusive)),
        2 => Just(Call::Lock(LockMode::Shared)),
        1 => Just(Call::Unlock),
        1 => file().prop_map(Call::Close),
        4 => (file(), offset(), 0..5000_usize)
            .prop_map(|(file, offset, count)| Call::Read { file, offset, count }),
        6 => (file(), offset(), 0..5000_usize, any::<u8>())
            .prop_map(|(file, offset, count, byte)| Call::Write { file, offset, count, byte }),
        2 => (file(), offset()).prop_map(|(file, bytes)| Call::SetLen(file, bytes)),
        1 => (file(), offset()).prop_map(|(file, bytes)| Call::Allocate(file, bytes + 1)),
        2 => file().prop_map(Call::Sync),
        2 => (0..10_000_usize, 0..200_usize, any::<u8>())
            .prop_map(|(offset, count, byte)| Call::WriteWindow { offset, count, byte }),
        1 => (0..1250_usize, any::<u64>()).prop_map(|(word, value)| Call::Publish { word, value }),
    ]
}

/// What a caller sees of a call.
#[derive(Debug, PartialEq)]
enum Seen {
    Nothing,
    Bytes(Vec<u8>),
    Names(Vec<String>),
    Metadata(Metadata),
    Error(Option<io::ErrorKind>),
}

/// A process with open files.
struct Process<'v> {
    vfs: &'v dyn Vfs,
    root: PathBuf,
    files: Vec<Arc<dyn VfsFile>>,
    windows: Vec<Box<dyn Window>>,
    locks: Vec<Box<dyn LockGuard>>,
}

impl<'v> Process<'v> {
    fn new(vfs: &'v dyn Vfs, root: &Path) -> Self {
        Self { vfs, root: root.to_owned(), files: Vec::new(), windows: Vec::new(), locks: Vec::new() }
    }

    fn path(&self, index: usize) -> PathBuf {
        self.root.join(PATHS[index])
    }

    fn file(&self, index: usize) -> Option<&Arc<dyn VfsFile>> {
        self.files.get(index % self.files.len().max(1))
    }

    fn run(&mut self, call: &Call) -> Seen {
        use io::ErrorKind::{AlreadyExists, NotADirectory, NotFound, WouldBlock};
        self.call(call).unwrap_or_else(|error| {
            // Systems agree on these; for the rest an error is an error.
            let agreed = [AlreadyExists, NotADirectory, NotFound, WouldBlock].contains(&error.kind());
            Seen::Error(agreed.then_some(error.kind()))
        })
    }

    fn call(&mut self, call: &Call) -> io::Result<Seen> {
        match *call {
            Call::Create(path) => {
                let file = self.vfs.create_new(&self.path(path))?;
                self.files.push(file);
            }
            Call::OpenRead(path) => {
                let file = self.vfs.open_read(&self.path(path))?;
                self.files.push(file);
            }
            Call::OpenWrite(path) => {
                let file = self.vfs.open_write(&self.path(path))?;
                self.files.push(file);
            }
            Call::Window(path, bytes) => {
                let window = self.vfs.window(&self.path(path), bytes)?;
                self.windows.push(window);
            }
            Call::CreateDir(path) => self.vfs.create_dir(&self.path(path))?,
            Call::Rename(from, to) => self.vfs.rename(&self.path(from), &self.path(to))?,
            Call::Remove(path) => self.vfs.remove_file(&self.path(path))?,
            Call::RemoveDir(path) => self.vfs.remove_dir(&self.path(path))?,
            Call::Link(from, to) => self.vfs.hard_link(&self.path(from), &self.path(to))?,
            Call::ReadDir(path) => return self.vfs.read_dir(&self.path(path)).map(Seen::Names),
            Call::Metadata(path) => return self.vfs.metadata(&self.path(path)).map(Seen::Metadata),
            Call::SyncDir(path) => self.vfs.sync_dir(&self.path(path))?,
            Call::Lock(mode) => {
                let lock = self.vfs.lock(&self.root.join(LOCK), mode)?;
                self.locks.push(lock);
            }
            Call::Unlock => drop(self.locks.pop()),
            Call::Close(index) => {
                if !self.files.is_empty() {
                    self.files.remove(index % self.files.len());
                }
            }
            Call::WriteWindow { offset, count, byte } => {
                if let Some(window) = self.windows.last_mut() {
                    let offset = offset.min(window.len());
                    window.write_at(offset, &vec![byte; count.min(window.len() - offset)]);
                }
            }
            Call::Publish { word, value } => {
                if let Some(window) = self.windows.last_mut()
                    && word * 8 + 8 <= window.len()
                {
                    window.publish(word * 8, value);
                }
            }
            ref call => return self.call_file(call),
        }
        Ok(Seen::Nothing)
    }

    fn call_file(&self, call: &Call) -> io::Result<Seen> {
        let (Call::Read { file, .. }
        | Call::Write { file, .. }
        | Call::SetLen(file, _)
        | Call::Allocate(file, _)
        | Call::Sync(file)) = *call
        else {
            unreachable!("a call on a file")
        };
        let Some(file) = self.file(file) else { return Ok(Seen::Nothing) };
        match *call {
            Call::Read { offset, count, .. } => {
                let mut bytes = vec![0; count];
                let count = file.read_at(&mut bytes, offset)?;
                bytes.truncate(count);
                return Ok(Seen::Bytes(bytes));
            }
            Call::Write { offset, count, byte, .. } => {
                let bytes: Vec<u8> = (0..count).map(|index| byte.wrapping_add(index as u8)).collect();
                file.write_at(&bytes, offset)?;
            }
            // A cut file that is mapped kills a real process that stores beyond the end.
            Call::SetLen(_, bytes) if self.windows.is_empty() => file.set_len(bytes)?,
            Call::Allocate(_, bytes) => file.allocate(bytes)?,
            Call::Sync(_) => file.sync_data()?,
            _ => {}
        }
        Ok(Seen::Nothing)
    }
}

/// Whether the file system that tests run on is one that gives windows.
fn maps_windows() -> bool {
    let directory = tempfile::tempdir().unwrap();
    PosixFs.window(&directory.path().join("window"), 4096).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_is_answered_alike(calls in prop::collection::vec(call(), 1..60)) {
        let directory = tempfile::tempdir()?;
        let sim = SimFs::new();
        sim.set_windows(maps_windows());
        let mut real = Process::new(&PosixFs, directory.path());
        let mut simulated = Process::new(&sim, Path::new("/"));
        for (index, call) in calls.iter().enumerate() {
            prop_assert_eq!(simulated.run(call), real.run(call), "call {}: {:?}", index, call);
        }
        // A crash of the process shows no less than the process saw.
        let after = sim.process_crash();
        let mut survivor = Process::new(&after, Path::new("/"));
        let mut reader = Process::new(&PosixFs, directory.path());
        for path in 0..PATHS.len() {
            for call in [Call::Metadata(path), Call::OpenRead(path), Call::ReadDir(path)] {
                prop_assert_eq!(survivor.run(&call), reader.run(&call), "after the crash: {:?}", call);
            }
        }
        for file in 0..survivor.files.len() {
            let call = Call::Read { file, offset: 0, count: 40_000 };
            prop_assert_eq!(survivor.run(&call), reader.run(&call), "after the crash: {:?}", call);
        }
    }
}
