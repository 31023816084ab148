//! The state of a database at one moment, held for as long as it is copied.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_wal::{CleanClose, LogCopy, Position, RecoveryMode, WalReader};

use super::copying::COPY_BYTES;
use super::options::CheckpointOptions;
use crate::database::{Database, WriteSide};
use crate::error::{Error, Result};
use crate::pins::PinKind;
use crate::recovery::existing_current;
use crate::resources::Resources;
use crate::version::edit::{LogStart, VersionEdit};
use crate::version::manifest::ManifestState;
use crate::version::{BlobFile, LiveFile, ManifestReader, TableFile, Version, files};
use crate::write::{LogPin, LogPinOwner};

/// Number of the segment that holds the log of a copy.
pub(crate) const SEGMENT: u64 = 1;

/// The path of the log of a copy in its directory.
pub(crate) fn log_path(directory: &Path) -> PathBuf {
    files::segment(directory, SEGMENT)
}

/// The state of a database at one moment: all writes that had returned, and no part of a later one.
pub(crate) struct Frozen {
    /// What the manifest of a copy holds, apart from its log.
    state: ManifestState,
    /// The last write.
    pub(crate) sequence: SequenceNumber,
    reader: WalReader,
    copy: LogCopy,
    /// The end of the log of the copy.
    closed: Option<CleanClose>,
    /// Where the log ends.
    end: Position,
    /// Files of a copy that only its log names: tables that were ingested, and blob files of values that are not in tables.
    of_log: Vec<LiveFile>,
    /// Keeps the files on the disk.
    held: Held,
    /// It keeps the log.
    _pin: Option<LogPin>,
}

/// What holds the files of a state.
struct Held {
    versions: Vec<Arc<Version>>,
    /// Tables that were ingested and that only the log names, with their keyspaces.
    ingested: Vec<(u32, Arc<TableFile>)>,
    /// Blob files that only the log names.
    blobs: Vec<(u32, Arc<BlobFile>)>,
}

impl Held {
    fn of(database: &Database) -> Self {
        let mut held = Self { versions: Vec::new(), ingested: Vec::new(), blobs: Vec::new() };
        for tree in database.all_trees() {
            let state = tree.load();
            held.versions.push(Arc::clone(&state.version));
            let ingested = state.memtables().flat_map(|memtable| &memtable.ingested);
            held.ingested.extend(ingested.map(|placement| (tree.id, Arc::clone(&placement.table))));
            let blobs = state.memtables().flat_map(|memtable| memtable.blobs());
            held.blobs.extend(blobs.map(|file| (tree.id, file)));
        }
        held
    }
}

