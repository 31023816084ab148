//! All keyspaces of a database, by id and by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::keyspaces::tree::Tree;

/// All keyspaces of a database.
#[derive(Clone, Default)]
pub(crate) struct Trees {
    by_id: BTreeMap<u32, Arc<Tree>>,
    by_name: BTreeMap<Arc<str>, Arc<Tree>>,
}

impl Trees {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Arc<Tree>> {
        self.by_id.get(&id)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Tree>> {
        self.by_name.get(name)
    }

    /// In ascending order of ids.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Tree>> {
        self.by_id.values()
    }

    /// Each tree once: first the ids from `id` up, then the ids below it.
    pub(crate) fn from(&self, id: u32) -> impl Iterator<Item = &Arc<Tree>> {
        self.by_id.range(id..).chain(self.by_id.range(..id)).map(|(_, tree)| tree)
    }

    /// In ascending order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    pub(crate) fn insert(&mut self, tree: Arc<Tree>) {
        self.by_name.insert(Arc::clone(&tree.name), Arc::clone(&tree));
        self.by_id.insert(tree.id, tree);
    }

    pub(crate) fn remove(&mut self, tree: &Tree) {
        self.by_name.remove(&tree.name);
        self.by_id.remove(&tree.id);
    }
}
