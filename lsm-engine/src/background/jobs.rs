//! The small background jobs, and what all jobs share.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lsm_core::env::{Job, Priority, Step};

use crate::background::flush::FlushJob;
use crate::inner::Inner;
use crate::{Error, Result};

/// How often to look for compactions that time alone makes due.
const LOOK_MICROS: u64 = 1_000_000;

/// Counts a job of a database for as long as it lives, so that closing can wait for the last.
pub(crate) struct JobToken(Arc<Inner>);

impl JobToken {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        if let Some(side) = &inner.writer {
            side.jobs.fetch_add(1, Ordering::AcqRel);
        }
        Self(Arc::clone(inner))
    }
}

impl Drop for JobToken {
    fn drop(&mut self) {
        if let Some(side) = &self.0.writer {
            side.jobs.fetch_sub(1, Ordering::AcqRel);
            side.progress.notify();
        }
    }
}

/// What a panic said.
pub(crate) fn panic_message(during: &str, panic: &(dyn Any + Send)) -> Arc<str> {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    format!("a panic during {during}: {said}").into()
}

/// Calls what may call parts from outside: one that panics is an error that says during what.
pub(crate) fn caught<T>(during: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(Error::Callback(panic_message(during, &*panic))))
}

/// Starts the jobs that run as long as a database is open for writing.
pub(crate) fn start(inner: &Arc<Inner>) {
    inner.env.spawn(Priority::High, Box::new(FlushJob::new(Arc::clone(inner))));
    if let Some(side) = &inner.writer {
        inner.all_trees().iter().for_each(|tree| side.compaction_queue.add(tree));
    }
    let look_at_micros = inner.env.monotonic_micros() + LOOK_MICROS;
    let job = CleanJob { _token: JobToken::new(inner), inner: Arc::clone(inner), look_at_micros };
    inner.env.spawn(Priority::Normal, Box::new(job));
}

/// Unlinks files that nobody reads any more, has open tables fit their memory, and looks now and then for compactions that
/// are due.
struct CleanJob {
    inner: Arc<Inner>,
    /// When policies are asked next although nothing changed.
    look_at_micros: u64,
    _token: JobToken,
}

impl Job for CleanJob {
    fn step(&mut self) -> Step {
        let Some(side) = &self.inner.writer else { return Step::Done };
        let seen = self.inner.obsolete_files.event().epoch();
        self.inner.remove_obsolete_files();
        if side.is_stopping() {
            return Step::Done;
        }
        let now_micros = self.inner.env.monotonic_micros();
        if now_micros >= self.look_at_micros {
            self.look_at_micros = now_micros + LOOK_MICROS;
            self.inner.ask_by_time();
        }
        self.inner.schedule_compactions();
        if self.inner.fit_tables() {
            return Step::Again;
        }
        let deadline_micros = Some(self.look_at_micros);
        Step::Pending { event: self.inner.obsolete_files.event().clone(), seen, deadline_micros }
    }
}

impl Inner {
    /// Unlinks the files that nobody needs any more. A file that cannot be removed is found again at the next open.
    pub(crate) fn remove_obsolete_files(&self) {
        for path in self.obsolete_files.take() {
            match self.vfs.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "an obsolete file stays");
                }
                _ => {}
            }
        }
    }
}
