//! Sets of keyspaces that have something most have not, so that nobody walks over all to find them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::keyspaces::read_state::ReadState;
use crate::keyspaces::tree::Tree;

/// The keyspaces whose states have something.
pub(crate) struct TreeSet {
    trees: Mutex<BTreeMap<u32, Arc<Tree>>>,
    has_it: fn(&ReadState) -> bool,
}

impl TreeSet {
    pub(crate) fn new(has_it: fn(&ReadState) -> bool) -> Self {
        Self { trees: Mutex::default(), has_it }
    }

    /// The keyspace has it now. Said after its state got it.
    pub(crate) fn add(&self, tree: &Arc<Tree>) {
        self.trees.lock().entry(tree.id).or_insert_with(|| Arc::clone(tree));
    }

    /// The keyspace may not have it any more.
    pub(crate) fn look_at(&self, tree: &Tree) {
        let mut trees = self.trees.lock();
        // Under the lock: if the state gets it after this, it is added after this.
        if !(self.has_it)(&tree.load()) {
            trees.remove(&tree.id);
        }
    }

    pub(crate) fn trees(&self) -> Vec<Arc<Tree>> {
        self.trees.lock().values().cloned().collect()
    }
}
