use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lsm_compaction::{
    Compaction, CompactionAt, CompactionStream, GarbageRules, OlderTables, OutputRun, Reason, RunningShape,
    TreeShape,
};
use lsm_core::env::{Job, Step};
use lsm_core::{MergingCursor, Slice};
use lsm_sstable::{CursorAccess, FilterPolicy};
use parking_lot::Mutex;
use tracing::Span;
use tracing::field::Empty;

use super::install::{count, holds_all, install, install_for_later_readers};
use super::{Build, BuildInput, NewFiles, Older, Output, OutputOptions, Progress};
use crate::background::context::JobContext;
use crate::background::context::JobToken;
use crate::callbacks::caught;
use crate::control::Uncancelled;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::keyspaces::{BlobBases, Tree};
use crate::memory_pool::Turn;
use crate::options::ResolvedOptions;
use crate::reentry::Inside;
use crate::status::Status;
use crate::version::edit::VersionEdit;
use crate::version::{Placement, Run, RunCursor, Version, common_prefix, gather_range_tombstones};

/// A compaction is split among threads only if the input of each part is at least this many output tables large.
const PART_TABLES_MIN: u64 = 2;

/// A running compaction, shared by its parts.
pub(crate) struct Running {
    tree: Arc<Tree>,
    inputs: Vec<Placement>,
    output_level: usize,
    run: u64,
    shape: RunningShape,
    /// It takes tables of level 0, so it does not keep to the rate of deep merges.
    from_level_0: bool,
    /// Set if a user asked for it.
    manual: Option<Uncancelled>,
    started_micros: u64,
    span: Span,
    parts_left: AtomicUsize,
    /// A compaction filter has deleted or changed something.
    has_filtered: AtomicBool,
    outputs: Mutex<NewFiles>,
    failure: Mutex<Option<Error>>,
    /// The turn to merge, among the databases of the pool. It ends when the parts have given their buffers back.
    turn: Mutex<Option<Turn>>,
}

impl Running {
    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub(crate) fn shape(&self) -> &RunningShape {
        &self.shape
    }

    pub(crate) fn inputs(&self) -> &[Placement] {
        &self.inputs
    }

    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    pub(crate) fn is_manual(&self) -> bool {
        self.manual.is_some()
    }

    /// Fails if the rest of the compaction is not wanted any more.
    fn check_wanted(&self, status: &Status) -> Result<()> {
        if status.control.is_paused() && self.turn.lock().as_ref().is_some_and(Turn::is_shared) {
            // Others of the pool need not wait for its buffers. It starts anew when background work is resumed.
            return Err(Error::Cancelled);
        }
        if status.is_stopping() || self.tree.is_dropped() || self.failed() {
            return Err(Error::Closed);
        }
        self.manual.map_or(Ok(()), |begun| status.control.check(begun))
    }

    fn failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    fn fail(&self, error: Error) {
        self.failure.lock().get_or_insert(error);
    }

    /// Called when the last part has ended: installs the outputs, or removes them after a failure.
    fn finish(self: &Arc<Self>, context: &JobContext, starter: &dyn Starter) {
        let outputs = std::mem::take(&mut *self.outputs.lock());
        let failure = self.failure.lock().take();
        let result = failure
            .map_or(Ok(()), Err)
            .and_then(|()| caught("the end of a compaction", || self.install(context, &outputs)));
        let mut fenced = HashSet::new();
        if let Err(error) = &result {
            context.resources.close_files_after(error);
            // `Closed` means that the compaction was given up because the keyspace or the database ended.
            if !matches!(error, Error::Closed | Error::Cancelled) {
                tracing::warn!(keyspace = &*self.tree.name, %error, "a compaction failed");
                // Pause the keyspace before the files are discarded, since that wakes the job that starts compactions.
                starter.failed(&self.tree);
            }
            context.discard(&outputs);
            fenced = self.fenced(error);
            if !self.tree.is_dropped() && !matches!(error, Error::Cancelled) {
                context.status.note_compaction_error(&self.tree.name, error.clone());
            }
            if matches!(error, Error::Callback(_)) {
                self.tree.fail(error.clone());
            }
        }
        for input in self.inputs.iter().filter(|input| fenced.contains(&input.table.number())) {
            let shape = Arc::clone(input.table.metadata());
            self.tree.unreadable.lock().push((input.level, input.run, shape));
        }
        let mut busy = self.tree.busy.lock();
        for number in self.inputs.iter().map(|input| input.table.number()) {
            if !fenced.contains(&number) {
                busy.remove(&number);
            }
        }
        drop(busy);
        starter.ended(self, result.is_ok());
        context.status.progress.notify();
    }

