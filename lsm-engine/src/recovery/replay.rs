//! Replay: inserts the operations of the log that are not in tables into memtables.
//!
//! Replay reads the log to its end before anything on disk changes. Records that do not fit memory are only checked in
//! this first reading. A second reading takes them in, when memtables can be flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::env::Env;
use lsm_core::vfs::Vfs;
use lsm_core::{BlobPointer, SEQUENCE_MAX, SequenceNumber, ValueKind};
use lsm_wal::{
    CleanClose, Dropped, LogExpectation, Position, Record, RecoveryMode, RecoveryReport, WalReader,
};

use crate::background::{Flush, JobContext, UNSYNCED_FILES_MAX};
use crate::error::{Error, Result};
use crate::keyspaces::Trees;
use crate::keyspaces::{ReadState, Tree};
use crate::memory::{Charge, Memory, Part, batch_bytes, room_for};
use crate::options::{Options, ResolvedOptions};
use crate::recovery::report::Recovery;
use crate::resources::Resources;
use crate::version::current::Current;
use crate::version::edit::{LogStart, VersionEdit, decode_ingested};
use crate::version::files;
use crate::version::manifest::{KeyspaceState, ManifestState};
use crate::version::{BlobFile, Numbers, ObsoleteFiles, Placement, TableOpener, Version, missing};
use crate::write::{Committer, KeyspaceWriter, Operation, Operations};

/// The trees of a database that is being opened.
pub(crate) struct Replay {
    trees: Trees,
    committer: Committer,
    numbers: Arc<Numbers>,
    memory: Arc<Memory>,
    last_sequence: SequenceNumber,
    unsettled: Unsettled,
}

/// Replayed data that the manifest does not have in tables yet.
pub(crate) struct Unsettled {
    env: Arc<dyn Env>,
    log: OldLog,
    /// By keyspace: the sequence number up to which its writes are in tables of the manifest.
    flushed: BTreeMap<u32, SequenceNumber>,
    /// Tables that the log clears: keyspace, number of the table, sequence number of the clear.
    cleared: Vec<(u32, u64, SequenceNumber)>,
    /// Tables that are written but not in the manifest yet.
    built: Vec<Built>,
    /// Numbers of ingested tables that only the log names.
    ingested: BTreeSet<u64>,
    opener: TableOpener,
    /// The position of the first record that did not fit memory.
    rest: Option<Position>,
    operations: u64,
    /// The last sequence number of the previous record.
    last_sequence: SequenceNumber,
    /// Keyspaces of the current record.
    touched: Vec<u32>,
}

/// The log that recovery reads.
struct OldLog {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    start: LogStart,
    begun: u64,
    mode: RecoveryMode,
    clean: Option<CleanClose>,
    next_keyspace: u32,
    manifest: u64,
    obsolete_files: Arc<ObsoleteFiles>,
}

/// A memtable that was written to tables.
struct Built {
    tree: Arc<Tree>,
    last_sequence: SequenceNumber,
    placements: Vec<Placement>,
    /// The ingested tables that the memtable stands for. The keyspace has them already.
    ingested: Vec<Placement>,
    /// The blob files that the tables point to.
    blobs: Vec<Arc<BlobFile>>,
    /// `None` after the tables replaced the memtable.
    flush: Option<Flush>,
}

/// A reader of the log whose buffers are accounted for.
pub(super) struct CountedReader {
    pub(super) reader: WalReader,
    buffers: Charge,
}

impl CountedReader {
    fn next(&mut self) -> Result<Option<Record<'_>>> {
        let held = self.reader.memory_bytes();
        let record = self.reader.next()?;
        let needed = record.as_ref().map_or(0, |record| record.payload.len());
        self.buffers.set(held.max(needed));
        Ok(record)
    }
}

