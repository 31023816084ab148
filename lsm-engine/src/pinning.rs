//! Which tables have index and filter in memory: all of them, or those that most reads ask.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::inner::Inner;
use crate::version::TableFile;

/// Room that stays free before tables get index and filter back into memory, as a part of their share: what is given
/// back now should not be taken away by the next flush.
const FREE_PART: usize = 8;

/// Tables that one step opens anew: some milliseconds.
const TABLES_PER_STEP: usize = 8;

/// A table with its place.
struct Candidate {
    keyspace: u32,
    level: usize,
    table: Arc<TableFile>,
}

impl Inner {
    /// Makes what tables hold fit their share, from the last level up, or uses room that has become free, from level 0
    /// down. Whether there is more to do.
    pub(crate) fn fit_tables(&self) -> bool {
        let most = self.memory.tables_bytes_max();
        let mut candidates = self.candidates();
        // Not all that is held: inputs of merges that have just ended will be gone in a moment.
        let held: usize = candidates.iter().map(|candidate| candidate.table.table().pinned_bytes()).sum();
        let pinned_bytes_max = if held > most {
            let mut excess = held - most;
            candidates.sort_by_key(|candidate| Reverse(candidate.level));
            candidates.retain(|candidate| {
                let goes = excess > 0 && candidate.table.table().is_pinned();
                excess = excess.saturating_sub(if goes { candidate.table.table().pinned_bytes() } else { 0 });
                goes
            });
            0
        } else {
            let mut room = (most - most / FREE_PART).saturating_sub(self.memory.table_bytes()) as u64;
            candidates.sort_by_key(|candidate| candidate.level);
            candidates.retain(|candidate| {
                let left = room.checked_sub(candidate.table.table().pinnable_bytes());
                let comes = left.is_some() && !candidate.table.table().is_pinned();
                room = left.filter(|_| comes).unwrap_or(room);
                comes
            });
            usize::MAX
        };
        let more = candidates.len() > TABLES_PER_STEP;
        candidates.truncate(TABLES_PER_STEP);
        self.reopen(&candidates, pinned_bytes_max) && more
    }

    /// All tables but inputs of compactions, which will soon be gone.
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for tree in self.all_trees() {
            let version = Arc::clone(&tree.load().version);
            let busy = tree.busy.lock().clone();
            candidates.extend(
                version.placements().filter(|placement| !busy.contains(&placement.table.number())).map(
                    |placement| Candidate {
                        keyspace: tree.id,
                        level: placement.level,
                        table: placement.table,
                    },
                ),
            );
        }
        candidates
    }

    /// Opens tables anew; whether that went well. One that cannot be opened stays as it is: whoever reads it gets the
    /// error.
    fn reopen(&self, candidates: &[Candidate], pinned_bytes_max: usize) -> bool {
        let mut all = true;
        for tree in self.all_trees() {
            let (options, mut tables) = (tree.options(), HashMap::new());
            for Candidate { table, .. } in candidates.iter().filter(|candidate| candidate.keyspace == tree.id)
            {
                match table.reopened(&*self.vfs, &self.memory, &options, pinned_bytes_max) {
                    Ok(new) => {
                        tables.insert(table.number(), Arc::new(new));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a table could not be opened anew");
                        all = false;
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
        all
    }
}
