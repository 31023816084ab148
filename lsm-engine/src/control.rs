//! What users control while the database runs: pauses of background work, the rate of deep merges, and the end of manual
//! compactions.
//!
//! Jobs ask before each step and never wait here: they return, and run again when [`Control::changed`] is notified.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lsm_core::env::{Env, Event, Step};

use crate::error::{Error, Result};

/// What users control while the database runs.
#[derive(Default)]
pub(crate) struct Control {
    paused: AtomicBool,
    /// Number of cancellations of manual compactions so far.
    cancellations: AtomicU64,
    /// The rate of deep merges; 0 for no limit.
    bytes_per_second: AtomicU64,
    /// The time at which what deep merges have written is paid for.
    paid_at_micros: AtomicU64,
    /// Debt is near the point at which writers are slowed, so the rate does not count.
    urgent: AtomicBool,
    /// Notified when something changes that waiting jobs must look at.
    changed: Event,
}

/// The number of cancellations when a manual compaction began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uncancelled(u64);

impl Control {
    /// Pauses or resumes background work. Returns `true` if that is a change.
    pub(crate) fn set_paused(&self, paused: bool) -> bool {
        let is_new = self.paused.swap(paused, Ordering::AcqRel) != paused;
        self.changed.notify();
        is_new
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Wakes waiting jobs, so that they look again at what they wait for.
    pub(crate) fn wake_jobs(&self) {
        self.changed.notify();
    }

    /// What a job returns in place of a step while background work is paused.
    pub(crate) fn pause(&self) -> Option<Step> {
        let seen = self.changed.epoch();
        self.is_paused().then(|| self.pending(seen, None))
    }

    /// What a deep merge returns in place of a step while it has written more than the rate allows.
    pub(crate) fn limit(&self, env: &dyn Env) -> Option<Step> {
        let seen = self.changed.epoch();
        if self.bytes_per_second.load(Ordering::Acquire) == 0 || self.urgent.load(Ordering::Acquire) {
            return None;
        }
        let paid_at_micros = self.paid_at_micros.load(Ordering::Acquire);
        (env.monotonic_micros() < paid_at_micros).then(|| self.pending(seen, Some(paid_at_micros)))
    }

    fn pending(&self, seen: u64, deadline_micros: Option<u64>) -> Step {
        Step::Pending { event: self.changed.clone(), seen, deadline_micros }
    }

    /// Counts bytes that a deep merge has written.
    pub(crate) fn count_written(&self, env: &dyn Env, bytes: u64) {
        let rate = self.bytes_per_second.load(Ordering::Acquire);
        if rate == 0 {
            return;
        }
        let now_micros = env.monotonic_micros();
        let cost_micros = u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(rate)).unwrap_or(u64::MAX);
        let pay = |paid_at_micros: u64| Some(paid_at_micros.max(now_micros).saturating_add(cost_micros));
        let _ = self.paid_at_micros.fetch_update(Ordering::AcqRel, Ordering::Acquire, pay);
    }

    /// Sets the rate of deep merges. What was written before is paid for.
    pub(crate) fn set_bytes_per_second(&self, rate: Option<u64>) -> Result<()> {
        if rate == Some(0) {
            return Err(Error::invalid(
                "a background rate of 0 bytes per second would stop deep merges; pause background work instead",
            ));
        }
        self.bytes_per_second.store(rate.unwrap_or(0), Ordering::Release);
        self.paid_at_micros.store(0, Ordering::Release);
        self.changed.notify();
        Ok(())
    }

    /// Sets whether debt is so near the point at which writers are slowed that the rate does not count.
    pub(crate) fn set_urgent(&self, urgent: bool) {
        if self.urgent.swap(urgent, Ordering::AcqRel) != urgent {
            self.changed.notify();
        }
    }

    /// Cancels the manual compactions that have begun.
    pub(crate) fn cancel(&self) {
        self.cancellations.fetch_add(1, Ordering::AcqRel);
        self.changed.notify();
    }

    pub(crate) fn uncancelled(&self) -> Uncancelled {
        Uncancelled(self.cancellations.load(Ordering::Acquire))
    }

    /// Fails if manual compactions were cancelled since `begun`.
    pub(crate) fn check(&self, begun: Uncancelled) -> Result<()> {
        if self.uncancelled() == begun { Ok(()) } else { Err(Error::Cancelled) }
    }
}
