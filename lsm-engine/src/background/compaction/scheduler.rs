use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_compaction::{
    Action, Compaction, CompactionPolicy, ManualOptions, OutputRun, TreeShape, manual, tidy, validate,
};
use lsm_core::env::{Env, Priority};

use super::job::{self, Running};
use crate::background::jobs::{caught, panic_message};
use crate::inner::{Inner, WriteSide};
use crate::keyspaces::{ReadState, Tree};
use crate::version::edit::{AddedTable, LEVEL_COUNT_MAX, VersionEdit};
use crate::version::manifest::Manifest;
use crate::version::{Placement, Version};
use crate::write::Pressure;
use crate::{Error, Result};

/// How long a keyspace waits after a compaction failed: the disk may be full, or failing.
const RETRY_MICROS: u64 = 1_000_000;

/// Keyspaces whose policies are asked at a time because time has passed: some milliseconds, however many there are.
const ASKED_BY_TIME_MAX: usize = 1024;

/// Which compactions run, and which tables they work on.
#[derive(Default)]
pub(crate) struct Scheduler {
    running: Vec<Arc<Running>>,
    /// Keyspaces that are being compacted by hand, and how often: their policies wait.
    held: BTreeMap<u32, usize>,
    /// Keyspaces in which a compaction failed, and until when they wait.
    paused: BTreeMap<u32, u64>,
    /// Keyspace to ask first at the next look, so that all get their turn.
    next_keyspace: u32,
    /// Keyspace to begin with when policies are asked again because time has passed.
    next_by_time: u32,
    /// What keyspaces owe that owe anything.
    debts: BTreeMap<u32, Debt>,
}

/// What a keyspace owes, as its policy says.
struct Debt {
    tree: Arc<Tree>,
    bytes: u64,
}

impl Scheduler {
    /// Holds the policy of a keyspace back until it was released as often.
    pub(crate) fn hold(&mut self, keyspace: u32) {
        *self.held.entry(keyspace).or_insert(0) += 1;
    }

    pub(crate) fn release(&mut self, keyspace: u32) {
        if let Entry::Occupied(mut held) = self.held.entry(keyspace) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    pub(crate) fn pause(&mut self, keyspace: u32, now_micros: u64) {
        self.paused.insert(keyspace, now_micros + RETRY_MICROS);
    }

    /// A change without a merge failed: it is tried again later, and whoever waits for compactions hears of it.
    fn fail(&mut self, side: &WriteSide, tree: &Tree, error: Error, now_micros: u64) {
        side.compaction_error.note(error);
        self.pause(tree.id, now_micros);
        side.progress.notify();
    }

    fn is_paused(&self, tree: &Tree, env: &dyn Env) -> bool {
        self.paused.get(&tree.id).is_some_and(|until_micros| env.monotonic_micros() < *until_micros)
    }

    pub(crate) fn running_count(&self) -> usize {
        self.running.len()
    }

    fn shape(&self, inner: &Inner, tree: &Tree, version: &Version) -> TreeShape {
        let options = tree.options();
        let level_count =
            ask(tree, "level_count", || options.compaction.level_count()).unwrap_or(1).min(LEVEL_COUNT_MAX);
        // After the version: nobody will look at a number below the last that is not among them.
        let stripes = inner.snapshots.stripes(&inner.visible);
        let mut shape = version.shape(&tree.busy.lock(), level_count, inner.clock_micros(), stripes);
        shape.running = self
            .running
            .iter()
            .filter(|running| running.tree().id == tree.id)
            .map(|running| running.shape().clone())
            .collect();
        shape
    }

    /// Whether anything is done or due that will change the shape of a keyspace. Nothing may be: all that there is to do
    /// needs a table that cannot be read, for instance.
    fn works_on(&self, inner: &Inner, tree: &Tree) -> bool {
        self.is_running(tree)
            || self.held.contains_key(&tree.id)
            || self.paused.contains_key(&tree.id)
            || pick_by_policy(tree, &self.shape(inner, tree, &tree.load().version)).is_some()
    }

    fn is_running(&self, tree: &Tree) -> bool {
        self.running.iter().any(|running| running.tree().id == tree.id)
    }

    pub(crate) fn remove(&mut self, ended: &Arc<Running>) {
        self.running.retain(|running| !Arc::ptr_eq(running, ended));
    }

    /// The number of the run that the outputs become or join.
    fn output_run(
        &self,
        side: &WriteSide,
        tree: &Tree,
        version: &Version,
        compaction: &Compaction,
        inputs: &[Placement],
    ) -> u64 {
        let level = compaction.output_level;
        // What replaces runs of its own level takes their place among those that stay.
        let replaced = inputs.iter().filter(|input| input.level == level).map(|input| input.run).max();
        let joined = version.levels().get(level).and_then(|runs| runs.last()).map(|run| run.number());
        let from_above = inputs.iter().any(|input| input.level < level);
        match compaction.output_run {
            OutputRun::Join => {
                joined.or_else(|| self.run_to_be(tree, level)).unwrap_or_else(|| side.new_number())
            }
            OutputRun::NewRun if from_above => side.new_number(),
            OutputRun::NewRun => replaced.unwrap_or_else(|| side.new_number()),
        }
    }

    /// The run of an empty level that is being written: others that join it must not make another beside it.
    fn run_to_be(&self, tree: &Tree, level: usize) -> Option<u64> {
        let joins = |running: &&Arc<Running>| {
            let shape = running.shape();
            running.tree().id == tree.id && shape.output_level == level && shape.output_run == OutputRun::Join
        };
        self.running.iter().find(joins).map(|running| running.run())
    }
}

/// What [`Inner::start_manual`] found.
pub(crate) enum Manual {
    /// A compaction was started, or the tree was changed at once: look again.
    Started,
    /// Compactions that are under way must end first.
    Wait,
    /// The range is where it belongs.
    Done,
}

impl Inner {
    /// Starts the compactions that are due, as many as there are threads for.
    pub(crate) fn schedule_compactions(self: &Arc<Self>) {
        let Some(side) = &self.writer else { return };
        let mut scheduler = side.scheduler.lock();
        self.drop_covered_tables(side, &mut scheduler);
        let parallel_max = self.env.worker_count().saturating_sub(1).max(1);
        while !side.is_stopping() && scheduler.running.len() < parallel_max {
            if !self.start_next(side, &mut scheduler) {
                break;
            }
        }
        self.adjust_write_rates(side, &mut scheduler);
    }

