//! What all handles of a database share, and the calls that concern it as a whole.
//!
//! In come calls of handles; each goes to the one part that does the work: the write path, the read state of a tree,
//! background work. Nothing below knows this.

mod catalog;
mod closing;
mod observing;
mod waiting;

use std::sync::{Arc, OnceLock};

use lsm_core::env::Event;
use lsm_core::vfs::LockGuard;
use parking_lot::{Mutex, RwLock};

use crate::background::{Compactions, JobContext};
use crate::error::{Error, Result};
use crate::keyspaces::{Tree, Trees, Visibility};
use crate::resources::Resources;
use crate::status::Status;
use crate::version::VersionSet;
use crate::write::WritePath;

pub(crate) use catalog::{DEFAULT_NAME, policy_mismatch};
pub(crate) use closing::Closer;

/// A database: what its handles share.
///
/// The order of its locks is that of [`Rank`](crate::lock_order::Rank).
pub(crate) struct Database {
    pub(crate) resources: Arc<Resources>,
    pub(crate) status: Arc<Status>,
    pub(crate) trees: Arc<RwLock<Trees>>,
    pub(crate) visibility: Arc<Visibility>,
    /// `None` in a database opened read-only.
    pub(crate) writer: Option<WriteSide>,
    /// What the first call of `close` came to, for others that close too.
    close_result: OnceLock<Result<()>>,
    close_ended: Event,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

/// What only a database opened for writing has.
pub(crate) struct WriteSide {
    pub(crate) write: Arc<WritePath>,
    pub(crate) versions: Arc<VersionSet>,
    pub(crate) background: Arc<JobContext>,
    pub(crate) compactions: Arc<Compactions>,
}

impl WriteSide {
    /// Brings the parts together; nothing runs yet.
    pub(crate) fn new(trees: Arc<RwLock<Trees>>, versions: VersionSet, write: WritePath) -> Self {
        let (versions, write) = (Arc::new(versions), Arc::new(write));
        for tree in trees.read().all() {
            join(tree, &write);
        }
        let background = Arc::new(JobContext::new(trees, Arc::clone(&versions), Arc::clone(&write)));
        let compactions = Compactions::new(Arc::clone(&background));
        write.compacted_by(Arc::downgrade(&compactions) as _);
        Self { write, versions, background, compactions }
    }
}

/// A tree becomes part of a database that is open for writing.
fn join(tree: &Tree, write: &Arc<WritePath>) {
    tree.report_to(&write.status.progress);
    tree.empty_spans.written_by(Arc::downgrade(write) as _, tree.id);
}

impl Database {
    pub(crate) fn new(
        resources: Arc<Resources>,
        trees: Arc<RwLock<Trees>>,
        visibility: Arc<Visibility>,
        writer: Option<WriteSide>,
        lock: Option<Box<dyn LockGuard>>,
    ) -> Self {
        Self {
            resources,
            status: writer.as_ref().map_or_else(Arc::default, |side| Arc::clone(&side.write.status)),
            trees,
            visibility,
            writer,
            close_result: OnceLock::new(),
            close_ended: Event::new(),
            lock: Mutex::new(lock),
        }
    }

    /// Starts the background work of a database that is open for writing.
    pub(crate) fn start(&self) {
        if let Some(side) = &self.writer {
            crate::background::start(&side.background, &side.compactions);
        }
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        self.status.check_open()
    }

    /// The side that writes, if there is one and nothing has stopped it.
    #[inline]
    pub(crate) fn write_side(&self) -> Result<&WriteSide> {
        self.check_open()?;
        let side = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        side.write.check()?;
        Ok(side)
    }

    /// The path of writes, if there is one. It checks by itself what may have stopped it.
    #[inline]
    pub(crate) fn write_path(&self) -> Result<&WritePath> {
        match &self.writer {
            Some(side) => Ok(&side.write),
            None => self.check_open().and(Err(Error::ReadOnly)),
        }
    }

    pub(crate) fn all_trees(&self) -> Vec<Arc<Tree>> {
        self.trees.read().all().cloned().collect()
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("directory", &self.resources.directory).finish_non_exhaustive()
    }
}
