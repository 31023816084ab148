//! The write path: the parts that a write passes, and the calls that background work makes on them.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock, Weak};

use lsm_core::env::Event;
use lsm_wal::{CleanClose, Log, LogChange, LogSync, Position};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::events::{EventKind, WaitReason};
use crate::keyspaces::{TreeSet, Visibility, WriteExclusion};
use crate::lock_order::{OrderedMutex, Rank};
use crate::resources::{Resources, file_name};
use crate::status::Status;
use crate::version::Numbers;
use crate::version::edit::LogStart;
use crate::write::change_slots::ChangeSlots;
use crate::write::committer::Committer;
use crate::write::controller::WriteController;
use crate::write::log_handle::LogHandle;
use crate::write::log_pins::{LogPinOwner, LogPins};
use crate::write::queue::WriteQueue;
use crate::write::times_to_live::TimesToLive;
use crate::write::update_queue::UpdateQueues;
use crate::write::written::Written;

/// The parts that a write passes: write controller, write queue, commit lock, log, memtables, visible number.
pub(crate) struct WritePath {
    pub(crate) resources: Arc<Resources>,
    pub(crate) visibility: Arc<Visibility>,
    pub(crate) status: Arc<Status>,
    pub(crate) committer: OrderedMutex<Committer>,
    pub(super) numbers: Arc<Numbers>,
    /// Set at the end of recovery.
    log: OnceLock<Arc<LogHandle>>,
    /// Keyspaces that have memtables.
    pub(crate) unflushed: Arc<TreeSet>,
    pub(crate) controller: WriteController,
    /// Writers that wait for memory.
    pub(crate) queue: WriteQueue,
    /// Updates that wait for their turn.
    pub(super) updates: UpdateQueues,
    /// Notified when there is a memtable to flush and when the database closes.
    pub(crate) flush_wanted: Event,
    /// Who needs the log for longer than the database.
    pub(crate) log_pins: Arc<LogPins>,
    pub(crate) change_slots: ChangeSlots,
    pub(crate) times_to_live: TimesToLive,
    pub(super) compactor: OnceLock<Weak<dyn Compactor>>,
}

/// Compactions, as writers see them: they can free memory of indexes and filters by merging tables.
pub(crate) trait Compactor: Send + Sync {
    /// Starts the compactions that are due.
    fn start_due(&self);

    /// Whether a compaction runs.
    fn is_running(&self) -> bool;
}

impl WritePath {
    pub(crate) fn new(
        resources: Arc<Resources>,
        visibility: Arc<Visibility>,
        status: Arc<Status>,
        committer: Committer,
    ) -> Self {
        let database = resources.place();
        let log_pins = Arc::new(LogPins::new(resources.obsolete_files.event().clone()));
        Self {
            resources,
            visibility,
            status,
            log_pins,
            change_slots: ChangeSlots::default(),
            flush_wanted: committer.flush_wanted().clone(),
            numbers: Arc::clone(committer.numbers()),
            unflushed: Arc::clone(committer.unflushed()),
            committer: OrderedMutex::new(Rank::Commit, database, committer),
            log: OnceLock::new(),
            controller: WriteController::default(),
            queue: WriteQueue::default(),
            times_to_live: TimesToLive::default(),
            updates: UpdateQueues::default(),
            compactor: OnceLock::new(),
        }
    }

    pub(crate) fn set_compactor(&self, compactor: Weak<dyn Compactor>) {
        self.compactor.get_or_init(|| compactor);
    }