    /// Has policies asked again although nothing changed, some of them, in turn: time alone makes some merges due.
    pub(crate) fn ask_by_time(&self) {
        let Some(side) = &self.writer else { return };
        let mut scheduler = side.scheduler.lock();
        let trees = self.trees.read();
        for tree in trees.from(scheduler.next_by_time).take(ASKED_BY_TIME_MAX) {
            side.compaction_queue.add(tree);
            scheduler.next_by_time = tree.id + 1;
        }
    }

    /// Whether no compaction runs and none is due.
    pub(crate) fn compactions_settled(self: &Arc<Self>) -> bool {
        let Some(side) = &self.writer else { return true };
        let scheduler = side.scheduler.lock();
        scheduler.running.is_empty()
            && side.compaction_queue.to_ask().iter().filter(|tree| tree.is_healthy()).all(|tree| {
                let version = Arc::clone(&tree.load().version);
                let shape = scheduler.shape(self, tree, &version);
                self.unseen_tables(tree, &version).is_empty() && pick(self, tree, &shape).is_none()
            })
    }

    /// Starts the next compaction that brings a range of keys down to the last level. `since` is a number given out
    /// at the beginning: runs of level 0 from there on stay out of it, tables of the last level are not rewritten.
    pub(crate) fn start_manual(
        self: &Arc<Self>,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        since: u64,
    ) -> Result<Manual> {
        let side = self.write_side()?;
        let mut scheduler = side.scheduler.lock();
        tree.check_usable()?;
        if let Some(error) = tree.failure() {
            return Err(Error::WritingStopped(Arc::new(error)));
        }
        let version = Arc::clone(&tree.load().version);
        let shape = scheduler.shape(self, tree, &version);
        // What was flushed meanwhile stays out of it, so that there is an end. Its runs have new numbers, which those
        // that a compaction within level 0 wrote meanwhile do not have.
        let mut wanted = shape.clone();
        if let Some((level_0, runs)) = wanted.levels.first_mut().zip(version.levels().first()) {
            let flushed = runs.iter().take_while(|run| run.number() >= since).count();
            level_0.runs.drain(..flushed);
        }
        let options = ManualOptions { rewritten_since: since, ..ManualOptions::default() };
        let Some(compaction) = manual(&wanted, range, &options) else { return Ok(Manual::Done) };
        match validate(&shape, &compaction) {
            Ok(()) => {
                self.start(side, &mut scheduler, tree, &version, &shape, &compaction)?;
                Ok(Manual::Started)
            }
            Err(_) if scheduler.is_running(tree) => Ok(Manual::Wait),
            Err(rejection) => {
                Err(Error::invalid(format!("keyspace {:?} cannot be compacted: {rejection}", tree.name)))
            }
        }
    }

