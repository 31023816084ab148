//! Starts compactions, by policy or manual, and sets the write rate limits by the remaining debt.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use lsm_compaction::{Action, Compaction, ManualOptions, TreeShape, manual, tables_in_range, validate};
use lsm_core::env::Priority;

use super::blob_rewrite;
use super::covered::{drop_covered_tables, unseen_tables};
use super::install::{count, relocate};
use super::job::{self, Plan, Running, Starter};
use super::policy::{inputs as policy_inputs, is_its_own, pick};
use super::scheduler::{Debt, Scheduler};
use crate::background::context::JobContext;
use crate::control::Uncancelled;
use crate::error::{Error, Result};
use crate::keyspaces::Tree;
use crate::lock_order::{OrderedGuard, OrderedMutex, Rank};
use crate::memory_pool::Work;
use crate::reentry::{Entered, Inside};
use crate::version::Version;
use crate::write::{Compactor, Pressure};

/// A compaction is small, and ends soon, if its inputs have at most this many bytes.
const SMALL_BYTES_MAX: u64 = 64 << 20;

/// Maximum number of policies that are asked at once because time has passed. That takes some milliseconds.
const ASKED_BY_TIME_MAX: usize = 1024;

/// The result of [`Compactions::start_manual`].
pub(crate) enum Manual {
    /// A compaction was started, or the tree was changed at once. Call it again.
    Started,
    /// Running compactions must end first.
    Wait,
    /// The range is compacted.
    Done,
}

/// The compactions of a database.
pub(crate) struct Compactions {
    context: Arc<JobContext>,
    scheduler: OrderedMutex<Scheduler>,
    /// A reference to itself, for the jobs that it starts.
    this: Weak<Self>,
}

impl Compactions {
    pub(crate) fn new(context: Arc<JobContext>) -> Arc<Self> {
        let database = context.resources.place();
        let scheduler = OrderedMutex::new(Rank::Scheduler, database, Scheduler::default());
        Arc::new_cyclic(|this| Self { context, scheduler, this: this.clone() })
    }

    /// Puts the policy of a keyspace on hold until the result is dropped. A manual compaction could miss the outputs of
    /// the policy's compactions.
    pub(crate) fn hold(self: &Arc<Self>, keyspace: u32) -> Hold {
        self.scheduler.lock().hold(keyspace);
        Hold { compactions: Arc::clone(self), keyspace }
    }

    /// Whether a compaction of a keyspace runs.
    pub(crate) fn is_running_in(&self, tree: &Tree) -> bool {
        self.scheduler.lock().is_running(tree)
    }

    /// Whether a compaction of a keyspace runs for which a user asked.
    pub(crate) fn is_manual_running(&self, tree: &Tree) -> bool {
        let scheduler = self.scheduler.lock();
        scheduler.running.iter().any(|running| running.is_manual() && running.tree().id == tree.id)
    }

    pub(crate) fn running_count(&self) -> usize {
        self.scheduler.lock().running.len()
    }

    /// Locks the scheduler for code that may call policies.
    fn lock_to_ask(&self) -> (OrderedGuard<'_, Scheduler>, Entered) {
        (self.scheduler.lock(), self.context.resources.enter(Inside::Scheduler))
    }

    /// Starts the due compactions, as many as there are threads for.
    pub(crate) fn start_due(&self) {
        if self.context.status.control.is_paused() {
            return;
        }
        let (mut scheduler, inside) = self.lock_to_ask();
        drop_covered_tables(&self.context, &mut scheduler);
        let parallel_max = self.context.resources.env.worker_count().saturating_sub(1).max(1);
        // A small compaction does not wait for a large one to end: runs would pile up in level 0.
        while !self.context.status.is_stopping() && scheduler.running.len() <= parallel_max {
            let bytes_max = if scheduler.running.len() < parallel_max { u64::MAX } else { SMALL_BYTES_MAX };
            if !self.start_next(&mut scheduler, bytes_max) {
                break;
            }
        }
        self.adjust_write_rates(&mut scheduler);
        drop((scheduler, inside));
        blob_rewrite::start_due(&self.context);
    }

