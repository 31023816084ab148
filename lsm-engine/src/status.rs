//! Status of a database: whether it is open, whether it takes writes, and the background errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_core::env::Event;
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Whether a database is open and takes writes, and its background errors.
#[derive(Default)]
pub(crate) struct Status {
    closed: AtomicBool,
    /// Background jobs must end.
    stopping: AtomicBool,
    /// Writing has stopped because of `failure`.
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    pub(crate) flush_error: BackgroundError,
    pub(crate) compaction_error: BackgroundError,
    /// Notified when a flush or compaction ends and when background work fails, so that waiting callers check again.
    pub(crate) progress: Event,
}

impl Status {
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Marks the database as closed. Returns `false` if it was closed before.
    pub(crate) fn mark_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Asks background jobs to end.
    pub(crate) fn ask_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.progress.notify();
    }

    /// Whether background jobs must end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.stopped.load(Ordering::Acquire)
    }

    /// Stops all writing until the database is reopened.
    pub(crate) fn stop_writing(&self, error: Error) {
        tracing::error!(%error, "writing stopped");
        self.failure.lock().get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
        self.progress.notify();
    }

    /// Fails if writing was stopped.
    #[inline]
    pub(crate) fn check_writing(&self) -> Result<()> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        let failure = self.failure.lock().clone();
        Err(Error::WritingStopped(Arc::new(failure.unwrap_or(Error::Closed))))
    }
}

/// The errors of background work that is tried again. A caller that waits for the work must get them.
#[derive(Debug, Default)]
pub(crate) struct BackgroundError(Mutex<(u64, Option<Error>)>);

impl BackgroundError {
    pub(crate) fn note(&self, error: Error) {
        let mut noted = self.0.lock();
        *noted = (noted.0 + 1, Some(error));
    }

    /// Number of errors so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().0
    }

    /// The last error, if the work has not succeeded since.
    pub(crate) fn current(&self) -> Option<Error> {
        self.0.lock().1.clone()
    }

    /// Clears the error after the work succeeded.
    pub(crate) fn clear(&self) {
        self.0.lock().1 = None;
    }

    /// Fails with the current error if there were more than `seen` errors so far.
    pub(crate) fn check(&self, seen: u64) -> Result<()> {
        match &*self.0.lock() {
            (count, Some(error)) if *count > seen => Err(error.clone()),
            _ => Ok(()),
        }
    }
}
