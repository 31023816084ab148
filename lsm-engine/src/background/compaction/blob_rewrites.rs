//! Which blob files are to be rewritten.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::keyspaces::{Tree, TreeSet};
use crate::version::LiveBlob;

/// Pause of all rewriting after a failure.
const PAUSE_MICROS: u64 = 1_000_000;

/// So many files are rewritten at once at most: their pointers are found in one pass over the tables.
const FILES_MAX: usize = 8;

/// The keyspaces with blob files, and what is known about rewriting these. One rewrite runs at a time.
pub(crate) struct BlobRewrites {
    pub(crate) trees: TreeSet,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_running: bool,
    /// After a failure nothing starts before this time.
    paused_until_micros: u64,
    /// Numbers of files that cannot be rewritten: they are damaged.
    unreadable: HashSet<u64>,
}

impl Default for BlobRewrites {
    fn default() -> Self {
        let trees = TreeSet::new(|state| !state.version.blobs().is_empty());
        Self { trees, state: Mutex::default() }
    }
}

impl BlobRewrites {
    pub(crate) fn is_running(&self) -> bool {
        self.state.lock().is_running
    }

    /// Whether rewriting is due, now or after a pause.
    pub(crate) fn is_due(&self) -> bool {
        self.trees.trees().iter().any(|tree| !self.pick(tree).is_empty())
    }

    /// What to rewrite next. It is running then, until [`ended`](Self::ended).
    pub(super) fn begin(&self, now_micros: u64) -> Option<(Arc<Tree>, Vec<LiveBlob>)> {
        {
            let mut state = self.state.lock();
            if state.is_running || now_micros < state.paused_until_micros {
                return None;
            }
            state.is_running = true;
        }
        let trees = self.trees.trees();
        for tree in &trees {
            self.trees.recheck(tree);
        }
        let picked = trees.into_iter().find_map(|tree| {
            let files = self.pick(&tree);
            (!files.is_empty()).then_some((tree, files))
        });
        if picked.is_none() {
            self.state.lock().is_running = false;
        }
        picked
    }

    /// A rewrite has ended. After a failure others wait, and those of a damaged file are not tried again.
    pub(super) fn ended(&self, failed_at_micros: Option<u64>, damaged: Option<u64>) {
        let mut state = self.state.lock();
        state.is_running = false;
        state.unreadable.extend(damaged);
        if let Some(micros) = failed_at_micros {
            state.paused_until_micros = micros.saturating_add(PAUSE_MICROS);
        }
    }

    /// The files of a keyspace with the most garbage, as many as bring its share below the limit.
    fn pick(&self, tree: &Tree) -> Vec<LiveBlob> {
        let version = Arc::clone(&tree.load().version);
        let blobs = version.blobs();
        let (mut total, mut garbage) = (0_u64, 0_u64);
        for live in blobs.iter() {
            total += live.file.meta().value_bytes;
            garbage += live.garbage_bytes();
        }
        let options = tree.options();
        // Deleted data must leave the disk within a bound.
        let share_max = if options.purge_micros > 0 { 0.0 } else { options.blob_garbage_max };
        let is_above = |garbage: u64, total: u64| garbage as f64 > share_max * total as f64;
        if tree.is_dropped() || !is_above(garbage, total) {
            return Vec::new();
        }
        let unreadable = self.state.lock().unreadable.clone();
        let may_be = |live: &&LiveBlob| live.garbage_bytes() > 0 && !unreadable.contains(&live.file.number());
        let mut worst: Vec<&LiveBlob> = blobs.iter().filter(may_be).collect();
        let share = |live: &LiveBlob| live.garbage_bytes() as f64 / live.file.meta().value_bytes as f64;
        worst.sort_by(|a, b| share(b).total_cmp(&share(a)));
        let mut picked = Vec::new();
        for live in worst.into_iter().take(FILES_MAX) {
            if !is_above(garbage, total) {
                break;
            }
            total -= live.garbage_bytes();
            garbage -= live.garbage_bytes();
            picked.push(live.clone());
        }
        picked
    }
}