impl OldLog {
    fn read_from(&self, position: u64, memory: &Arc<Memory>) -> Result<CountedReader> {
        let expected =
            LogExpectation { from: Position(position), ..self.start.expectation(self.clean, self.begun) };
        let reader = WalReader::open(Arc::clone(&self.vfs), &self.directory, &expected, self.mode)?;
        Ok(CountedReader { reader, buffers: Charge::new(memory, Part::Buffers, 0) })
    }
}

/// Opens the file that an operation of the log points to. It was durable before the record.
pub(crate) fn open_blob(
    memory: &Arc<Memory>,
    directory: &Path,
    obsolete_files: &Arc<ObsoleteFiles>,
    operation: &Operation<'_>,
    record: &Record<'_>,
) -> Result<Arc<BlobFile>> {
    let pointer = BlobPointer::decode(operation.value);
    let blob = pointer.ok_or_else(|| malformed(record, "a blob pointer is malformed"))?.blob;
    BlobFile::open(memory, directory, (blob, blob), None, obsolete_files).map_err(|error| {
        let who = format!("the log record at position {} points to it", record.start);
        missing(error, || files::blob(directory, blob), &who)
    })
}

pub(crate) fn malformed(record: &Record<'_>, detail: &str) -> Error {
    let detail = format!("in the record at position {}: {detail}", record.start);
    Error::corruption(record.path, record.offset, detail)
}

/// What opening has found on the disk, apart from the log.
pub(crate) struct Found<'d> {
    pub(crate) state: &'d ManifestState,
    pub(crate) current: &'d Current,
    /// The options of the keyspaces.
    pub(crate) options: &'d BTreeMap<u32, Arc<ResolvedOptions>>,
    /// The open tables, by keyspace.
    pub(crate) tables: BTreeMap<u32, Vec<Placement>>,
    /// The open blob files, by keyspace.
    pub(crate) blobs: BTreeMap<u32, Vec<Arc<BlobFile>>>,
    /// No file has this number or a higher one.
    pub(crate) unused_number: u64,
}

impl Replay {
    /// Makes the trees from the tables of the manifest.
    pub(crate) fn new(resources: &Resources, options: &Options, found: Found<'_>) -> Result<Self> {
        let Found { state, current, options: keyspace_options, mut tables, mut blobs, unused_number } = found;
        let memory = &resources.memory;
        let numbers = Arc::new(Numbers::from(state.next_number.max(unused_number)));
        let (mut trees, mut writers, mut flushed) = (Trees::default(), BTreeMap::new(), BTreeMap::new());
        for (&id, keyspace) in &state.keyspaces {
            let KeyspaceState { record, flushed: up_to, .. } = keyspace;
            let blobs = blobs.remove(&id).unwrap_or_default();
            let version = Version::new(tables.remove(&id).unwrap_or_default(), &blobs);
            let resolved = keyspace_options.get(&id).ok_or_else(|| Error::invalid("no such keyspace"))?;
            let tree = Arc::new(Tree::new(record, Arc::clone(resolved), version, memory));
            let writer = KeyspaceWriter::new(Arc::clone(&tree));
            memory.check_tables()?;
            if id == 0 {
                tree.configure(Arc::clone(resolved));
            }
            trees.insert(tree);
            writers.insert(id, writer);
            flushed.insert(id, *up_to);
        }
        let default = writers.remove(&0).ok_or_else(|| Error::invalid("no default keyspace"))?;
        let others = writers.into_values();
        let (last_sequence, memory) = (state.last_sequence, Arc::clone(memory));
        let committer =
            Committer::new(last_sequence, default, others, Arc::clone(&memory), Arc::clone(&numbers));
        let log = OldLog {
            vfs: Arc::clone(&resources.vfs),
            directory: resources.directory.clone(),
            start: state.log,
            begun: state.log_begun,
            mode: options.recovery,
            clean: current.clean,
            next_keyspace: state.next_keyspace,
            manifest: current.manifest,
            obsolete_files: Arc::clone(&resources.obsolete_files),
        };
        let unsettled = Unsettled {
            env: Arc::clone(&resources.env),
            log,
            flushed,
            cleared: Vec::new(),
            built: Vec::new(),
            ingested: BTreeSet::new(),
            opener: TableOpener {
                directory: resources.directory.clone(),
                options: keyspace_options.clone(),
                memory: Arc::clone(&resources.memory),
                obsolete_files: Arc::clone(&resources.obsolete_files),
            },
            rest: None,
            operations: 0,
            last_sequence: 0,
            touched: Vec::new(),
        };
        Ok(Self { trees, committer, numbers, memory, last_sequence, unsettled })
    }