/// Freezes the state of a database. Writes, flushes and compactions go on meanwhile.
pub(crate) fn freeze(database: &Database, options: &CheckpointOptions) -> Result<Frozen> {
    database.resources.check_process()?;
    database.resources.check_may_wait()?;
    database.check_open()?;
    let mut frozen = match &database.writer {
        Some(_) => {
            let side = database.write_side()?;
            flush_if_long(database, side, options);
            freeze_written(database, side)?
        }
        None => freeze_read(database)?,
    };
    let selected = options.select(&mut frozen.state, frozen.sequence)?;
    let ingested = frozen.held.ingested.iter().filter(|(id, _)| selected.contains(id));
    let ingested = ingested.map(|(_, table)| LiveFile::of(table.number(), table.meta()));
    let blobs = frozen.held.blobs.iter().filter(|(id, _)| selected.contains(id));
    let blobs = blobs.map(|(_, file)| LiveFile::of_blobs(file.number(), &file.meta()));
    frozen.of_log = ingested.chain(blobs).collect();
    Ok(frozen)
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
fn freeze_written(database: &Database, side: &WriteSide) -> Result<Frozen> {
    let resources = &database.resources;
    let manifest = side.lock_manifest();
    let (end, sequence) = {
        let committer = side.write.committer.lock();
        (Position(committer.log_end()), committer.last_sequence())
    };
    // After the end was read, so that it has all that the log up to there names. What it has beyond that does no harm.
    let held = Held::of(database);
    let mut state = manifest.state().clone();
    let owner = LogPinOwner { kind: PinKind::Checkpoint, label: None, bytes_max: u64::MAX };
    let pin = side.write.log_pins.pin(state.log.position, owner, resources.env.monotonic_micros());
    let pin = pin.map_err(|start| {
        let detail = format!("the log begins at position {start}, but {} is needed", state.log.position);
        Error::corruption(&resources.directory, 0, detail)
    })?;
    drop(manifest);
    let mut marks = VersionEdit::default();
    side.versions.mark(&mut marks);
    state.take_marks(&marks);
    // What is durable stands in segments, where a reader finds it while the log goes on.
    side.write.wait_durable(end.0)?;
    let reader = open_log(resources, &state, None)?.until(end);
    Ok(Frozen::new(resources, state, sequence, (reader, end), held, Some(pin)))
}

/// Freezes a database that is open read-only. The files do not change while it is.
fn freeze_read(database: &Database) -> Result<Frozen> {
    let resources = &database.resources;
    if database.follows {
        return Err(Error::invalid(format!(
            "a follower cannot copy {}, which its owner writes: ask the owner for a checkpoint or backup",
            resources.directory.display()
        )));
    }
    let current = existing_current(&*resources.vfs, &resources.directory)?;
    let state = ManifestReader::open(&*resources.vfs, &resources.directory, &current)?.into_state();
    let mut whole = open_log(resources, &state, current.clean)?;
    while whole.next()?.is_some() {}
    let end = whole.report().end.max(Position(state.log.position));
    let reader = open_log(resources, &state, current.clean)?.until(end);
    let (sequence, held) = (database.visibility.sequence(), Held::of(database));
    Ok(Frozen::new(resources, state, sequence, (reader, end), held, None))
}

fn open_log(resources: &Resources, state: &ManifestState, clean: Option<CleanClose>) -> Result<WalReader> {
    let expected = state.log.expectation(clean, state.log_begun);
    let vfs = Arc::clone(&resources.vfs);
    Ok(WalReader::open(vfs, &resources.directory, &expected, RecoveryMode::TolerateTornTail)?)
}

impl Frozen {
    fn new(
        resources: &Resources,
        state: ManifestState,
        sequence: SequenceNumber,
        (reader, end): (WalReader, Position),
        held: Held,
        pin: Option<LogPin>,
    ) -> Self {
        let env = &resources.env;
        let copy = LogCopy::begin(SEGMENT, Position(state.log.position), env.random(), env.random() as u32);
        Self { state, sequence, reader, copy, closed: None, end, of_log: Vec::new(), held, _pin: pin }
    }

    /// Which database it is; 0 if it has no id yet.
    pub(crate) fn database_id(&self) -> u128 {
        self.state.database_id
    }

    /// All files of a copy apart from the log.
    pub(crate) fn files(&self) -> Vec<LiveFile> {
        [&self.state.live_files(), self.of_log()].concat()
    }

    /// Those of them that only the log names.
    pub(crate) fn of_log(&self) -> &[LiveFile] {
        &self.of_log
    }

    /// Bytes of the log of a copy.
    pub(crate) fn log_bytes(&self) -> u64 {
        LogCopy::file_bytes(Position(self.state.log.position), self.end)
    }

    /// The next bytes of the log of a copy; `None` at its end.
    pub(crate) fn next_log_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        while self.closed.is_none() {
            match self.reader.next()? {
                Some(record) => self.copy.append(record.tag, record.payload)?,
                None => self.closed = Some(self.copy.finish()?),
            }
            if self.copy.waiting_bytes() >= COPY_BYTES {
                break;
            }
        }
        Ok(Some(self.copy.take()).filter(|bytes| !bytes.is_empty()))
    }

    /// The state of a copy, and the end of its log, which was read to the end before.
    pub(crate) fn into_copy(mut self) -> Result<(ManifestState, CleanClose)> {
        let closed = self.closed.filter(|closed| closed.end == self.end);
        let closed = closed.ok_or_else(|| Error::invalid("the log was not copied to its end"))?;
        let position = self.state.log.position;
        self.state.log = LogStart { position, segment: SEGMENT, synced: closed.end.0 };
        self.state.log_begun = SEGMENT;
        // Those who read changes through a slot read them from the database itself.
        self.state.slots.clear();
        Ok((self.state, closed))
    }
}
