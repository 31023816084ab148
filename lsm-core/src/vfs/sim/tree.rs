//! Files and directories by number and by path.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::crash::Choice;
use super::directory::{DirectoryNode, InodeId};
use super::file::FileNode;

pub(super) const ROOT: InodeId = 0;

/// A file or a directory.
#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileNode),
    Directory(DirectoryNode),
}

/// All files and directories.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<InodeId, Node>,
    next_id: InodeId,
}

impl Tree {
    /// The root directory alone.
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Directory(DirectoryNode::default()))]), next_id: ROOT + 1 }
    }

    pub(super) fn insert(&mut self, node: Node) -> InodeId {
        let id = self.next_id;
        self.next_id += 1;
        self.nodes.insert(id, node);
        id
    }

    /// What a path leads to.
    pub(super) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        names(path)?.into_iter().try_fold(ROOT, |id, name| match self.nodes.get(&id) {
            Some(Node::Directory(directory)) => {
                directory.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            _ => Err(io::ErrorKind::NotADirectory.into()),
        })
    }

    /// The directory that a path is in, which must exist, and the last name.
    pub(super) fn parent<'p>(&self, path: &'p Path) -> io::Result<(InodeId, &'p str)> {
        let mut names = names(path)?;
        let Some(name) = names.pop() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let parent = self.lookup(&names.iter().collect::<PathBuf>())?;
        self.directory(parent)?;
        Ok((parent, name))
    }

    pub(super) fn file(&self, id: InodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn file_mut(&mut self, id: InodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn directory(&self, id: InodeId) -> io::Result<&DirectoryNode> {
        match self.nodes.get(&id) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn directory_mut(&mut self, id: InodeId) -> io::Result<&mut DirectoryNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives a node a name that nothing has.
    pub(super) fn add(&mut self, path: &Path, node: Node) -> io::Result<InodeId> {
        let (parent, name) = self.parent(path)?;
        if self.directory(parent)?.get(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.insert(node);
        self.directory_mut(parent)?.add(name, id);
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        let id = self.directory(from_parent)?.get(from_name).ok_or(io::ErrorKind::NotFound)?;
        let replaced = self.directory(to_parent)?.get(to_name);
        if replaced == Some(id) {
            return Ok(());
        }
        if self.directory(id).is_ok() && self.contains(id, to_parent) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match (self.nodes.get(&id), replaced.and_then(|id| self.nodes.get(&id))) {
            (_, None) | (Some(Node::File(_)), Some(Node::File(_))) => {}
            (Some(Node::File(_)), Some(Node::Directory(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (_, Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (_, Some(Node::Directory(directory))) if directory.entries().next().is_none() => {}
            (_, Some(Node::Directory(_))) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
        if from_parent == to_parent {
            self.directory_mut(from_parent)?.rename(from_name, to_name, id);
        } else {
            self.directory_mut(to_parent)?.add(to_name, id);
            self.directory_mut(from_parent)?.remove(from_name, id);
        }
        Ok(())
    }

    /// Whether a directory is `inner` or somewhere above it.
    fn contains(&self, outer: InodeId, inner: InodeId) -> bool {
        outer == inner
            || self.directory(outer).is_ok_and(|directory| {
                directory.entries().any(|(_, id)| self.directory(id).is_ok() && self.contains(id, inner))
            })
    }

    /// All files that have a name, with one path for each name, sorted.
    pub(super) fn paths(&self) -> Vec<(PathBuf, InodeId)> {
        let mut paths = Vec::new();
        let mut directories = vec![(PathBuf::new(), ROOT)];
        while let Some((path, id)) = directories.pop() {
            let Ok(directory) = self.directory(id) else { continue };
            for (name, id) in directory.entries() {
                let path = path.join(name);
                match self.nodes.get(&id) {
                    Some(Node::File(_)) => paths.push((path, id)),
                    Some(Node::Directory(_)) => directories.push((path, id)),
                    None => {}
                }
            }
        }
        paths.sort_unstable();
        paths
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (InodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Blocks in use: those of files with a name or an open handle.
    pub(super) fn pages_used(&self) -> u64 {
        let named: BTreeSet<InodeId> = self.paths().into_iter().map(|(_, id)| id).collect();
        let used = |(id, node): (&InodeId, &Node)| match node {
            Node::File(file) if file.handles > 0 || named.contains(id) => file.pages_used(),
            _ => 0,
        };
        self.nodes.iter().map(used).sum()
    }

    /// Drops what nothing leads to any more.
    pub(super) fn collect(&mut self) {
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(id) = next.pop() {
            if reached.insert(id)
                && let Some(Node::Directory(directory)) = self.nodes.get(&id)
            {
                next.extend(directory.references());
            }
        }
        self.nodes
            .retain(|id, node| reached.contains(id) || matches!(node, Node::File(file) if file.handles > 0));
    }

    /// What the next process finds after this one died.
    pub(super) fn after_process_crash(&self) -> Self {
        let mut tree = self.clone();
        for node in tree.nodes.values_mut() {
            if let Node::File(file) = node {
                file.handles = 0;
            }
        }
        tree.collect();
        tree
    }

    /// What the next boot finds.
    pub(super) fn after_power_cut(&self, choice: &mut dyn Choice) -> Self {
        let is_directory = |id| self.directory(id).is_ok();
        let after = |(id, node): (&InodeId, &Node)| {
            let node = match node {
                Node::File(file) => Node::File(file.after_power_cut(*id, choice)),
                Node::Directory(directory) => {
                    Node::Directory(directory.after_power_cut(*id, is_directory, choice))
                }
            };
            (*id, node)
        };
        let mut tree = Self { nodes: self.nodes.iter().map(after).collect(), next_id: self.next_id };
        tree.collect();
        tree
    }

    /// A number that tells trees apart by what processes see in them.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        let mut directories = vec![ROOT];
        while let Some(id) = directories.pop() {
            let Ok(directory) = self.directory(id) else { continue };
            for (name, id) in directory.entries() {
                hasher.update(name.as_bytes());
                if let Ok(file) = self.file(id) {
                    hasher.update(&[0]);
                    file.current.hash(&mut hasher);
                } else {
                    hasher.update(&[1]);
                    directories.push(id);
                }
            }
            hasher.update(&[2]);
        }
        hasher.digest()
    }
}

/// The names that a path is made of. Where it starts makes no difference: there is one root and no working
/// directory.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?),
            Component::ParentDir => drop(names.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}
