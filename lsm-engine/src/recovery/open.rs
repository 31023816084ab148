//! The steps of opening a database, in order; see docs/ARCHITECTURE.md.
//!
//! No file is removed before all files of the manifest were found, the replayed data is in durable tables, and a new
//! manifest names them. A crash on the way leaves a database that opens as before.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind as Io;
use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::{LockGuard, LockMode, Vfs};
use lsm_wal::{Position, RecoveryReport, WalOptions};
use parking_lot::RwLock;
use tracing::field::Empty;

use crate::database::{DEFAULT_NAME, Database, WriteSide};
use crate::error::{Error, ErrorKind, Result};
use crate::events::EventKind;
use crate::keyspaces::Visibility;
use crate::lock_order::{OrderedMutex, Rank};
use crate::memory::Memory;
use crate::options::{KeyspaceOptions, Options, ResolvedOptions, StoredOptions};
use crate::recovery::full_disk::FullDisk;
use crate::recovery::history;
use crate::recovery::replay::{Found, Replay, settle};
use crate::recovery::report::Recovery;
use crate::resources::Resources;
use crate::status::Status;
use crate::version::Clock;
use crate::version::current::Current;
use crate::version::edit::{KeyspaceRecord, LogStart};
use crate::version::files::{self, FileKind};
use crate::version::history::SlotRecord;
use crate::version::manifest::{KeyspaceState, Manifest, ManifestState};
use crate::version::{
    MANIFEST_BYTES_BESIDE, ManifestReader, TableOpener, VersionSet, open_blobs, open_tables,
};
use crate::write::WritePath;

/// Opens the database in `directory`.
pub(crate) fn open(directory: &Path, options: Options) -> Result<(Arc<Database>, Recovery)> {
    if options.env.as_ref().is_some_and(|env| env.is_forked()) {
        return Err(Error::invalid(
            "Options::env belongs to the parent of this forked process and has no threads here",
        ));
    }
    let _span =
        tracing::info_span!("open", path = %directory.display(), read_only = options.read_only).entered();
    let vfs = Arc::clone(&options.vfs);
    if options.read_only || !options.create_if_missing {
        existing_current(&*vfs, directory)?;
    } else if !check_directory(&*vfs, directory)? {
        create_directory(&*vfs, directory)?;
    }
    let lock = lock(&*vfs, directory, options.read_only)?;
    let env = options.make_env();
    let started_micros = env.monotonic_micros();
    let mut recovery = Recovery::default();
    let current = match Current::load(&*vfs, directory)? {
        Some(_) if options.error_if_exists => {
            return Err(Error::invalid(format!("{} already holds a database", directory.display())));
        }
        Some(current) => current,
        None => {
            check_not_half_there(&*vfs, directory)?;
            recovery.created = true;
            sync_parents(&*vfs, directory)?;
            create(&vfs, directory, &options, env.random() as u32)?
        }
    };
    recovery.was_clean = current.clean.is_some();
    let mut state = ManifestReader::open(&*vfs, directory, &current)?.into_state();
    let memory = Arc::new(Memory::new(&options));
    let keyspace_options = keyspace_options(&options, &memory, &mut state)?;
    let reserve_bytes = disk_reserve_bytes(&options, &state);
    let (owned, shared) = (directory.to_owned(), Arc::clone(&memory));
    let resources = Resources::new(owned, vfs, Arc::clone(&env), shared, reserve_bytes, options.statistics);
    let vfs = &resources.vfs;
    let unused_number = unused_number(&**vfs, directory)?;
    let opener = TableOpener {
        directory: directory.to_owned(),
        options: keyspace_options.clone(),
        memory: Arc::clone(&memory),
        obsolete_files: Arc::clone(&resources.obsolete_files),
    };
    let blobs = open_blobs(&opener, &state)?;
    let tables = tracing::info_span!("open_tables").in_scope(|| open_tables(opener, &*env, &state))?;
    let options_found = &keyspace_options;
    let found =
        Found { state: &state, current: &current, options: options_found, tables, blobs, unused_number };
    let mut replay = Replay::new(&resources, &options, found)?;
    let report = {
        let span = tracing::info_span!("replay", records = Empty, bytes = Empty).entered();
        let report = replay.run(&mut recovery)?;
        span.record("records", report.records).record("bytes", report.bytes);
        report
    };
    let opening = Opening { resources: Arc::clone(&resources), options, lock };
    let database = if opening.options.read_only {
        opening.read_only(replay, &state)?
    } else {
        opening.writable(replay, state, &current, &report, &mut recovery)?
    };
    let micros = env.monotonic_micros() - started_micros;
    resources.counters.open_micros.add(micros);
    resources.events.emit(EventKind::Opened {
        created: recovery.created,
        was_clean: recovery.was_clean,
        replayed_records: report.records,
        micros,
    });
    Ok((database, recovery))
}

