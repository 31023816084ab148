//! Status of a database: whether it is open, whether it takes writes, and the background errors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use lsm_core::env::Event;
use parking_lot::Mutex;

use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{EventKind, EventRing};

/// Whether a database is open and takes writes, and its background errors.
pub(crate) struct Status {
    pub(crate) events: Arc<EventRing>,
    pub(crate) control: Control,
    /// See [`Options::snapshot_age_max`](crate::Options::snapshot_age_max).
    pub(crate) snapshot_age_max_micros: Option<u64>,
    closed: AtomicBool,
    /// Background jobs must end.
    stopping: AtomicBool,
    /// Writing has stopped because of `failure`.
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    /// How long the oldest write has been visible whose garbage a purge has not removed; 0 without a bound.
    purge_lag_micros: AtomicU64,
    pub(crate) flush_error: BackgroundError,
    pub(crate) compaction_error: BackgroundError,
    /// Notified when a flush or compaction ends and when background work fails, so that waiting callers check again.
    pub(crate) progress: Event,
    /// What readers of changes wait for: notified when more of the log is durable, and when there will be no more.
    changes: OnceLock<Event>,
}

impl Status {
    pub(crate) fn new(events: Arc<EventRing>, snapshot_age_max_micros: Option<u64>) -> Self {
        Self {
            events,
            control: Control::default(),
            snapshot_age_max_micros,
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            failure: Mutex::default(),
            purge_lag_micros: AtomicU64::new(0),
            flush_error: BackgroundError::default(),
            compaction_error: BackgroundError::default(),
            progress: Event::new(),
            changes: OnceLock::new(),
        }
    }

    pub(crate) fn set_purge_lag_micros(&self, micros: u64) {
        self.purge_lag_micros.store(micros, Ordering::Relaxed);
    }

    pub(crate) fn purge_lag_micros(&self) -> u64 {
        self.purge_lag_micros.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Marks the database as closed. Returns `false` if it was closed before.
    pub(crate) fn mark_closed(&self) -> bool {
        let is_first = !self.closed.swap(true, Ordering::AcqRel);
        self.wake_changes();
        is_first
    }

    /// Has readers of changes wait for this event, which the log notifies.
    pub(crate) fn set_changes(&self, advanced: Event) {
        self.changes.get_or_init(|| advanced);
    }

    /// What readers of changes wait for.
    pub(crate) fn changes(&self) -> &Event {
        self.changes.get_or_init(Event::new)
    }

    /// Wakes the readers of changes.
    pub(crate) fn wake_changes(&self) {
        self.changes().notify();
    }

    /// Asks background jobs to end.
    pub(crate) fn ask_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.control.wake_jobs();
        self.progress.notify();
    }

    /// Whether background jobs must end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.stopped.load(Ordering::Acquire)
    }

    /// Stops all writing until the database is reopened.
    pub(crate) fn stop_writing(&self, error: Error) {
        tracing::error!(%error, "writing stopped");
        let message = error.to_string().into();
        let mut failure = self.failure.lock();
        let is_first = failure.is_none();
        failure.get_or_insert(error);
        drop(failure);
        if is_first {
            self.events.emit(EventKind::Error { during: "writing".into(), keyspace: None, message });
        }
        self.stopped.store(true, Ordering::Release);
        self.control.wake_jobs();
        self.progress.notify();
        self.wake_changes();
    }

    /// Notes the error of a flush that is tried again.
    pub(crate) fn note_flush_error(&self, error: Error) {
        self.note(&self.flush_error, "a flush", None, error);
    }

    /// Notes the error of a compaction.
    pub(crate) fn note_compaction_error(&self, keyspace: &Arc<str>, error: Error) {
        self.note(&self.compaction_error, "a compaction", Some(keyspace), error);
    }

    fn note(&self, noted: &BackgroundError, during: &str, keyspace: Option<&Arc<str>>, error: Error) {
        let message: Arc<str> = error.to_string().into();
        if noted.note(error) {
            let (during, keyspace) = (during.into(), keyspace.cloned());
            self.events.emit(EventKind::Error { during, keyspace, message });
        }
    }

    /// Fails if writing was stopped.
    #[inline]
    pub(crate) fn check_writing(&self) -> Result<()> {
        if self.stopped.load(Ordering::Acquire) { Err(self.writing_stopped()) } else { Ok(()) }
    }

    #[cold]
    fn writing_stopped(&self) -> Error {
        let failure = self.failure.lock().clone();
        Error::WritingStopped(Arc::new(failure.unwrap_or(Error::Closed)))
    }
}

/// The errors of background work that is tried again. A caller that waits for the work must get them.
#[derive(Debug, Default)]
pub(crate) struct BackgroundError(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// Number of errors so far.
    count: u64,
    /// The last error, if the work has not succeeded since.
    current: Option<Error>,
    /// The last error that was an event, if no work has succeeded since.
    reported: Option<Error>,
}

/// Whether an error is the one before again: a retry names another file.
fn is_same(error: &Error, before: &Error) -> bool {
    let is_damage = error.kind() == ErrorKind::Corruption;
    error.kind() == before.kind() && (!is_damage || error.to_string() == before.to_string())
}

impl BackgroundError {
    /// Returns whether the error is to be reported: it is not the last one again.
    fn note(&self, error: Error) -> bool {
        let mut noted = self.0.lock();
        let is_new = noted.reported.as_ref().is_none_or(|before| !is_same(&error, before));
        noted.count += 1;
        noted.current = Some(error.clone());
        noted.reported = Some(error);
        is_new
    }

    /// Number of errors so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// The last error, if the work has not succeeded since.
    pub(crate) fn current(&self) -> Option<Error> {
        self.0.lock().current.clone()
    }

    /// Some work succeeded: the next error is reported again.
    pub(crate) fn report_again(&self) {
        self.0.lock().reported = None;
    }

    /// Clears the error after the work succeeded.
    pub(crate) fn clear(&self) {
        let mut noted = self.0.lock();
        (noted.current, noted.reported) = (None, None);
    }

    /// Fails with the current error if there were more than `seen` errors so far.
    pub(crate) fn check(&self, seen: u64) -> Result<()> {
        match &*self.0.lock() {
            Noted { count, current: Some(error), .. } if *count > seen => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
