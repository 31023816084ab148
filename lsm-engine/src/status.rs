//! Whether a database is open, whether it takes writes, and what background work failed with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_core::env::Event;
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Whether a database is open and takes writes, and what went wrong.
#[derive(Default)]
pub(crate) struct Status {
    closed: AtomicBool,
    /// Background jobs are to end.
    stopping: AtomicBool,
    /// Writing ended, with this.
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    pub(crate) flush_error: BackgroundError,
    pub(crate) compaction_error: BackgroundError,
    /// A flush or compaction ended, or background work failed: whoever waits looks again.
    pub(crate) progress: Event,
}

impl Status {
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// `false` if it was closed before.
    pub(crate) fn mark_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Asks background jobs to end.
    pub(crate) fn ask_to_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.progress.notify();
    }

    /// Whether background jobs are to end.
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

/// Failures of background work that will be tried again: whoever waits for it must hear of them.
#[derive(Debug, Default)]
pub(crate) struct BackgroundError(Mutex<(u64, Option<Error>)>);

impl BackgroundError {
    pub(crate) fn note(&self, error: Error) {
        let mut noted = self.0.lock();
        *noted = (noted.0 + 1, Some(error));
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