    /// The numbers of inputs that cannot be read. They stay busy, so that no policy picks them again. Other data stays
    /// readable.
    fn fenced(&self, error: &Error) -> HashSet<u64> {
        let Error::Storage(
            lsm_core::Error::Corruption { path, .. } | lsm_core::Error::Unsupported { path, .. },
        ) = error
        else {
            return HashSet::new();
        };
        self.inputs
            .iter()
            .filter(|input| input.table.path() == path.as_path())
            .map(|input| input.table.number())
            .collect()
    }

    fn install(&self, context: &JobContext, outputs: &NewFiles) -> Result<()> {
        let options = &self.tree.options();
        let since = self.inputs.iter().filter_map(|input| input.table.oldest_tombstone_micros()).min();
        let blobs =
            outputs.blobs.iter().map(|blobs| blobs.open(&context.resources)).collect::<Result<Vec<_>>>()?;
        let added = outputs
            .tables
            .iter()
            .map(|table| {
                let place = (self.output_level, self.run);
                table.open(&context.resources, &context.versions, options, place, since)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut manifest = context.versions.lock();
        if self.tree.is_dropped() || !holds_all(&self.tree.load().version, &self.inputs) {
            // The keyspace was cleared or dropped meanwhile.
            for placement in &added {
                placement.table.mark_obsolete();
            }
            for file in &blobs {
                file.mark_obsolete();
            }
            return Ok(());
        }
        let edit = VersionEdit {
            removed: self.inputs.iter().map(|input| (self.tree.id, input.table.number())).collect(),
            added: added.iter().map(|placement| placement.added_to(self.tree.id)).collect(),
            added_blobs: blobs.iter().map(|file| file.added_to(self.tree.id)).collect(),
            ..VersionEdit::default()
        };
        context.versions.log_edit(&mut manifest, edit)?;
        self.inputs.iter().for_each(|input| input.table.mark_obsolete());
        if self.has_filtered.load(Ordering::Acquire) {
            install_for_later_readers(context, &self.tree, &self.inputs, added, &blobs);
        } else {
            install(&self.tree, &self.inputs, added, &blobs);
        }
        drop(manifest);
        if !blobs.is_empty() {
            context.blob_rewrites.trees.add(&self.tree);
        }
        let (_, read) = count(&self.inputs);
        let written = outputs.bytes();
        let micros = context.resources.env.monotonic_micros() - self.started_micros;
        context.status.compaction_error.report_again();
        context.resources.counters.compactions.add(1);
        context.resources.counters.compaction_bytes_in.add(read);
        context.resources.counters.compaction_bytes_out.add(written);
        context.resources.counters.compaction_times.record_micros(micros);
        self.tree.count_compaction(self.output_level, read, written);
        self.span.record("tables_out", outputs.tables.len()).record("bytes_out", written);
        context.write.controller.observe(read, micros);
        context.resources.events.emit(EventKind::CompactionEnd {
            keyspace: Arc::clone(&self.tree.name),
            level: self.output_level as u64,
            tables: outputs.tables.len() as u64,
            bytes: written,
            micros,
        });
        Ok(())
    }
}

/// The starter of compactions. It is told when they end.
pub(super) trait Starter: Send + Sync {
    /// A compaction failed. Its files still exist.
    fn failed(&self, tree: &Tree);

    /// The last part of a compaction ended. `installed` tells whether it succeeded.
    fn ended(&self, running: &Arc<Running>, installed: bool);
}

/// The job of one part of a compaction: a range of keys.
struct CompactionJob {
    context: Arc<JobContext>,
    starter: Arc<dyn Starter>,
    running: Arc<Running>,
    build: Option<Build<MergingCursor<RunCursor>, Older>>,
    /// Bytes that count for the rate of deep merges so far.
    counted_bytes: u64,
    _token: JobToken,
}

impl CompactionJob {
    /// Works for a while. Returns whether the part has ended.
    fn step_part(&mut self) -> bool {
        let Some(build) = &mut self.build else { return true };
        if let Err(error) = self.running.check_wanted(&self.context.status) {
            self.running.fail(error);
            return true;
        }
        match caught("a compaction", || build.step()) {
            Ok(Progress::More) => {
                let bytes = build.written_bytes();
                self.count(bytes);
                return false;
            }
            Ok(Progress::Done(written)) => {
                self.running.has_filtered.fetch_or(build.has_filtered(), Ordering::AcqRel);
                self.count(written.bytes());
                self.running.outputs.lock().extend(written);
            }
            Err(error) => self.running.fail(error),
        }
        true
    }

    /// Counts what the part has written, `bytes` so far, for the rate of deep merges.
    fn count(&mut self, bytes: u64) {
        if !self.running.from_level_0 {
            let (env, more) = (&*self.context.resources.env, bytes.saturating_sub(self.counted_bytes));
            self.context.status.control.count_written(env, more);
            self.counted_bytes = self.counted_bytes.max(bytes);
        }
    }

    /// What to return in place of a step, if users want the part to wait.
    fn wait(&self) -> Option<Step> {
        let control = &self.context.status.control;
        let pending = control.pause().or_else(|| {
            (!self.running.from_level_0).then(|| control.limit(&*self.context.resources.env)).flatten()
        })?;
        // Look after the epoch of the event was read: whatever ends the compaction notifies it.
        self.running.check_wanted(&self.context.status).ok().map(|()| pending)
    }
}

impl Job for CompactionJob {
    fn step(&mut self) -> Step {
        let context = Arc::clone(&self.context);
        let _inside = context.resources.enter(Inside::Job);
        let running = Arc::clone(&self.running);
        let _entered = running.span.enter();
        if let Some(pending) = self.wait() {
            return pending;
        }
        if !self.step_part() {
            return Step::Again;
        }
        // This drops user filters, which may panic.
        let build = self.build.take();
        if let Err(error) = caught("the end of a compaction", || {
            drop(build);
            Ok(())
        }) {
            self.running.fail(error);
        }
        if self.running.failed() {
            // The other parts may wait.
            context.status.control.wake_jobs();
        }
        if self.running.parts_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let turn = self.running.turn.lock().take();
            drop(turn);
            self.running.finish(&self.context, &*self.starter);
        }
        Step::Done
    }
}

/// A merge that is about to start.
pub(super) struct Plan<'p> {
    pub(super) tree: &'p Arc<Tree>,
    pub(super) shape: &'p TreeShape,
    pub(super) compaction: &'p Compaction,
    pub(super) inputs: Vec<Placement>,
    /// The run that the outputs form or join.
    pub(super) run: u64,
    pub(super) running_shape: RunningShape,
    pub(super) from_level_0: bool,
    /// Set if a user asked for it.
    pub(super) manual: Option<Uncancelled>,
    pub(super) turn: Option<Turn>,
}

