//! The version set: the durable versions of all keyspaces. An edit counts only after it is in the manifest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Clock;
use super::disk_reserve::DiskReserve;
use super::edit::VersionEdit;
use super::history::SharedHistory;
use super::leases::Leases;
use super::manifest::{AppendError, Manifest};
use super::numbers::Numbers;
use crate::error::{ErrorKind, Result};
use crate::events::{EventKind, WaitReason};
use crate::lock_order::{OrderedGuard, OrderedMutex};
use crate::metrics::{Histogram, Latency};
use crate::status::Status;
use crate::waits::Waits;

/// Disk space that replacing the manifest needs besides the new manifest's records.
pub(crate) const MANIFEST_BYTES_BESIDE: u64 = 16 << 10;

/// How often the time is recorded while entries may expire.
const MARK_MICROS: u64 = 60_000_000;

/// The manifest, and the numbers and clock that every edit records.
pub(crate) struct VersionSet {
    manifest: OrderedMutex<Manifest>,
    pub(crate) numbers: Arc<Numbers>,
    clock: Arc<Clock>,
    /// The time of the clock of ages at the last edit.
    marked_micros: AtomicU64,
    reserve: Arc<DiskReserve>,
    leases: Arc<Leases>,
    status: Arc<Status>,
    edit_times: Histogram,
    pub(crate) history: Arc<SharedHistory>,
}

impl VersionSet {
    pub(crate) fn new(
        manifest: OrderedMutex<Manifest>,
        numbers: Arc<Numbers>,
        clock: Arc<Clock>,
        reserve: Arc<DiskReserve>,
        leases: Arc<Leases>,
        status: Arc<Status>,
    ) -> Self {
        leases.note_edit(manifest.lock().end());
        let marked_micros = AtomicU64::new(clock.age_micros());
        let history = Arc::new(manifest.lock().state().shared_history());
        let edit_times = Histogram::default();
        Self { manifest, numbers, clock, marked_micros, reserve, leases, status, edit_times, history }
    }

    /// Locks the manifest. A change of a version holds this lock from its edit until it is installed in memory.
    pub(crate) fn lock(&self) -> OrderedGuard<'_, Manifest> {
        self.manifest.lock()
    }

    /// Like [`lock`](Self::lock), for a call of a user: the wait is registered.
    pub(crate) fn lock_for_call(&self, waits: &Waits) -> OrderedGuard<'_, Manifest> {
        self.manifest.try_lock().unwrap_or_else(|| self.manifest.lock_and_count(waits, WaitReason::Manifest))
    }

    /// The time of the clock for table ages.
    pub(crate) fn clock_micros(&self) -> u64 {
        self.clock.age_micros()
    }

    /// Records the time if no edit did for a minute. After a crash the clock of expiry goes on from there if the wall clock
    /// was set back meanwhile, so a reader would see again at most what expired in the last minute.
    pub(crate) fn record_time(&self) -> Result<()> {
        let marked_micros = self.marked_micros.load(Ordering::Relaxed);
        if self.clock.age_micros().saturating_sub(marked_micros) < MARK_MICROS {
            return Ok(());
        }
        self.log_edit(&mut self.lock(), VersionEdit::default())
    }

    /// Puts the marks of the clocks into an edit.
    pub(crate) fn mark(&self, edit: &mut VersionEdit) {
        self.clock.mark(edit);
    }

    /// How long edits took.
    pub(crate) fn edit_times(&self) -> Latency {
        self.edit_times.snapshot()
    }

    /// Logs an edit, durably. If it is unknown whether the manifest has the edit, all writing stops.
    pub(crate) fn log_edit(&self, manifest: &mut Manifest, mut edit: VersionEdit) -> Result<()> {
        // The previous holder of the lock may have failed in doubt. Then memory and disk differ, and no edit based on
        // memory may be logged.
        self.status.check_writing()?;
        edit.next_number = Some(self.numbers.unused());
        self.clock.mark(&mut edit);
        self.marked_micros.store(self.clock.age_micros(), Ordering::Relaxed);
        let (before, started_micros) = (manifest.number(), self.clock_micros());
        let mut appended = manifest.append(&edit, || self.numbers.next());
        if let Err(AppendError::Refused(error)) = &appended
            && error.kind() == ErrorKind::NoSpace
            && self.reserve.release(manifest.snapshot_bytes() + MANIFEST_BYTES_BESIDE)
        {
            // Most edits free more disk space than they take.
            appended = manifest.append(&edit, || self.numbers.next());
        }
        self.edit_times.record_micros(self.clock_micros() - started_micros);
        self.leases.note_edit(manifest.end());
        if manifest.number() != before {
            let (file, bytes) = (manifest.file_name(), manifest.snapshot_bytes());
            self.status.events.emit(EventKind::FileCreated { file, bytes });
        }
        if appended.is_ok() && !edit.keyspace_events.is_empty() {
            self.history.set(manifest.state().history.clone());
        }
        appended.map_err(|error| match error {
            AppendError::Refused(error) => error,
            AppendError::InDoubt(error) => {
                self.status.stop_writing(error.clone());
                error
            }
        })
    }
}
