//! Flushing: writes immutable memtables to tables of level 0, oldest first.

use std::collections::HashSet;
use std::sync::Arc;

use lsm_core::Cursor;
use tracing::Span;
use tracing::field::Empty;

use crate::background::compaction::{
    Build, BuildInput, NewFiles, NewTable, Older, Output, OutputOptions, Progress,
};
use crate::background::context::JobContext;
use crate::background::flushed::Flushed;
use crate::callbacks::caught;
use crate::error::{Error, ErrorKind, Result};
use crate::events::EventKind;
use crate::keyspaces::{ReadState, Tree};
use crate::version::edit::VersionEdit;
use crate::version::{BlobFile, Placement};

/// Pause before a failed flush is tried again, for errors that may pass, such as a full disk.
const RETRY_MICROS: u64 = 500_000;

/// Part of the disk reserve to release for a small table and its edit.
const FLUSH_RESERVE_BYTES: u64 = 48 << 10;
/// Upper bound of what an entry takes in a table besides key and value: header, filter, index.
const ENTRY_BYTES_BESIDE: usize = 32;

/// Maximum number of tables that wait for their sync. Each of them is open.
pub(crate) const UNSYNCED_FILES_MAX: usize = 64;

/// The flush of memtables of one keyspace to level 0.
pub(crate) struct Flush {
    tree: Arc<Tree>,
    flushed: Flushed,
    /// `None` when the tables are written.
    build: Option<Build<Box<dyn Cursor + Send>, Older>>,
    written: NewFiles,
    /// The blob files that the tables point to and the version does not have yet: written ones, and those of memtables.
    blobs: Vec<Arc<BlobFile>>,
    /// The tables have replaced the memtables.
    replaced: bool,
    started_micros: u64,
    span: Span,
}

impl Flush {
    pub(crate) fn new(context: &JobContext, tree: Arc<Tree>, flushed: Flushed) -> Self {
        let keyspace = tree.options();
        let state = tree.load_full();
        let stream = flushed.survivors(&state, context.visibility.garbage_rules(), &context.resources.memory);
        let options = OutputOptions {
            target_bytes: u64::MAX,
            is_one_table: false,
            boundaries: Vec::new(),
            compression: keyspace.compression_above,
            filter: keyspace
                .table_filter(flushed.entry_count(), state.version.runs().map(|run| run.entries())),
            with_blobs: true,
            sync_later: true,
            sources: 0,
            lower: None,
            upper: None,
        };
        let output = Output::new(
            Arc::clone(&context.resources),
            Arc::clone(&context.versions),
            &keyspace,
            options,
            stream.surviving_range_tombstones(),
        );
        let source = BuildInput { read_bytes: |_| 0, copy_block: |_, _| Ok(0) };
        let build = Some(Build::new(stream, source, output, &state.merging));
        let started_micros = context.resources.env.monotonic_micros();
        if tree.flush_retry_micros().is_none() {
            let (keyspace, bytes) = (Arc::clone(&tree.name), flushed.bytes() as u64);
            context.resources.events.emit(EventKind::FlushBegin { keyspace, bytes });
        }
        let span = tracing::info_span!(
            "flush",
            keyspace = &*tree.name,
            bytes_in = flushed.bytes(),
            bytes_out = Empty,
            tables = Empty
        );
        let (written, blobs) = (NewFiles::default(), Vec::new());
        Self { tree, flushed, build, written, blobs, replaced: false, started_micros, span }
    }

    /// Works for a while. Returns `true` when the tables are written; they are not durable yet.
    fn step(&mut self) -> Result<bool> {
        let _entered = self.span.enter();
        let Some(build) = &mut self.build else { return Ok(true) };
        if let Progress::Done(written) = build.step()? {
            self.span.record("bytes_out", written.bytes()).record("tables", written.tables.len());
            self.written = written;
            self.build = None;
        }
        Ok(self.build.is_none())
    }

