//! The seam to clocks, randomness and threads.
//!
//! Background work is [`Job`]s made of short steps; clients block in [`Env::wait`] and nowhere else. Under
//! [`ThreadEnv`] jobs run on worker threads. Under `SimEnv` (feature `sim`) they run, one step at a time in an
//! order drawn from a seed, while a client waits, so that a whole database runs on one thread and every run can
//! be repeated.

mod event;
mod origin;
#[cfg(feature = "sim")]
mod sim;
mod threads;

pub use event::Event;
#[cfg(feature = "sim")]
pub use sim::SimEnv;
pub use threads::ThreadEnv;

/// Clock, randomness and jobs.
pub trait Env: Send + Sync {
    /// Microseconds since some fixed moment; never goes back.
    fn monotonic_micros(&self) -> u64;

    /// Microseconds since 1970-01-01 UTC as the system clock has it; may jump.
    fn unix_micros(&self) -> u64;

    /// 64 random bits, good enough for identifiers.
    fn random(&self) -> u64;

    /// Runs a job in the background until it says [`Step::Done`]. Among jobs that can run, those of the higher
    /// priority go first.
    fn spawn(&self, priority: Priority, job: Box<dyn Job>);

    /// Blocks until `event` was notified since `seen` was taken from [`Event::epoch`], or until
    /// [`monotonic_micros`](Env::monotonic_micros) reaches the deadline. Returns whether it was notified.
    ///
    /// The caller must hold no lock that a job might take, and must not itself be a job.
    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool;

    /// How many jobs can run at once: into how many parts it pays to split work.
    fn worker_count(&self) -> usize {
        1
    }

    /// Whether this process is a child, by `fork`, of the one that made the environment: none of its threads are here,
    /// so nobody runs jobs or notifies events. Asked before each write, so it must cost next to nothing.
    fn is_forked(&self) -> bool {
        false
    }
}

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
        /// When to step again in any case, in [`Env::monotonic_micros`].
        deadline_micros: Option<u64>,
    },
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014): a bijection that scatters neighbouring integers.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
