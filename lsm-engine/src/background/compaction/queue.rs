use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::keyspaces::Tree;

/// Keyspaces whose tables changed since their policies were asked. The others want nothing, and owe what they owed.
#[derive(Default)]
pub(crate) struct CompactionQueue(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    /// Whose policies may want something.
    to_ask: BTreeMap<u32, Arc<Tree>>,
    /// Whose debt may be another.
    owing: BTreeMap<u32, Arc<Tree>>,
}

impl CompactionQueue {
    /// Said after the keyspace has changed.
    pub(crate) fn add(&self, tree: &Arc<Tree>) {
        let mut sets = self.0.lock();
        sets.to_ask.entry(tree.id).or_insert_with(|| Arc::clone(tree));
        sets.owing.entry(tree.id).or_insert_with(|| Arc::clone(tree));
    }

    /// Those whose policies may want something, ascending by id.
    pub(super) fn to_ask(&self) -> Vec<Arc<Tree>> {
        self.0.lock().to_ask.values().cloned().collect()
    }

    /// Its policy is asked now: what changes from here on is another change.
    pub(super) fn begin_to_ask(&self, tree: &Tree) {
        self.0.lock().to_ask.remove(&tree.id);
    }

    /// Its policy is to be asked again.
    pub(super) fn ask_again(&self, tree: &Arc<Tree>) {
        self.0.lock().to_ask.insert(tree.id, Arc::clone(tree));
    }

    /// Those whose debt may be another: it is asked for now.
    pub(super) fn take_owing(&self) -> BTreeMap<u32, Arc<Tree>> {
        std::mem::take(&mut self.0.lock().owing)
    }
}
