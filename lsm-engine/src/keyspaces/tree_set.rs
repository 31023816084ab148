//! Sets of keyspaces with a property that most do not have, so that no job has to visit all keyspaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::keyspaces::read_state::ReadState;
use crate::keyspaces::tree::Tree;

/// The keyspaces whose read state has a property.
pub(crate) struct TreeSet {
    trees: Mutex<BTreeMap<u32, Arc<Tree>>>,
    has_property: fn(&ReadState) -> bool,
}

impl TreeSet {
    pub(crate) fn new(has_property: fn(&ReadState) -> bool) -> Self {
        Self { trees: Mutex::default(), has_property }
    }

    /// Adds a keyspace. The caller has installed a state with the property before.
    pub(crate) fn add(&self, tree: &Arc<Tree>) {
        self.trees.lock().entry(tree.id).or_insert_with(|| Arc::clone(tree));
    }

    /// Removes the keyspace if its state no longer has the property.
    pub(crate) fn recheck(&self, tree: &Tree) {
        let mut trees = self.trees.lock();
        // Check under the lock: a thread that sets the property after this check also calls `add` after it.
        if !(self.has_property)(&tree.load()) {
            trees.remove(&tree.id);
        }
    }

    /// Removes a keyspace, whatever its state.
    pub(crate) fn remove(&self, id: u32) {
        self.trees.lock().remove(&id);
    }

    pub(crate) fn trees(&self) -> Vec<Arc<Tree>> {
        self.trees.lock().values().cloned().collect()
    }
}
