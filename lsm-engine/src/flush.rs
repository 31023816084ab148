//! Flushing: sealed memtables become tables of level 0, oldest first.

use std::collections::HashSet;
use std::sync::Arc;

use lsm_compaction::{CompactionStream, GarbageRules};
use lsm_core::Cursor;
use lsm_core::env::{Job, Step};

use crate::Result;
use crate::compaction::{Build, NewTable, Output, OutputOptions, Progress, Source};
use crate::inner::{Inner, WriteSide};
use crate::jobs::{JobToken, caught};
use crate::tree::{Memtable, State, Tree};
use crate::version::Placement;
use crate::version::edit::{AddedTable, VersionEdit};

/// How long to wait before trying again when the operating system failed: the disk is full, say.
const RETRY_MICROS: u64 = 500_000;

/// One memtable on its way to level 0.
pub(crate) struct Flush {
    tree: Arc<Tree>,
    memtable: Arc<Memtable>,
    build: Build<Box<dyn Cursor + Send>>,
    started_micros: u64,
    /// Tables took the place of the memtable.
    replaced: bool,
}

impl Flush {
    pub(crate) fn new(inner: &Arc<Inner>, tree: Arc<Tree>, memtable: Arc<Memtable>) -> Self {
        let cursor = Arc::clone(&memtable.reader).cursor();
        let snapshots = inner.snapshots.stripes(&inner.visible);
        // Only what some reader can tell apart: nested range deletes would pile up otherwise.
        let range_tombstones = Arc::new(memtable.range_tombstones.for_snapshots(&snapshots));
        let rules = GarbageRules { snapshots, ..GarbageRules::default() };
        let stream = CompactionStream::new(cursor, range_tombstones, rules);
        let keyspace = tree.options();
        let version = Arc::clone(&tree.load().version);
        let options = OutputOptions {
            target_bytes: u64::MAX,
            is_one_table: false,
            boundaries: Vec::new(),
            compression: keyspace.compression_above,
            filter: keyspace
                .table_filter(memtable.reader.entry_count() as u64, version.runs().map(|run| run.entries())),
            sources: 0,
            lower: None,
            upper: None,
        };
        let output = Output::new(Arc::clone(inner), &keyspace, options, stream.surviving_range_tombstones());
        let source = Source { read_bytes: |_| 0, copy_block: |_, _, _| Ok(0) };
        let started_micros = inner.env.monotonic_micros();
        Self { tree, memtable, build: Build::new(stream, source, output), started_micros, replaced: false }
    }

    /// Works for a while; `true` once the table is part of the keyspace.
    pub(crate) fn step(&mut self, inner: &Inner, side: &WriteSide) -> Result<bool> {
        match self.build.step(side)? {
            Progress::More => Ok(false),
            Progress::Done(tables) => {
                self.install(inner, side, &tables).inspect_err(|_| side.discard(inner, &tables))?;
                Ok(true)
            }
        }
    }

    /// Works to the end: the table, durable and open, and not part of the keyspace yet.
    pub(crate) fn build(&mut self, inner: &Inner, side: &WriteSide) -> Result<Vec<Placement>> {
        loop {
            if let Progress::Done(tables) = self.build.step(side)? {
                return self.open(inner, &tables).inspect_err(|_| side.discard(inner, &tables));
            }
        }
    }

    fn open(&self, inner: &Inner, tables: &[NewTable]) -> Result<Vec<Placement>> {
        let open =
            |table: &NewTable| table.open(inner, &self.tree.options(), (0, self.memtable.number), None);
        tables.iter().map(open).collect()
    }

    /// Puts tables in the place of the memtable.
    pub(crate) fn replace(&mut self, side: &WriteSide, placements: Vec<Placement>) {
        self.tree.update(|state| State {
            sealed: state
                .sealed
                .iter()
                .filter(|sealed| !Arc::ptr_eq(sealed, &self.memtable))
                .cloned()
                .collect(),
            version: Arc::new(state.version.changed(&HashSet::new(), placements)),
            ..(**state).clone()
        });
        side.unflushed.look_at(&self.tree);
        self.replaced = true;
    }

    /// Lets go of the memtable; what readers still hold of it is theirs.
    pub(crate) fn end(self, inner: &Inner) {
        let freed = if self.replaced { self.memtable.memory_bytes() } else { 0 };
        let memtable = Arc::clone(&self.memtable.reader);
        drop(self);
        inner.memory.let_go([memtable]);
        inner.memory.remove_sealed_bytes(freed);
        inner.memory.bound_pool(0);
    }

