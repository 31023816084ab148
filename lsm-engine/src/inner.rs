//! What all handles and background jobs of a database share.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use lsm_core::SequenceNumber;
use lsm_core::env::{Env, Event};
use lsm_core::vfs::{LockGuard, Vfs};
use lsm_wal::{Log, LogSync, Position};
use parking_lot::{Mutex, RwLock};

use crate::background::{CompactionQueue, NewTable, Scheduler};
use crate::keyspaces::TreeSet;
use crate::keyspaces::Trees;
use crate::keyspaces::{ReadState, Tree};
use crate::memory::Memory;
use crate::metrics::Counters;
use crate::options::Options;
use crate::snapshot::SnapshotList;
use crate::version::Clock;
use crate::version::ObsoleteFiles;
use crate::version::edit::{LogStart, VersionEdit};
use crate::version::manifest::{AppendError, Manifest};
use crate::write::Committer;
use crate::write::WriteController;
use crate::write::WriteQueue;
use crate::{Error, Result};

/// Lock order: `scheduler`, then `manifest`, then `committer`, then what is inside a [`Tree`]. Nobody waits for
/// an event while holding any of them.
pub(crate) struct Inner {
    /// Tells databases apart.
    pub(crate) id: u64,
    pub(crate) directory: PathBuf,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) trees: RwLock<Trees>,
    /// Keyspaces that were cleared and keep for older snapshots what they were.
    pub(crate) cleared: TreeSet,
    /// `None` in a database opened read-only.
    pub(crate) writer: Option<WriteSide>,
    /// The last write that readers see.
    pub(crate) visible: AtomicU64,
    pub(crate) snapshots: SnapshotList,
    pub(crate) counters: Counters,
    pub(crate) obsolete_files: Arc<ObsoleteFiles>,
    closed: AtomicBool,
    /// What the first call of `close` came to, for others that close too.
    pub(crate) close_result: OnceLock<Result<()>>,
    pub(crate) close_ended: Event,
    pub(crate) lock: Mutex<Option<Box<dyn LockGuard>>>,
}

/// What only a database opened for writing has.
pub(crate) struct WriteSide {
    pub(crate) committer: Mutex<Committer>,
    /// Keyspaces that have memtables.
    pub(crate) unflushed: Arc<TreeSet>,
    /// There is none until recovery has brought what the last one held into tables.
    log_sync: OnceLock<Arc<dyn LogSync>>,
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) scheduler: Mutex<Scheduler>,
    pub(crate) compaction_queue: CompactionQueue,
    pub(crate) controller: WriteController,
    clock: Clock,
    numbers: Arc<Numbers>,
    /// Writers that wait for memory.
    pub(crate) write_queue: WriteQueue,
    /// There is a memtable to flush, or the database closes.
    pub(crate) flush_wanted: Event,
    /// A flush or compaction ended, or background work failed: whoever waits looks again.
    pub(crate) progress: Event,
    /// Background jobs that have not ended.
    pub(crate) jobs: AtomicUsize,
    stopping: AtomicBool,
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    pub(crate) flush_error: BackgroundError,
    pub(crate) compaction_error: BackgroundError,
}

/// Numbers for files, memtables and runs.
#[derive(Debug)]
pub(crate) struct Numbers(AtomicU64);

