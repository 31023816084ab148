//! The state of the scheduler: running compactions, waiting keyspaces, and compaction debt.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use lsm_compaction::{Compaction, OutputRun, TreeShape};
use lsm_core::env::Env;

use super::job::Running;
use super::policy::{ask, pick_by_policy};
use crate::background::context::JobContext;
use crate::error::Error;
use crate::keyspaces::{ReadState, Tree};
use crate::version::edit::LEVEL_COUNT_MAX;
use crate::version::{BusyTable, Placement, Run, TableFile, Version};

/// Pause of a keyspace after a failed compaction, for example on a full disk.
const RETRY_MICROS: u64 = 1_000_000;

/// Running compactions, and the keyspaces that wait or have debt.
#[derive(Default)]
pub(super) struct Scheduler {
    pub(super) running: Vec<Arc<Running>>,
    /// Number of manual compactions per keyspace. Meanwhile the policy is on hold.
    held: BTreeMap<u32, usize>,
    /// Keyspaces with a failed compaction, and the time until which they wait.
    paused: BTreeMap<u32, u64>,
    /// The keyspace to ask first next time, so that all get their turn.
    pub(super) next_keyspace: u32,
    /// The keyspace to start with when policies are asked again because time has passed.
    pub(super) next_by_time: u32,
    /// Keyspaces with debt.
    pub(super) debts: BTreeMap<u32, Debt>,
}

/// The debt of a keyspace, as its policy reports it.
pub(super) struct Debt {
    pub(super) tree: Arc<Tree>,
    pub(super) bytes: u64,
}

/// The tables of ingests that are not in the manifest yet. Memtables that are still to be flushed are older.
fn unsettled_tables(state: &ReadState) -> Vec<Placement> {
    let Some(from) = state.unsettled_from() else { return Vec::new() };
    let newest_first = state.version.levels().first().into_iter().flatten();
    let unsettled = newest_first.take_while(|run| run.number() > from);
    let placed = |run: &Arc<Run>| {
        let number = run.number();
        let place =
            move |table: &Arc<TableFile>| Placement { level: 0, run: number, table: Arc::clone(table) };
        run.tables().iter().map(place).collect::<Vec<_>>()
    };
    unsettled.flat_map(placed).collect()
}

impl Scheduler {
    /// Puts the policy of a keyspace on hold. Each hold needs one release.
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

    /// Notes that a change without a merge failed. It is tried again later, and callers that wait for compactions get
    /// the error.
    pub(super) fn fail(&mut self, context: &JobContext, tree: &Tree, error: Error, now_micros: u64) {
        context.status.note_compaction_error(&tree.name, error);
        self.pause(tree.id, now_micros);
        context.status.progress.notify();
    }

    /// Ends the pauses of keyspaces that have waited long enough.
    pub(super) fn end_pauses(&mut self, now_micros: u64) {
        self.paused.retain(|_, until_micros| now_micros < *until_micros);
    }

    /// Whether the policy of a keyspace must not be asked now.
    pub(super) fn waits(&self, keyspace: u32) -> bool {
        self.held.contains_key(&keyspace) || self.paused.contains_key(&keyspace)
    }

    pub(super) fn is_paused(&self, tree: &Tree, env: &dyn Env) -> bool {
        self.paused.get(&tree.id).is_some_and(|until_micros| env.monotonic_micros() < *until_micros)
    }

    /// The shape of a keyspace in a state of it.
    pub(super) fn shape(&self, context: &JobContext, tree: &Tree, state: &ReadState) -> TreeShape {
        let version = &*state.version;
        let options = tree.options();
        let level_count =
            ask(tree, "level_count", || options.compaction.level_count()).unwrap_or(1).min(LEVEL_COUNT_MAX);
        // Load the list after the version. Then later readers read at one of these numbers or above the last.
        let readers = context.visibility.garbage_rules();
        let running = || self.running.iter().filter(|running| running.tree().id == tree.id);
        let inputs = running().flat_map(|running| running.inputs()).map(BusyTable::from);
        let unreadable = tree.unreadable.lock();
        let unreadable =
            unreadable.iter().map(|(level, run, table)| BusyTable { level: *level, run: *run, table });
        let now_micros = context.versions.clock_micros();
        let unsettled = unsettled_tables(state);
        let unsettled = unsettled.iter().map(BusyTable::from);
        let busy = inputs.chain(unreadable).chain(unsettled);
        let mut shape = version.shape(busy, level_count, now_micros, readers);
        shape.running = running().map(|running| running.shape().clone()).collect();
        shape
    }

    /// Whether a compaction that changes the shape of the keyspace runs or is due. There may be none although there is
    /// debt, for example if all compactions need a table that cannot be read.
    pub(super) fn works_on(&self, context: &JobContext, tree: &Tree) -> bool {
        self.is_running(tree)
            || self.waits(tree.id)
            || pick_by_policy(tree, &self.shape(context, tree, &tree.load())).is_some()
    }

    pub(super) fn is_running(&self, tree: &Tree) -> bool {
        self.running.iter().any(|running| running.tree().id == tree.id)
    }

    pub(super) fn remove(&mut self, ended: &Arc<Running>) {
        self.running.retain(|running| !Arc::ptr_eq(running, ended));
    }

    /// The number of the run that the outputs form or join.
    pub(super) fn output_run(
        &self,
        context: &JobContext,
        tree: &Tree,
        version: &Version,
        compaction: &Compaction,
        inputs: &[Placement],
    ) -> u64 {
        let level = compaction.output_level;
        // An output that replaces runs of its own level takes their position among the other runs.
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

    /// The run that a running compaction writes into an empty level. Others that join that level must join this run.
    fn run_to_be(&self, tree: &Tree, level: usize) -> Option<u64> {
        let joins = |running: &&Arc<Running>| {
            let shape = running.shape();
            running.tree().id == tree.id && shape.output_level == level && shape.output_run == OutputRun::Join
        };
        self.running.iter().find(joins).map(|running| running.run())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use super::Scheduler;
    use crate::{Db, Ingest, Options};

    /// Otherwise a compaction could move them below what the memtable becomes.
    #[test]
    fn ingested_tables_are_busy_until_the_memtables_from_before_are_flushed() {
        let env = Arc::new(SimEnv::new(1));
        let options = Options::new().memory(8 << 20).vfs(Arc::new(SimFs::new()));
        let db: Db = options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap();
        db.put("a", "flushed").unwrap();
        db.flush().unwrap();
        db.put("a", "in memory").unwrap();
        for path in ["/one.sst", "/two.sst"] {
            let mut table = db.default_keyspace().table_builder(path).unwrap();
            table.put("a", path).unwrap();
            table.finish().unwrap();
            db.ingest(Ingest::new().table(path)).unwrap();
        }
        let (tree, side) = (db.default.tree(), db.database.write_side().unwrap());
        let busy = || {
            let shape = Scheduler::default().shape(&side.background, &tree, &tree.load());
            let runs = shape.levels[0].runs.iter().map(|run| run.is_busy_at(0));
            runs.collect::<Vec<_>>()
        };
        assert_eq!(busy(), [true, true, false]);
        assert!(tree.load().ingested > 0);
        db.flush().unwrap();
        assert_eq!(busy(), [false; 4]);
        assert_eq!(tree.load().ingested, 0);
        drop((tree, db));
        env.drop_jobs();
    }
}