    /// Debt of all keyspaces in bytes.
    pub(crate) fn compaction_debt(&self, side: &WriteSide, scheduler: &mut Scheduler) -> u64 {
        for (id, tree) in side.compaction_queue.take_owing() {
            let bytes = if tree.is_dropped() { 0 } else { self.debt_of(&tree, scheduler) };
            // One that owes no more stays until its limit is lifted.
            if bytes > 0 || scheduler.debts.contains_key(&id) {
                scheduler.debts.insert(id, Debt { tree, bytes });
            }
        }
        scheduler.debts.values().map(|debt| debt.bytes).sum()
    }

    /// What the policy of a keyspace has yet to rewrite: nothing where it is not asked for compactions any more.
    fn debt_of(&self, tree: &Tree, scheduler: &Scheduler) -> u64 {
        let shape = scheduler.shape(self, tree, &tree.load().version);
        let policy = &tree.options().compaction;
        let debt = || if is_its_own(tree, &**policy) { policy.debt_bytes(&shape) } else { 0 };
        if tree.failure().is_some() { 0 } else { catch_unwind(AssertUnwindSafe(debt)).unwrap_or(0) }
    }

    /// Limits the writers of keyspaces that owe much, and lets go of those that owe no more.
    fn adjust_write_rates(&self, side: &WriteSide, scheduler: &mut Scheduler) {
        self.compaction_debt(side, scheduler);
        let pressure = |debt: &Debt| self.pressure_on(&debt.tree, debt.bytes, scheduler);
        let limits: Vec<_> =
            scheduler.debts.values().map(|debt| (&debt.tree.limit, pressure(debt))).collect();
        if side.controller.adjust(&*self.env, &limits) {
            side.progress.notify();
        }
        scheduler.debts.retain(|_, debt| debt.bytes > 0);
    }

    /// Runs that the policy does not mean to merge, as FIFO leaves them, are no reason to slow writers down, and neither
    /// is debt that nothing works off: no background work would ever end it.
    fn pressure_on(&self, tree: &Tree, debt_bytes: u64, scheduler: &Scheduler) -> Pressure {
        let runs = tree.load().version.levels().first().map_or(0, Vec::len);
        let pressure = Pressure::of(runs, debt_bytes, self.memory.budget.memtable_bytes);
        let real =
            debt_bytes > 0 && tree.is_healthy() && (!pressure.slows() || scheduler.works_on(self, tree));
        if real { pressure } else { Pressure::default() }
    }

    /// Starts one compaction of the first keyspace, in turn, that has one to start.
    fn start_next(self: &Arc<Self>, side: &WriteSide, scheduler: &mut Scheduler) -> bool {
        let now_micros = self.env.monotonic_micros();
        scheduler.paused.retain(|_, until_micros| now_micros < *until_micros);
        let mut trees = side.compaction_queue.to_ask();
        let turn = trees.partition_point(|tree| tree.id < scheduler.next_keyspace);
        trees.rotate_left(turn);
        for tree in &trees {
            if scheduler.held.contains_key(&tree.id) || scheduler.paused.contains_key(&tree.id) {
                continue;
            }
            side.compaction_queue.begin_to_ask(tree);
            if !tree.is_healthy() {
                continue;
            }
            let version = Arc::clone(&tree.load().version);
            let shape = scheduler.shape(self, tree, &version);
            let Some(compaction) = pick(self, tree, &shape) else { continue };
            side.compaction_queue.ask_again(tree);
            scheduler.next_keyspace = tree.id + 1;
            match self.start(side, scheduler, tree, &version, &shape, &compaction) {
                Ok(()) => return true,
                Err(error) => {
                    tracing::warn!(keyspace = &*tree.name, %error, "a compaction could not start");
                    if matches!(error, Error::Callback(_)) {
                        tree.fail(error.clone());
                    }
                    scheduler.fail(side, tree, error, now_micros);
                }
            }
        }
        false
    }