    /// Reads the log and inserts the records that fit memory.
    pub(crate) fn run(&mut self, recovery: &mut Recovery) -> Result<RecoveryReport> {
        let unsettled = &mut self.unsettled;
        let mut reader = unsettled.log.read_from(unsettled.log.start.position, &self.memory)?;
        while let Some(record) = reader.next()? {
            if unsettled.rest.is_none() && unsettled.reserve(&self.committer, &record, &self.memory).is_err()
            {
                unsettled.rest = Some(record.start);
            }
            let committer = unsettled.rest.is_none().then_some(&mut self.committer);
            let last = unsettled.take(&record, committer)?;
            self.last_sequence = self.last_sequence.max(last);
        }
        self.memory.holding.trim();
        check_parts(self.trees.all())?;
        let report = reader.reader.report().clone();
        recovery.records = report.records;
        recovery.operations = unsettled.operations;
        recovery.bytes_dropped = report.bytes_dropped;
        recovery.dropped = report.dropped.iter().map(Dropped::to_string).collect();
        Ok(report)
    }

    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence
    }

    /// Numbers of ingested tables that the manifest may not name.
    pub(crate) fn ingested(&self) -> &BTreeSet<u64> {
        self.unsettled.ingested()
    }

    pub(crate) fn numbers(&self) -> Arc<Numbers> {
        Arc::clone(&self.numbers)
    }

    /// Fails if the log did not fit memory.
    pub(crate) fn check_all_fit(&self) -> Result<()> {
        if self.unsettled.rest.is_none() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the log of {} holds more than fits the {} bytes that Options::memory leaves for memtables: give more \
             memory, or open the database for writing, which flushes the log",
            self.unsettled.log.directory.display(),
            self.memory.memtables_bytes_max()
        )))
    }

    /// Whether all replayed data is in tables of the manifest.
    pub(crate) fn is_empty(&self) -> bool {
        let in_tables = |tree: &Arc<Tree>| tree.load().memtables().all(|memtable| memtable.is_empty());
        let Unsettled { rest, cleared, .. } = &self.unsettled;
        rest.is_none() && cleared.is_empty() && self.committer.unflushed().trees().iter().all(in_tables)
    }

    pub(crate) fn into_parts(mut self) -> (Trees, Committer, Unsettled) {
        self.committer.set_last_sequence(self.last_sequence);
        (self.trees, self.committer, self.unsettled)
    }
}

impl Unsettled {
    /// Reserves the memory that memtables need for a record. Returns how much that is if there is not so much.
    fn reserve(&self, committer: &Committer, record: &Record<'_>, memory: &Memory) -> Result<(), usize> {
        let bound = self.wanted_bytes(committer, record, memory.holding.possible_room_bytes());
        if memory.holding.has_room(bound, 0, None) {
            return Ok(());
        }
        let wanted = self.wanted_bytes(committer, record, 0);
        if memory.holding.wait_for_room(&*self.env, wanted) { Ok(()) } else { Err(wanted) }
    }

    fn wanted_bytes(&self, committer: &Committer, record: &Record<'_>, room_bytes: usize) -> usize {
        wanted_bytes(&self.flushed, committer, record, room_bytes)
    }