impl Plan<'_> {
    /// Splits the merge into parts, with one job each.
    pub(super) fn prepare(
        self,
        context: &Arc<JobContext>,
        starter: &Arc<dyn Starter>,
    ) -> (Arc<Running>, Vec<Box<dyn Job>>) {
        let Self { tree, shape, compaction, inputs, run, running_shape, from_level_0, manual, turn } = self;
        let (tables, bytes) = count(&inputs);
        context.resources.events.emit(EventKind::CompactionBegin {
            keyspace: Arc::clone(&tree.name),
            reason: compaction.reason.to_string().into(),
            level: compaction.output_level as u64,
            tables,
            bytes,
        });
        let splits = split_keys(context, tree, &inputs, compaction.target_table_bytes);
        let running = Arc::new(Running {
            tree: Arc::clone(tree),
            output_level: compaction.output_level,
            run,
            shape: running_shape,
            from_level_0,
            manual,
            started_micros: context.resources.env.monotonic_micros(),
            span: span(tree, compaction, &inputs),
            parts_left: AtomicUsize::new(splits.len() + 1),
            has_filtered: AtomicBool::new(false),
            outputs: Mutex::default(),
            failure: Mutex::default(),
            turn: Mutex::new(turn),
            inputs,
        });
        let version = Arc::clone(&tree.load().version);
        let parts = Parts { context, shape, compaction, running: &running, version: &version };
        let rules = GarbageRules { zero_sequences: true, ..context.visibility.garbage_rules() };
        let mut jobs: Vec<Box<dyn Job>> = Vec::new();
        for part in 0..=splits.len() {
            let lower = part.checked_sub(1).and_then(|before| splits.get(before)).cloned();
            let upper = splits.get(part).cloned();
            jobs.push(Box::new(CompactionJob {
                build: Some(parts.build(&rules, lower, upper)),
                context: Arc::clone(context),
                starter: Arc::clone(starter),
                running: Arc::clone(&running),
                counted_bytes: 0,
                _token: JobToken::new(context),
            }));
        }
        (running, jobs)
    }
}