impl Numbers {
    /// The first to be given out.
    pub(crate) fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// Higher than all before, never given twice.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// The one to be given out next.
    pub(crate) fn unused(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Failures of background work that will be tried again: whoever waits for it must hear of them.
#[derive(Debug, Default)]
pub(crate) struct BackgroundError(Mutex<(u64, Option<Error>)>);

impl BackgroundError {
    pub(crate) fn note(&self, error: Error) {
        let mut trouble = self.0.lock();
        *trouble = (trouble.0 + 1, Some(error));
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().0
    }

    /// What it waits for now.
    pub(crate) fn current(&self) -> Option<Error> {
        self.0.lock().1.clone()
    }

    /// It went well again.
    pub(crate) fn clear(&self) {
        self.0.lock().1 = None;
    }

    /// Fails with the latest if there were more than `seen` and it has not gone well since.
    pub(crate) fn check(&self, seen: u64) -> Result<()> {
        match &*self.0.lock() {
            (count, Some(error)) if *count > seen => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

impl WriteSide {
    pub(crate) fn new(
        committer: Committer,
        manifest: Manifest,
        scheduler: Scheduler,
        numbers: Arc<Numbers>,
        clock: Clock,
    ) -> Self {
        Self {
            flush_wanted: committer.flush_wanted().clone(),
            unflushed: Arc::clone(committer.unflushed()),
            committer: Mutex::new(committer),
            log_sync: OnceLock::new(),
            manifest: Mutex::new(manifest),
            scheduler: Mutex::new(scheduler),
            compaction_queue: CompactionQueue::default(),
            controller: WriteController::default(),
            clock,
            numbers,
            write_queue: WriteQueue::default(),
            progress: Event::new(),
            jobs: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
            flush_error: BackgroundError::default(),
            compaction_error: BackgroundError::default(),
        }
    }

    /// See [`Numbers::next`].
    pub(crate) fn new_number(&self) -> u64 {
        self.numbers.next()
    }

    /// Gives the database its log.
    pub(crate) fn start_log(&self, log: Box<dyn Log>) {
        self.log_sync.get_or_init(|| log.sync_handle());
        self.committer.lock().start_log(log);
    }

    /// Blocks until the log is durable up to `position`.
    #[inline]
    pub(crate) fn wait_durable(&self, position: u64) -> Result<()> {
        self.log_sync.get().map_or(Ok(()), |log| log.wait_durable(Position(position))).map_err(Error::from)
    }

    /// Segments of the log wholly below `position` may go.
    pub(crate) fn truncate_log(&self, position: u64) -> Result<()> {
        self.log_sync.get().map_or(Ok(()), |log| log.truncate_front(Position(position))).map_err(Error::from)
    }

    /// Up to where the log is durable; 0 before there is one.
    pub(crate) fn log_durable(&self) -> u64 {
        self.log_sync.get().map_or(0, |log| log.durable().0)
    }

    /// Stops all writing until the database is reopened.
    pub(crate) fn stop(&self, error: Error) {
        tracing::error!(%error, "writing stopped");
        self.failure.lock().get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
        self.progress.notify();
    }

    /// Removes tables that did not become part of a version. A manifest in doubt may name them after all: then they
    /// stay for the next open to decide.
    pub(crate) fn discard(&self, inner: &Inner, tables: &[NewTable]) {
        if self.check_going().is_ok() {
            for table in tables {
                inner.obsolete_files.remove_later(table.path.clone());
            }
        }
    }

    #[inline]
    pub(crate) fn check_going(&self) -> Result<()> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        let failure = self.failure.lock().clone();
        Err(Error::WritingStopped(Arc::new(failure.unwrap_or(Error::Closed))))
    }

    /// Asks background jobs to end.
    pub(crate) fn ask_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.flush_wanted.notify();
        self.progress.notify();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.stopped.load(Ordering::Acquire)
    }

    /// Logs an edit, durably, with the numbers and clocks that every edit carries. A manifest in doubt stops all writing.
    pub(crate) fn log_edit(&self, manifest: &mut Manifest, mut edit: VersionEdit) -> Result<()> {
        // A flush or merge may have been waiting for the manifest while whoever held it failed: memory and disk are
        // apart now, and the log must not be shortened by what memory says.
        self.check_going()?;
        edit.next_number = Some(self.numbers.unused());
        self.clock.mark(&mut edit);
        manifest.append(&edit, || self.new_number()).map_err(|error| match error {
            AppendError::Refused(error) => error,
            AppendError::InDoubt(error) => {
                self.stop(error.clone());
                error
            }
        })
    }
}

impl Inner {
    #[expect(clippy::too_many_arguments, reason = "the one place where the parts come together")]
    pub(crate) fn new(
        directory: &Path,
        env: Arc<dyn Env>,
        options: &Options,
        memory: Arc<Memory>,
        obsolete_files: Arc<ObsoleteFiles>,
        trees: Trees,
        writer: Option<WriteSide>,
        visible: SequenceNumber,
        lock: Option<Box<dyn LockGuard>>,
    ) -> Self {
        if let Some(side) = &writer {
            for tree in trees.all() {
                tree.report_to(&side.progress);
            }
        }
        Self {
            id: env.random(),
            directory: directory.to_owned(),
            vfs: Arc::clone(&options.vfs),
            env,
            memory,
            trees: RwLock::new(trees),
            cleared: TreeSet::new(|state| state.before_clear.is_some()),
            writer,
            visible: AtomicU64::new(visible),
            snapshots: SnapshotList::default(),
            counters: Counters::default(),
            obsolete_files,
            closed: AtomicBool::new(false),
            close_result: OnceLock::new(),
            close_ended: Event::new(),
            lock: Mutex::new(lock),
        }
    }

    #[inline]
    pub(crate) fn visible(&self) -> SequenceNumber {
        self.visible.load(Ordering::Acquire)
    }

    /// The last write that a reader of `state`, which it loaded before, sees.
    ///
    /// Its memtable may have been full in the middle of a batch that is visible by now: the rest is in a memtable that
    /// the state does not have, so the reader sees none of it. The cut is marked before the batch becomes visible.
    #[inline]
    pub(crate) fn visible_in(&self, state: &ReadState) -> SequenceNumber {
        let visible = self.visible();
        // A memtable that was full in the middle of a batch keeps its place until the next one takes it.
        state.memtable.as_ref().map_or(visible, |memtable| visible.min(memtable.whole_up_to()))
    }

    /// The clock by which tables are dated; 0 in a database opened read-only.
    pub(crate) fn clock_micros(&self) -> u64 {
        self.writer.as_ref().map_or(0, |side| side.clock.now_micros())
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(crate) fn mark_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// The side that writes, if there is one and nothing has stopped it.
    #[inline]
    pub(crate) fn write_side(&self) -> Result<&WriteSide> {
        self.check_open()?;
        let writer = self.writer.as_ref().ok_or(Error::ReadOnly)?;
        writer.check_going()?;
        self.check_process()?;
        Ok(writer)
    }

    /// What background work failed for may be what others hold.
    pub(crate) fn make_way_after(&self, error: &Error) {
        if let Error::Storage(error) = error {
            self.memory.file_cache.give_way_after(error);
        }
    }

    /// Fails in a child by `fork`: files, their locks and the window of the log are those of its parent.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.env.is_forked() { Err(forked()) } else { Ok(()) }
    }

    pub(crate) fn all_trees(&self) -> Vec<Arc<Tree>> {
        self.trees.read().all().cloned().collect()
    }

    /// Where replay must start once the memtables of the numbers `flushed` are in tables.
    pub(crate) fn log_start(writer: &WriteSide, flushed: &HashSet<u64>) -> LogStart {
        // Taken first: a record that arrives during the search below starts at or after it.
        let (mut position, segment) = {
            let committer = writer.committer.lock();
            (committer.log_end(), committer.first_segment())
        };
        for tree in writer.unflushed.trees() {
            let state = tree.load();
            for memtable in state.memtables().filter(|memtable| !flushed.contains(&memtable.number)) {
                position = position.min(memtable.log_start);
            }
        }
        LogStart { position, segment, synced: writer.log_durable() }
    }

    /// Makes the names of files durable.
    pub(crate) fn sync_directory(&self) -> Result<()> {
        let directory = &self.directory;
        self.vfs.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))
    }

    /// Lets go of what was cleared or dropped and no snapshot sees.
    pub(crate) fn forget_cleared(&self) {
        for tree in self.cleared.trees() {
            tree.update(|state| {
                // After the state: numbers that are taken later than this list are not below its last, and so are
                // answered by what that is answered by.
                let read = self.snapshots.stripes(&self.visible);
                ReadState { before_clear: state.still_read(&read), ..(**state).clone() }
            });
            self.cleared.look_at(&tree);
        }
    }
}

#[cold]
fn forked() -> Error {
    Error::invalid("the database was opened by the process that this one was forked from")
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("directory", &self.directory).finish_non_exhaustive()
    }
}
