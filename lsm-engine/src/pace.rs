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
    /// Never notified: waiting for it is waiting for the clock.
    never: Event,
}

#[derive(Debug, Default)]
struct Bucket {
    /// When all admitted bytes will have been paid for.
    paid_micros: f64,
    /// Bytes a second that background work takes in, smoothed.
    throughput: f64,
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

    /// Waits until `bytes` may be written.
    #[cold]
    pub(crate) fn wait_turn(&self, env: &dyn Env, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed).max(1) as f64;
        let now = env.monotonic_micros() as f64;
        let due = {
            let mut bucket = self.bucket.lock();
            bucket.paid_micros = bucket.paid_micros.max(now) + bytes as f64 * 1e6 / rate;
            bucket.paid_micros
        };
        if due - now >= WAIT_MICROS_MIN {
            env.wait(&self.never, self.never.epoch(), Some(due as u64));
        }
    }

    /// Background work took in `bytes` in `micros`.
    pub(crate) fn observe(&self, bytes: u64, micros: u64) {
        let mut bucket = self.bucket.lock();
        let now = bytes as f64 * 1e6 / micros.max(1) as f64;
        bucket.throughput = if bucket.throughput == 0.0 { now } else { bucket.throughput * 0.8 + now * 0.2 };
    }

    /// Sets the rate that suits the state of the tree.
    pub(crate) fn adjust(&self, level_0_runs: usize, debt_bytes: u64, memtable_bytes: usize) {
        let runs = level_0_runs as f64 / LEVEL_0_RUNS_SOFT;
        let debt = debt_bytes as f64 / (memtable_bytes as f64 * DEBT_MEMTABLES_SOFT);
        let pressure = runs.max(debt);
        let rate = if pressure <= 1.0 {
            0
        } else {
            let throughput = self.bucket.lock().throughput.max(RATE_MIN);
            (throughput / (pressure * pressure)).max(RATE_MIN) as u64
        };
        self.rate.store(rate, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn log_start(&self) -> u64 {
        self.log_start.load(Ordering::Relaxed)
    }

    pub(crate) fn set_log_start(&self, position: u64) {
        self.log_start.store(position, Ordering::Relaxed);
    }
}