/// The parts of a database that is being opened, except its trees.
struct Opening {
    resources: Arc<Resources>,
    options: Options,
    lock: Option<Box<dyn LockGuard>>,
}

impl Opening {
    fn read_only(self, replay: Replay, state: &ManifestState) -> Result<Arc<Database>> {
        replay.check_all_fit()?;
        let clock = Clock::from_marks(Arc::clone(&self.resources.env), state);
        let visibility = Arc::new(Visibility::new(replay.last_sequence(), Arc::new(clock)));
        visibility.set_purged(state.purged);
        let (trees, ..) = replay.into_parts();
        let trees = Arc::new(RwLock::new(trees));
        let history = Arc::new(state.shared_history());
        Ok(Arc::new(Database::new(self.resources, trees, visibility, history, None, self.lock)))
    }

    /// Starts a new manifest, flushes the replayed data, starts a new log, and then removes unneeded files.
    fn writable(
        self,
        replay: Replay,
        mut state: ManifestState,
        current: &Current,
        report: &RecoveryReport,
        recovery: &mut Recovery,
    ) -> Result<Arc<Database>> {
        let Self { resources, options, lock } = self;
        let (vfs, directory, env) = (&resources.vfs, &*resources.directory, &resources.env);
        let first_segment = report.next_segment.max(1);
        let start = report.end.max(Position(state.log.position));
        let wal_options = WalOptions {
            segment_bytes: options.segment_bytes(),
            window_bytes: resources.memory.budget.log_window_bytes,
            window_memory: Some(resources.memory.for_window()),
            recovery: options.recovery,
            ..WalOptions::default()
        };
        let old_log = state.log;
        if replay.is_empty() {
            state.log = LogStart { position: start.0, segment: first_segment, synced: state.log.synced };
        }
        let visible = replay.last_sequence();
        state.last_sequence = state.last_sequence.max(visible);
        history::begin_epoch(&mut state, start, visible, env.random());
        let clock = Arc::new(Clock::from_marks(Arc::clone(env), &state));
        let numbers = replay.numbers();
        let slots: Vec<SlotRecord> = state.slots.values().cloned().collect();
        let manifest_number = numbers.next();
        state.next_number = numbers.unused();
        if state.database_id == 0 {
            state.database_id = ManifestState::random_id(&**env);
        }
        let record_seed = env.random() as u32;
        let full_disk = FullDisk { resources: &resources, report, options: wal_options };
        let create = |number, state| Manifest::create(vfs, directory, number, record_seed, state);
        let (manifest, manifest_number) = match create(manifest_number, state.clone()) {
            Err(error) if error.kind() == ErrorKind::NoSpace && !recovery.created => {
                full_disk.remove_unnamed_tables(current, &state, replay.ingested())?;
                full_disk.make_room()?;
                let (number, needed) = (numbers.next(), bytes_to_open(&state));
                (create(number, state).map_err(|error| full_disk.refused(needed, error))?, number)
            }
            created => (created?, manifest_number),
        };
        // Remove old manifests now. Later steps may fail, and repeated opens must not fill the disk with manifests.
        remove_manifests_below(&**vfs, directory, manifest_number)?;
        let (trees, mut committer, mut unsettled) = replay.into_parts();
        committer.set_log_end(start.0, first_segment);
        let status = Arc::new(Status::new(Arc::clone(&resources.events), options.snapshot_age_max_micros()));
        let visibility = Arc::new(Visibility::new(visible, Arc::clone(&clock)));
        visibility.set_purged(manifest.state().purged);
        let manifest = OrderedMutex::new(Rank::Manifest, resources.place(), manifest);
        let reserve = Arc::clone(&resources.disk_reserve);
        let leases = Arc::clone(&resources.leases);
        let versions = VersionSet::new(manifest, numbers, clock, reserve, leases, Arc::clone(&status));
        let write = WritePath::new(Arc::clone(&resources), Arc::clone(&visibility), status, committer);
        let trees = Arc::new(RwLock::new(trees));
        let side = WriteSide::new(Arc::clone(&trees), versions, write);
        // Tables of interrupted compactions may take the disk space that the log needs. Records that did not fit memory
        // may point to blob files.
        remove_leftovers(&side, unsettled.ingested(), false)?;
        let kept = full_disk.keep_history(&side, &unsettled, old_log, start, &slots)?;
        if let Err(error) = settle(&side.background, &mut unsettled) {
            resources.remove_obsolete_files();
            if error.kind() != ErrorKind::NoSpace || side.write.status.check_writing().is_err() {
                return Err(error);
            }
            recovery.set_aside = match kept {
                Some(set_aside) => {
                    full_disk.keep_in_log(&side, &unsettled, old_log, &error)?;
                    set_aside
                }
                None => full_disk.resume_log(&side, &unsettled, old_log, &error)?,
            };
            recovery.waiting_for_space = Some(error.to_string());
            remove_leftovers(&side, unsettled.ingested(), true)?;
        } else if let Some(set_aside) = kept {
            recovery.set_aside = set_aside;
            remove_leftovers(&side, unsettled.ingested(), true)?;
        } else {
            full_disk.begin_log(&side, start)?;
            // From here on the old log is not needed.
            recovery.set_aside = lsm_wal::set_aside_dropped(&**vfs, directory, report)?;
            remove_leftovers(&side, unsettled.ingested(), true)?;
            lsm_wal::remove_segments_below(&**vfs, directory, first_segment)?;
        }
        history::open_slots(&side, &slots);
        resources.disk_reserve.fill();
        let history = Arc::clone(&side.versions.history);
        let database = Database::new(Arc::clone(&resources), trees, visibility, history, Some(side), lock);
        Ok(Arc::new(database))
    }
}

