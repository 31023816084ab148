//! The state that all handles of a database share, and the calls that concern the whole database.
//!
//! Input: calls of handles. Each call goes to the part that does the work: the write path, the read state of a tree, or
//! background work. None of those parts knows this folder.

mod catalog;
mod closing;
mod event_reader;
mod observing;
mod waiting;

use std::sync::{Arc, OnceLock};

use lsm_core::env::Event;
use lsm_core::vfs::LockGuard;
use parking_lot::{Mutex, RwLock};

use crate::background::{Compactions, JobContext};
use crate::error::{Error, Result};
use crate::keyspaces::{Tree, Trees, Visibility};
use crate::lock_order::OrderedGuard;
use crate::locks::Locks;
use crate::resources::Resources;
use crate::status::Status;
use crate::version::VersionSet;
use crate::version::history::SharedHistory;
use crate::version::manifest::Manifest;
use crate::write::WritePath;

pub(crate) use catalog::DEFAULT_NAME;
pub(crate) use closing::Closer;
pub use event_reader::Events;
pub use waiting::DeletedFiles;

/// The state that all handles of a database share.
///
/// [`Rank`](crate::lock_order::Rank) gives the order of its locks.
pub(crate) struct Database {
    pub(crate) resources: Arc<Resources>,
    pub(crate) status: Arc<Status>,
    pub(crate) trees: Arc<RwLock<Trees>>,
    pub(crate) visibility: Arc<Visibility>,
    /// What readers of changes know of the past.
    pub(crate) history: Arc<SharedHistory>,
    /// The locks of transactions.
    pub(crate) locks: Arc<Locks>,
    /// `None` if the database is open read-only.
    pub(crate) writer: Option<WriteSide>,
    /// Another process writes the files.
    pub(crate) follows: bool,
    /// The result of the first call of `close`, for later calls.
    close_result: OnceLock<Result<()>>,
    close_ended: Event,
    lock: Mutex<Option<Box<dyn LockGuard>>>,
}

/// The parts that only a database open for writing has.
pub(crate) struct WriteSide {
    pub(crate) write: Arc<WritePath>,
    pub(crate) versions: Arc<VersionSet>,
    pub(crate) background: Arc<JobContext>,
    pub(crate) compactions: Arc<Compactions>,
}

impl WriteSide {
    /// Connects the parts. It starts no background work.
    pub(crate) fn new(trees: Arc<RwLock<Trees>>, versions: VersionSet, write: WritePath) -> Self {
        let (versions, write) = (Arc::new(versions), Arc::new(write));
        for tree in trees.read().all() {
            join(tree, &write);
        }
        let background = Arc::new(JobContext::new(trees, Arc::clone(&versions), Arc::clone(&write)));
        let compactions = Compactions::new(Arc::clone(&background));
        write.set_compactor(Arc::downgrade(&compactions) as _);
        Self { write, versions, background, compactions }
    }

    /// Locks the manifest for a call of a user.
    pub(crate) fn lock_manifest(&self) -> OrderedGuard<'_, Manifest> {
        self.versions.lock_for_call(&self.write.resources.waits)
    }
}

/// Connects a tree to the write path: its failures notify waiting callers and are events, and its cursors may add empty spans.
fn join(tree: &Tree, write: &Arc<WritePath>) {
    write.times_to_live.note(tree);
    tree.set_status(&write.status);
    tree.empty_spans.set_write_exclusion(Arc::downgrade(write) as _, tree.id);
}

impl Database {
    pub(crate) fn new(
        resources: Arc<Resources>,
        trees: Arc<RwLock<Trees>>,
        visibility: Arc<Visibility>,
        history: Arc<SharedHistory>,
        writer: Option<WriteSide>,
        lock: Option<Box<dyn LockGuard>>,
    ) -> Self {
        trees.read().all().for_each(|tree| tree.keep_statistics(&resources.statistics));
        let status = match &writer {
            Some(side) => Arc::clone(&side.write.status),
            // A database that is only read keeps all its data, so nothing expires.
            None => Arc::new(Status::new(Arc::clone(&resources.events), None)),
        };
        Self {
            resources,
            status,
            trees,
            visibility,
            history,
            locks: Arc::default(),
            writer,
            follows: false,
            close_result: OnceLock::new(),
            close_ended: Event::new(),
            lock: Mutex::new(lock),
        }
    }

    /// What a follower shows.
    pub(crate) fn of_follower(
        resources: Arc<Resources>,
        trees: Arc<RwLock<Trees>>,
        visibility: Arc<Visibility>,
        history: Arc<SharedHistory>,
    ) -> Self {
        Self { follows: true, ..Self::new(resources, trees, visibility, history, None, None) }
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

    /// The write side. Fails if the database is read-only or closed, or if writing has stopped.
    #[inline]
    pub(crate) fn write_side(&self) -> Result<&WriteSide> {
        self.check_open()?;
        let side = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        side.write.check()?;
        Ok(side)
    }

    /// The write path. Fails if the database is read-only. The write path itself checks whether writing has stopped.
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