    fn start(
        self: &Arc<Self>,
        side: &WriteSide,
        scheduler: &mut Scheduler,
        tree: &Arc<Tree>,
        version: &Version,
        shape: &TreeShape,
        compaction: &Compaction,
    ) -> Result<()> {
        let mut inputs = inputs(version, compaction);
        let fewer;
        let mut compaction = compaction;
        let readable = job::readable_runs(self, tree, &inputs);
        if compaction.action == Action::Merge && compaction.input_runs(shape) > readable {
            fewer = compaction.of_oldest_runs(shape, readable);
            if validate(shape, &fewer).is_ok() {
                inputs = self::inputs(version, &fewer);
                compaction = &fewer;
            }
        }
        let run = scheduler.output_run(side, tree, version, compaction, &inputs);
        match compaction.action {
            Action::Move => self.relocate(side, tree, compaction, &inputs, Some(run)),
            Action::Drop => self.relocate(side, tree, compaction, &inputs, None),
            Action::Merge => {
                let Some(running_shape) = compaction.running(shape) else { return Ok(()) };
                let numbers: Vec<u64> = inputs.iter().map(|input| input.table.number()).collect();
                let from_level_0 = compaction.inputs.iter().any(|input| input.level == 0);
                let priority = if from_level_0 { Priority::Normal } else { Priority::Low };
                tree.busy.lock().extend(numbers.iter().copied());
                let (running, jobs) = caught("the start of a compaction", || {
                    Ok(job::prepare(self, tree, shape, compaction, inputs, run, running_shape))
                })
                .inspect_err(|_| tree.busy.lock().retain(|number| !numbers.contains(number)))?;
                scheduler.running.push(running);
                for job in jobs {
                    self.env.spawn(priority, job);
                }
                Ok(())
            }
        }
        .inspect(|()| {
            side.compaction_queue.add(tree);
            tracing::debug!(keyspace = &*tree.name, reason = %compaction.reason, "compaction");
        })
    }

    /// Takes tables out of the trees that newer range tombstones cover from end to end, and that nobody sees.
    fn drop_covered_tables(&self, side: &WriteSide, scheduler: &mut Scheduler) {
        for tree in side.compaction_queue.to_ask() {
            if side.is_stopping() || !tree.is_healthy() || scheduler.is_paused(&tree, &*self.env) {
                continue;
            }
            if let Err(error) = self.drop_covered_tables_of(side, &tree) {
                tracing::warn!(keyspace = &*tree.name, %error, "deleted tables could not be dropped");
                scheduler.fail(side, &tree, error, self.env.monotonic_micros());
            }
        }
    }

    fn drop_covered_tables_of(&self, side: &WriteSide, tree: &Arc<Tree>) -> Result<()> {
        loop {
            let version = Arc::clone(&tree.load().version);
            let unseen = self.unseen_tables(tree, &version);
            if unseen.is_empty() {
                return Ok(());
            }
            let mut manifest = side.manifest.lock();
            if tree.is_dropped() {
                return Ok(());
            }
            if Arc::ptr_eq(&version, &tree.load().version) {
                replace_tables(side, &mut manifest, tree, &unseen, Vec::new())?;
                self.counters.covered_tables_dropped.add(unseen.len() as u64);
                side.compaction_queue.add(tree);
                side.progress.notify();
            }
        }
    }

    /// The tables that newer range tombstones cover from end to end, that nobody sees, and that no compaction works on.
    fn unseen_tables(&self, tree: &Tree, version: &Version) -> Vec<Placement> {
        let covered = version.covered_tables();
        if covered.is_empty() {
            return Vec::new();
        }
        // After the version: whoever reads one without these tables reads at one of these numbers or above the last.
        let stripes = self.snapshots.stripes(&self.visible);
        let busy = tree.busy.lock();
        let unseen = covered.iter().filter(|covered| {
            !busy.contains(&covered.placement.table.number()) && covered.is_unseen(&stripes)
        });
        let by_number = unseen.map(|covered| (covered.placement.table.number(), &covered.placement));
        by_number.collect::<BTreeMap<_, _>>().into_values().cloned().collect()
    }

    /// Moves tables to the output level without rewriting them, or drops them if there is no `run` for them.
    fn relocate(
        &self,
        side: &WriteSide,
        tree: &Arc<Tree>,
        compaction: &Compaction,
        inputs: &[Placement],
        run: Option<u64>,
    ) -> Result<()> {
        let moved: Vec<Placement> = inputs
            .iter()
            .filter_map(|input| {
                Some(Placement { level: compaction.output_level, run: run?, table: Arc::clone(&input.table) })
            })
            .collect();
        let mut manifest = side.manifest.lock();
        if tree.is_dropped() || !holds_all(&tree.load().version, inputs) {
            // The keyspace was cleared or dropped meanwhile.
            return Ok(());
        }
        if run.is_some() {
            replace_tables(side, &mut manifest, tree, inputs, moved)?;
        } else {
            log_replacement(side, &mut manifest, tree, inputs, &[])?;
            self.drop_tables(side, tree, inputs);
        }
        self.counters.moves.add(1);
        side.progress.notify();
        Ok(())
    }

