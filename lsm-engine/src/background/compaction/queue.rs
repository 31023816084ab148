use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::keyspaces::Tree;

/// Keyspaces whose tables changed since their policies were asked. The other policies want nothing, and the debt of
/// their keyspaces has not changed.
#[derive(Default)]
pub(crate) struct CompactionQueue(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    /// Keyspaces whose policies may want a compaction.
    to_ask: BTreeMap<u32, Arc<Tree>>,
    /// Keyspaces whose debt may have changed.
    owing: BTreeMap<u32, Arc<Tree>>,
}

impl CompactionQueue {
    /// Adds a keyspace. The caller makes this call after the change of its tables.
    pub(crate) fn add(&self, tree: &Arc<Tree>) {
        let mut sets = self.0.lock();
        sets.to_ask.entry(tree.id).or_insert_with(|| Arc::clone(tree));
        sets.owing.entry(tree.id).or_insert_with(|| Arc::clone(tree));
    }

    /// The keyspaces whose policies may want a compaction, in ascending order of ids.
    pub(super) fn to_ask(&self) -> Vec<Arc<Tree>> {
        self.0.lock().to_ask.values().cloned().collect()
    }

    /// Removes a keyspace before its policy is asked, so that a later change adds it again.
    pub(super) fn begin_to_ask(&self, tree: &Tree) {
        self.0.lock().to_ask.remove(&tree.id);
    }

    /// Adds a keyspace whose policy must be asked again.
    pub(super) fn ask_again(&self, tree: &Arc<Tree>) {
        self.0.lock().to_ask.insert(tree.id, Arc::clone(tree));
    }

    /// Takes the keyspaces whose debt may have changed. The caller asks for it now.
    pub(super) fn take_owing(&self) -> BTreeMap<u32, Arc<Tree>> {
        std::mem::take(&mut self.0.lock().owing)
    }
}