    /// Checks a record. Inserts its operations if there is a `committer`. Returns the last sequence number.
    fn take(&mut self, record: &Record<'_>, mut committer: Option<&mut Committer>) -> Result<SequenceNumber> {
        let (start, tag) = (record.start.0, record.tag);
        if tag == 0 || tag > SEQUENCE_MAX {
            return Err(malformed(record, &format!("{tag} is not a sequence number")));
        }
        if tag <= self.last_sequence {
            let detail = format!("sequence number {tag} does not follow {}", self.last_sequence);
            return Err(malformed(record, &detail));
        }
        let mut last = tag;
        self.touched.clear();
        for operation in Operations::new(record.payload, tag) {
            let operation = operation.map_err(|detail| malformed(record, detail))?;
            last = operation.sequence;
            let Some(&flushed) = self.flushed.get(&operation.keyspace) else {
                if operation.keyspace < self.log.next_keyspace {
                    continue;
                }
                let detail = format!(
                    "the log record at position {start} names keyspace {}, which was never created",
                    operation.keyspace
                );
                // A keyspace is durable in the manifest before the first record that names it, so the manifest is
                // wrong.
                let manifest = files::manifest(&self.log.directory, self.log.manifest);
                return Err(Error::corruption(&manifest, 0, detail));
            };
            if operation.sequence <= flushed {
                continue;
            }
            self.operations += 1;
            if operation.kind == ValueKind::Ingest {
                self.ingest(record, &operation, committer.as_deref_mut())?;
            }
            let Some(committer) = &mut committer else { continue };
            if operation.kind == ValueKind::BlobPointer {
                let OldLog { directory, obsolete_files, .. } = &self.log;
                let file = open_blob(committer.memory(), directory, obsolete_files, &operation, record)?;
                committer.set_blobs(vec![file]);
            }
            if operation.kind == ValueKind::Ingest {
                // Done.
            } else if operation.kind == ValueKind::KeyspaceClear {
                self.clear(committer, operation.keyspace, operation.sequence)?;
            } else {
                committer.insert(&operation, start, tag - 1)?;
            }
            if !self.touched.contains(&operation.keyspace) {
                self.touched.push(operation.keyspace);
            }
        }
        if let Some(committer) = committer {
            committer.set_last_sequence(last);
            for &keyspace in &self.touched {
                committer.after_write(keyspace);
            }
        }
        self.last_sequence = last;
        Ok(last)
    }

    /// Takes in the tables of an ingest. Without a `committer`, only notes that their files are needed.
    fn ingest(
        &mut self,
        record: &Record<'_>,
        operation: &Operation<'_>,
        committer: Option<&mut Committer>,
    ) -> Result<()> {
        let Operation { keyspace, sequence, value, .. } = *operation;
        let tables = decode_ingested(value, keyspace, sequence)
            .map_err(|error| error.at(record.path, record.offset))?;
        self.ingested.extend(tables.iter().map(|table| table.number));
        let Some(committer) = committer else { return Ok(()) };
        let opened = tables.iter().map(|table| Ok(self.opener.open(table, "the log")?.table));
        let opened = opened.collect::<Result<Vec<_>>>()?;
        committer.install_ingested(keyspace, opened, sequence, record.start.0)
    }

    /// Numbers of ingested tables that the manifest may not name.
    pub(super) fn ingested(&self) -> &BTreeSet<u64> {
        &self.ingested
    }

    fn clear(&mut self, committer: &mut Committer, id: u32, sequence: SequenceNumber) -> Result<()> {
        let Some(tree) = committer.tree(id).cloned() else { return Ok(()) };
        let built = self.built.extract_if(.., |built| built.tree.id == id);
        let mut placements: Vec<Placement> =
            built.flat_map(|built| built.placements.into_iter().chain(built.ingested)).collect();
        placements.extend(tree.load().immutable.iter().flat_map(|memtable| memtable.ingested.clone()));
        for placement in &placements {
            placement.table.mark_obsolete();
        }
        for table in tree.load().version.tables() {
            if !placements.iter().any(|placement| placement.table.number() == table.number()) {
                self.cleared.push((id, table.number(), sequence));
            }
        }
        committer.clear(id, sequence)?;
        tree.update(|state| ReadState { before_clear: None, ..(**state).clone() });
        Ok(())
    }

