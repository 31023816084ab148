use super::event::Event;
use super::job::{Job, Priority};

/// Clock, randomness and jobs.
pub trait Env: Send + Sync {
    /// Microseconds since some fixed moment; never goes back.
    fn monotonic_micros(&self) -> u64;

    /// The same clock in nanoseconds, as exact as it is. Measures calls that take less than a microsecond.
    fn monotonic_nanos(&self) -> u64 {
        self.monotonic_micros().saturating_mul(1000)
    }

    /// Microseconds since 1970-01-01 UTC as the system clock has it; may jump.
    fn unix_micros(&self) -> u64;

    /// 64 random bits, good enough for identifiers.
    fn random(&self) -> u64;

    /// Runs a job in the background until it says [`Step::Done`](super::Step::Done). Among jobs that can run, those of the higher
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
