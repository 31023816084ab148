//! Pinning: chooses the tables whose index and filter are in memory. If not all fit, upper levels come first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::background::context::JobContext;
use crate::callbacks::caught;
use crate::keyspaces::Tree;
use crate::version::{Placement, TableFile};

/// When tables are pinned again, this part of their share stays free (one eighth), so that the next flush does not
/// unpin them.
const FREE_PART: usize = 8;

/// Number of tables that one step reopens. That takes some milliseconds.
const TABLES_PER_STEP: usize = 8;

/// Up to this number of tables, the job visits all tables after each change.
const TABLES_AT_ONCE: usize = 4096;

/// Each further table adds this pause before the next visit of all tables. A visit takes about a tenth of that.
const MICROS_PER_TABLE: u64 = 5;

/// A table that may be pinned or unpinned.
struct Candidate {
    keyspace: u32,
    placement: Placement,
}

impl Candidate {
    fn table(&self) -> &Arc<TableFile> {
        &self.placement.table
    }

    fn is_pinned(&self) -> bool {
        self.table().table().is_pinned()
    }

    /// Memory of its index and filter when pinned.
    fn bytes(&self) -> usize {
        let pinnable_bytes = self.table().table().pinnable_bytes();
        usize::try_from(pinnable_bytes).unwrap_or(usize::MAX)
    }

    /// Whether the version still has this table in its place, and no compaction uses it.
    fn is_still_there(&self, tree: &Tree) -> bool {
        let version = Arc::clone(&tree.load().version);
        let is_same = version.find(&self.placement).is_some_and(|table| Arc::ptr_eq(table, self.table()));
        is_same && !tree.busy.lock().contains(&self.table().number())
    }

    /// Memory that it takes even if it is not pinned.
    fn other_bytes(&self) -> usize {
        self.table().held_bytes().saturating_sub(if self.is_pinned() { self.bytes() } else { 0 })
    }
}

/// The progress of [`TableFitter::step`].
pub(super) enum Fit {
    /// There is more to do.
    More,
    /// There may be more to do at this time.
    At(u64),
    Done,
}

/// Unpins tables until they fit their share, and pins others if there is room. Upper levels come first, since most
/// reads ask them.
///
/// To choose the tables it visits all tables. It does so only after a change, and not too often if there are very many.
#[derive(Default)]
pub(super) struct TableFitter {
    /// Tables to unpin.
    going: VecDeque<Candidate>,
    /// Tables to pin after that.
    coming: VecDeque<Candidate>,
    /// [`Memory::table_changes`](crate::memory::Memory::table_changes) at the last visit.
    seen_changes: Option<u64>,
    /// The earliest time of the next visit.
    look_at_micros: u64,
}

impl TableFitter {
    /// Reopens some tables, if needed.
    pub(super) fn step(&mut self, context: &JobContext) -> Fit {
        let memory = &context.resources.memory;
        // The usual case: then do not visit all tables of all keyspaces after each flush.
        if memory.all_tables_fit() {
            *self = Self::default();
            return Fit::Done;
        }
        if self.going.is_empty() && self.coming.is_empty() {
            if self.seen_changes == Some(memory.table_changes()) {
                return Fit::Done;
            }
            let is_urgent = memory.must_unpin();
            if !is_urgent && context.resources.env.monotonic_micros() < self.look_at_micros {
                return Fit::At(self.look_at_micros);
            }
            self.look(context);
        }
        if self.going.is_empty() {
            let mut room = memory.pinnable_bytes();
            let mut coming = Vec::new();
            while coming.len() < TABLES_PER_STEP
                && let Some(candidate) = self.coming.pop_front()
            {
                if let Some(rest) = room.checked_sub(candidate.bytes()) {
                    room = rest;
                    coming.push(candidate);
                }
            }
            reopen(context, coming.into_iter(), usize::MAX);
        } else {
            let count = self.going.len().min(TABLES_PER_STEP);
            reopen(context, self.going.drain(..count), 0);
        }
        let is_done = self.going.is_empty() && self.coming.is_empty();
        if is_done { Fit::At(self.look_at_micros) } else { Fit::More }
    }

