//! Drops tables without a merge if newer range tombstones cover them completely.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::install::{count, replace_tables};
use super::scheduler::Scheduler;
use crate::background::context::JobContext;
use crate::error::Result;
use crate::events::EventKind;
use crate::keyspaces::{ReadState, Tree};
use crate::version::Placement;

/// Drops the tables that newer range tombstones cover completely and no reader sees.
pub(super) fn drop_covered_tables(context: &JobContext, scheduler: &mut Scheduler) {
    for tree in context.compaction_queue.to_ask() {
        if context.status.is_stopping()
            || !tree.is_healthy()
            || scheduler.is_paused(&tree, &*context.resources.env)
        {
            continue;
        }
        if let Err(error) = drop_covered_tables_of(context, &tree) {
            tracing::warn!(keyspace = &*tree.name, %error, "failed to drop tables covered by range deletes");
            scheduler.fail(context, &tree, error, context.resources.env.monotonic_micros());
        }
    }
}

fn drop_covered_tables_of(context: &JobContext, tree: &Arc<Tree>) -> Result<()> {
    loop {
        let state = tree.load_full();
        let unseen = unseen_tables(context, tree, &state);
        if unseen.is_empty() {
            return Ok(());
        }
        let mut manifest = context.versions.lock();
        if tree.is_dropped() {
            return Ok(());
        }
        if Arc::ptr_eq(&state.version, &tree.load().version) {
            replace_tables(context, &mut manifest, tree, &unseen, Vec::new())?;
            let (tables, bytes) = count(&unseen);
            context.resources.counters.covered_tables_dropped.add(tables);
            let keyspace = Arc::clone(&tree.name);
            context.resources.events.emit(EventKind::TablesDropped { keyspace, tables, bytes });
            context.compaction_queue.add(tree);
            context.status.progress.notify();
        }
    }
}

/// The tables that newer range tombstones cover completely, that no reader sees, and that no compaction uses.
pub(super) fn unseen_tables(context: &JobContext, tree: &Tree, state: &ReadState) -> Vec<Placement> {
    // The range deletes of ingested tables must be in the manifest before what they cover leaves it.
    if state.unsettled_from().is_some() {
        return Vec::new();
    }
    let covered = state.version.covered_tables();
    if covered.is_empty() {
        return Vec::new();
    }
    // Load the list after the version. A reader of a version without these tables then reads at one of these numbers or
    // above the last.
    let stripes = context.visibility.snapshot_stripes();
    let busy = tree.busy.lock();
    let unseen = covered
        .iter()
        .filter(|covered| !busy.contains(&covered.placement.table.number()) && covered.is_unseen(&stripes));
    let by_number = unseen.map(|covered| (covered.placement.table.number(), &covered.placement));
    by_number.collect::<BTreeMap<_, _>>().into_values().cloned().collect()
}