/// The options of all keyspaces. Those given for the default keyspace go into `state`.
fn keyspace_options(
    options: &Options,
    memory: &Memory,
    state: &mut ManifestState,
) -> Result<BTreeMap<u32, Arc<ResolvedOptions>>> {
    let none = KeyspaceOptions::default();
    let mut all = BTreeMap::new();
    for (&id, KeyspaceState { record, .. }) in &mut state.keyspaces {
        let given = if id == 0 { &options.keyspace } else { &none };
        if id == 0 {
            record.options = Arc::new(given.added_to(&record.options, &record.name, true)?);
        }
        let resolved = memory.resolve(given, &record.options);
        if id == 0 && !options.read_only {
            resolved.check_policy(&record.name, &record.options)?;
        }
        all.insert(id, Arc::new(resolved));
    }
    Ok(all)
}

/// The size of the disk reserve. It includes space for two more manifests.
fn disk_reserve_bytes(options: &Options, state: &ManifestState) -> u64 {
    options.disk_reserve_bytes() + 2 * state.encoded_bytes().next_multiple_of(4096)
}

/// The least disk space that opening needs: for a second manifest, `CURRENT`, and a log segment.
fn bytes_to_open(state: &ManifestState) -> u64 {
    state.encoded_bytes().next_multiple_of(4096) + MANIFEST_BYTES_BESIDE
}

