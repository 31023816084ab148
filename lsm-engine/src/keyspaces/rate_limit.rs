//! The rate limit of writers: a token bucket that saves no tokens for later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lsm_core::env::Event;
use parking_lot::Mutex;

use crate::events::{EventKind, WaitReason};
use crate::waits::Waits;

/// A writer does not wait for less than this. The debt stays in the bucket and later writers pay it.
const WAIT_MICROS_MIN: f64 = 1_000.0;

/// A limit of the byte rate of writers. It can be off.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    /// Bytes per second; 0 for no limit.
    rate: AtomicU64,
    /// The limit is there for the debt, and not for runs of level 0.
    for_debt: AtomicBool,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Bytes admitted since the limit began, and how many of them the rate had paid for at `paid_at_micros`.
    admitted_bytes: f64,
    paid_bytes: f64,
    paid_at_micros: u64,
    /// Number of limits that ended. A writer of an earlier period stops waiting.
    period: u64,
    /// The rate of the last event.
    reported: u64,
}

impl Bucket {
    /// Adds the bytes that `rate` has paid for until now, at most up to the admitted bytes: idle time earns nothing.
    fn pay(&mut self, rate: f64, now_micros: u64) {
        let paid = now_micros.saturating_sub(self.paid_at_micros) as f64 * rate / 1e6;
        self.paid_bytes = (self.paid_bytes + paid).min(self.admitted_bytes);
        self.paid_at_micros = now_micros;
    }
}

#[expect(clippy::cast_sign_loss, reason = "times are positive")]
impl RateLimit {
    /// The limit in bytes per second, if there is one.
    pub(crate) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|&rate| rate != 0)
    }

    /// Waits until `bytes` may be written, the limit ends, or `given_up` returns `true`. Checks again at each notification
    /// of `changed`. Returns the time waited, in microseconds. The wait is registered with the name of the keyspace.
    #[cold]
    pub(crate) fn wait_turn(
        &self,
        waits: &Waits,
        keyspace: Option<&Arc<str>>,
        changed: &Event,
        bytes: usize,
        given_up: impl Fn() -> bool,
    ) -> u64 {
        let env = waits.env();
        let started = env.monotonic_micros();
        let mut waiting = None;
        let (ticket, period) = {
            let mut bucket = self.bucket.lock();
            // If the limit has ended since the caller checked, the next limit must not charge these bytes.
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
            waiting.get_or_insert_with(|| waits.begin(self.why(), keyspace));
            env.wait(changed, seen, Some(now + wait_micros as u64));
        }
    }

    /// What compactions are behind with, if there is a limit.
    pub(crate) fn why(&self) -> WaitReason {
        if self.for_debt.load(Ordering::Relaxed) {
            WaitReason::CompactionDebt
        } else {
            WaitReason::Level0Runs
        }
    }

    /// Sets the rate in bytes per second, 0 for no limit, and its reason: the debt or the runs of level 0. Returns
    /// `true` if it changed. A large change is an event with the name of the keyspace.
    pub(crate) fn set(&self, waits: &Waits, keyspace: Option<&Arc<str>>, rate: u64, for_debt: bool) -> bool {
        let env = waits.env();
        if rate != 0 {
            self.for_debt.store(for_debt, Ordering::Relaxed);
        }
        let mut bucket = self.bucket.lock();
        let before = self.rate.load(Ordering::Relaxed);
        if rate == before {
            return false;
        }
        bucket.pay(before as f64, env.monotonic_micros());
        if rate == 0 {
            // Unpaid bytes must not count against the next limit.
            (bucket.admitted_bytes, bucket.paid_bytes) = (0.0, 0.0);
            bucket.period += 1;
        }
        self.rate.store(rate, Ordering::Relaxed);
        if rate > 2 * bucket.reported || rate < bucket.reported / 2 {
            bucket.reported = rate;
            let (keyspace, why) = (keyspace.cloned(), self.why());
            let bytes_per_second = self.rate();
            waits.events().emit(EventKind::RateLimit { keyspace, why, bytes_per_second });
        }
        true
    }
}