    /// Opens the tables, and the blob files that they point to.
    fn open(&mut self, context: &JobContext) -> Result<Vec<Placement>> {
        let open = |table: &NewTable| {
            let keyspace = self.tree.options();
            table.open(&context.resources, &context.versions, &keyspace, (0, self.flushed.number()), None)
        };
        let placements: Vec<Placement> = self.written.tables.iter().map(open).collect::<Result<_>>()?;
        let held: HashSet<u64> = placements
            .iter()
            .flat_map(|placement| placement.table.meta().blobs.iter().map(|held| held.blob))
            .collect();
        self.blobs = self.flushed.blobs().into_iter().filter(|file| held.contains(&file.blob())).collect();
        for blobs in &self.written.blobs {
            self.blobs.push(blobs.open(&context.resources)?);
        }
        Ok(placements)
    }

    /// Writes and opens all tables. They are neither durable nor installed yet.
    pub(crate) fn write(&mut self, context: &JobContext) -> Result<Vec<Placement>> {
        while !self.step()? {}
        let opened = self.open(context);
        opened.inspect_err(|_| context.discard(&self.written))
    }

    /// The tables that come into the manifest with this flush, and that the keyspace has already.
    pub(crate) fn ingested(&self) -> Vec<Placement> {
        self.flushed.ingested().cloned().collect()
    }

    /// Syncs the tables and blob files.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.written.sync()
    }

    /// Whether the flush has written this file.
    fn has_written(&self, file: &BlobFile) -> bool {
        self.written.blobs.iter().any(|written| written.numbers.1 == file.number())
    }

    /// Whether the keyspace still has the memtables. The keyspace may have been cleared or dropped meanwhile.
    fn is_wanted(&self) -> bool {
        !self.tree.is_dropped() && self.flushed.is_held_by(&self.tree)
    }

    /// Replaces the memtables with their tables.
    pub(crate) fn replace(&mut self, context: &JobContext, placements: Vec<Placement>) {
        self.tree.update(|state| {
            let flushed = ReadState {
                immutable: state
                    .immutable
                    .iter()
                    .filter(|immutable| !self.flushed.holds(immutable))
                    .cloned()
                    .collect(),
                version: Arc::new(state.version.with_blobs(&self.blobs).changed(&[], placements)),
                ..(**state).clone()
            };
            flushed.settled()
        });
        self.tree.forget_flush_retry();
        context.write.unflushed.recheck(&self.tree);
        context.compaction_queue.add(&self.tree);
        if !self.blobs.is_empty() {
            context.blob_rewrites.trees.add(&self.tree);
        }
        self.replaced = true;
    }

    /// The blob files that the tables point to and the version does not have yet.
    pub(crate) fn blobs(&self) -> &[Arc<BlobFile>] {
        &self.blobs
    }

    /// Marks as obsolete the blob files of the memtables to which no table points. The edit is durable, so replay skips
    /// the records that do.
    fn drop_blobs(&self) {
        let kept: HashSet<u64> = self.blobs.iter().map(|file| file.blob()).collect();
        for file in self.flushed.blobs().iter().filter(|file| !kept.contains(&file.blob())) {
            file.mark_obsolete();
        }
    }

    /// Releases the memtables. From now on their memory is charged to readers.
    pub(crate) fn end(self, context: &JobContext) {
        let Self { flushed, replaced, .. } = self;
        let freed = if replaced { flushed.bytes() } else { 0 };
        let readers = flushed.into_memtables().into_iter().map(|memtable| Arc::clone(&memtable.reader));
        context.resources.memory.release_memtables(readers);
        context.resources.memory.holding.remove_immutable_bytes(freed);
    }
}