    /// Queues some keyspaces, in turn, although nothing changed: some compactions become due by time alone.
    pub(crate) fn ask_by_time(&self) {
        let mut scheduler = self.scheduler.lock();
        let trees = self.context.trees.read();
        for tree in trees.from(scheduler.next_by_time).take(ASKED_BY_TIME_MAX) {
            self.context.compaction_queue.add(tree);
            scheduler.next_by_time = tree.id + 1;
        }
    }

    /// Whether no compaction or rewriting of blob files runs and none is due.
    pub(crate) fn are_settled(&self) -> bool {
        let rewrites = &self.context.blob_rewrites;
        if rewrites.is_running() || rewrites.is_due() {
            return false;
        }
        let (scheduler, _inside) = self.lock_to_ask();
        scheduler.running.is_empty()
            && self.context.compaction_queue.to_ask().iter().filter(|tree| tree.is_healthy()).all(|tree| {
                let state = tree.load_full();
                let shape = scheduler.shape(&self.context, tree, &state);
                unseen_tables(&self.context, tree, &state).is_empty()
                    && pick(&self.context.resources.memory, tree, &shape).is_none()
            })
    }

    /// Starts the next step of a manual compaction, which brings a range of keys down to the last level. `since` is a
    /// number given out at its beginning: level 0 runs with this number or higher stay out, and tables of the last
    /// level with such a number are not rewritten again. A cancellation after `begun` ends the step.
    pub(crate) fn start_manual(
        &self,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        since: u64,
        begun: Uncancelled,
    ) -> Result<Manual> {
        let rewrite_all = tree.options().compaction_filter.is_some();
        let options = ManualOptions { rewritten_since: since, rewrite_all, ..ManualOptions::default() };
        self.start_step(tree, range, &options, Some(begun))
    }

    /// Starts the next step of purging a keyspace: like a manual compaction of all, but nothing is left that was deleted
    /// or overwritten and that no snapshot sees. No compaction may run when `since` is given out.
    pub(crate) fn start_purge(&self, tree: &Arc<Tree>, since: u64) -> Result<Manual> {
        if self.scheduler.lock().is_paused(tree, &*self.context.resources.env) {
            // One has failed. Nobody waits for the purge, so it is tried again later.
            return Ok(Manual::Wait);
        }
        let options = ManualOptions { rewritten_since: since, purge: true, ..ManualOptions::default() };
        self.start_step(tree, (Bound::Unbounded, Bound::Unbounded), &options, None)
    }

    fn start_step(
        &self,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        options: &ManualOptions,
        begun: Option<Uncancelled>,
    ) -> Result<Manual> {
        let (mut scheduler, _inside) = self.lock_to_ask();
        tree.check_usable()?;
        if let Some(error) = tree.failure() {
            return Err(Error::WritingStopped(Arc::new(error)));
        }
        let state = tree.load_full();
        let version = &state.version;
        let shape = scheduler.shape(&self.context, tree, &state);
        // Runs flushed meanwhile stay out, so that the manual compaction ends. They have new numbers. Outputs of
        // compactions within level 0 keep old run numbers, so they are included.
        let mut wanted = shape.clone();
        if let Some((level_0, runs)) = wanted.levels.first_mut().zip(version.levels().first()) {
            let flushed = runs.iter().take_while(|run| run.number() >= options.rewritten_since).count();
            level_0.runs.drain(..flushed);
        }
        let Some(compaction) = manual(&wanted, range, options) else { return Ok(Manual::Done) };
        match validate(&shape, &compaction) {
            Ok(()) => {
                let started = self.start(&mut scheduler, tree, version, &shape, &compaction, begun)?;
                Ok(if started { Manual::Started } else { Manual::Wait })
            }
            // Tables that were just ingested are free after the next flush.
            Err(_) if scheduler.is_running(tree) || state.unsettled_from().is_some() => Ok(Manual::Wait),
            Err(rejection) => {
                Err(Error::invalid(format!("keyspace {:?} cannot be compacted: {rejection}", tree.name)))
            }
        }
    }