    fn look(&mut self, context: &JobContext) {
        let memory = &context.resources.memory;
        let most = memory.own_tables_bytes_max();
        let mut candidates = candidates(context);
        candidates
            .iter()
            .filter(|candidate| !candidate.is_pinned())
            .for_each(|it| it.table().update_charge());
        self.seen_changes = Some(memory.table_changes());
        let pause_micros = candidates.len().saturating_sub(TABLES_AT_ONCE) as u64 * MICROS_PER_TABLE;
        self.look_at_micros = context.resources.env.monotonic_micros() + pause_micros;
        candidates.sort_by_key(|candidate| (candidate.placement.level, !candidate.is_pinned()));
        // Not from `table_bytes`: that includes inputs of compactions, which will soon be released.
        let mut left = most.saturating_sub(candidates.iter().map(Candidate::other_bytes).sum());
        for candidate in candidates {
            let is_pinned = candidate.is_pinned();
            let free = if is_pinned { 0 } else { most / FREE_PART };
            let fits = candidate.bytes().saturating_add(free) <= left;
            if fits {
                left -= candidate.bytes();
            }
            match (fits, is_pinned) {
                (true, false) => self.coming.push_back(candidate),
                (false, true) => self.going.push_back(candidate),
                _ => {}
            }
        }
    }
}

/// All tables except inputs of compactions, which will soon be obsolete, and tables that could not be reopened.
fn candidates(context: &JobContext) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for tree in context.all_trees() {
        let version = Arc::clone(&tree.load().version);
        let busy = tree.busy.lock().clone();
        candidates.extend(
            version
                .placements()
                .filter(|Placement { table, .. }| !busy.contains(&table.number()) && !table.cannot_reopen())
                .map(|placement| Candidate { keyspace: tree.id, placement }),
        );
    }
    candidates
}

/// Reopens tables. If one cannot be reopened, the old one stays, and its readers get the error.
fn reopen(context: &JobContext, candidates: impl Iterator<Item = Candidate>, pinned_bytes_max: usize) {
    let mut by_keyspace: BTreeMap<u32, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        by_keyspace.entry(candidate.keyspace).or_default().push(candidate);
    }
    for (keyspace, candidates) in by_keyspace {
        let Some(tree) = context.trees.read().get(keyspace).cloned() else { continue };
        let (options, mut tables) = (tree.options(), Vec::new());
        for candidate in candidates.iter().filter(|candidate| candidate.is_still_there(&tree)) {
            let table = candidate.table();
            let reopened = caught("the opening of a table", || {
                Ok(table.reopened(&context.resources.memory, &options, pinned_bytes_max)?)
            });
            match reopened {
                Ok(new) => {
                    tables.push(Placement { table: Arc::new(new), ..candidate.placement.clone() });
                }
                Err(error) => {
                    tracing::warn!(%error, "a table could not be reopened");
                    table.disable_reopening();
                }
            }
        }
        if !tables.is_empty() {
            tree.update(|state| {
                let mut next = (**state).clone();
                // Skip this if the user opened the keyspace meanwhile: its tables were then reopened with its options.
                if Arc::ptr_eq(&options, &tree.options()) {
                    next.version = Arc::new(state.version.with_tables(&tables));
                }
                next
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::{Env, SimEnv};
    use lsm_core::vfs::SimFs;

    use super::{Fit, TableFitter};
    use crate::{Db, Options};

    #[test]
    fn tables_are_looked_at_only_where_one_is_not_pinned_and_something_has_changed() {
        let (fs, env) = (SimFs::new(), Arc::new(SimEnv::new(1)));
        let open = |memory: usize| -> Db {
            let options = Options::new().memory(memory).vfs(Arc::new(fs.clone()));
            options.env(Arc::clone(&env) as Arc<dyn Env>).open("/db").unwrap()
        };
        let unpinned = |db: &Db| {
            let keyspaces = db.metrics().keyspaces;
            keyspaces.iter().flat_map(|it| &it.levels).map(|level| level.unpinned_tables).sum::<u64>()
        };
        let db = open(64 << 20);
        for number in 0..400_000 {
            db.put(format!("{number:08}"), "value").unwrap();
        }
        db.compact_range::<&str>(..).unwrap();
        assert!(unpinned(&db) == 0 && db.database.resources.memory.all_tables_fit());
        db.close().unwrap();
        env.drop_jobs();

        let db = open(1 << 20);
        env.run_until_idle();
        assert!(unpinned(&db) > 0 && !db.database.resources.memory.all_tables_fit());
        let context = &db.database.writer.as_ref().unwrap().background;
        let mut fitter = TableFitter::default();
        let mut looks = || {
            env.advance(1);
            let before = fitter.look_at_micros;
            (0..1000).find(|_| matches!(fitter.step(context), Fit::Done)).expect("an end");
            fitter.look_at_micros != before
        };
        assert!(looks() && !looks(), "nothing has changed");
        db.put("key", "value").unwrap();
        db.flush().unwrap();
        assert!(looks() && !looks(), "a table has come");
        db.default.clear().unwrap();
        env.run_until_idle();
        assert!(unpinned(&db) == 0 && db.database.resources.memory.all_tables_fit());
        db.close().unwrap();
        env.drop_jobs();
    }
}