    /// Takes tables out of a keyspace, data and all. That has a sequence number, as clearing has: snapshots before it
    /// go on with the state that has the tables.
    fn drop_tables(&self, side: &WriteSide, tree: &Arc<Tree>, removed: &[Placement]) {
        let mut committer = side.committer.lock();
        let sequence = committer.use_up_number();
        tree.empty_spans.leave_older_states();
        tree.update(|state| ReadState {
            begun_count: state.begun_count + 1,
            version: Arc::new(state.version.changed(removed, Vec::new())),
            cleared: sequence,
            before_clear: Some(Arc::clone(state)),
            ..(**state).clone()
        });
        self.visible.store(sequence, Ordering::Release);
        drop(committer);
        self.cleared.add(tree);
        self.forget_cleared();
    }
}

/// Logs that tables leave their places for others, or for good if there are none, and makes it visible.
fn replace_tables(
    side: &WriteSide,
    manifest: &mut Manifest,
    tree: &Tree,
    removed: &[Placement],
    added: Vec<Placement>,
) -> Result<()> {
    log_replacement(side, manifest, tree, removed, &added)?;
    install(tree, removed, added);
    Ok(())
}

fn log_replacement(
    side: &WriteSide,
    manifest: &mut Manifest,
    tree: &Tree,
    removed: &[Placement],
    added: &[Placement],
) -> Result<()> {
    let edit = VersionEdit {
        removed: removed.iter().map(|placement| (tree.id, placement.table.number())).collect(),
        added: added.iter().map(|placement| AddedTable::new(tree.id, placement)).collect(),
        ..VersionEdit::default()
    };
    side.log_edit(manifest, edit)?;
    if added.is_empty() {
        for placement in removed {
            placement.table.mark_obsolete();
        }
    }
    Ok(())
}

/// What a policy says; one that panics stops its keyspace.
fn ask<T>(tree: &Tree, what: &str, question: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(question)) {
        Ok(answer) => Some(answer),
        Err(panic) => {
            tree.fail(Error::Callback(panic_message(&format!("a compaction policy's {what}"), &*panic)));
            None
        }
    }
}

/// What the policy wants, or else a merge of small tables: each takes some kilobytes of memory, whatever it holds.
fn pick(inner: &Inner, tree: &Tree, shape: &TreeShape) -> Option<Compaction> {
    let fits = |bytes, entries| inner.memory.fits_table(bytes, entries);
    pick_by_policy(tree, shape).or_else(|| if tree.failure().is_none() { tidy(shape, fits) } else { None })
}

/// Whether the policy of the options is the one that the keyspace was created with: nobody may have opened it yet.
fn is_its_own(tree: &Tree, policy: &dyn CompactionPolicy) -> bool {
    *tree.policy() == *policy.name()
}

/// Asks the policy, and checks its answer.
fn pick_by_policy(tree: &Tree, shape: &TreeShape) -> Option<Compaction> {
    let options = tree.options();
    let policy = &options.compaction;
    let question = || if is_its_own(tree, &**policy) { policy.pick(shape) } else { None };
    let compaction = ask(tree, "pick", question)??;
    if compaction.action == Action::Drop && !ask(tree, "drops_data", || policy.drops_data())? {
        tracing::warn!(policy = policy.name(), "a policy that does not drop data wants to; ignored");
        return None;
    }
    match validate(shape, &compaction) {
        Ok(()) => Some(compaction),
        Err(rejection) => {
            tracing::warn!(policy = policy.name(), %rejection, "a compaction was rejected");
            None
        }
    }
}

/// The inputs of a compaction.
fn inputs(version: &Version, compaction: &Compaction) -> Vec<Placement> {
    let wanted: HashSet<u64> = compaction.inputs.iter().flat_map(|input| &input.tables).copied().collect();
    version.placements().filter(|placement| wanted.contains(&placement.table.number())).collect()
}

/// Whether a version still holds all the inputs.
pub(super) fn holds_all(version: &Version, inputs: &[Placement]) -> bool {
    inputs.iter().all(|input| version.find(input).is_some())
}

/// Makes a logged change of tables visible.
pub(super) fn install(tree: &Tree, removed: &[Placement], added: Vec<Placement>) {
    tree.update(|state| ReadState {
        version: Arc::new(state.version.changed(removed, added)),
        ..(**state).clone()
    });
}
