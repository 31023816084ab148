//! Which keyspaces have memtables: those that a flush, or the start of the log, may depend on.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::tree::Tree;

/// The keyspaces that have memtables, being filled or sealed. A database may have many more that have none.
#[derive(Default)]
pub(crate) struct Unflushed(Mutex<BTreeMap<u32, Arc<Tree>>>);

impl Unflushed {
    /// The keyspace has a memtable now. Said under the commit lock, after its state has the memtable and before the log
    /// has a record of it.
    pub(crate) fn add(&self, tree: &Arc<Tree>) {
        self.0.lock().entry(tree.id).or_insert_with(|| Arc::clone(tree));
    }

    /// A memtable of the keyspace is gone; the last one, perhaps.
    pub(crate) fn look_at(&self, tree: &Tree) {
        let mut trees = self.0.lock();
        // Under the lock: whoever adds a memtable meanwhile comes here after this.
        if tree.load().memtables().next().is_none() {
            trees.remove(&tree.id);
        }
    }

    pub(crate) fn trees(&self) -> Vec<Arc<Tree>> {
        self.0.lock().values().cloned().collect()
    }
}
