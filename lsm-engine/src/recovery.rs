//! Opening: the manifest, the tables, what the log holds beyond them, and a fresh start on new files.
//!
//! Nothing is removed before everything that the manifest names was found, what was replayed is in new, durable
//! tables, and a new manifest says so. A crash on the way leaves a database that opens as if nothing had happened.

use std::collections::BTreeMap;
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::env::Env;
use lsm_core::vfs::{LockGuard, LockMode, Vfs};
use lsm_core::{SequenceNumber, ValueKind};
use lsm_sstable::{BlockCache, Table, TableExpectation};
use lsm_wal::{Dropped, Position, RecoveryReport, Wal, WalOptions, WalReader};

use crate::batch::Operations;
use crate::catalog::{DEFAULT_NAME, new_tree, policy_mismatch};
use crate::commit::{Committer, Writer};
use crate::compaction::Scheduler;
use crate::files::{self, FileKind};
use crate::flush::flush_replayed;
use crate::inner::{Inner, WriteSide};
use crate::options::{KeyspaceOptions, Options, SharedParts};
use crate::tree::{State, Tree};
use crate::version::current::Current;
use crate::version::edit::{AddedTable, KeyspaceRecord, LogStart, VersionEdit};
use crate::version::manifest::{KeyspaceState, Manifest, ManifestState};
use crate::version::{Janitor, Placement, TableFile, Version};
use crate::{Error, Result};

/// What opening a database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The database was created.
    pub created: bool,
    /// It had been closed cleanly.
    pub was_clean: bool,
    /// Log records that were replayed.
    pub records: u64,
    /// Writes in them that were not in tables yet.
    pub operations: u64,
    /// Bytes at the end of the log that were no whole record: promised to nobody, and left out.
    pub bytes_dropped: u64,
    /// Where those bytes stood, and why they were left out.
    pub dropped: Vec<String>,
    /// Log segments that hold such bytes, under the names that they were given so that nobody takes them for a part of
    /// the log or removes them. None if the database was opened read-only.
    pub set_aside: Vec<PathBuf>,
}

/// The trees of a database on their way to being open.
struct Replay {
    trees: BTreeMap<u32, Arc<Tree>>,
    writers: BTreeMap<u32, Writer>,
    /// Keyspaces and up to where their writes are in tables.
    flushed: BTreeMap<u32, SequenceNumber>,
    /// Tables of keyspaces that the log clears.
    cleared: Vec<(u32, u64, SequenceNumber)>,
    next_number: u64,
    last_sequence: SequenceNumber,
}

/// Opens the database in `directory`.
pub(crate) fn open(directory: &Path, options: Options, parts: SharedParts) -> Result<(Arc<Inner>, Recovery)> {
    let vfs = Arc::clone(&options.vfs);
    if options.read_only || !options.create_if_missing {
        existing_current(&*vfs, directory)?;
    } else if !check_directory(&*vfs, directory)? {
        create_directory(&*vfs, directory)?;
    }
    let lock = lock(&*vfs, directory, options.read_only)?;
    let env = options.make_env();
    let mut recovery = Recovery::default();
    let current = match Current::load(&*vfs, directory)? {
        Some(_) if options.error_if_exists => {
            return Err(Error::invalid(format!("{} holds a database already", directory.display())));
        }
        Some(current) => current,
        None => {
            check_not_half_there(&*vfs, directory)?;
            recovery.created = true;
            sync_parents(&*vfs, directory)?;
            create(&vfs, directory, &options)?
        }
    };
    recovery.was_clean = current.clean.is_some();
    let state = Manifest::load(&*vfs, directory, &current)?;
    let cache = BlockCache::new(options.budget().cache_bytes);
    let janitor = Arc::new(Janitor::default());
    let mut replay = Replay::new(&*vfs, directory, &options, &state, &cache, &janitor)?;
    let report = replay.run(&vfs, directory, &options, &state, &current, &mut recovery)?;
    let opening = Opening { directory, options, parts, env, cache, janitor, lock };
    let inner = if opening.options.read_only {
        opening.read_only(replay)
    } else {
        let (inner, set_aside) = opening.writable(replay, state, &report)?;
        recovery.set_aside = set_aside;
        inner
    };
    Ok((inner, recovery))
}

