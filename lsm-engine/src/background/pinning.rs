//! Which tables have index and filter in memory: all of them, or those that most reads ask.

use std::sync::Arc;

use crate::background::context::JobContext;
use crate::callbacks::caught;
use crate::version::{Placement, TableFile};

/// Room that stays free when tables get index and filter back into memory, as a part of their share: what comes now
/// should not have to go with the next flush.
const FREE_PART: usize = 8;

/// Tables that one step opens anew: some milliseconds.
const TABLES_PER_STEP: usize = 8;

/// A table with its place.
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

    /// What it takes of memory for being pinned.
    fn bytes(&self) -> usize {
        let pinnable_bytes = self.table().table().pinnable_bytes();
        usize::try_from(pinnable_bytes).unwrap_or(usize::MAX)
    }

    /// What it takes in any case.
    fn other_bytes(&self) -> usize {
        self.table().held_bytes().saturating_sub(if self.is_pinned() { self.bytes() } else { 0 })
    }
}

/// Makes what tables hold fit their share, and uses room that has become free: upper levels come first, as most
/// reads ask them. Whether there is more to do.
pub(crate) fn fit_tables(context: &JobContext) -> bool {
    // So it is in most databases: no look at all tables of all keyspaces after each flush.
    if context.resources.memory.all_tables_fit() {
        return false;
    }
    let most = context.resources.memory.tables_bytes_max();
    let mut candidates = candidates(context);
    candidates.iter().filter(|candidate| !candidate.is_pinned()).for_each(|it| it.table().charge_anew());
    candidates.sort_by_key(|candidate| (candidate.placement.level, !candidate.is_pinned()));
    // Not by all that is held: inputs of merges that have just ended will be gone in a moment.
    let mut left = most.saturating_sub(candidates.iter().map(Candidate::other_bytes).sum());
    let (mut going, mut coming) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let is_pinned = candidate.is_pinned();
        let free = if is_pinned { 0 } else { most / FREE_PART };
        let fits = candidate.bytes().saturating_add(free) <= left;
        if fits {
            left -= candidate.bytes();
        }
        match (fits, is_pinned) {
            (true, false) => coming.push(candidate),
            (false, true) => going.push(candidate),
            _ => {}
        }
    }
    if !going.is_empty() {
        let more = going.len() > TABLES_PER_STEP || !coming.is_empty();
        going.truncate(TABLES_PER_STEP);
        reopen(context, &going, 0);
        return more;
    }
    let mut room = context.resources.memory.pinnable_bytes();
    coming.retain(|candidate| {
        let after = room.checked_sub(candidate.bytes());
        room = after.unwrap_or(room);
        after.is_some()
    });
    let more = coming.len() > TABLES_PER_STEP;
    coming.truncate(TABLES_PER_STEP);
    reopen(context, &coming, usize::MAX);
    more
}

/// All tables but inputs of compactions, which will soon be gone, and those that could not be opened anew.
fn candidates(context: &JobContext) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for tree in context.all_trees() {
        let version = Arc::clone(&tree.load().version);
        let busy = tree.busy.lock().clone();
        candidates.extend(
            version
                .placements()
                .filter(|Placement { table, .. }| !busy.contains(&table.number()) && !table.stays_as_it_is())
                .map(|placement| Candidate { keyspace: tree.id, placement }),
        );
    }
    candidates
}

/// Opens tables anew. One that cannot be opened stays as it is: whoever reads it gets the error.
fn reopen(context: &JobContext, candidates: &[Candidate], pinned_bytes_max: usize) {
    for tree in context.all_trees() {
        let (options, mut tables) = (tree.options(), Vec::new());
        for candidate in candidates.iter().filter(|candidate| candidate.keyspace == tree.id) {
            let table = candidate.table();
            let reopened = caught("the opening of a table", || {
                Ok(table.reopened(&context.resources.memory, &options, pinned_bytes_max)?)
            });
            match reopened {
                Ok(new) => {
                    tables.push(Placement { table: Arc::new(new), ..candidate.placement.clone() });
                }
                Err(error) => {
                    tracing::warn!(%error, "a table could not be opened anew");
                    table.leave_as_it_is();
                }
            }
        }
        if !tables.is_empty() {
            tree.update(|state| {
                let mut next = (**state).clone();
                // Somebody may have opened the keyspace with options of its own, and its tables with them.
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

    use crate::{Db, Options};

    #[test]
    fn tables_are_looked_at_only_where_one_is_not_pinned() {
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
        db.default.clear().unwrap();
        env.run_until_idle();
        assert!(unpinned(&db) == 0 && db.database.resources.memory.all_tables_fit());
        db.close().unwrap();
        env.drop_jobs();
    }
}