    /// Drops the tables that lie in a range, as [`tables_in_range`] finds them. Returns how many, and their bytes.
    pub(crate) fn drop_range(
        &self,
        tree: &Arc<Tree>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<(u64, u64)> {
        let (mut scheduler, _inside) = self.lock_to_ask();
        tree.check_writable()?;
        let state = tree.load_full();
        let shape = scheduler.shape(&self.context, tree, &state);
        let Some(compaction) = tables_in_range(&shape, range) else { return Ok((0, 0)) };
        if let Err(rejection) = validate(&shape, &compaction) {
            return Err(Error::invalid(format!(
                "the files of keyspace {:?} in this range cannot be deleted now: {rejection}",
                tree.name
            )));
        }
        let dropped = count(&policy_inputs(&state.version, &shape, &compaction));
        self.start(&mut scheduler, tree, &state.version, &shape, &compaction, None)?;
        Ok(dropped)
    }

    /// The debt of all keyspaces in bytes.
    pub(crate) fn debt_bytes(&self) -> u64 {
        let (mut scheduler, _inside) = self.lock_to_ask();
        self.debt_under_lock(&mut scheduler)
    }

    fn debt_under_lock(&self, scheduler: &mut Scheduler) -> u64 {
        for (id, tree) in self.context.compaction_queue.take_owing() {
            let bytes = if tree.is_dropped() { 0 } else { self.debt_of(&tree, scheduler) };
            // A keyspace without debt stays in the map until its rate limit was removed.
            if bytes > 0 || scheduler.debts.contains_key(&id) {
                scheduler.debts.insert(id, Debt { tree, bytes });
            }
        }
        scheduler.debts.values().map(|debt| debt.bytes).sum()
    }

    /// The debt that the policy of a keyspace reports. It is 0 if that policy is not asked for compactions.
    fn debt_of(&self, tree: &Tree, scheduler: &Scheduler) -> u64 {
        let shape = scheduler.shape(&self.context, tree, &tree.load());
        let policy = &tree.options().compaction;
        let debt = || if is_its_own(tree, &**policy) { policy.debt_bytes(&shape) } else { 0 };
        if tree.failure().is_some() { 0 } else { catch_unwind(AssertUnwindSafe(debt)).unwrap_or(0) }
    }

    /// Sets the rate limits by the debt of the keyspaces.
    fn adjust_write_rates(&self, scheduler: &mut Scheduler) {
        self.debt_under_lock(scheduler);
        let pressure = |debt: &Debt| self.pressure_on(&debt.tree, debt.bytes, scheduler);
        let limits: Vec<_> = scheduler
            .debts
            .values()
            .map(|debt| (&debt.tree.name, &debt.tree.limit, pressure(debt)))
            .collect();
        self.context.status.control.set_urgent(limits.iter().any(|(.., pressure)| pressure.is_near()));
        if self.context.write.controller.adjust(&self.context.resources.waits, &limits) {
            self.context.status.progress.notify();
        }
        scheduler.debts.retain(|_, debt| debt.bytes > 0);
    }

    /// The pressure on the writers of a keyspace. Runs that the policy will not merge, as with FIFO, and debt that no
    /// compaction works off do not count: no background work would ever reduce them.
    fn pressure_on(&self, tree: &Tree, debt_bytes: u64, scheduler: &Scheduler) -> Pressure {
        let runs = tree.load().version.levels().first().map_or(0, Vec::len);
        let pressure = Pressure::of(runs, debt_bytes, self.context.resources.memory.budget.memtable_bytes);
        let real = debt_bytes > 0
            && tree.is_healthy()
            && (!pressure.slows() || scheduler.works_on(&self.context, tree));
        if real { pressure } else { Pressure::default() }
    }

    /// Starts one compaction of at most `bytes_max`, in the first keyspace in turn that has one due.
    fn start_next(&self, scheduler: &mut Scheduler, bytes_max: u64) -> bool {
        let now_micros = self.context.resources.env.monotonic_micros();
        scheduler.end_pauses(now_micros);
        let mut trees = self.context.compaction_queue.to_ask();
        let turn = trees.partition_point(|tree| tree.id < scheduler.next_keyspace);
        trees.rotate_left(turn);
        for tree in &trees {
            if scheduler.waits(tree.id) {
                continue;
            }
            self.context.compaction_queue.begin_to_ask(tree);
            if !tree.is_healthy() {
                continue;
            }
            let state = tree.load_full();
            let shape = scheduler.shape(&self.context, tree, &state);
            let Some(compaction) = pick(&self.context.resources.memory, tree, &shape) else { continue };
            self.context.compaction_queue.ask_again(tree);
            if compaction.input_bytes(&shape) > bytes_max {
                continue;
            }
            scheduler.next_keyspace = tree.id + 1;
            match self.start(scheduler, tree, &state.version, &shape, &compaction, None) {
                Ok(started) => return started,
                Err(error) => {
                    tracing::warn!(keyspace = &*tree.name, %error, "failed to start a compaction");
                    if matches!(error, Error::Callback(_)) {
                        tree.fail(error.clone());
                    }
                    scheduler.fail(&self.context, tree, error, now_micros);
                }
            }
        }
        false
    }

    /// Starts a compaction. Returns `false` if it is not its turn among the databases of the pool.
    fn start(
        &self,
        scheduler: &mut Scheduler,
        tree: &Arc<Tree>,
        version: &Version,
        shape: &TreeShape,
        compaction: &Compaction,
        manual: Option<Uncancelled>,
    ) -> Result<bool> {
        let mut inputs = policy_inputs(version, shape, compaction);
        let fewer;
        let mut compaction = compaction;
        let readable = job::readable_runs(&self.context, tree, &inputs);
        if compaction.action == Action::Merge && compaction.input_runs(shape) > readable {
            fewer = compaction.of_oldest_runs(shape, readable);
            if validate(shape, &fewer).is_ok() {
                inputs = policy_inputs(version, shape, &fewer);
                compaction = &fewer;
            }
        }
        let turn = match compaction.action {
            Action::Merge => match self.context.resources.memory.holding.begin(Work::Merge) {
                Some(turn) => Some(turn),
                None => return Ok(false),
            },
            Action::Move | Action::Drop => None,
        };
        let run = scheduler.output_run(&self.context, tree, version, compaction, &inputs);
        match compaction.action {
            Action::Move => relocate(&self.context, tree, compaction, &inputs, Some(run)),
            Action::Drop => relocate(&self.context, tree, compaction, &inputs, None),
            Action::Merge => {
                let Some(running_shape) = compaction.running(shape) else { return Ok(true) };
                let Some(starter) = self.this.upgrade() else { return Ok(true) };
                let starter: Arc<dyn Starter> = starter;
                let from_level_0 = compaction.inputs.iter().any(|input| input.level == 0);
                let priority = if from_level_0 { Priority::Normal } else { Priority::Low };
                tree.busy.lock().extend(inputs.iter().map(|input| input.table.number()));
                let plan =
                    Plan { tree, shape, compaction, inputs, run, running_shape, from_level_0, manual, turn };
                let (running, jobs) = plan.prepare(&self.context, &starter);
                scheduler.running.push(running);
                for job in jobs {
                    self.context.resources.env.spawn(priority, job);
                }
                Ok(())
            }
        }
        .map(|()| {
            self.context.compaction_queue.add(tree);
            tracing::debug!(keyspace = &*tree.name, reason = %compaction.reason, "compaction");
            true
        })
    }
}

/// Keeps a policy on hold until it is dropped.
pub(crate) struct Hold {
    compactions: Arc<Compactions>,
    keyspace: u32,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.compactions.scheduler.lock().release(self.keyspace);
    }
}

impl Compactor for Compactions {
    fn start_due(&self) {
        self.start_due();
    }

    fn is_running(&self) -> bool {
        self.running_count() > 0
    }
}

impl Starter for Compactions {
    fn failed(&self, tree: &Tree) {
        self.scheduler.lock().pause(tree.id, self.context.resources.env.monotonic_micros());
    }

    fn ended(&self, running: &Arc<Running>, installed: bool) {
        self.scheduler.lock().remove(running);
        self.context.compaction_queue.add(running.tree());
        if installed {
            self.start_due();
        }
    }
}