/// Everything but the trees.
struct Opening<'d> {
    directory: &'d Path,
    options: Options,
    parts: SharedParts,
    env: Arc<dyn Env>,
    cache: Arc<BlockCache>,
    janitor: Arc<Janitor>,
    lock: Option<Box<dyn LockGuard>>,
}

impl Opening<'_> {
    fn read_only(self, replay: Replay) -> Arc<Inner> {
        let Self { directory, options, parts, env, cache, janitor, lock } = self;
        let visible = replay.last_sequence;
        Arc::new(Inner::new(
            directory,
            env,
            &options,
            parts,
            cache,
            janitor,
            replay.trees,
            None,
            visible,
            lock,
        ))
    }

    /// Starts a new log and a new manifest, flushes what was replayed, and then removes what is not needed.
    fn writable(
        self,
        mut replay: Replay,
        state: ManifestState,
        report: &RecoveryReport,
    ) -> Result<(Arc<Inner>, Vec<PathBuf>)> {
        let Self { directory, options, parts, env, cache, janitor, lock } = self;
        let vfs = Arc::clone(&options.vfs);
        replay.seal_all();
        let first_segment = report.next_segment.max(1);
        let start = report.end.max(Position(state.log.position));
        let wal_options = WalOptions {
            segment_bytes: options.segment_bytes(),
            window_bytes: options.log_window_bytes(),
            ..WalOptions::default()
        };
        let mut state = state;
        if let Some(default) = state.keyspaces.get_mut(&0) {
            default.record.policy = options.keyspace.compaction.name().into();
        }
        let sealed_bytes = replay.sealed_bytes();
        if sealed_bytes == 0 && replay.cleared.is_empty() {
            state.log = LogStart { position: start.0, segment: first_segment, synced: state.log.synced };
        }
        state.last_sequence = state.last_sequence.max(replay.last_sequence);
        let manifest_number = replay.take_number();
        state.next_number = replay.next_number;
        let manifest = Manifest::create(Arc::clone(&vfs), directory, manifest_number, state)?;
        // At once: opening may fail further on, and be tried again and again on a full disk.
        remove_manifests_below(&*vfs, directory, manifest_number)?;
        let default = replay.writers.remove(&0).ok_or_else(|| Error::invalid("no default keyspace"))?;
        let next_sequence = replay.last_sequence + 1;
        let others = std::mem::take(&mut replay.writers).into_values();
        let committer = Committer::new(start.0, first_segment, next_sequence, default, others);
        let side =
            WriteSide::new(committer, manifest, Scheduler::default(), replay.next_number, sealed_bytes);
        let visible = replay.last_sequence;
        let inner = Inner::new(
            directory,
            env,
            &options,
            parts,
            cache,
            janitor,
            replay.trees,
            Some(side),
            visible,
            lock,
        );
        let inner = Arc::new(inner);
        settle(&inner, &replay.cleared).inspect_err(|_| inner.remove_obsolete_files())?;
        // Only now: a new segment says that what comes before it is there, which until here only the old log, synced
        // or not, could prove.
        if let Some(side) = &inner.writer {
            let env = Arc::clone(&inner.env);
            let log = Wal::create(Arc::clone(&vfs), env, directory, start, first_segment, wal_options)?;
            // Before anything is acknowledged: a log that is gone afterwards was lost. Before the old log goes: until
            // here the manifest says that of it.
            let begun = VersionEdit { log_begun: Some(first_segment), ..VersionEdit::default() };
            side.log_edit(&mut side.manifest.lock(), begun)?;
            side.start_log(Box::new(log));
        }
        // Nothing needs the old log any more.
        let set_aside = lsm_wal::set_aside_dropped(&*vfs, report)?;
        remove_leftovers(&inner, first_segment)?;
        Ok((inner, set_aside))
    }
}

/// Brings what was replayed into tables, and the start of the log behind it, in one step.
fn settle(inner: &Arc<Inner>, cleared: &[(u32, u64, SequenceNumber)]) -> Result<()> {
    let Some(side) = &inner.writer else { return Ok(()) };
    let start = side.committer.lock().log_end();
    if side.manifest.lock().state().log.position == start {
        side.pace.set_log_start(start);
        return Ok(());
    }
    let edit = VersionEdit {
        removed: cleared.iter().map(|&(keyspace, number, _)| (keyspace, number)).collect(),
        flushed: cleared.iter().map(|&(keyspace, _, sequence)| (keyspace, sequence)).collect(),
        ..VersionEdit::default()
    };
    flush_replayed(inner, side, edit)
}

