//! The state of a database at one moment, held for as long as it is copied.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_core::vfs::Vfs;
use lsm_wal::{CleanClose, LogCopy, LogExpectation, Position, RecoveryMode, WalReader};

use super::copying::COPY_BYTES;
use super::options::CheckpointOptions;
use crate::database::{Database, WriteSide};
use crate::error::{Error, Result};
use crate::pins::PinKind;
use crate::version::current::Current;
use crate::version::edit::{LogStart, VersionEdit};
use crate::version::manifest::{Manifest, ManifestState};
use crate::version::{LiveFile, Version, files};
use crate::write::LogPinOwner;

/// Number of the segment that holds the log of a copy.
const SEGMENT: u64 = 1;

/// The path of the log of a copy in its directory.
pub(crate) fn log_path(directory: &Path) -> PathBuf {
    files::segment(directory, SEGMENT)
}

/// The state of a database at one moment: all writes that had returned, and no part of a later one.
pub(crate) struct Frozen {
    /// What the manifest of a copy holds. Its log is the one segment that was copied.
    pub(crate) state: ManifestState,
    /// The last write.
    pub(crate) sequence: SequenceNumber,
    /// The end of the log of the copy.
    pub(crate) log: CleanClose,
    /// Files that only the log names: tables that were ingested and are not in the manifest yet.
    ingested: Vec<LiveFile>,
    /// They keep the files of the state on the disk.
    _versions: Vec<Arc<Version>>,
}

/// Freezes the state of a database, and gives `log` the bytes of the log that a copy needs, piece by piece. Writes,
/// flushes and compactions go on meanwhile.
pub(crate) fn freeze(
    database: &Database,
    options: &CheckpointOptions,
    log: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<Frozen> {
    database.resources.check_process()?;
    database.resources.check_may_wait()?;
    database.check_open()?;
    match &database.writer {
        Some(_) => {
            let side = database.write_side()?;
            flush_if_long(database, side, options);
            freeze_written(database, side, options, log)
        }
        None => freeze_read(database, options, log),
    }
}

/// Flushes a long log away. The copy needs no flush, it only gets smaller: so a disk that is too full for one, or a
/// keyspace that takes none any more, can still be copied.
fn flush_if_long(database: &Database, side: &WriteSide, options: &CheckpointOptions) {
    let start = side.versions.lock().state().log.position;
    let bytes = side.write.log_end().saturating_sub(start);
    if bytes > options.flush_above_bytes
        && !side.write.status.control.is_paused()
        && let Err(error) = database.flush_all()
    {
        tracing::warn!(%error, "a flush before a copy of the database failed: its log is copied instead");
    }
}

/// Freezes a database that is open for writing. While the manifest is locked, no table joins or leaves. Afterwards the pin
/// keeps the log that is not in those tables.
fn freeze_written(
    database: &Database,
    side: &WriteSide,
    options: &CheckpointOptions,
    log: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<Frozen> {
    let resources = &database.resources;
    let manifest = side.lock_manifest();
    let (end, sequence) = {
        let committer = side.write.committer.lock();
        (Position(committer.log_end()), committer.last_sequence())
    };
    let mut state = manifest.state().clone();
    let owner = LogPinOwner { kind: PinKind::Checkpoint, label: None, bytes_max: u64::MAX };
    let pin = side.write.log_pins.pin(state.log.position, owner, resources.env.monotonic_micros());
    let _pin = pin.map_err(|start| {
        let detail = format!("the log begins at position {start}, but {} is needed", state.log.position);
        Error::corruption(&resources.directory, 0, detail)
    })?;
    let held = Held::of(database);
    drop(manifest);
    let mut marks = VersionEdit::default();
    side.versions.mark(&mut marks);
    state.take_marks(&marks);
    // What is durable stands in segments, where a reader finds it while the log goes on.
    side.write.wait_durable(end.0)?;
    let expected = state.log.expectation(None, state.log_begun);
    let reader = open_log(&resources.vfs, &resources.directory, &expected)?.until(end);
    let copied = Copied::of(reader, state.log, resources, log)?;
    Frozen::new(state, sequence, &copied, held, options)
}

/// Freezes a database that is open read-only. The files do not change while it is.
fn freeze_read(
    database: &Database,
    options: &CheckpointOptions,
    log: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<Frozen> {
    let (vfs, directory) = (&database.resources.vfs, &*database.resources.directory);
    let current = crate::recovery::existing_current(&**vfs, directory)?;
    let state = Manifest::load(&**vfs, directory, &current)?;
    let Current { clean, .. } = current;
    let reader = open_log(vfs, directory, &state.log.expectation(clean, state.log_begun))?;
    let copied = Copied::of(reader, state.log, &database.resources, log)?;
    let held = Held::of(database);
    Frozen::new(state, database.visibility.sequence(), &copied, held, options)
}

fn open_log(vfs: &Arc<dyn Vfs>, directory: &Path, expected: &LogExpectation) -> Result<WalReader> {
    Ok(WalReader::open(Arc::clone(vfs), directory, expected, RecoveryMode::TolerateTornTail)?)
}

/// The log of a copy, after its bytes were given away.
struct Copied {
    closed: CleanClose,
    start: u64,
}

impl Copied {
    fn of(
        mut reader: WalReader,
        start: LogStart,
        resources: &crate::resources::Resources,
        log: &mut dyn FnMut(Vec<u8>) -> Result<()>,
    ) -> Result<Self> {
        let env = &resources.env;
        let start = start.position;
        let mut copy = LogCopy::begin(SEGMENT, Position(start), env.random(), env.random() as u32);
        while let Some(record) = reader.next()? {
            copy.append(record.tag, record.payload)?;
            if copy.waiting_bytes() >= COPY_BYTES {
                log(copy.take())?;
            }
        }
        let closed = copy.finish()?;
        log(copy.take())?;
        Ok(Self { closed, start })
    }
}

impl Frozen {
    fn new(
        mut state: ManifestState,
        sequence: SequenceNumber,
        copied: &Copied,
        held: Held,
        options: &CheckpointOptions,
    ) -> Result<Self> {
        let &Copied { closed: log, start } = copied;
        state.log = LogStart { position: start, segment: SEGMENT, synced: log.end.0 };
        state.log_begun = SEGMENT;
        options.select(&mut state, sequence)?;
        let Held { versions, ingested } = held;
        let is_copied = |(id, file)| state.keyspaces.contains_key(&id).then_some(file);
        let ingested = ingested.into_iter().filter_map(is_copied).collect();
        Ok(Self { state, sequence, log, ingested, _versions: versions })
    }

    /// All files that the copy needs, apart from its log.
    pub(crate) fn live_files(&self) -> Vec<LiveFile> {
        [self.state.live_files(), self.ingested.clone()].concat()
    }
}

/// What holds the files of a state.
struct Held {
    versions: Vec<Arc<Version>>,
    /// Keyspaces, and tables that only the log names.
    ingested: Vec<(u32, LiveFile)>,
}

impl Held {
    fn of(database: &Database) -> Self {
        let mut held = Self { versions: Vec::new(), ingested: Vec::new() };
        for tree in database.all_trees() {
            let state = tree.load_full();
            held.versions.push(Arc::clone(&state.version));
            for placement in state.memtables().flat_map(|memtable| &memtable.ingested) {
                let table = &placement.table;
                held.ingested.push((tree.id, LiveFile::of(table.number(), table.meta())));
            }
        }
        held
    }
}
