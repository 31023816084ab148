//! Flushing: sealed memtables become tables of level 0, oldest first.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_compaction::{CompactionStream, GarbageRules};
use lsm_core::Cursor;
use lsm_core::env::{Job, Step};
use lsm_wal::Position;

use crate::compaction::{Build, NewTable, Output, OutputOptions, Progress};
use crate::inner::{Inner, WriteSide};
use crate::jobs::{JobToken, panic_message};
use crate::tree::{Memtable, State, Tree};
use crate::version::edit::{AddedTable, VersionEdit};
use crate::{Error, Result};

/// How long to wait before trying again when the disk is full.
const RETRY_MICROS: u64 = 500_000;

/// One memtable on its way to level 0.
pub(crate) struct Flush {
    tree: Arc<Tree>,
    memtable: Arc<Memtable>,
    build: Build<Box<dyn Cursor + Send>>,
    started_micros: u64,
}

impl Flush {
    pub(crate) fn new(inner: &Arc<Inner>, tree: Arc<Tree>, memtable: Arc<Memtable>) -> Self {
        let cursor = Arc::clone(&memtable.reader).cursor();
        let snapshots = inner.snapshots.stripes(&inner.visible);
        // Only what some reader can tell apart: nested range deletes would pile up otherwise.
        let range_tombstones = Arc::new(memtable.range_tombstones.for_snapshots(&snapshots));
        let rules = GarbageRules { snapshots, ..GarbageRules::default() };
        let stream = CompactionStream::new(cursor, range_tombstones, rules);
        let options = OutputOptions {
            target_bytes: u64::MAX,
            boundaries: Vec::new(),
            compression: tree.options().compression_above,
            lower: None,
            upper: None,
        };
        let output =
            Output::new(Arc::clone(inner), &tree.options(), options, stream.surviving_range_tombstones());
        let started_micros = inner.env.monotonic_micros();
        Self { tree, memtable, build: Build::new(stream, output), started_micros }
    }

    /// Works for a while; `true` once the table is part of the keyspace.
    pub(crate) fn step(&mut self, inner: &Inner, side: &WriteSide) -> Result<bool> {
        match self.build.step(side)? {
            Progress::More => Ok(false),
            Progress::Done(tables) => {
                self.install(inner, side, &tables).inspect_err(|_| {
                    for table in &tables {
                        inner.janitor.remove_later(table.path.clone());
                    }
                })?;
                Ok(true)
            }
        }
    }

    fn install(&self, inner: &Inner, side: &WriteSide, tables: &[NewTable]) -> Result<()> {
        let placements = tables
            .iter()
            .map(|table| table.open(inner, &self.tree.options(), (0, self.memtable.number), None))
            .collect::<Result<Vec<_>>>()?;
        // A table must not make durable what stands in the log after writes to other keyspaces that are not.
        if inner.trees.read().len() > 1 {
            let end = side.committer.lock().log_end();
            side.log_sync.wait_durable(Position(end))?;
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
        let edit = VersionEdit {
            last_sequence: Some(self.memtable.last_sequence()),
            log: Some(log),
            flushed: vec![(self.tree.id, self.memtable.last_sequence())],
            added: placements.iter().map(|placement| AddedTable::new(self.tree.id, placement)).collect(),
            clock_micros: Some(inner.env.unix_micros()),
            ..VersionEdit::default()
        };
        side.log_edit(&mut manifest, edit)?;
        self.tree.update(|state| State {
            memtable: Arc::clone(&state.memtable),
            sealed: state
                .sealed
                .iter()
                .filter(|sealed| !Arc::ptr_eq(sealed, &self.memtable))
                .cloned()
                .collect(),
            version: Arc::new(state.version.changed(&HashSet::new(), placements)),
            cleared: state.cleared,
            before_clear: state.before_clear.clone(),
        });
        let bytes = self.memtable.memory_bytes();
        side.sealed_bytes.fetch_sub(bytes, Ordering::AcqRel);
        drop(manifest);
        side.pace.set_log_start(log.position);
        side.committer.lock().truncate_log(log.position)?;
        let written: u64 = tables.iter().map(|table| table.bytes).sum();
        inner.counters.flushes.add(1);
        inner.counters.flush_bytes_in.add(bytes as u64);
        inner.counters.flush_bytes_out.add(written);
        side.pace.observe(bytes as u64, inner.env.monotonic_micros() - self.started_micros);
        Ok(())
    }
}

/// The sealed memtable that keeps the oldest part of the log, with its keyspace.
fn oldest_sealed(inner: &Inner) -> Option<(Arc<Tree>, Arc<Memtable>)> {
    inner
        .all_trees()
        .into_iter()
        .filter(|tree| tree.failure().is_none())
        .filter_map(|tree| {
            let memtable = tree.load().sealed.last().cloned()?;
            Some((tree, memtable))
        })
        .min_by_key(|(_, memtable)| memtable.log_start())
}

/// The job that flushes, one memtable after the other, as long as the database is open.
pub(crate) struct FlushJob {
    inner: Arc<Inner>,
    flush: Option<Flush>,
    _token: JobToken,
}

impl FlushJob {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { _token: JobToken::new(&inner), inner, flush: None }
    }

    fn step_flush(&mut self) -> Result<bool> {
        let Some(side) = &self.inner.writer else { return Ok(true) };
        let Some(flush) = &mut self.flush else { return Ok(true) };
        let inner = &self.inner;
        catch_unwind(AssertUnwindSafe(|| flush.step(inner, side)))
            .unwrap_or_else(|panic| Err(Error::Callback(panic_message("flush", &*panic))))
    }
}

impl Job for FlushJob {
    fn step(&mut self) -> Step {
        let inner = Arc::clone(&self.inner);
        let Some(side) = inner.writer.as_ref() else { return Step::Done };
        let seen = side.flush_wanted.epoch();
        let pending =
            |deadline_micros| Step::Pending { event: side.flush_wanted.clone(), seen, deadline_micros };
        if side.is_stopping() {
            return Step::Done;
        }
        if self.flush.is_none() {
            let Some((tree, memtable)) = oldest_sealed(&inner) else { return pending(None) };
            self.flush = Some(Flush::new(&inner, tree, memtable));
        }
        match self.step_flush() {
            Ok(false) => Step::Again,
            Ok(true) => {
                self.flush = None;
                inner.schedule_compactions();
                inner.share_out_cache();
                side.progress.notify();
                Step::Again
            }
            Err(error) => {
                let retry = error.is_out_of_space();
                let deadline = inner.env.monotonic_micros() + RETRY_MICROS;
                tracing::warn!(%error, retry, "a flush failed");
                let failed = self.flush.take();
                if retry {
                    return pending(Some(deadline));
                }
                if let Some(flush) = failed {
                    flush.tree.fail(error);
                }
                side.progress.notify();
                Step::Again
            }
        }
    }
}
