//! A limit on the rate at which writers go: a token bucket that nobody fills in advance.

use std::sync::atomic::{AtomicU64, Ordering};

use lsm_core::env::{Env, Event};
use parking_lot::Mutex;

/// Waits shorter than this are saved up.
const WAIT_MICROS_MIN: f64 = 1_000.0;

/// A byte rate that writers are held to, while there is one.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    /// Bytes a second; 0 for no limit.
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Bytes let in since there is a limit, and how many of them the rate has paid for at `paid_at_micros`.
    admitted_bytes: f64,
    paid_bytes: f64,
    paid_at_micros: u64,
    /// How often a limit ended: what was let in before is forgotten.
    period: u64,
}

impl Bucket {
    /// Counts what `rate` has paid for up to now. Nothing is paid in advance.
    fn pay(&mut self, rate: f64, now_micros: u64) {
        let paid = now_micros.saturating_sub(self.paid_at_micros) as f64 * rate / 1e6;
        self.paid_bytes = (self.paid_bytes + paid).min(self.admitted_bytes);
        self.paid_at_micros = now_micros;
    }
}

#[expect(clippy::cast_sign_loss, reason = "times are positive")]
impl RateLimit {
    /// Bytes a second that writers are held to, if they are.
    pub(crate) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|&rate| rate != 0)
    }

    /// Waits until `bytes` may be written, the limit ends or `given_up` says so; looks again whenever `changed` is
    /// notified. Returns the time it took.
    #[cold]
    pub(crate) fn wait_turn(
        &self,
        env: &dyn Env,
        changed: &Event,
        bytes: usize,
        given_up: impl Fn() -> bool,
    ) -> u64 {
        let started = env.monotonic_micros();
        let (ticket, period) = {
            let mut bucket = self.bucket.lock();
            // The limit may have ended since the caller looked: the next one must not be charged for this.
            if self.rate().is_none() {
                return 0;
            }
            bucket.admitted_bytes += bytes as f64;
            (bucket.admitted_bytes, bucket.period)
        };
        loop {
            let seen = changed.epoch();
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
            env.wait(changed, seen, Some(now + wait_micros as u64));
        }
    }

    /// Sets the rate, 0 for none; `true` if it changed.
    pub(crate) fn set(&self, env: &dyn Env, rate: u64) -> bool {
        let mut bucket = self.bucket.lock();
        let before = self.rate.load(Ordering::Relaxed);
        if rate == before {
            return false;
        }
        bucket.pay(before as f64, env.monotonic_micros());
        if rate == 0 {
            // What is not paid yet is no debt of the next time that there is a limit.
            (bucket.admitted_bytes, bucket.paid_bytes) = (0.0, 0.0);
            bucket.period += 1;
        }
        self.rate.store(rate, Ordering::Relaxed);
        true
    }
}