/// Removes manifests that the durable `CURRENT` has left behind.
fn remove_manifests_below(vfs: &dyn Vfs, directory: &Path, manifest: u64) -> Result<()> {
    for name in list(vfs, directory)? {
        if matches!(files::parse(&name), Some(FileKind::Manifest(number)) if number < manifest) {
            let path = directory.join(name);
            vfs.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Removes files that the new manifest does not need. Files with other names are somebody else's.
fn remove_leftovers(inner: &Inner, first_segment: u64) -> Result<()> {
    let Some(side) = &inner.writer else { return Ok(()) };
    let (vfs, directory) = (&*inner.vfs, &*inner.directory);
    let tables = side.manifest.lock().state().table_numbers();
    for name in list(vfs, directory)? {
        let leftover = match files::parse(&name) {
            Some(FileKind::Table(number)) => !tables.contains(&number),
            Some(FileKind::CurrentNext) => true,
            _ => false,
        };
        if leftover {
            inner.janitor.remove_later(directory.join(name));
        }
    }
    inner.remove_obsolete_files();
    Ok(lsm_wal::remove_segments_below(vfs, directory, first_segment)?)
}

impl Replay {
    /// Opens the tables that the manifest names.
    fn new(
        vfs: &dyn Vfs,
        directory: &Path,
        options: &Options,
        state: &ManifestState,
        cache: &Arc<BlockCache>,
        janitor: &Arc<Janitor>,
    ) -> Result<Self> {
        let mut replay = Self {
            trees: BTreeMap::new(),
            writers: BTreeMap::new(),
            flushed: BTreeMap::new(),
            cleared: Vec::new(),
            next_number: state.next_number.max(unused_number(vfs, directory)?),
            last_sequence: state.last_sequence,
        };
        for (&id, keyspace) in &state.keyspaces {
            let placements = keyspace
                .tables
                .values()
                .map(|table| open_table(vfs, directory, &options.keyspace, table, cache, janitor))
                .collect::<Result<Vec<_>>>()?;
            let KeyspaceState { record, flushed, .. } = keyspace;
            if id == 0 {
                check_policy(record, &options.keyspace)?;
            }
            let number = replay.take_number();
            let version = Version::new(placements);
            let name = Arc::clone(&record.name);
            let (tree, writer) = new_tree(number, id, name, options.keyspace.clone(), version, 0);
            if id == 0 {
                tree.configure(options.keyspace.clone());
            } else {
                tree.set_policy(Arc::clone(&record.policy));
            }
            replay.trees.insert(id, tree);
            replay.writers.insert(id, writer);
            replay.flushed.insert(id, *flushed);
        }
        Ok(replay)
    }

    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Takes in what the log holds beyond the tables.
    fn run(
        &mut self,
        vfs: &Arc<dyn Vfs>,
        directory: &Path,
        options: &Options,
        state: &ManifestState,
        current: &Current,
        recovery: &mut Recovery,
    ) -> Result<RecoveryReport> {
        let LogStart { position, synced, .. } = state.log;
        // What is in tables need not be in the log: it may have been lost from there, promised or not.
        let synced = if synced > position { synced } else { 0 };
        let mut reader = WalReader::open(
            Arc::clone(vfs),
            directory,
            Position(position),
            Position(synced),
            options.recovery,
            current.clean,
        )?;
        if state.log_begun > 0 {
            reader.expect_begun(state.log_begun)?;
        }
        let memtable_bytes = options.budget().memtable_bytes;
        while let Some(record) = reader.next()? {
            let (start, tag) = (record.start.0, record.tag);
            let mut last = tag;
            for operation in Operations::new(record.payload, tag) {
                let operation = operation.map_err(|detail| {
                    Error::corruption(
                        directory,
                        start,
                        format!("in the log's record at position {start}: {detail}"),
                    )
                })?;
                last = operation.sequence;
                let Some(&flushed) = self.flushed.get(&operation.keyspace) else {
                    if operation.keyspace < state.next_keyspace {
                        continue;
                    }
                    let detail = format!(
                        "the log's record at position {start} names keyspace {}, which never was",
                        operation.keyspace
                    );
                    // It was durable before the first record that names it.
                    let manifest = files::manifest(directory, current.manifest);
                    return Err(Error::corruption(&manifest, 0, detail));
                };
                if operation.sequence <= flushed {
                    continue;
                }
                recovery.operations += 1;
                if operation.kind == ValueKind::KeyspaceClear {
                    self.clear(operation.keyspace, operation.sequence);
                } else {
                    self.insert(&operation, start, memtable_bytes)?;
                }
            }
            self.last_sequence = self.last_sequence.max(last);
        }
        let report = reader.report().clone();
        recovery.records = report.records;
        recovery.bytes_dropped = report.bytes_dropped;
        recovery.dropped = report.dropped.iter().map(Dropped::to_string).collect();
        Ok(report)
    }

    fn insert(
        &mut self,
        operation: &crate::batch::Operation<'_>,
        start: u64,
        memtable_bytes: usize,
    ) -> Result<()> {
        let id = operation.keyspace;
        for _ in 0..2 {
            let Some(writer) = self.writers.get_mut(&id) else { return Err(Error::Closed) };
            if !writer.is_due(memtable_bytes) && writer.insert(operation, start) {
                return Ok(());
            }
            self.seal(id, operation.sequence - 1);
        }
        Err(Error::Callback("a memtable refuses an entry while empty".into()))
    }

    fn clear(&mut self, id: u32, sequence: SequenceNumber) {
        let number = self.take_number();
        let (Some(tree), Some(writer)) = (self.trees.get(&id), self.writers.get_mut(&id)) else { return };
        for table in tree.load().version.tables() {
            self.cleared.push((id, table.number(), sequence));
        }
        *writer = writer.replaced(number);
        let memtable = writer.memtable();
        tree.update(|_| State {
            memtable,
            sealed: Vec::new(),
            version: Arc::new(Version::default()),
            cleared: sequence,
            before_clear: None,
        });
    }

    fn seal(&mut self, id: u32, last_sequence: SequenceNumber) {
        let number = self.take_number();
        let (Some(tree), Some(writer)) = (self.trees.get(&id), self.writers.get_mut(&id)) else { return };
        *writer = writer.replaced(number);
        let memtable = writer.memtable();
        tree.update(|state| {
            state.memtable.seal(last_sequence);
            State {
                memtable,
                sealed: std::iter::once(&state.memtable).chain(&state.sealed).cloned().collect(),
                version: Arc::clone(&state.version),
                cleared: state.cleared,
                before_clear: None,
            }
        });
    }

    fn seal_all(&mut self) {
        let filled: Vec<u32> =
            self.trees.values().filter(|tree| !tree.load().memtable.is_empty()).map(|tree| tree.id).collect();
        for id in filled {
            self.seal(id, self.last_sequence);
        }
    }

    fn sealed_bytes(&self) -> usize {
        let of_tree = |tree: &Arc<Tree>| {
            tree.load().sealed.iter().map(|memtable| memtable.memory_bytes()).sum::<usize>()
        };
        self.trees.values().map(of_tree).sum()
    }
}

fn open_table(
    vfs: &dyn Vfs,
    directory: &Path,
    options: &KeyspaceOptions,
    added: &AddedTable,
    cache: &Arc<BlockCache>,
    janitor: &Arc<Janitor>,
) -> Result<Placement> {
    let path = files::table(directory, added.number);
    let mut open = options.table_open();
    open.expected = Some(TableExpectation::from(&added.meta));
    let table = Table::open(vfs, &path, Some(Arc::clone(cache)), &open).map_err(|error| match &error {
        lsm_core::Error::Io { source, .. } if source.kind() == Io::NotFound => {
            Error::corruption(&path, 0, "the file is missing, yet the manifest names it")
        }
        _ => error.into(),
    })?;
    let file = TableFile::new(
        added.number,
        path,
        table,
        added.created_micros,
        added.tombstones_since_micros,
        Arc::clone(janitor),
    );
    Ok(Placement { level: added.level as usize, run: added.run, table: Arc::new(file) })
}

fn check_policy(record: &KeyspaceRecord, options: &KeyspaceOptions) -> Result<()> {
    if *record.policy == *options.compaction.name() || options.change_compaction {
        return Ok(());
    }
    Err(policy_mismatch(&record.name, &record.policy, options.compaction.name()))
}

/// `CURRENT` of a database that must be there.
pub(crate) fn existing_current(vfs: &dyn Vfs, directory: &Path) -> Result<Current> {
    if check_directory(vfs, directory)? {
        if let Some(current) = Current::load(vfs, directory)? {
            return Ok(current);
        }
        check_not_half_there(vfs, directory)?;
    }
    Err(Error::NoDatabase(Arc::new(directory.to_owned())))
}

/// Whether the directory exists; fails if it is something else.
fn check_directory(vfs: &dyn Vfs, directory: &Path) -> Result<bool> {
    match vfs.metadata(directory) {
        Ok(metadata) if metadata.is_dir => Ok(true),
        Ok(_) => Err(Error::NotADirectory(Arc::new(directory.to_owned()))),
        Err(error) if error.kind() == Io::NotFound => Ok(false),
        Err(error) if error.kind() == Io::NotADirectory => {
            Err(Error::NotADirectory(Arc::new(directory.to_owned())))
        }
        Err(error) => Err(Error::io("open", directory, error)),
    }
}

/// Creates the directory and those above it that are missing.
fn create_directory(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty())
        && !check_directory(vfs, parent)?
    {
        create_directory(vfs, parent)?;
    }
    match vfs.create_dir(directory) {
        Err(error) if error.kind() != Io::AlreadyExists => Err(Error::io("create", directory, error)),
        _ => Ok(()),
    }
}

/// Makes the names of the directories above durable: they may have been made just now, or by a process that
/// crashed before it could.
fn sync_parents(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    let name_parent =
        |path: &Path| if path.as_os_str().is_empty() { Path::new(".").to_owned() } else { path.to_owned() };
    for (distance, parent) in directory.ancestors().skip(1).map(name_parent).enumerate() {
        match vfs.sync_dir(&parent) {
            // Those further up may be none of our business.
            Err(error) if distance == 0 => return Err(Error::io("sync", &parent, error)),
            Err(_) => break,
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Logs and tables appear only after `CURRENT` is durable: either without it means that it was lost.
fn check_not_half_there(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    let orphan = list(vfs, directory)?
        .into_iter()
        .find(|name| matches!(files::parse(name), Some(FileKind::Table(_) | FileKind::Log(_))));
    match orphan {
        Some(name) => {
            let detail = format!("the file is missing, yet {name} is here; restore it from a backup");
            Err(Error::corruption(&directory.join(files::CURRENT), 0, detail))
        }
        None => Ok(()),
    }
}

/// Locks the database: for this handle alone, or shared with others that only read.
fn lock(vfs: &dyn Vfs, directory: &Path, read_only: bool) -> Result<Option<Box<dyn LockGuard>>> {
    let path = directory.join(files::LOCK);
    let mode = if read_only { LockMode::Shared } else { LockMode::Exclusive };
    match vfs.lock(&path, mode) {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.kind() == Io::WouldBlock => Err(Error::Locked(Arc::new(directory.to_owned()))),
        // A copy that nobody wrote to yet has no such file, and media that cannot be written may have no locks.
        Err(error)
            if read_only
                && matches!(error.kind(), Io::NotFound | Io::ReadOnlyFilesystem | Io::Unsupported) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("lock", &path, error)),
    }
}

fn list(vfs: &dyn Vfs, directory: &Path) -> Result<Vec<String>> {
    vfs.read_dir(directory).map_err(|error| Error::io("list", directory, error))
}

/// A number above those of all files that are there, whether they count or not.
fn unused_number(vfs: &dyn Vfs, directory: &Path) -> Result<u64> {
    let numbers = list(vfs, directory)?.into_iter().filter_map(|name| match files::parse(&name)? {
        FileKind::Table(number) | FileKind::Manifest(number) => Some(number),
        _ => None,
    });
    Ok(numbers.max().map_or(1, |highest| highest.saturating_add(1)))
}

/// Writes the manifest of an empty database, and `CURRENT`.
fn create(vfs: &Arc<dyn Vfs>, directory: &Path, options: &Options) -> Result<Current> {
    let record = KeyspaceRecord {
        id: 0,
        name: DEFAULT_NAME.into(),
        policy: options.keyspace.compaction.name().into(),
    };
    let keyspace = KeyspaceState { record, flushed: 0, tables: BTreeMap::new() };
    let state = ManifestState {
        next_keyspace: 1,
        keyspaces: BTreeMap::from([(0, keyspace)]),
        ..ManifestState::default()
    };
    let number = unused_number(&**vfs, directory)?;
    let manifest = Manifest::create(Arc::clone(vfs), directory, number, state)?;
    Ok(manifest.current())
}