/// Removes manifests that are older than the one that the durable `CURRENT` names.
fn remove_manifests_below(vfs: &dyn Vfs, directory: &Path, manifest: u64) -> Result<()> {
    for name in files::list(vfs, directory)? {
        if matches!(files::parse(&name), Some(FileKind::Manifest(number)) if number < manifest) {
            let path = directory.join(name);
            vfs.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Removes tables and blob files that neither the new manifest, nor the log with an ingest, nor a memtable names. Files with
/// unknown names are not touched.
fn remove_leftovers(side: &WriteSide, ingested: &BTreeSet<u64>, with_blobs: bool) -> Result<()> {
    let (resources, versions, trees) = (&side.write.resources, &side.versions, &side.background.trees);
    let directory = &*resources.directory;
    let (tables, mut blobs) = {
        let manifest = versions.lock();
        (manifest.state().table_numbers(), manifest.state().blob_file_numbers())
    };
    blobs.extend(trees.read().all().flat_map(|tree| {
        let state = tree.load();
        let held = state.memtables().flat_map(|memtable| memtable.blobs());
        held.map(|file| file.number()).collect::<Vec<_>>()
    }));
    for name in files::list(&*resources.vfs, directory)? {
        let leftover = match files::parse(&name) {
            Some(FileKind::Table(number)) => !tables.contains(&number) && !ingested.contains(&number),
            Some(FileKind::Blob(number)) => with_blobs && !blobs.contains(&number),
            Some(FileKind::CurrentNext | FileKind::Staging) => true,
            _ => false,
        };
        if leftover {
            resources.obsolete_files.remove_later(directory.join(name));
        }
    }
    resources.remove_obsolete_files();
    Ok(())
}

/// Reads `CURRENT` of a database that must exist.
pub(crate) fn existing_current(vfs: &dyn Vfs, directory: &Path) -> Result<Current> {
    if check_directory(vfs, directory)? {
        if let Some(current) = Current::load(vfs, directory)? {
            return Ok(current);
        }
        check_not_half_there(vfs, directory)?;
    }
    Err(Error::NoDatabase(Arc::new(directory.to_owned())))
}

/// Whether the directory exists. Fails if the path is not a directory.
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

/// Creates the directory and its missing parents.
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

/// Syncs the parent directories. Their names may be new, or made by a process that crashed before it synced them.
fn sync_parents(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    let name_parent =
        |path: &Path| if path.as_os_str().is_empty() { Path::new(".").to_owned() } else { path.to_owned() };
    for (distance, parent) in directory.ancestors().skip(1).map(name_parent).enumerate() {
        match vfs.sync_dir(&parent) {
            // This process may lack the rights to sync directories further up.
            Err(error) if distance == 0 => return Err(Error::io("sync", &parent, error)),
            Err(_) => break,
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Fails if there are logs or tables without `CURRENT`. They appear only after `CURRENT` is durable, so it was lost.
fn check_not_half_there(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    let orphan = files::list(vfs, directory)?.into_iter().find(|name| {
        matches!(files::parse(name), Some(FileKind::Table(_) | FileKind::Blob(_) | FileKind::Log(_)))
    });
    match orphan {
        Some(name) => {
            let detail = format!("the file is missing, but {name} exists; restore it from a backup");
            Err(Error::corruption(&directory.join(files::CURRENT), 0, detail))
        }
        None => Ok(()),
    }
}

/// Locks the database, exclusively or shared with other read-only handles.
fn lock(vfs: &dyn Vfs, directory: &Path, read_only: bool) -> Result<Option<Box<dyn LockGuard>>> {
    let path = directory.join(files::LOCK);
    let mode = if read_only { LockMode::Shared } else { LockMode::Exclusive };
    match vfs.lock(&path, mode) {
        Ok(guard) => Ok(Some(guard)),
        Err(error) if error.kind() == Io::WouldBlock => Err(Error::Locked(Arc::new(directory.to_owned()))),
        // A copy may lack the lock file, and a read-only medium may not support locks.
        Err(error)
            if read_only
                && matches!(error.kind(), Io::NotFound | Io::ReadOnlyFilesystem | Io::Unsupported) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("lock", &path, error)),
    }
}

/// A number above the numbers of all existing tables and manifests, whether they are in use or not.
fn unused_number(vfs: &dyn Vfs, directory: &Path) -> Result<u64> {
    let numbers = files::list(vfs, directory)?.into_iter().filter_map(|name| match files::parse(&name)? {
        FileKind::Table(number) | FileKind::Blob(number) | FileKind::Manifest(number) => Some(number),
        _ => None,
    });
    Ok(numbers.max().map_or(1, |highest| highest.saturating_add(1)))
}

/// Writes the manifest of an empty database, and `CURRENT`.
fn create(vfs: &Arc<dyn Vfs>, directory: &Path, options: &Options, record_seed: u32) -> Result<Current> {
    let stored = options.keyspace.added_to(&StoredOptions::default(), DEFAULT_NAME, true)?;
    let record = KeyspaceRecord { id: 0, name: DEFAULT_NAME.into(), options: Arc::new(stored) };
    let keyspace = KeyspaceState::new(record);
    let state = ManifestState {
        next_keyspace: 1,
        keyspaces: BTreeMap::from([(0, keyspace)]),
        ..ManifestState::default()
    };
    let number = unused_number(&**vfs, directory)?;
    let manifest = Manifest::create(vfs, directory, number, record_seed, state)?;
    Ok(manifest.current())
}
