//! Installs changes of tables: logs them in the manifest, and then makes them visible.

use std::sync::Arc;

use lsm_compaction::{Compaction, Reason};
use lsm_core::SequenceNumber;

use crate::background::context::JobContext;
use crate::error::Result;
use crate::events::EventKind;
use crate::keyspaces::{ReadState, Tree};
use crate::version::edit::VersionEdit;
use crate::version::manifest::Manifest;
use crate::version::{BlobFile, Placement, Version};

/// Moves tables to `run` in the output level without rewriting them (a trivial move). Without `run`, drops them.
pub(super) fn relocate(
    context: &JobContext,
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
    let mut manifest = context.versions.lock();
    if tree.is_dropped() || !holds_all(&tree.load().version, inputs) {
        // The keyspace was cleared or dropped meanwhile.
        return Ok(());
    }
    if run.is_some() {
        replace_tables(context, &mut manifest, tree, inputs, moved)?;
    } else if compaction.reason == Reason::Expiry {
        // No reader sees anything of them.
        replace_tables(context, &mut manifest, tree, inputs, Vec::new())?;
    } else {
        log_replacement(context, &mut manifest, tree, inputs, &[])?;
        drop_tables(context, tree, inputs, compaction.reason);
    }
    context.resources.counters.moves.add(1);
    let keyspace = Arc::clone(&tree.name);
    let (tables, bytes) = count(inputs);
    context.resources.events.emit(match run {
        Some(_) => EventKind::TablesMoved { keyspace, level: compaction.output_level as u64, tables, bytes },
        None => EventKind::TablesDropped { keyspace, tables, bytes },
    });
    context.status.progress.notify();
    Ok(())
}

/// Number of tables, and their bytes.
pub(super) fn count(tables: &[Placement]) -> (u64, u64) {
    (tables.len() as u64, tables.iter().map(|placement| placement.table.meta().file_bytes).sum())
}

/// Drops tables with live data from a keyspace. A policy drops what is old, which is no write that transactions must know
/// of. A user who deletes files writes.
fn drop_tables(context: &JobContext, tree: &Arc<Tree>, removed: &[Placement], reason: Reason) {
    let newest = removed.iter().map(|dropped| dropped.table.meta().largest_sequence).max().unwrap_or(0);
    let untraced = |sequence| if reason == Reason::Manual { sequence } else { newest };
    change_data(context, tree, removed, Vec::new(), &[], untraced);
}

/// Makes a logged change of tables visible in which a compaction filter has deleted or changed data.
pub(super) fn install_for_later_readers(
    context: &JobContext,
    tree: &Arc<Tree>,
    removed: &[Placement],
    added: Vec<Placement>,
    blobs: &[Arc<BlobFile>],
) {
    // A write since then has a trace that the filter leaves, so transactions need no other.
    change_data(context, tree, removed, added, blobs, |_| 0);
}

/// Replaces tables by others with other data. Like a clear, the change has a sequence number: older snapshots keep the
/// state that has the tables. `untraced` makes of that number the one up to which writes may leave no trace.
fn change_data(
    context: &JobContext,
    tree: &Arc<Tree>,
    removed: &[Placement],
    added: Vec<Placement>,
    blobs: &[Arc<BlobFile>],
    untraced: impl FnOnce(SequenceNumber) -> SequenceNumber,
) {
    let mut committer = context.write.committer.lock();
    let sequence = committer.use_up_number();
    let untraced = untraced(sequence);
    tree.empty_spans.outdate_older_states();
    tree.update(|state| ReadState {
        begun_count: state.begun_count + 1,
        version: Arc::new(state.version.with_blobs(blobs).changed(removed, added)),
        cleared: sequence,
        before_clear: Some(Arc::clone(state)),
        untraced: state.untraced.max(untraced),
        ..(**state).clone()
    });
    context.visibility.publish(sequence);
    drop(committer);
    context.visibility.keep_cleared(tree);
    context.visibility.release_cleared();
}

/// Replaces tables with others, or only removes them if `added` is empty: logs the edit and makes the change visible.
pub(super) fn replace_tables(
    context: &JobContext,
    manifest: &mut Manifest,
    tree: &Tree,
    removed: &[Placement],
    added: Vec<Placement>,
) -> Result<()> {
    log_replacement(context, manifest, tree, removed, &added)?;
    install(tree, removed, added, &[]);
    Ok(())
}

pub(super) fn log_replacement(
    context: &JobContext,
    manifest: &mut Manifest,
    tree: &Tree,
    removed: &[Placement],
    added: &[Placement],
) -> Result<()> {
    let edit = VersionEdit {
        removed: removed.iter().map(|placement| (tree.id, placement.table.number())).collect(),
        added: added.iter().map(|placement| placement.added_to(tree.id)).collect(),
        ..VersionEdit::default()
    };
    context.versions.log_edit(manifest, edit)?;
    if added.is_empty() {
        for placement in removed {
            placement.table.mark_obsolete();
        }
    }
    Ok(())
}

/// Whether a version still has all the inputs.
pub(super) fn holds_all(version: &Version, inputs: &[Placement]) -> bool {
    inputs.iter().all(|input| version.find(input).is_some())
}

/// Makes a logged change of tables visible.
pub(super) fn install(tree: &Tree, removed: &[Placement], added: Vec<Placement>, blobs: &[Arc<BlobFile>]) {
    tree.update(|state| ReadState {
        version: Arc::new(state.version.with_blobs(blobs).changed(removed, added)),
        ..(**state).clone()
    });
}
