//! How fast writers may go: a smooth byte rate that follows the debt of compactions.

use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::env::{Env, Event};
use parking_lot::Mutex;

/// Runs in level 0 beyond which writers are slowed down: every one costs every read.
const LEVEL_0_RUNS_SOFT: f64 = 16.0;
/// Debt in memtables beyond which writers are slowed down.
const DEBT_MEMTABLES_SOFT: f64 = 64.0;
/// Writers are never slowed below this, in bytes a second.
const RATE_MIN: f64 = 1e6;
/// Waits shorter than this are saved up.
const WAIT_MICROS_MIN: f64 = 1_000.0;

/// Slows writers down before they would have to stop.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes a second; 0 for no limit.
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
    /// Where the log began when last looked at.
    log_start: AtomicU64,
    /// The rate changed, or the database closes: whoever waits looks again.
    changed: Event,
}

/// How far a tree is beyond what it should be: writers are slowed from 1 on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pressure(f64);

#[expect(clippy::cast_sign_loss, reason = "rates are positive")]
impl Pressure {
    pub(crate) fn of(level_0_runs: usize, debt_bytes: u64, memtable_bytes: usize) -> Self {
        let runs = level_0_runs as f64 / LEVEL_0_RUNS_SOFT;
        let debt = debt_bytes as f64 / (memtable_bytes as f64 * DEBT_MEMTABLES_SOFT);
        Self(runs.max(debt))
    }

    pub(crate) fn slows(self) -> bool {
        self.0 > 1.0
    }

    /// Bytes a second, 0 for no limit, where background work takes in `throughput`.
    fn rate(self, throughput: f64) -> u64 {
        if self.slows() { (throughput.max(RATE_MIN) / (self.0 * self.0)).max(RATE_MIN) as u64 } else { 0 }
    }
}

#[derive(Debug, Default)]
struct Bucket {
    /// Bytes let in since there is a limit, and how many of them the rate has paid for at `paid_at_micros`.
    admitted_bytes: f64,
    paid_bytes: f64,
    paid_at_micros: u64,
    /// How often a limit ended: what was let in before is forgotten.
    period: u64,
    /// Bytes a second that background work takes in, smoothed.
    throughput: f64,
}

impl Bucket {
    /// Counts what `rate` has paid for up to now. Nothing is paid in advance.
    fn pay(&mut self, rate: f64, now_micros: u64) {
        let paid = now_micros.saturating_sub(self.paid_at_micros) as f64 * rate / 1e6;
        self.paid_bytes = (self.paid_bytes + paid).min(self.admitted_bytes);
        self.paid_at_micros = now_micros;
    }
}