    /// Writes tables of all immutable memtables. The memtables stay in use, since the disk may not have space for all.
    fn flush_immutable(&mut self, context: &JobContext) -> Result<()> {
        let mut unsynced = self.built.len();
        for tree in context.write.unflushed.trees() {
            let oldest_first: Vec<_> = tree.load().immutable.iter().rev().cloned().collect();
            for memtable in oldest_first {
                let last_sequence = memtable.last_sequence();
                let mut flush = Flush::new(context, Arc::clone(&tree), memtable.into());
                let placements = flush.write(context)?;
                let (tree, ingested, blobs) = (Arc::clone(&tree), flush.ingested(), flush.blobs().to_vec());
                let flush = Some(flush);
                self.built.push(Built { tree, last_sequence, placements, ingested, blobs, flush });
                if self.built.len() - unsynced >= UNSYNCED_FILES_MAX {
                    self.sync_built(&mut unsynced)?;
                }
            }
        }
        self.sync_built(&mut unsynced)?;
        if self.built.is_empty() { Ok(()) } else { context.resources.sync_directory() }
    }

    /// Syncs the tables from the index `unsynced` on.
    fn sync_built(&mut self, unsynced: &mut usize) -> Result<()> {
        let mut built = self.built.iter_mut().skip(*unsynced).filter_map(|built| built.flush.as_mut());
        built.try_for_each(Flush::sync)?;
        *unsynced = self.built.len();
        Ok(())
    }

    /// Replaces the memtables with their tables.
    fn replace_built(&mut self, context: &JobContext) {
        for built in &mut self.built {
            if let Some(mut flush) = built.flush.take() {
                flush.replace(context, built.placements.clone());
                flush.end(context);
            }
        }
    }

    /// Bytes of the log that did not fit memory. The log ends at `end`.
    pub(super) fn bytes_left(&self, end: Position) -> Option<u64> {
        self.rest.map(|rest| end.0.saturating_sub(rest.0))
    }

    /// Reads the log to its end again.
    pub(super) fn read_log(&self, memory: &Arc<Memory>) -> Result<CountedReader> {
        let mut reader = self.log.read_from(self.log.start.position, memory)?;
        while reader.next()?.is_some() {}
        Ok(reader)
    }

    /// Writes everything to tables, including the records that did not fit memory.
    fn build(&mut self, context: &JobContext) -> Result<()> {
        context.write.committer.lock().rotate_all();
        self.flush_immutable(context)?;
        let Some(rest) = self.rest else { return Ok(()) };
        self.replace_built(context);
        let memory = &context.resources.memory;
        let mut reader = self.log.read_from(rest.0, memory)?;
        self.last_sequence = 0;
        while let Some(record) = reader.next()? {
            let mut committer = context.write.committer.lock();
            if self.reserve(&committer, &record, memory).is_err() {
                committer.rotate_all();
                drop(committer);
                self.flush_immutable(context)?;
                self.replace_built(context);
                committer = context.write.committer.lock();
                self.reserve(&committer, &record, memory).map_err(|wanted| memory.exhausted(wanted))?;
            }
            self.take(&record, Some(&mut committer))?;
        }
        let mut committer = context.write.committer.lock();
        committer.rotate_all();
        committer.set_last_sequence(context.visibility.sequence());
        drop(committer);
        self.flush_immutable(context)
    }

    /// The part of the edit that records the replayed clears.
    pub(super) fn clears(&self) -> VersionEdit {
        VersionEdit {
            removed: self.cleared.iter().map(|&(keyspace, number, _)| (keyspace, number)).collect(),
            flushed: self.cleared.iter().map(|&(keyspace, _, sequence)| (keyspace, sequence)).collect(),
            ..VersionEdit::default()
        }
    }

