//! Calls back those who asked when a position is durable, once that is known.
//!
//! A job calls them, one after another: whoever syncs may hold locks of its own that a callback takes. The job is
//! spawned when there is somebody to call, and ends when there is nobody left.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, ThreadId};

use lsm_core::Result;
use lsm_core::env::{Env, Job, Priority, Step};

use crate::log::DurableCallback;
use crate::sync::{Event, Mutex};

/// How many are called in one step of the job.
const CALLS_A_STEP: usize = 64;

/// Callbacks whose result is known and that are not called yet.
#[derive(Default)]
pub(crate) struct Calls {
    due: Mutex<Due>,
    /// The job ended.
    ended: Event,
}

#[derive(Default)]
struct Due {
    calls: VecDeque<(DurableCallback, Result<()>)>,
    /// There is a job.
    has_job: bool,
    /// The thread that calls somebody right now.
    calling: Option<ThreadId>,
}

impl Calls {
    /// Has these called. The caller holds no lock.
    pub(crate) fn add(
        self: &Arc<Self>,
        env: &dyn Env,
        calls: impl IntoIterator<Item = (DurableCallback, Result<()>)>,
    ) {
        let is_first = {
            let mut due = self.due.lock();
            due.calls.extend(calls);
            !due.calls.is_empty() && !std::mem::replace(&mut due.has_job, true)
        };
        if is_first {
            env.spawn(Priority::High, Box::new(CallingJob { calls: Arc::clone(self), has_ended: false }));
        }
    }

    /// Waits until everybody was called who was due; not if one of them asks for it, who would wait for himself.
    pub(crate) fn wait_until_called(&self, env: &dyn Env) {
        loop {
            let seen = self.ended.epoch();
            let due = self.due.lock();
            if !due.has_job || due.calling == Some(thread::current().id()) {
                return;
            }
            drop(due);
            env.wait(&self.ended, seen, None);
        }
    }
}

impl Drop for Calls {
    /// The environment has dropped the job: everybody is called all the same.
    fn drop(&mut self) {
        let calls = std::mem::take(&mut self.due.lock().calls);
        for (callback, result) in calls {
            call(callback, result);
        }
    }
}

struct CallingJob {
    calls: Arc<Calls>,
    has_ended: bool,
}

impl Job for CallingJob {
    fn step(&mut self) -> Step {
        for _ in 0..CALLS_A_STEP {
            let next = {
                let mut due = self.calls.due.lock();
                let next = due.calls.pop_front();
                due.calling = next.is_some().then(|| thread::current().id());
                due.has_job = next.is_some();
                next
            };
            let Some((callback, result)) = next else {
                self.has_ended = true;
                self.calls.ended.notify();
                return Step::Done;
            };
            call(callback, result);
        }
        self.calls.due.lock().calling = None;
        Step::Again
    }
}

impl Drop for CallingJob {
    /// The environment dropped the job before its end. Nobody must wait for it.
    fn drop(&mut self) {
        if !self.has_ended {
            self.calls.due.lock().has_job = false;
            self.calls.ended.notify();
        }
    }
}

/// Calls back. A panic there is the caller's and ends no job.
pub(crate) fn call(callback: DurableCallback, result: Result<()>) {
    let _ = catch_unwind(AssertUnwindSafe(|| callback(result)));
}
