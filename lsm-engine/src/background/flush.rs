//! Flushing: immutable memtables become tables of level 0, oldest first.

use std::sync::Arc;

use lsm_compaction::{CompactionStream, GarbageRules};
use lsm_core::Cursor;

use crate::background::compaction::{Build, BuildInput, NewTable, Output, OutputOptions, Progress};
use crate::background::context::JobContext;
use crate::callbacks::caught;
use crate::error::{Error, ErrorKind, Result};
use crate::keyspaces::{Memtable, ReadState, Tree};
use crate::version::Placement;
use crate::version::edit::{AddedTable, VersionEdit};

/// How long to wait before trying again when the operating system failed: the disk is full, say.
const RETRY_MICROS: u64 = 500_000;

/// What is given back of the disk's reserve for a table of little, and for what says so.
const FLUSH_RESERVE_BYTES: u64 = 48 << 10;
/// What an entry takes in a table beside key and value at most: header, filter, index.
const ENTRY_BYTES_BESIDE: usize = 32;

/// Files that wait for their sync at most, each of them open.
pub(crate) const UNSYNCED_FILES_MAX: usize = 64;

/// One memtable on its way to level 0.
pub(crate) struct Flush {
    tree: Arc<Tree>,
    memtable: Arc<Memtable>,
    /// Until the tables are written.
    build: Option<Build<Box<dyn Cursor + Send>>>,
    tables: Vec<NewTable>,
    /// Tables took the place of the memtable.
    replaced: bool,
}

impl Flush {
    pub(crate) fn new(context: &JobContext, tree: Arc<Tree>, memtable: Arc<Memtable>) -> Self {
        let stream = survivors(context, &memtable);
        let keyspace = tree.options();
        let version = Arc::clone(&tree.load().version);
        let options = OutputOptions {
            target_bytes: u64::MAX,
            is_one_table: false,
            boundaries: Vec::new(),
            compression: keyspace.compression_above,
            filter: keyspace
                .table_filter(memtable.reader.entry_count() as u64, version.runs().map(|run| run.entries())),
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
        let build = Some(Build::new(stream, source, output));
        Self { tree, memtable, build, tables: Vec::new(), replaced: false }
    }

    /// Works for a while; `true` once the tables are written. They are not durable then.
    fn step(&mut self) -> Result<bool> {
        let Some(build) = &mut self.build else { return Ok(true) };
        if let Progress::Done(tables) = build.step()? {
            self.tables = tables;
            self.build = None;
        }
        Ok(self.build.is_none())
    }

    fn open(&self, context: &JobContext) -> Result<Vec<Placement>> {
        let open = |table: &NewTable| {
            let keyspace = self.tree.options();
            table.open(&context.resources, &context.versions, &keyspace, (0, self.memtable.number), None)
        };
        self.tables.iter().map(open).collect()
    }

    /// Works to the end: the tables, open, neither durable nor part of the keyspace yet.
    pub(crate) fn write(&mut self, context: &JobContext) -> Result<Vec<Placement>> {
        while !self.step()? {}
        self.open(context).inspect_err(|_| context.discard(&self.tables))
    }

    /// Makes the tables durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.tables.iter_mut().try_for_each(NewTable::sync)
    }

    /// Whether the keyspace still has the memtable: it may have been cleared or dropped meanwhile.
    fn is_wanted(&self) -> bool {
        !self.tree.is_dropped()
            && self.tree.load().immutable.iter().any(|immutable| Arc::ptr_eq(immutable, &self.memtable))
    }

    /// Puts tables in the place of the memtable.
    pub(crate) fn replace(&mut self, context: &JobContext, placements: Vec<Placement>) {
        self.tree.update(|state| ReadState {
            immutable: state
                .immutable
                .iter()
                .filter(|immutable| !Arc::ptr_eq(immutable, &self.memtable))
                .cloned()
                .collect(),
            version: Arc::new(state.version.changed(&[], placements)),
            ..(**state).clone()
        });
        self.tree.forget_flush_retry();
        context.write.unflushed.look_at(&self.tree);
        context.compaction_queue.add(&self.tree);
        self.replaced = true;
    }

    /// Lets go of the memtable; what readers still hold of it is theirs. Returns the tables.
    pub(crate) fn end(self, context: &JobContext) -> Vec<NewTable> {
        let Self { memtable, tables, replaced, .. } = self;
        let freed = if replaced { memtable.immutable_bytes() } else { 0 };
        let reader = Arc::clone(&memtable.reader);
        drop(memtable);
        context.resources.memory.let_go([reader]);
        context.resources.memory.remove_immutable_bytes(freed);
        context.resources.memory.bound_pool(0);
        tables
    }
}

/// The oldest immutable memtables of some keyspaces on their way to level 0, together: directory, log and manifest are
/// synced once for all of them. A memtable of the usual size is a group of its own.
pub(crate) struct FlushGroup {
    /// There are several.
    is_shared: bool,
    /// Still to be written, the next one last.
    waiting: Vec<(Arc<Tree>, Arc<Memtable>)>,
    /// Being written.
    current: Option<Flush>,
    written: Vec<Flush>,
    synced: Vec<Flush>,
    started_micros: u64,
    /// What the operating system refused for some of them.
    trouble: Option<Error>,
}