/// The span of a compaction.
fn span(tree: &Tree, compaction: &Compaction, inputs: &[Placement]) -> Span {
    let (tables, bytes) = count(inputs);
    tracing::info_span!(
        "compaction",
        keyspace = &*tree.name,
        policy = tree.options().compaction.name(),
        reason = %compaction.reason,
        input_level = inputs.iter().map(|input| input.level).min(),
        output_level = compaction.output_level,
        tables_in = tables,
        bytes_in = bytes,
        tables_out = Empty,
        bytes_out = Empty
    )
}

/// What all parts of a merge have in common.
struct Parts<'p> {
    context: &'p JobContext,
    shape: &'p TreeShape,
    compaction: &'p Compaction,
    running: &'p Running,
    version: &'p Version,
}

impl Parts<'_> {
    /// The build of the part from `lower` up to `upper`, exclusive.
    fn build(
        &self,
        rules: &GarbageRules,
        lower: Option<Slice>,
        upper: Option<Slice>,
    ) -> Build<MergingCursor<RunCursor>, Older> {
        let Self { context, shape: tree_shape, compaction, running, version } = *self;
        let range_tombstones = gather_range_tombstones(running.inputs.iter().map(|input| &input.table));
        let runs = input_runs(&running.inputs);
        let prefix = common_prefix(runs.iter());
        let source_count = runs.len();
        let sources =
            runs.into_iter().map(|run| RunCursor::new(Arc::new(run), CursorAccess::Sequential)).collect();
        let stream = CompactionStream::with_older(
            MergingCursor::with_prefix(sources, &prefix),
            Arc::new(range_tombstones),
            rules.clone(),
            Older::below_inputs(
                OlderTables::beside(compaction, tree_shape),
                version,
                compaction.output_level,
                &running.inputs,
            ),
            lower.as_deref(),
            upper.as_deref(),
        );
        let deepest = tree_shape.levels.iter().rposition(|level| !level.runs.is_empty());
        let last_level = deepest.is_none_or(|deepest| compaction.output_level >= deepest);
        let options = &running.tree.options();
        let now_micros = rules.times_micros.last().copied().unwrap_or(0);
        let at = CompactionAt::new(compaction.output_level, last_level, now_micros);
        let reads_blobs = options.compaction_filter.is_some() || options.merge_operator.is_some();
        let files = if reads_blobs { version.blobs().files() } else { Vec::new() };
        let blobs = BlobBases::of(files, &context.resources.memory);
        let stream = stream.with_filter(options.compaction_filter.clone(), at).with_blobs(blobs);
        let output_options = OutputOptions {
            target_bytes: compaction.target_table_bytes,
            is_one_table: compaction.reason == Reason::SmallTables,
            boundaries: compaction.tables_below(tree_shape).map(|table| table.smallest.clone()).collect(),
            compression: if last_level { options.compression } else { options.compression_above },
            filter: filter(options, tree_shape, compaction),
            with_blobs: true,
            sync_later: false,
            sources: source_count,
            lower,
            upper,
        };
        let survivors = stream.surviving_range_tombstones();
        let output = Output::new(
            Arc::clone(&context.resources),
            Arc::clone(&context.versions),
            options,
            output_options,
            survivors,
        );
        let merging = &running.tree.load().merging;
        Build::new(stream, BuildInput { read_bytes, copy_block }, output, merging)
    }
}

