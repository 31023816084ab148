//! Background work: jobs of short steps, and their priorities.

use super::event::Event;

/// Which job goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Deep compactions, scrubbing.
    Low,
    /// Compactions out of level 0, clean-up.
    Normal,
    /// Flushes, syncs of the log: what writers may be waiting for.
    High,
}

/// Work in the background.
pub trait Job: Send {
    /// Does a bounded piece of work: milliseconds, not seconds. Must not block except on the file system.
    fn step(&mut self) -> Step;
}

/// What a job says after a step.
#[derive(Clone, Debug)]
pub enum Step {
    /// The job is finished; drop it.
    Done,
    /// There is more to do now.
    Again,
    /// Nothing to do until `event` is notified past `seen`, or the clock reaches the deadline. The job may be
    /// stepped earlier all the same, and looks again.
    Pending {
        /// What to wait for.
        event: Event,
        /// The epoch of the event before the job looked for work.
        seen: u64,
        /// When to step again in any case, in [`Env::monotonic_micros`](super::Env::monotonic_micros).
        deadline_micros: Option<u64>,
    },
}
