use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lsm_engine::env::{Env, Event, Job, Priority, SimEnv};

/// A simulated environment that fails the test if a caller waits for a minute, or checks too many times: then the engine
/// forgot to wake it, or woke it for nothing.
pub(crate) struct Impatient {
    env: Arc<SimEnv>,
    looks_left: AtomicUsize,
}

impl Impatient {
    pub(crate) fn new(env: &Arc<SimEnv>, looks_max: usize) -> Arc<Self> {
        Arc::new(Self { env: Arc::clone(env), looks_left: AtomicUsize::new(looks_max) })
    }
}

impl Env for Impatient {
    fn monotonic_micros(&self) -> u64 {
        self.env.monotonic_micros()
    }

    fn unix_micros(&self) -> u64 {
        self.env.unix_micros()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        self.env.spawn(priority, job);
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        assert!(self.looks_left.fetch_sub(1, Ordering::Relaxed) > 0, "woken for nothing again and again");
        let minute = self.monotonic_micros() + 60_000_000;
        let woken = self.env.wait(event, seen, Some(deadline_micros.map_or(minute, |at| at.min(minute))));
        assert!(woken || deadline_micros.is_some(), "nothing woke the waiting caller for a minute");
        woken
    }
}