impl FlushGroup {
    pub(crate) fn of(context: &JobContext, memtables: Vec<(Arc<Tree>, Arc<Memtable>)>) -> Self {
        Self {
            is_shared: memtables.len() > 1,
            waiting: memtables,
            current: None,
            written: Vec::new(),
            synced: Vec::new(),
            started_micros: context.resources.env.monotonic_micros(),
            trouble: None,
        }
    }

    /// Those that keep the oldest parts of the log, as many as come to the size of a memtable. Those of a keyspace whose
    /// flush failed stand back for a while: what fails for one may succeed for another.
    pub(super) fn next(context: &JobContext) -> Option<Self> {
        let now_micros = context.resources.env.monotonic_micros();
        let oldest = |tree: Arc<Tree>| {
            let memtable = tree.load().immutable.last().cloned()?;
            let is_due = tree.flush_retry_micros().is_none_or(|at_micros| at_micros <= now_micros);
            (is_due && tree.failure().is_none()).then_some((tree, memtable))
        };
        let mut immutable: Vec<_> = context.write.unflushed.trees().into_iter().filter_map(oldest).collect();
        immutable.sort_by_key(|(_, memtable)| memtable.log_start);
        let mut left = context.resources.memory.budget.memtable_bytes;
        let fits = |(_, memtable): &&(Arc<Tree>, Arc<Memtable>)| {
            let rest = left.checked_sub(memtable.immutable_bytes());
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let count = immutable.iter().take(UNSYNCED_FILES_MAX).take_while(fits).count();
        immutable.truncate(count.max(1));
        immutable.reverse();
        if immutable.is_empty() { None } else { Some(Self::of(context, immutable)) }
    }

    /// Works for a while; `true` once the tables are part of their keyspaces, as many as could be.
    pub(crate) fn step(&mut self, context: &JobContext) -> Result<bool> {
        loop {
            let is_done = self.advance(context)?;
            // What is left to do for a single one, once it is written, is not worth a step of its own.
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
            return self.trouble.take().map_or(Ok(true), Err);
        }
        Ok(false)
    }

    fn write(&mut self, context: &JobContext) {
        let next = self.waiting.last().map(|(tree, _)| tree);
        let Some(tree) = self.current.as_ref().map(|flush| &flush.tree).or(next).cloned() else { return };
        let stepped = caught("a flush", || {
            if self.current.is_none() {
                self.current = self.waiting.pop().map(|(tree, memtable)| Flush::new(context, tree, memtable));
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

    /// One of them failed, and its files go.
    fn fail(&mut self, context: &JobContext, flush: &Flush, error: Error) {
        context.discard(&flush.tables);
        self.note(context, &flush.tree, error);
    }

    /// What fails for one keyspace does not keep the others from going on.
    fn note(&mut self, context: &JobContext, tree: &Tree, error: Error) {
        // What it wrote may take the room that others need.
        context.resources.remove_obsolete_files();
        stand_back(context, tree, &error);
        if error.kind() == ErrorKind::NoSpace
            && caught("a flush", || lend_reserve(context, tree)).is_ok_and(|lent| lent)
        {
            // At once, and nobody need hear of it.
            tree.retry_flush_at(0);
            return;
        }
        if error.may_pass() {
            // Those that are not written yet may meet the same.
            self.waiting.clear();
            self.trouble.get_or_insert(error);
        }
    }

    /// Makes what is synced a part of the keyspaces.
    fn install(&mut self, context: &JobContext) -> Result<()> {
        if self.synced.is_empty() {
            return Ok(());
        }
        context.resources.sync_directory()?;
        let mut opened = Vec::new();
        for flush in std::mem::take(&mut self.synced) {
            match caught("the opening of a table", || flush.open(context)) {
                Ok(placements) => opened.push((flush, placements)),
                Err(error) => self.fail(context, &flush, error),
            }
        }
        if let Err(error) = Self::log(context, &mut opened) {
            self.synced = opened.into_iter().map(|(flush, _)| flush).collect();
            return Err(error);
        }
        // The tables count from here on: nothing may fail any more. There may have been no room for what they would
        // keep in memory, until others make some.
        context.resources.obsolete_files.event().notify();
        let mut bytes = 0;
        for (flush, _) in opened {
            bytes += flush.memtable.immutable_bytes() as u64;
            context.resources.counters.flushes.add(1);
            context
                .resources
                .counters
                .flush_bytes_out
                .add(flush.tables.iter().map(|table| table.bytes).sum());
            drop_caught(|| drop(flush.end(context)));
        }
        context.resources.counters.flush_bytes_in.add(bytes);
        context
            .write
            .controller
            .observe(bytes, context.resources.env.monotonic_micros() - self.started_micros);
        Ok(())
    }

    /// Logs the edit that puts tables in the place of memtables, and does so. Takes out what is not wanted any more.
    fn log(context: &JobContext, opened: &mut Vec<(Flush, Vec<Placement>)>) -> Result<()> {
        if opened.is_empty() {
            return Ok(());
        }
        // A table must not make durable what stands in the log after writes to other keyspaces that are not, nor a
        // part of a batch whose rest is not.
        if context.trees.read().len() > 1 || opened.iter().any(|(flush, _)| flush.memtable.is_cut()) {
            let end = context.write.log_end();
            // A log that failed to sync takes no more records: writers that wait for this flush must hear of it.
            context
                .write
                .wait_durable(end)
                .inspect_err(|error| context.status.stop_writing(error.clone()))?;
        }
        let mut manifest = context.versions.lock();
        for (_, placements) in opened.extract_if(.., |(flush, _)| !flush.is_wanted()) {
            for placement in placements {
                placement.table.mark_obsolete();
            }
        }
        if opened.is_empty() {
            return Ok(());
        }
        let flushed = opened.iter().map(|(flush, _)| flush.memtable.number).collect();
        let log = context.write.log_start(&flushed);
        let mut edit = VersionEdit { log: Some(log), ..VersionEdit::default() };
        for (flush, placements) in &*opened {
            let (id, last_sequence) = (flush.tree.id, flush.memtable.last_sequence());
            edit.last_sequence = edit.last_sequence.max(Some(last_sequence));
            edit.flushed.push((id, last_sequence));
            edit.added.extend(placements.iter().map(|placement| AddedTable::new(id, placement)));
        }
        context.versions.log_edit(&mut manifest, edit)?;
        for (flush, placements) in opened {
            flush.replace(context, std::mem::take(placements));
        }
        drop(manifest);
        context.write.controller.set_log_start(log.position);
        if let Err(error) = context.write.truncate_log(log.position) {
            tracing::warn!(%error, "a part of the log that is not needed stays");
        }
        Ok(())
    }

    /// Gives up what is not part of the keyspaces yet, and stops them for what will not pass.
    pub(super) fn give_up(mut self, context: &JobContext, error: Option<&Error>) {
        let current = self.current.take();
        let flushes = current.into_iter().chain(self.written.drain(..)).chain(self.synced.drain(..));
        for flush in flushes {
            context.discard(&flush.tables);
            if let Some(error) = error {
                stand_back(context, &flush.tree, error);
            }
            drop_caught(|| drop(flush));
        }
        context.resources.remove_obsolete_files();
    }
}

/// What a flush keeps of a memtable.
fn survivors(context: &JobContext, memtable: &Memtable) -> CompactionStream<Box<dyn Cursor + Send>> {
    let cursor = Arc::clone(&memtable.reader).cursor();
    let snapshots = context.visibility.snapshot_stripes();
    // Only what some reader can tell apart: nested range deletes would pile up otherwise.
    let range_tombstones = Arc::new(memtable.range_tombstones.for_snapshots(&snapshots));
    let rules = GarbageRules { snapshots, ..GarbageRules::default() };
    CompactionStream::new(cursor, range_tombstones, rules)
}

/// Gives back as much of the disk's reserve as the flush of a memtable with range deletes needs, if that is little: they
/// may hide most of it, and much more in tables. `false` if there is not enough.
fn lend_reserve(context: &JobContext, tree: &Tree) -> Result<bool> {
    let reserve = &context.resources.disk_reserve;
    let (held, Some(memtable)) = (reserve.bytes(), tree.load().immutable.last().cloned()) else {
        return Ok(false);
    };
    if memtable.range_tombstones.is_empty() {
        return Ok(false);
    }
    let mut needed = FLUSH_RESERVE_BYTES + 2 * memtable.range_tombstones.memory_bytes() as u64;
    let mut stream = survivors(context, &memtable);
    while needed <= held {
        let Some(entry) = stream.next()? else { return Ok(reserve.give(needed)) };
        needed += 2 * (entry.key.len() + entry.value.len() + ENTRY_BYTES_BESIDE) as u64;
    }
    Ok(false)
}

/// After a flush that failed: it is tried again after a while, or the keyspace stops for what will not pass.
fn stand_back(context: &JobContext, tree: &Tree, error: &Error) {
    if error.may_pass() {
        tree.retry_flush_at(context.resources.env.monotonic_micros() + RETRY_MICROS);
    } else {
        tree.fail(error.clone());
    }
}

/// The keyspaces whose flush failed and is tried again.
pub(super) fn retried(context: &JobContext) -> impl Iterator<Item = Arc<Tree>> {
    let trees = context.write.unflushed.trees().into_iter();
    trees.filter(|tree| tree.failure().is_none() && tree.flush_retry_micros().is_some())
}

/// Drops a flush, with a memtable and its cursor that may come from outside.
fn drop_caught(dropping: impl FnOnce()) {
    let dropped = caught("the end of a flush", || {
        dropping();
        Ok(())
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, "a flush did not end well");
    }
}