fn read_bytes(merge: &MergingCursor<RunCursor>) -> usize {
    merge.sources().iter().map(RunCursor::memory_bytes).sum()
}

fn copy_block(
    stream: &mut CompactionStream<MergingCursor<RunCursor>, Older>,
    output: &mut Output,
) -> Result<usize> {
    if stream.block().is_none() {
        return Ok(0);
    }
    let Some(block) = stream.cursor().current().and_then(RunCursor::table_block) else { return Ok(0) };
    if !output.add_block(&block)? {
        return Ok(0);
    }
    let bytes = block.stored_bytes();
    stream.pass_block();
    Ok(bytes)
}

/// The inputs as sorted runs, newest first.
fn input_runs(inputs: &[Placement]) -> Vec<Run> {
    inputs
        .chunk_by(|a, b| (a.level, a.run) == (b.level, b.run))
        .filter_map(|run| {
            let tables = run.iter().map(|input| Arc::clone(&input.table)).collect();
            Some(Run::new(run.first()?.run, tables))
        })
        .collect()
}

/// The filter policy of the outputs. It depends on the size of the run that they form or join.
fn filter(
    options: &ResolvedOptions,
    shape: &TreeShape,
    compaction: &Compaction,
) -> Option<Arc<dyn FilterPolicy>> {
    let inputs = compaction.input_tables(shape);
    let mut leaving: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for input in &inputs {
        *leaving.entry((input.level, input.run)).or_default() += input.table.entries;
    }
    let mut entries = leaving.values().sum();
    let mut others = Vec::new();
    for (level, runs) in shape.levels.iter().map(|level| &level.runs).enumerate() {
        let joins = level == compaction.output_level && compaction.output_run == OutputRun::Join;
        for (run, run_shape) in runs.iter().enumerate() {
            let leaving = leaving.get(&(level, run)).copied().unwrap_or(0);
            let staying = run_shape.entries().saturating_sub(leaving);
            if joins && run + 1 == runs.len() {
                entries += staying;
            } else {
                others.push(staying);
            }
        }
    }
    options.table_filter(entries, others)
}

/// Number of input runs, from the oldest on, that fit memory for reading at once. At least two.
pub(super) fn readable_runs(context: &JobContext, tree: &Tree, inputs: &[Placement]) -> usize {
    let (mut left, _) = context.resources.memory.merge_limits();
    let fits = |run: &&Run| {
        let rest = left.checked_sub(run_bytes(context, tree, run));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    input_runs(inputs).iter().rev().take_while(fits).count().max(2)
}

/// Memory for reading a run: the read buffer and the current block.
fn run_bytes(context: &JobContext, tree: &Tree, run: &Run) -> usize {
    let largest = run.tables().iter().map(|table| table.table().properties().largest_entry_bytes).max();
    let block_bytes = tree.options().block_bytes.max(largest.unwrap_or(0) as usize);
    2 * block_bytes + (context.resources.memory.budget.read_buffer_bytes as usize)
}

/// The keys at which to split a large merge, so that each thread gets a part.
fn split_keys(context: &JobContext, tree: &Tree, inputs: &[Placement], target_bytes: u64) -> Vec<Slice> {
    let bytes: u64 = inputs.iter().map(|input| input.table.meta().file_bytes).sum();
    let affordable = bytes / target_bytes.saturating_mul(PART_TABLES_MIN).max(1);
    let read_bytes: usize = input_runs(inputs).iter().map(|run| run_bytes(context, tree, run)).sum();
    let (left, parts_max) = context.resources.memory.merge_limits();
    let parts_max = (left / read_bytes.max(1)).min(parts_max);
    let parts = parts_max.min((context.resources.env.worker_count() as u64).min(affordable) as usize);
    if parts < 2 {
        return Vec::new();
    }
    let mut keys: Vec<Slice> =
        inputs.iter().flat_map(|input| input.table.table().split_keys(parts * 4)).collect();
    keys.sort();
    keys.dedup();
    let mut splits: Vec<Slice> =
        (1..parts).filter_map(|part| keys.get(part * keys.len() / parts).cloned()).collect();
    splits.dedup();
    splits
}
