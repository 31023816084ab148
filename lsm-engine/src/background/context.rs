//! The parts of the database that background jobs use, and the count of running jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::compaction::{BlobRewrites, CompactionQueue, NewFiles};
use crate::keyspaces::{Tree, Trees, Visibility};
use crate::recorder::Recorder;
use crate::resources::Resources;
use crate::status::Status;
use crate::version::VersionSet;
use crate::write::WritePath;

/// The parts of the database that background jobs use.
pub(crate) struct JobContext {
    pub(crate) resources: Arc<Resources>,
    pub(crate) status: Arc<Status>,
    pub(crate) trees: Arc<RwLock<Trees>>,
    pub(crate) visibility: Arc<Visibility>,
    pub(crate) versions: Arc<VersionSet>,
    pub(crate) write: Arc<WritePath>,
    pub(crate) compaction_queue: CompactionQueue,
    pub(crate) blob_rewrites: BlobRewrites,
    pub(crate) recorder: Recorder,
    /// Number of jobs that have not ended.
    jobs: AtomicUsize,
}

impl JobContext {
    pub(crate) fn new(trees: Arc<RwLock<Trees>>, versions: Arc<VersionSet>, write: Arc<WritePath>) -> Self {
        Self {
            recorder: Recorder::new(Arc::clone(&write.resources), Arc::clone(&write.status)),
            resources: Arc::clone(&write.resources),
            status: Arc::clone(&write.status),
            trees,
            visibility: Arc::clone(&write.visibility),
            versions,
            write,
            compaction_queue: CompactionQueue::default(),
            blob_rewrites: BlobRewrites::default(),
            jobs: AtomicUsize::new(0),
        }
    }

    pub(crate) fn all_trees(&self) -> Vec<Arc<Tree>> {
        self.trees.read().all().cloned().collect()
    }

    /// Removes files that were not installed in a version. If writing has stopped, the manifest may name them after
    /// all; then they stay for the next open.
    pub(crate) fn discard(&self, written: &NewFiles) {
        if self.status.check_writing().is_ok() {
            for path in written.paths() {
                self.resources.obsolete_files.remove_later(path.clone());
            }
        }
    }

    /// Whether any job has not ended.
    pub(crate) fn has_jobs(&self) -> bool {
        self.jobs.load(Ordering::Acquire) > 0
    }
}

/// Counts a job while it lives, so that `close` can wait for the last one.
pub(crate) struct JobToken(Arc<JobContext>);

impl JobToken {
    pub(crate) fn new(context: &Arc<JobContext>) -> Self {
        context.jobs.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(context))
    }
}

impl Drop for JobToken {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::AcqRel);
        self.0.status.progress.notify();
    }
}