/// A flush group: the oldest immutable memtables of some keyspaces, flushed together with one sync each of directory,
/// log and manifest. Those of one keyspace become one run. Memtables of normal size are a group of their own.
pub(crate) struct FlushGroup {
    /// The group has several memtables.
    is_shared: bool,
    /// Memtables to write, the next ones last.
    waiting: Vec<(Arc<Tree>, Flushed)>,
    /// The flush that is writing its tables.
    current: Option<Flush>,
    written: Vec<Flush>,
    synced: Vec<Flush>,
    started_micros: u64,
    /// An error of the operating system for some memtable of the group.
    error: Option<Error>,
}

impl FlushGroup {
    pub(crate) fn of(context: &JobContext, memtables: Vec<(Arc<Tree>, Flushed)>) -> Self {
        Self {
            is_shared: memtables.len() > 1,
            waiting: memtables,
            current: None,
            written: Vec::new(),
            synced: Vec::new(),
            started_micros: context.resources.env.monotonic_micros(),
            error: None,
        }
    }

    /// The next group: the waiting memtables of the keyspace that pins the oldest part of the log, and those of further
    /// keyspaces up to the size of one memtable in all. A keyspace whose flush failed is left out for a while, so that the
    /// flushes of others are not held up. Then its memtables are tried one by one: the disk may have room for one and not
    /// for two.
    pub(super) fn next(context: &JobContext) -> Option<Self> {
        let now_micros = context.resources.env.monotonic_micros();
        let budget = &context.resources.memory.budget;
        let oldest = |tree: Arc<Tree>| {
            let retry_micros = tree.flush_retry_micros();
            let bytes_max = if retry_micros.is_none() { budget.flush_bytes_max } else { 0 };
            let flushed = Flushed::oldest(&tree, bytes_max)?;
            let is_due = retry_micros.is_none_or(|at_micros| at_micros <= now_micros);
            (is_due && tree.failure().is_none()).then_some((tree, flushed))
        };
        let mut immutable: Vec<_> = context.write.unflushed.trees().into_iter().filter_map(oldest).collect();
        immutable.sort_by_key(|(_, flushed)| flushed.log_start());
        let mut left = budget.memtable_bytes;
        let fits = |(_, flushed): &&(Arc<Tree>, Flushed)| {
            let rest = left.checked_sub(flushed.bytes());
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let count = immutable.iter().take(UNSYNCED_FILES_MAX).take_while(fits).count();
        immutable.truncate(count.max(1));
        immutable.reverse();
        if immutable.is_empty() { None } else { Some(Self::of(context, immutable)) }
    }

    /// Works for a while. Returns `true` when the tables are installed, except those that failed.
    pub(crate) fn step(&mut self, context: &JobContext) -> Result<bool> {
        loop {
            let is_done = self.advance(context)?;
            // For a single written memtable, sync and install are too short for steps of their own.
            if is_done || self.current.is_some() || self.is_shared {
                return Ok(is_done);
            }
        }
    }

    fn advance(&mut self, context: &JobContext) -> Result<bool> {
        if self.current.is_some() || !self.waiting.is_empty() {
            self.write(context);
        } else if let Some(mut flush) = self.written.pop() {
            match flush.sync() {
                Ok(()) => self.synced.push(flush),
                Err(error) => self.fail(context, &flush, error),
            }
        } else {
            self.install(context)?;
            return self.error.take().map_or(Ok(true), Err);
        }
        Ok(false)
    }

    fn write(&mut self, context: &JobContext) {
        let next = self.waiting.last().map(|(tree, _)| tree);
        let Some(tree) = self.current.as_ref().map(|flush| &flush.tree).or(next).cloned() else { return };
        let stepped = caught("a flush", || {
            if self.current.is_none() {
                self.current = self.waiting.pop().map(|(tree, flushed)| Flush::new(context, tree, flushed));
            }
            self.current.as_mut().map_or(Ok(true), Flush::step)
        });
        match stepped {
            Ok(false) => {}
            Ok(true) => self.written.extend(self.current.take()),
            Err(error) => {
                let current = self.current.take();
                drop_caught(|| drop(current));
                self.note(context, &tree, error);
            }
        }
    }

    /// Removes the files of a flush that failed.
    fn fail(&mut self, context: &JobContext, flush: &Flush, error: Error) {
        context.discard(&flush.written);
        self.note(context, &flush.tree, error);
    }

    /// Notes the error of one keyspace. The other keyspaces of the group are still flushed.
    fn note(&mut self, context: &JobContext, tree: &Tree, error: Error) {
        // The files of the failed flush may take the disk space that others need.
        context.resources.remove_obsolete_files();
        retry_or_fail(context, tree, &error);
        if error.kind() == ErrorKind::NoSpace
            && caught("a flush", || lend_reserve(context, tree)).is_ok_and(|lent| lent)
        {
            // Try again at once, and report no error.
            tree.retry_flush_at(0);
            return;
        }
        if error.may_pass() {
            // The other memtables of the group may fail with the same error.
            self.waiting.clear();
            self.error.get_or_insert(error);
        }
    }

    /// Installs the synced tables.
    fn install(&mut self, context: &JobContext) -> Result<()> {
        if self.synced.is_empty() {
            return Ok(());
        }
        context.resources.sync_directory()?;
        let mut opened = Vec::new();
        for mut flush in std::mem::take(&mut self.synced) {
            match caught("the opening of a table", || flush.open(context)) {
                Ok(placements) => opened.push((flush, placements)),
                Err(error) => self.fail(context, &flush, error),
            }
        }
        if let Err(error) = Self::log(context, &mut opened) {
            self.synced = opened.into_iter().map(|(flush, _)| flush).collect();
            return Err(error);
        }
        // The tables are installed, so nothing may fail any more. Wake the clean-up job: their indexes and filters may
        // not have fit memory, and it can unpin others.
        context.resources.obsolete_files.event().notify();
        let mut bytes = 0;
        for (flush, _) in opened {
            bytes += flush.flushed.bytes() as u64;
            context.resources.counters.flushes.add(1);
            let written = flush.written.bytes();
            context.resources.counters.flush_bytes_out.add(written);
            let micros = context.resources.env.monotonic_micros() - flush.started_micros;
            context.resources.counters.flush_times.record_micros(micros);
            context.resources.events.emit(EventKind::FlushEnd {
                keyspace: Arc::clone(&flush.tree.name),
                tables: flush.written.tables.len() as u64,
                bytes: written,
                micros,
            });
            drop_caught(|| flush.end(context));
        }
        context.resources.counters.flush_bytes_in.add(bytes);
        context
            .write
            .controller
            .observe(bytes, context.resources.env.monotonic_micros() - self.started_micros);
        Ok(())
    }

    /// Logs the edit, and replaces the memtables with their tables. Leaves out memtables that were cleared or dropped.
    fn log(context: &JobContext, opened: &mut Vec<(Flush, Vec<Placement>)>) -> Result<()> {
        if opened.is_empty() {
            return Ok(());
        }
        // Sync the log first. Otherwise a power cut could keep these writes in tables but lose earlier writes to other
        // keyspaces, or the rest of a batch. Who reads the log as history must not miss them either.
        if context.trees.read().len() > 1
            || !context.write.log_pins.is_empty()
            || opened.iter().any(|(flush, _)| flush.flushed.is_cut())
        {
            let end = context.write.log_end();
            // After a failed sync the log takes no more records. Writers that wait for this flush must get the error.
            context.write.sync_up_to(end).inspect_err(|error| context.status.stop_writing(error.clone()))?;
        }
        let mut manifest = context.versions.lock();
        for (flush, placements) in opened.extract_if(.., |(flush, _)| !flush.is_wanted()) {
            for placement in placements {
                placement.table.mark_obsolete();
            }
            // Those of the memtables are not the flush's to remove.
            flush.blobs.iter().filter(|file| flush.has_written(file)).for_each(|file| file.mark_obsolete());
        }
        if opened.is_empty() {
            return Ok(());
        }
        let flushed = opened.iter().flat_map(|(flush, _)| flush.flushed.numbers()).collect();
        let log = context.write.log_start(&flushed);
        let mut edit = VersionEdit { log: Some(log), ..VersionEdit::default() };
        for (flush, placements) in &*opened {
            let (id, last_sequence) = (flush.tree.id, flush.flushed.last_sequence());
            edit.last_sequence = edit.last_sequence.max(Some(last_sequence));
            edit.flushed.push((id, last_sequence));
            let ingested = flush.flushed.ingested();
            edit.added.extend(placements.iter().chain(ingested).map(|placement| placement.added_to(id)));
            edit.added_blobs.extend(flush.blobs.iter().map(|file| file.added_to(id)));
        }
        context.versions.log_edit(&mut manifest, edit)?;
        for (flush, placements) in opened {
            flush.replace(context, std::mem::take(placements));
            flush.drop_blobs();
        }
        drop(manifest);
        context.write.controller.set_log_start(log.position);
        if let Err(error) = context.write.truncate_log(log.position) {
            tracing::warn!(%error, "failed to remove unneeded log segments");
        }
        Ok(())
    }

    /// Gives up the flushes that are not installed yet. After an error that will not pass, their keyspaces stop.
    pub(super) fn give_up(mut self, context: &JobContext, error: Option<&Error>) {
        let current = self.current.take();
        let flushes = current.into_iter().chain(self.written.drain(..)).chain(self.synced.drain(..));
        for flush in flushes {
            context.discard(&flush.written);
            if let Some(error) = error {
                retry_or_fail(context, &flush.tree, error);
            }
            drop_caught(|| drop(flush));
        }
        context.resources.remove_obsolete_files();
    }
}

/// Releases as much of the disk reserve as the flush of a memtable with range deletes needs, if that is little: the
/// deletes may hide most of the memtable, and much more in tables. Returns `false` if the reserve is too small.
fn lend_reserve(context: &JobContext, tree: &Tree) -> Result<bool> {
    let reserve = &context.resources.disk_reserve;
    let (held, Some(memtable)) = (reserve.bytes(), tree.load().immutable.last().cloned()) else {
        return Ok(false);
    };
    if memtable.range_tombstones.is_empty() {
        return Ok(false);
    }
    let mut needed = FLUSH_RESERVE_BYTES + 2 * memtable.range_tombstones.memory_bytes() as u64;
    let state = tree.load();
    let mut stream = Flushed::from(memtable)
        .survivors(&state, context.visibility.garbage_rules(), &context.resources.memory)
        .with_merge_operator(state.merging.for_background());
    while needed <= held {
        let Some(entry) = stream.next()? else { return Ok(reserve.release(needed)) };
        needed += 2 * (entry.key.len() + entry.value.len() + ENTRY_BYTES_BESIDE) as u64;
    }
    Ok(false)
}

/// After a failed flush: schedules the next try if the error may pass. Otherwise stops the keyspace.
fn retry_or_fail(context: &JobContext, tree: &Tree, error: &Error) {
    if error.may_pass() {
        tree.retry_flush_at(context.resources.env.monotonic_micros() + RETRY_MICROS);
    } else {
        tree.fail(error.clone());
    }
}

/// The keyspaces whose failed flush will be tried again.
pub(super) fn retried(context: &JobContext) -> impl Iterator<Item = Arc<Tree>> {
    let trees = context.write.unflushed.trees().into_iter();
    trees.filter(|tree| tree.failure().is_none() && tree.flush_retry_micros().is_some())
}

/// Drops a flush. Its memtable and cursor may be user code.
fn drop_caught(dropping: impl FnOnce()) {
    let dropped = caught("the end of a flush", || {
        dropping();
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, "a panic while a flush was dropped");
    }
}
