//! Purging: takes deleted and overwritten data off the disk within the bound that a keyspace sets, without further writes,
//! too.
//!
//! A cycle begins twice within the bound, if there was a write. It takes the visible sequence number, or that of the
//! oldest snapshot, and works until nothing that writes up to this number deleted is in any file:
//!
//! 1. The log begins a segment, and all memtables are flushed: so nothing needs the log before that segment.
//! 2. Each keyspace with a bound is merged down to the last level, like in a manual compaction. Tables of the last level
//!    that may hold what only a snapshot needed are rewritten. Blob files with garbage are rewritten by another job.
//! 3. A new manifest begins without the keys of the tables that are gone, and the log is truncated.
//! 4. Once no reader keeps a file of a removed table, and the directory is durable without it, the number is logged.
//!
//! A step never waits. What holds a cycle back (a reader, a full disk, a pin of the log) is looked at again each second.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use lsm_core::SequenceNumber;
use lsm_wal::DROPPED_SUFFIX;

use super::compaction::{Compactions, Hold, Manual};
use super::context::JobContext;
use crate::error::{Error, Result};
use crate::keyspaces::{Memtable, Tree};
use crate::version::edit::VersionEdit;
use crate::version::files::{self, FileKind};

/// Pause after a step that failed.
const RETRY_MICROS: u64 = 10_000_000;

/// Purges the keyspaces of a database that have a bound.
#[derive(Default)]
pub(super) struct Purge {
    cycle: Option<Cycle>,
    /// The bound at the last look.
    bound_micros: Option<u64>,
    /// When the last cycle began.
    begun_micros: Option<u64>,
    /// No cycle begins before this.
    paused_until_micros: u64,
    /// A sequence number that is not purged yet, and when it was visible first.
    oldest: Option<(SequenceNumber, u64)>,
    /// That this is overdue was said.
    warned: bool,
}

/// What purges writes up to one number.
struct Cycle {
    through: SequenceNumber,
    /// The log before this position must go.
    log_begin: u64,
    stage: Stage,
}

enum Stage {
    /// Memtables are being flushed.
    Flush(Vec<(Arc<Tree>, Vec<Arc<Memtable>>)>),
    /// Keyspaces are merged, the last one first.
    Merge(Vec<Arc<Tree>>, Option<Merge>),
    /// Files that hold removed data must go.
    Files(Old),
}

/// The files that must go, apart from those of the log and old manifests.
struct Old {
    /// Tables and blob files below this number that belong to no version.
    numbers_end: u64,
    /// Blob files with garbage, which are rewritten.
    blobs: BTreeSet<u64>,
}

/// The merge of one keyspace, whose policy is on hold.
struct Merge {
    /// Tables with this number or a higher one were written by it. `None` until no earlier compaction runs.
    since: Option<u64>,
    _hold: Hold,
}

impl Purge {
    /// Whether a cycle has begun and has not ended. Otherwise a step each second is enough.
    pub(super) fn is_running(&self) -> bool {
        self.cycle.is_some()
    }