    /// The edit that adds all tables and moves the start of the log to `log`.
    fn edit(&self, log: LogStart) -> VersionEdit {
        let mut edit = VersionEdit { log: Some(log), ..self.clears() };
        for Built { tree, last_sequence, placements, ingested, blobs, .. } in &self.built {
            edit.last_sequence = edit.last_sequence.max(Some(*last_sequence));
            edit.flushed.push((tree.id, *last_sequence));
            let added = placements.iter().chain(ingested);
            edit.added.extend(added.map(|placement| placement.added_to(tree.id)));
            edit.added_blobs.extend(blobs.iter().map(|file| file.added_to(tree.id)));
        }
        edit
    }
}

/// The memory that memtables need for a record, or an upper bound if that bound fits `room_bytes`. Operations up to the
/// numbers in `flushed`, and those of keyspaces that it lacks, need none.
pub(crate) fn wanted_bytes(
    flushed: &BTreeMap<u32, SequenceNumber>,
    committer: &Committer,
    record: &Record<'_>,
    room_bytes: usize,
) -> usize {
    // An encoded operation has at least three bytes, a range delete at least five.
    let payload_bytes = record.payload.len();
    let operations_max = |bytes: u64| payload_bytes as u64 / bytes;
    let bound = room_for(batch_bytes(payload_bytes, operations_max(3), operations_max(5)))
        + committer.growth_bytes_max(operations_max(3) as usize);
    if bound <= room_bytes {
        return bound;
    }
    let mut operations = Operations::new(record.payload, record.tag);
    let mut keyspaces = Vec::new();
    let (mut bytes, mut count, mut range_deletes) = (0, 0, 0);
    // A malformed record is reported by `take`.
    while let Some(Ok(operation)) = operations.next() {
        // Operations of dropped keyspaces, and those in tables, take no memory.
        if flushed.get(&operation.keyspace).is_none_or(|&flushed| operation.sequence <= flushed) {
            continue;
        }
        bytes += operation.key.len() + operation.value.len();
        count += 1;
        range_deletes += u64::from(operation.kind == ValueKind::RangeDelete);
        if !keyspaces.contains(&operation.keyspace) {
            keyspaces.push(operation.keyspace);
        }
    }
    room_for(batch_bytes(bytes, count, range_deletes)) + committer.growth_bytes(&keyspaces)
}

/// Fails if a memtable panicked. Its data may not be in tables, so the start of the log must not move past it.
fn check_parts<'t>(trees: impl IntoIterator<Item = &'t Arc<Tree>>) -> Result<()> {
    trees.into_iter().find_map(|tree| tree.failure()).map_or(Ok(()), Err)
}

/// Flushes the replayed data and moves the start of the log past it, with one edit. A power cut may lose replayed
/// records until then, so either all their data is in tables, or all are replayed again. After a failure the replayed
/// data is still in memtables, unless the memory was too small for the whole log.
pub(crate) fn settle(context: &JobContext, unsettled: &mut Unsettled) -> Result<()> {
    let (position, segment) = {
        let committer = context.write.committer.lock();
        (committer.log_end(), committer.first_segment())
    };
    if context.versions.lock().state().log.position != position {
        let settled = unsettled.build(context).and_then(|()| {
            check_parts(&context.all_trees())?;
            let mut manifest = context.versions.lock();
            // The replayed part of the old log need not be durable: it is not needed any more.
            let log = LogStart { position, segment, synced: manifest.state().log.synced };
            context.versions.log_edit(&mut manifest, unsettled.edit(log))
        });
        if let Err(error) = settled {
            let built = std::mem::take(&mut unsettled.built);
            // If writing has stopped, the manifest may name the tables after all. Then keep them for the next open.
            if context.status.check_writing().is_ok() {
                for placement in built.iter().flat_map(|built| &built.placements) {
                    context.resources.obsolete_files.remove_later(placement.table.path().to_owned());
                }
            }
            return Err(error);
        }
        unsettled.replace_built(context);
    }
    context.write.controller.set_log_start(position);
    Ok(())
}