    /// Fails if the database is closed, if writing has stopped, or in a forked child.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        self.status.check_open()?;
        self.status.check_writing()?;
        self.resources.check_process()
    }

    /// Sets the log.
    pub(crate) fn start_log(&self, log: Box<dyn Log>) {
        let (events, status) = (Arc::clone(&self.resources.events), Arc::clone(&self.status));
        let (resources, writing) = (Arc::clone(&self.resources), Mutex::new(None));
        let observer = move |change: LogChange<'_>| match change {
            LogChange::Writing => *writing.lock() = Some(resources.waits.begin_alone(WaitReason::LogWrite)),
            LogChange::Written => {
                writing.lock().take().into_iter().for_each(|wait| resources.waits.end(wait));
            }
            LogChange::Synced(micros) => resources.counters.log_sync_times.record_micros(micros),
            LogChange::Begun(path) => events.emit(EventKind::LogSegment { file: file_name(path) }),
            LogChange::Removed(path) => events.emit(EventKind::FileDeleted { file: file_name(path) }),
            LogChange::Stopped(error) => status.stop_writing(error.clone().into()),
            _ => {}
        };
        let handle = || Arc::new(LogHandle::new(log.sync_handle(), Arc::clone(&self.resources)));
        self.status.set_changes(log.sync_handle().advanced());
        self.log.get_or_init(handle).observe(Arc::new(observer));
        self.committer.lock().start_log(log);
    }

    /// Syncs and closes the log. Later writes fail. This calls callbacks, so the commit lock must be free.
    pub(crate) fn close_log(&self) -> Result<Option<CleanClose>> {
        let log = self.committer.lock().take_log();
        Ok(log.map(Log::close).transpose()?)
    }

    /// The position after the last record.
    pub(crate) fn log_end(&self) -> u64 {
        self.committer.lock().log_end()
    }

    /// Blocks until the log is durable up to `position`.
    #[inline]
    pub(crate) fn wait_durable(&self, position: u64) -> Result<()> {
        self.log.get().map_or(Ok(()), |log| log.wait_durable(Position(position))).map_err(Error::from)
    }

    /// Like [`wait_durable`](Self::wait_durable), for a job: no caller waits.
    pub(crate) fn sync_up_to(&self, position: u64) -> Result<()> {
        self.log.get().map_or(Ok(()), |log| log.sync_up_to(Position(position))).map_err(Error::from)
    }

    /// What tells when a write is durable.
    pub(crate) fn ticket(&self, written: Written) -> Result<lsm_wal::Ticket> {
        let log = Arc::clone(self.log.get().ok_or(Error::Closed)?);
        Ok(lsm_wal::Ticket::new(log, written.position))
    }

    /// Makes all earlier writes durable.
    pub(crate) fn sync_log(&self) -> Result<()> {
        self.wait_durable(self.log_end())
    }

    /// Leaves the current segment of the log, so that everything before the returned position can be removed.
    pub(crate) fn begin_log_segment(&self) -> Result<u64> {
        self.log.get().map_or(Ok(0), |log| log.begin_segment().map(|begin| begin.0)).map_err(Error::from)
    }

    /// Allows the log to remove segments that end at or below `position`, unless a pin keeps them.
    pub(crate) fn truncate_log(&self, position: u64) -> Result<()> {
        self.truncate_log_to(Some(position))
    }

    /// Removes the segments that pins have released, if any.
    pub(crate) fn truncate_released_log(&self) -> Result<()> {
        if self.log_pins.is_released() { self.truncate_log_to(None) } else { Ok(()) }
    }

    /// Tells that the log was truncated although somebody needs it.
    pub(crate) fn note_lost_pin(&self, owner: LogPinOwner) {
        let LogPinOwner { label, bytes_max, .. } = owner;
        tracing::warn!(
            label = label.as_deref(),
            bytes_max,
            "the log was truncated although it is still needed"
        );
        self.resources.counters.log_pins_lost.add(1);
        self.resources.events.emit(EventKind::LogPinLost { label, bytes_max });
    }

    fn truncate_log_to(&self, needed: Option<u64>) -> Result<()> {
        let (position, lost) = self.log_pins.release(needed, self.resources.leases.look().log);
        for owner in lost {
            self.note_lost_pin(owner);
        }
        self.log.get().map_or(Ok(()), |log| log.truncate_front(Position(position))).map_err(Error::from)
    }

    /// The position up to which the log is durable; 0 if there is no log yet.
    pub(crate) fn log_durable(&self) -> u64 {
        self.log.get().map_or(0, |log| log.durable().0)
    }

    /// The position from which replay must start once the memtables with the numbers `flushed` are in tables.
    pub(crate) fn log_start(&self, flushed: &HashSet<u64>) -> LogStart {
        // Read the end first: a record appended during the search below starts at or after it.
        let (mut position, segment) = {
            let committer = self.committer.lock();
            (committer.log_end(), committer.first_segment())
        };
        for tree in self.unflushed.trees() {
            let state = tree.load();
            for memtable in state.memtables().filter(|memtable| !flushed.contains(&memtable.number)) {
                position = position.min(memtable.log_start);
            }
        }
        LogStart { position, segment, synced: self.log_durable() }
    }
}

impl WriteExclusion for WritePath {
    fn if_newest(&self, keyspace: u32, generation: u64, then: &mut dyn FnMut()) {
        let Some(committer) = self.committer.try_lock() else { return };
        if committer.tree(keyspace).is_some_and(|tree| tree.load().generation == generation) {
            then();
        }
    }
}
