use lsm_engine::env::{Env, Event, Job, Priority, SimEnv};

/// The simulated environment. It has one thread, but reports several, so that several compactions may run at once.
pub(crate) struct Wide(pub(crate) SimEnv);

impl Env for Wide {
    fn monotonic_micros(&self) -> u64 {
        self.0.monotonic_micros()
    }

    fn unix_micros(&self) -> u64 {
        self.0.unix_micros()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        self.0.spawn(priority, job);
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        self.0.wait(event, seen, deadline_micros)
    }

    fn worker_count(&self) -> usize {
        4
    }

    fn is_forked(&self) -> bool {
        self.0.is_forked()
    }
}
