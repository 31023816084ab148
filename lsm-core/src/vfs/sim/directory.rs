//! A directory as the simulated kernel and disk have it.

use std::collections::BTreeMap;

use super::crash::{Choice, EntryChange, Fate, Piece, PieceKind};

/// Number of a file or directory.
pub(super) type InodeId = u64;

/// A directory.
#[derive(Clone, Debug, Default)]
pub(super) struct DirectoryNode {
    /// What processes see.
    current: BTreeMap<String, InodeId>,
    /// What is on the disk for sure.
    durable: BTreeMap<String, InodeId>,
    /// Changes since, oldest first. Each may reach the disk without the others.
    pending: Vec<Change>,
}

/// A change of names.
#[derive(Clone, Debug)]
struct Change {
    kind: EntryChange,
    inode: InodeId,
}

impl Change {
    /// Does the change, as far as it makes sense when earlier ones may be missing.
    fn apply(&self, entries: &mut BTreeMap<String, InodeId>, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        let mut remove = |name: &str| {
            if entries.get(name) == Some(&self.inode) {
                entries.remove(name);
            }
        };
        match &self.kind {
            EntryChange::Add { name } => {
                entries.insert(name.clone(), self.inode);
            }
            EntryChange::Remove { name } => remove(name),
            EntryChange::Rename { from, to } => {
                if fate != Fate::BothNames {
                    remove(from);
                }
                entries.insert(to.clone(), self.inode);
            }
        }
    }
}

impl DirectoryNode {
    pub(super) fn get(&self, name: &str) -> Option<InodeId> {
        self.current.get(name).copied()
    }

    /// What processes see, sorted by name.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, InodeId)> {
        self.current.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    pub(super) fn add(&mut self, name: &str, inode: InodeId) {
        self.change(EntryChange::Add { name: name.to_owned() }, inode);
    }

    pub(super) fn remove(&mut self, name: &str, inode: InodeId) {
        self.change(EntryChange::Remove { name: name.to_owned() }, inode);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, inode: InodeId) {
        self.change(EntryChange::Rename { from: from.to_owned(), to: to.to_owned() }, inode);
    }

    fn change(&mut self, kind: EntryChange, inode: InodeId) {
        let change = Change { kind, inode };
        change.apply(&mut self.current, Fate::Kept);
        self.pending.push(change);
    }

    /// Puts a name on the disk behind everyone's back.
    pub(super) fn plant(&mut self, name: &str, inode: InodeId) {
        self.current.insert(name.to_owned(), inode);
        self.durable.insert(name.to_owned(), inode);
        self.pending.retain(|change| match &change.kind {
            EntryChange::Add { name: other } | EntryChange::Remove { name: other } => other != name,
            EntryChange::Rename { from, to } => from != name && to != name,
        });
    }

    /// Makes the names durable.
    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.current);
        self.pending.clear();
    }

    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Everything that the directory leads to, now or after some power cut.
    pub(super) fn references(&self) -> impl Iterator<Item = InodeId> {
        let pending = self.pending.iter().map(|change| change.inode);
        self.current.values().chain(self.durable.values()).copied().chain(pending)
    }

    /// The directory after a power cut.
    pub(super) fn after_power_cut(
        &self,
        id: InodeId,
        is_directory: impl Fn(InodeId) -> bool,
        choice: &mut dyn Choice,
    ) -> Self {
        let mut entries = self.durable.clone();
        for (index, change) in self.pending.iter().enumerate() {
            let kind = PieceKind::Entry { index, change: &change.kind };
            let mut fate = choice.choose(&Piece { inode: id, kind, version_count: 1 });
            if fate == Fate::BothNames && is_directory(change.inode) {
                fate = Fate::Kept;
            }
            change.apply(&mut entries, fate);
        }
        Self { current: entries.clone(), durable: entries, pending: Vec::new() }
    }
}