#[expect(clippy::cast_sign_loss, reason = "times and rates are positive")]
impl Pace {
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != 0
    }

    /// Bytes a second that writers are held to, if they are.
    pub(crate) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|&rate| rate != 0)
    }

    /// Waits until `bytes` may be written, the limit ends or `given_up` says so. Returns the time it took.
    #[cold]
    pub(crate) fn wait_turn(&self, env: &dyn Env, bytes: usize, given_up: impl Fn() -> bool) -> u64 {
        let started = env.monotonic_micros();
        let (ticket, period) = {
            let mut bucket = self.bucket.lock();
            // The limit may have ended since the caller looked: the next one must not be charged for this.
            if !self.is_limited() {
                return 0;
            }
            bucket.admitted_bytes += bytes as f64;
            (bucket.admitted_bytes, bucket.period)
        };
        loop {
            let seen = self.changed.epoch();
            let now = env.monotonic_micros();
            let wait_micros = {
                let mut bucket = self.bucket.lock();
                let rate = self.rate.load(Ordering::Relaxed) as f64;
                if rate == 0.0 || bucket.period != period || given_up() {
                    return now - started;
                }
                bucket.pay(rate, now);
                (ticket - bucket.paid_bytes) * 1e6 / rate
            };
            if wait_micros < WAIT_MICROS_MIN {
                return now - started;
            }
            env.wait(&self.changed, seen, Some(now + wait_micros as u64));
        }
    }

    /// Whoever waits looks whether to give up.
    pub(crate) fn wake(&self) {
        self.changed.notify();
    }

    /// Background work took in `bytes` in `micros`.
    pub(crate) fn observe(&self, bytes: u64, micros: u64) {
        let mut bucket = self.bucket.lock();
        let now = bytes as f64 * 1e6 / micros.max(1) as f64;
        bucket.throughput = if bucket.throughput == 0.0 { now } else { bucket.throughput * 0.8 + now * 0.2 };
    }

    /// Sets the rate that suits the state of the tree.
    pub(crate) fn adjust(&self, env: &dyn Env, pressure: Pressure) {
        let mut bucket = self.bucket.lock();
        let rate = pressure.rate(bucket.throughput);
        let before = self.rate.load(Ordering::Relaxed);
        if rate == before {
            return;
        }
        bucket.pay(before as f64, env.monotonic_micros());
        if rate == 0 {
            // What is not paid yet is no debt of the next time that there is a limit.
            (bucket.admitted_bytes, bucket.paid_bytes) = (0.0, 0.0);
            bucket.period += 1;
        }
        self.rate.store(rate, Ordering::Relaxed);
        drop(bucket);
        self.changed.notify();
    }

    #[inline]
    pub(crate) fn log_start(&self) -> u64 {
        self.log_start.load(Ordering::Relaxed)
    }

    pub(crate) fn set_log_start(&self, position: u64) {
        self.log_start.store(position, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lsm_core::env::{Job, Priority, SimEnv, Step};

    use super::*;

    /// Changes what it is told to after 300 ms.
    struct Later<F>(Arc<SimEnv>, Option<F>);

    impl<F: FnOnce() + Send> Job for Later<F> {
        fn step(&mut self) -> Step {
            if self.0.monotonic_micros() < 300_000 {
                return Step::Pending { event: Event::new(), seen: 0, deadline_micros: Some(300_000) };
            }
            if let Some(change) = self.1.take() {
                change();
            }
            Step::Done
        }
    }

    fn limited() -> (Arc<SimEnv>, Arc<Pace>) {
        let (env, pace) = (Arc::new(SimEnv::new(1)), Arc::new(Pace::default()));
        pace.adjust(&*env, Pressure::of(40, 0, 1));
        assert_eq!(pace.rate(), Some(1_000_000));
        (env, pace)
    }

    fn later(env: &Arc<SimEnv>, change: impl FnOnce() + Send + 'static) {
        env.spawn(Priority::Normal, Box::new(Later(Arc::clone(env), Some(change))));
    }

    #[test]
    fn a_write_waits_until_the_rate_has_paid_for_it() {
        let (env, pace) = limited();
        assert_eq!(pace.wait_turn(&*env, 2_000_000, || false), 2_000_000);
        assert_eq!(pace.wait_turn(&*env, 500, || false), 0, "short waits are saved up");
        assert_eq!(pace.wait_turn(&*env, 600, || false), 1100);
    }

    #[test]
    fn the_wait_ends_with_the_limit_and_leaves_no_debt() {
        let (env, pace) = limited();
        let (ending, at) = (Arc::clone(&pace), Arc::clone(&env));
        later(&env, move || ending.adjust(&*at, Pressure::of(0, 0, 1)));
        assert!((300_000..301_000).contains(&pace.wait_turn(&*env, 12 << 20, || false)));
        pace.adjust(&*env, Pressure::of(40, 0, 1));
        assert_eq!(pace.wait_turn(&*env, 500, || false), 0, "the old write is charged again");
    }

    #[test]
    fn a_write_that_finds_the_limit_gone_is_not_charged_to_the_next() {
        let (env, pace) = (SimEnv::new(1), Pace::default());
        assert_eq!(pace.wait_turn(&env, 12 << 20, || false), 0);
        pace.adjust(&env, Pressure::of(40, 0, 1));
        assert_eq!(pace.wait_turn(&env, 500, || false), 0);
    }

    #[test]
    fn the_wait_becomes_shorter_when_the_rate_rises() {
        let (env, pace) = limited();
        pace.observe(100_000_000, 1_000_000);
        let (rising, at) = (Arc::clone(&pace), Arc::clone(&env));
        // 17 of 16 runs: nearly the throughput.
        later(&env, move || rising.adjust(&*at, Pressure::of(17, 0, 1)));
        let waited = pace.wait_turn(&*env, 12_000_000, || false);
        assert!((300_000..600_000).contains(&waited), "{waited}");
    }

    #[test]
    fn the_wait_ends_when_the_database_closes() {
        let (env, pace) = limited();
        let closing = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (woken, closed) = (Arc::clone(&pace), Arc::clone(&closing));
        later(&env, move || {
            closed.store(true, Ordering::Relaxed);
            woken.wake();
        });
        let waited = pace.wait_turn(&*env, 12 << 20, || closing.load(Ordering::Relaxed));
        assert!((300_000..301_000).contains(&waited), "{waited}");
    }
}