    /// Works for a while. Returns `true` if there is more to do at once.
    pub(super) fn step(&mut self, context: &JobContext, compactions: &Arc<Compactions>) -> bool {
        let bound_micros = {
            let trees = context.trees.read();
            trees.all().map(|tree| tree.options().purge_micros).filter(|micros| *micros > 0).min()
        };
        let is_bounded = bound_micros.is_some();
        // The last keyspace with a bound may have been dropped. What it held must leave all the same.
        self.bound_micros = bound_micros.or(self.bound_micros);
        let Some(bound_micros) = self.bound_micros else { return false };
        self.note_lag(context, bound_micros, is_bounded);
        if !is_bounded && self.oldest.is_none() {
            *self = Self::default();
            return false;
        }
        match self.advance(context, compactions, bound_micros) {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "a purge failed and is tried again");
                self.cycle = None;
                self.paused_until_micros = context.resources.env.monotonic_micros() + RETRY_MICROS;
                false
            }
        }
    }

    /// Notes how long the oldest write is visible whose garbage is not purged.
    fn note_lag(&mut self, context: &JobContext, bound_micros: u64, is_bounded: bool) {
        let now_micros = context.resources.env.monotonic_micros();
        let (visible, purged) = (context.visibility.sequence(), context.visibility.purged());
        if self.oldest.is_none_or(|(sequence, _)| sequence <= purged) {
            self.oldest = (is_bounded && visible > purged).then_some((visible, now_micros));
            self.warned = false;
        }
        let lag_micros = self.oldest.map_or(0, |(_, since_micros)| now_micros - since_micros);
        context.status.set_purge_lag_micros(lag_micros);
        if lag_micros > bound_micros && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                purged,
                visible,
                "deleted data is on the disk for longer than KeyspaceOptions::purge_within: Db::pins tells what may hold it"
            );
        }
    }

    fn advance(
        &mut self,
        context: &JobContext,
        compactions: &Arc<Compactions>,
        bound_micros: u64,
    ) -> Result<bool> {
        let now_micros = context.resources.env.monotonic_micros();
        let is_late = self.begun_micros.is_some_and(|begun| now_micros - begun >= bound_micros);
        if is_late && self.cycle.as_ref().is_some_and(|cycle| matches!(cycle.stage, Stage::Files(_))) {
            // What holds it back may belong to a write that came while it began: then only a new one ends.
            self.cycle = None;
        }
        let Some(cycle) = &mut self.cycle else {
            let through = context.visibility.oldest_read();
            let is_due = self.begun_micros.is_none_or(|begun| now_micros - begun >= bound_micros / 2);
            if !is_due || now_micros < self.paused_until_micros || through <= context.visibility.purged() {
                return Ok(false);
            }
            self.begun_micros = Some(now_micros);
            self.cycle = Some(Cycle::begin(context, through)?);
            return Ok(true);
        };
        match &mut cycle.stage {
            Stage::Flush(waiting) => {
                waiting.retain(|(tree, memtables)| tree.has_unflushed(memtables));
                if !waiting.is_empty() {
                    return Ok(false);
                }
                cycle.stage = Stage::Merge(bounded_trees(context).collect(), None);
            }
            Stage::Merge(trees, merging) => {
                let Some(tree) = trees.last() else {
                    forget_in_files(context)?;
                    cycle.stage = Stage::Files(Old::of(context));
                    return Ok(true);
                };
                if tree.is_dropped() {
                    trees.pop();
                    *merging = None;
                    return Ok(true);
                }
                let merge =
                    merging.get_or_insert_with(|| Merge { since: None, _hold: compactions.hold(tree.id) });
                if merge.since.is_none() && compactions.is_running_in(tree) {
                    // What it keeps may be by rules from before the cycle.
                    return Ok(false);
                }
                let since = *merge.since.get_or_insert_with(|| context.versions.numbers.next());
                match compactions.start_purge(tree, since)? {
                    Manual::Started => {}
                    Manual::Wait => return Ok(false),
                    Manual::Done => {
                        context.compaction_queue.add(tree);
                        trees.pop();
                        *merging = None;
                    }
                }
            }
            Stage::Files(_) => {
                if !cycle.is_forgotten(context)? {
                    return Ok(false);
                }
                let through = cycle.through;
                let purged = VersionEdit { purged: Some(through), ..VersionEdit::default() };
                context.versions.log_edit(&mut context.versions.lock(), purged)?;
                context.visibility.set_purged(through);
                tracing::debug!(through, "purged");
                self.cycle = None;
                context.status.progress.notify();
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Cycle {
    fn begin(context: &JobContext, through: SequenceNumber) -> Result<Self> {
        // All writes up to `through` are in the log before this position, and in memtables that rotate now.
        let log_begin = context.write.begin_log_segment()?;
        context.write.committer.lock().rotate_all();
        let with_immutable = |tree: Arc<Tree>| {
            let immutable = tree.load().immutable.clone();
            (tree, immutable)
        };
        let waiting = context.write.unflushed.trees().into_iter().map(with_immutable).collect();
        context.write.flush_wanted.notify();
        Ok(Self { through, log_begin, stage: Stage::Flush(waiting) })
    }

    /// Whether no file holds what the cycle purges, and none will after a power cut.
    fn is_forgotten(&self, context: &JobContext) -> Result<bool> {
        let Stage::Files(old) = &self.stage else { return Ok(false) };
        let resources = &context.resources;
        resources.obsolete_files.try_again();
        resources.remove_obsolete_files();
        // A pin that kept the log may be gone.
        context.write.truncate_released_log()?;
        if context.write.log_pins.start() < self.log_begin {
            return Ok(false);
        }
        let (current, tables, blobs) = {
            let manifest = context.versions.lock();
            let state = manifest.state();
            (manifest.number(), state.table_numbers(), state.blob_file_numbers())
        };
        let directory = &resources.directory;
        let failed = |what, error| Error::io(what, directory, error);
        for name in resources.vfs.read_dir(directory).map_err(|error| failed("read", error))? {
            match files::parse(&name) {
                // A reader has it.
                Some(FileKind::Table(number)) if number < old.numbers_end && !tables.contains(&number) => {
                    return Ok(false);
                }
                Some(FileKind::Blob(number))
                    if old.blobs.contains(&number)
                        || (number < old.numbers_end && !blobs.contains(&number)) =>
                {
                    return Ok(false);
                }
                Some(FileKind::Manifest(number)) if number != current => {}
                None if name.ends_with(DROPPED_SUFFIX) => {}
                _ => continue,
            }
            let removed = resources.vfs.remove_file(&directory.join(&name));
            removed.map_err(|error| failed("remove a file of", error))?;
        }
        resources.sync_directory()?;
        Ok(true)
    }
}

impl Old {
    fn of(context: &JobContext) -> Self {
        let mut blobs = BTreeSet::new();
        for tree in bounded_trees(context) {
            let state = tree.load();
            let with_garbage = state.version.blobs().iter().filter(|live| live.garbage_bytes() > 0);
            blobs.extend(with_garbage.map(|live| live.file.number()));
        }
        Self { numbers_end: context.versions.numbers.next(), blobs }
    }
}

/// The keyspaces with a bound.
fn bounded_trees(context: &JobContext) -> impl Iterator<Item = Arc<Tree>> {
    context.all_trees().into_iter().filter(|tree| !tree.is_dropped() && tree.options().purge_micros > 0)
}

/// Has the manifest begin anew, and truncates the log.
fn forget_in_files(context: &JobContext) -> Result<()> {
    let mut manifest = context.versions.lock();
    let log = context.write.log_start(&HashSet::new());
    manifest.roll_next();
    context.versions.log_edit(&mut manifest, VersionEdit { log: Some(log), ..VersionEdit::default() })?;
    drop(manifest);
    context.write.truncate_log(log.position)
}
