//! Which compactions run, which keyspaces wait, and what keyspaces owe.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use lsm_compaction::{Compaction, OutputRun, TreeShape};
use lsm_core::env::Env;

use super::job::Running;
use super::policy::{ask, pick_by_policy};
use crate::background::context::JobContext;
use crate::error::Error;
use crate::keyspaces::Tree;
use crate::version::edit::LEVEL_COUNT_MAX;
use crate::version::{BusyTable, Placement, Version};

/// How long a keyspace waits after a compaction failed: the disk may be full, or failing.
const RETRY_MICROS: u64 = 1_000_000;

/// Which compactions run, and which tables they work on.
#[derive(Default)]
pub(super) struct Scheduler {
    pub(super) running: Vec<Arc<Running>>,
    /// Keyspaces that are being compacted by hand, and how often: their policies wait.
    held: BTreeMap<u32, usize>,
    /// Keyspaces in which a compaction failed, and until when they wait.
    paused: BTreeMap<u32, u64>,
    /// Keyspace to ask first at the next look, so that all get their turn.
    pub(super) next_keyspace: u32,
    /// Keyspace to begin with when policies are asked again because time has passed.
    pub(super) next_by_time: u32,
    /// What keyspaces owe that owe anything.
    pub(super) debts: BTreeMap<u32, Debt>,
}

/// What a keyspace owes, as its policy says.
pub(super) struct Debt {
    pub(super) tree: Arc<Tree>,
    pub(super) bytes: u64,
}

impl Scheduler {
    /// Holds the policy of a keyspace back until it was released as often.
    pub(super) fn hold(&mut self, keyspace: u32) {
        *self.held.entry(keyspace).or_insert(0) += 1;
    }

    pub(super) fn release(&mut self, keyspace: u32) {
        if let Entry::Occupied(mut held) = self.held.entry(keyspace) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    pub(super) fn pause(&mut self, keyspace: u32, now_micros: u64) {
        self.paused.insert(keyspace, now_micros + RETRY_MICROS);
    }

    /// A change without a merge failed: it is tried again later, and whoever waits for compactions hears of it.
    pub(super) fn fail(&mut self, context: &JobContext, tree: &Tree, error: Error, now_micros: u64) {
        context.status.compaction_error.note(error);
        self.pause(tree.id, now_micros);
        context.status.progress.notify();
    }

    /// Keyspaces that have waited long enough go on.
    pub(super) fn end_pauses(&mut self, now_micros: u64) {
        self.paused.retain(|_, until_micros| now_micros < *until_micros);
    }

    /// Whether the policy of a keyspace is not to be asked for now.
    pub(super) fn waits(&self, keyspace: u32) -> bool {
        self.held.contains_key(&keyspace) || self.paused.contains_key(&keyspace)
    }

    pub(super) fn is_paused(&self, tree: &Tree, env: &dyn Env) -> bool {
        self.paused.get(&tree.id).is_some_and(|until_micros| env.monotonic_micros() < *until_micros)
    }

    pub(super) fn shape(&self, context: &JobContext, tree: &Tree, version: &Version) -> TreeShape {
        let options = tree.options();
        let level_count =
            ask(tree, "level_count", || options.compaction.level_count()).unwrap_or(1).min(LEVEL_COUNT_MAX);
        // After the version: nobody will look at a number below the last that is not among them.
        let stripes = context.visibility.snapshot_stripes();
        let running = || self.running.iter().filter(|running| running.tree().id == tree.id);
        let inputs = running().flat_map(|running| running.inputs()).map(BusyTable::from);
        let unreadable = tree.unreadable.lock();
        let unreadable =
            unreadable.iter().map(|(level, run, table)| BusyTable { level: *level, run: *run, table });
        let now_micros = context.versions.clock_micros();
        let mut shape = version.shape(inputs.chain(unreadable), level_count, now_micros, stripes);
        shape.running = running().map(|running| running.shape().clone()).collect();
        shape
    }

    /// Whether anything is done or due that will change the shape of a keyspace. Nothing may be: all that there is to do
    /// needs a table that cannot be read, for instance.
    pub(super) fn works_on(&self, context: &JobContext, tree: &Tree) -> bool {
        self.is_running(tree)
            || self.waits(tree.id)
            || pick_by_policy(tree, &self.shape(context, tree, &tree.load().version)).is_some()
    }

    pub(super) fn is_running(&self, tree: &Tree) -> bool {
        self.running.iter().any(|running| running.tree().id == tree.id)
    }

    pub(super) fn remove(&mut self, ended: &Arc<Running>) {
        self.running.retain(|running| !Arc::ptr_eq(running, ended));
    }

    /// The number of the run that the outputs become or join.
    pub(super) fn output_run(
        &self,
        context: &JobContext,
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
            OutputRun::Join => joined
                .or_else(|| self.run_to_be(tree, level))
                .unwrap_or_else(|| context.versions.numbers.next()),
            OutputRun::NewRun if from_above => context.versions.numbers.next(),
            OutputRun::NewRun => replaced.unwrap_or_else(|| context.versions.numbers.next()),
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
