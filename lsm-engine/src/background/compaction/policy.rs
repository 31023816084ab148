//! Asks compaction policies, and validates their answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lsm_compaction::{
    Action, Compaction, CompactionPolicy, InputTable, TreeShape, expired_tables, small_tables, validate,
};

use crate::callbacks::panic_message;
use crate::error::Error;
use crate::keyspaces::Tree;
use crate::memory::Memory;
use crate::version::{Placement, Version};

/// Asks a policy a question. A policy that panics stops its keyspace.
pub(super) fn ask<T>(tree: &Tree, what: &str, question: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(question)) {
        Ok(answer) => Some(answer),
        Err(panic) => {
            tree.fail(Error::Callback(panic_message(&format!("a compaction policy's {what}"), &*panic)));
            None
        }
    }
}

/// The pick of the policy, or else one that takes expired entries off the disk, or a small-table compaction: each table takes some kilobytes of memory, however small
/// it is.
pub(super) fn pick(memory: &Memory, tree: &Tree, shape: &TreeShape) -> Option<Compaction> {
    let fits = |bytes, entries| memory.fits_table(bytes, entries);
    let pick = pick_by_policy(tree, shape);
    if pick.is_some() || tree.failure().is_some() {
        return pick;
    }
    expired(tree, shape).or_else(|| small_tables(shape, fits))
}

/// A compaction that takes expired entries off the disk. Under a policy that drops old data, such as FIFO, only tables of
/// which all has expired: what is rewritten would count as young again.
fn expired(tree: &Tree, shape: &TreeShape) -> Option<Compaction> {
    let compaction = expired_tables(shape)?;
    let drops_data = ask(tree, "drops_data", || tree.options().compaction.drops_data())?;
    (!drops_data || compaction.action == Action::Drop).then_some(compaction)
}

/// Whether `policy` is the stored policy of the keyspace. It differs if that is not built in and nobody has given it.
pub(super) fn is_its_own(tree: &Tree, policy: &dyn CompactionPolicy) -> bool {
    tree.stored().policy() == policy.name()
}

/// Asks the policy for a compaction, and validates it.
pub(super) fn pick_by_policy(tree: &Tree, shape: &TreeShape) -> Option<Compaction> {
    let options = tree.options();
    let policy = &options.compaction;
    let question = || if is_its_own(tree, &**policy) { policy.pick(shape) } else { None };
    let compaction = ask(tree, "pick", question)??;
    if compaction.action == Action::Drop && !ask(tree, "drops_data", || policy.drops_data())? {
        tracing::warn!(policy = policy.name(), "rejected a drop: the policy declares that it drops no data");
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

/// The inputs of a compaction. `shape` is the shape of `version`.
pub(super) fn inputs(version: &Version, shape: &TreeShape, compaction: &Compaction) -> Vec<Placement> {
    let placement = |input: &InputTable<'_>| {
        let run = version.levels().get(input.level)?.get(input.run)?;
        let table = Arc::clone(run.with_number(input.table)?);
        Some(Placement { level: input.level, run: run.number(), table })
    };
    compaction.input_tables(shape).iter().filter_map(placement).collect()
}