    fn install(&mut self, inner: &Inner, side: &WriteSide, tables: &[NewTable]) -> Result<()> {
        let placements = self.open(inner, tables)?;
        // A table must not make durable what stands in the log after writes to other keyspaces that are not, nor a
        // part of a batch whose rest is not.
        if inner.trees.read().len() > 1 || self.memtable.is_cut() {
            let end = side.committer.lock().log_end();
            side.wait_durable(end)?;
        }
        let mut manifest = side.manifest.lock();
        let state = self.tree.load_full();
        if self.tree.is_dropped() || !state.sealed.iter().any(|sealed| Arc::ptr_eq(sealed, &self.memtable)) {
            // The keyspace was cleared or dropped meanwhile.
            for placement in &placements {
                placement.table.mark_obsolete();
            }
            return Ok(());
        }
        let log = inner.log_start(side, Some(self.memtable.number));
        let last_sequence = self.memtable.last_sequence();
        let edit = VersionEdit {
            last_sequence: Some(last_sequence),
            log: Some(log),
            flushed: vec![(self.tree.id, last_sequence)],
            added: placements.iter().map(|placement| AddedTable::new(self.tree.id, placement)).collect(),
            ..VersionEdit::default()
        };
        side.log_edit(&mut manifest, edit)?;
        self.replace(side, placements);
        drop(manifest);
        // There may have been no room for what the table would keep in memory, until others make some.
        inner.janitor.event().notify();
        side.pace.set_log_start(log.position);
        // The tables count from here on: nothing may fail any more.
        if let Err(error) = side.truncate_log(log.position) {
            tracing::warn!(%error, "a part of the log that is not needed stays");
        }
        let bytes = self.memtable.memory_bytes();
        let written: u64 = tables.iter().map(|table| table.bytes).sum();
        inner.counters.flushes.add(1);
        inner.counters.flush_bytes_in.add(bytes as u64);
        inner.counters.flush_bytes_out.add(written);
        side.pace.observe(bytes as u64, inner.env.monotonic_micros() - self.started_micros);
        Ok(())
    }
}

/// The sealed memtable that keeps the oldest part of the log, with its keyspace.
fn oldest_sealed(side: &WriteSide) -> Option<(Arc<Tree>, Arc<Memtable>)> {
    side.unflushed
        .trees()
        .into_iter()
        .filter(|tree| tree.failure().is_none())
        .filter_map(|tree| {
            let memtable = tree.load().sealed.last().cloned()?;
            Some((tree, memtable))
        })
        .min_by_key(|(_, memtable)| memtable.log_start)
}

/// The job that flushes, one memtable after the other, as long as the database is open.
pub(crate) struct FlushJob {
    inner: Arc<Inner>,
    /// The keyspace whose memtable is being flushed.
    tree: Option<Arc<Tree>>,
    flush: Option<Flush>,
    _token: JobToken,
}

impl FlushJob {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { _token: JobToken::new(&inner), inner, tree: None, flush: None }
    }

    /// Works for a while; what there is to say about it.
    fn step_flush(&mut self, side: &WriteSide) -> Result<Progressed> {
        if self.flush.is_none() {
            let Some((tree, memtable)) = oldest_sealed(side) else { return Ok(Progressed::Idle) };
            self.tree = Some(Arc::clone(&tree));
            self.flush = Some(Flush::new(&self.inner, tree, memtable));
        }
        if let Some(flush) = &mut self.flush
            && !flush.step(&self.inner, side)?
        {
            return Ok(Progressed::Some);
        }
        if let Some(flush) = self.flush.take() {
            flush.end(&self.inner);
        }
        Ok(Progressed::Flushed)
    }

    /// Drops a flush that failed, with the cursor of a memtable that may come from outside.
    fn give_up(&mut self) {
        let flush = self.flush.take();
        let dropped = caught("the end of a flush", || {
            drop(flush);
            Ok(())
        });
        if let Err(error) = dropped {
            tracing::warn!(%error, "a flush was given up");
        }
    }
}

/// How far a step of the flush job got.
enum Progressed {
    /// There is no memtable to flush.
    Idle,
    Some,
    Flushed,
}

impl Job for FlushJob {
    fn step(&mut self) -> Step {
        let inner = Arc::clone(&self.inner);
        let Some(side) = inner.writer.as_ref() else { return Step::Done };
        let seen = side.flush_wanted.epoch();
        let pending =
            |deadline_micros| Step::Pending { event: side.flush_wanted.clone(), seen, deadline_micros };
        if side.is_stopping() {
            self.give_up();
            return Step::Done;
        }
        match caught("a flush", || self.step_flush(side)) {
            Ok(Progressed::Idle) => pending(None),
            Ok(Progressed::Some) => Step::Again,
            Ok(Progressed::Flushed) => {
                side.flush_trouble.clear();
                inner.schedule_compactions();
                side.progress.notify();
                Step::Again
            }
            Err(error) => {
                self.give_up();
                inner.make_way_after(&error);
                let retried = error.may_pass();
                if retried {
                    // Once, not twice a second.
                    if side.flush_trouble.current().is_none() {
                        tracing::warn!(%error, "a flush failed and is tried again until it succeeds; when memory is used up, writes wait for it or fail");
                    }
                    side.flush_trouble.note(error);
                } else if let Some(tree) = &self.tree {
                    tree.fail(error);
                }
                side.progress.notify();
                if retried { pending(Some(inner.env.monotonic_micros() + RETRY_MICROS)) } else { Step::Again }
            }
        }
    }
}
