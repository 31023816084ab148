//! What calls wait for: each wait names its reason, its beginning, and what ends it.
//!
//! A call registers here before it waits. So a wait can be seen while it lasts, its time is counted, and a long one
//! becomes an event. A call that need not wait does nothing of this, and reads no clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lsm_core::env::Env;
use parking_lot::Mutex;

use crate::events::{EventKind, EventRing, REASONS, WaitReason};
use crate::metrics::{Counter, Histogram, WaitMetrics};

/// A wait for the commit lock or a sync is an event, and makes a database unhealthy, if it lasts this long.
pub(crate) const LONG_MICROS: u64 = 100_000;

/// A call that waits now; see [`Db::waits`](crate::Db::waits).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// What it waits for. [`WaitReason::ended_by`] tells what ends the wait.
    pub why: WaitReason,
    /// The keyspace that it concerns, if it is one.
    pub keyspace: Option<Arc<str>>,
    /// When the wait began, by the clock of the system.
    pub since: SystemTime,
    /// How long it has lasted, in microseconds.
    pub micros: u64,
}

/// The calls that wait now, and the time that calls have waited, by reason.
pub(crate) struct Waits {
    env: Arc<dyn Env>,
    events: Arc<EventRing>,
    current: Mutex<Current>,
    micros: [Counter; REASONS.len()],
    times: [Histogram; REASONS.len()],
}

#[derive(Default)]
struct Current {
    waits: Vec<Registered>,
    next_id: u64,
    /// The begin of the present stall, and the end of the last long wait that became an event, by reason.
    stalls: [Stall; REASONS.len()],
}

#[derive(Clone, Copy, Default)]
struct Stall {
    waiting: usize,
    began_micros: u64,
    reported_micros: u64,
}

struct Registered {
    id: u64,
    why: WaitReason,
    keyspace: Option<Arc<str>>,
    /// When the call began to wait, and when it began to wait for the present reason.
    began_micros: u64,
    since_micros: u64,
}

impl Waits {
    pub(crate) fn new(env: Arc<dyn Env>, events: Arc<EventRing>) -> Self {
        Self { env, events, current: Mutex::default(), micros: Default::default(), times: Default::default() }
    }

    pub(crate) fn env(&self) -> &dyn Env {
        &*self.env
    }

    pub(crate) fn events(&self) -> &EventRing {
        &self.events
    }

    /// Registers a wait until the result is dropped.
    #[cold]
    pub(crate) fn begin(&self, why: WaitReason, keyspace: Option<&Arc<str>>) -> Waiting<'_> {
        self.begun_at(self.env.monotonic_micros(), why, keyspace)
    }

    fn begun_at(&self, micros: u64, why: WaitReason, keyspace: Option<&Arc<str>>) -> Waiting<'_> {
        Waiting { waits: self, id: self.register(micros, why, keyspace) }
    }

    /// Registers a wait until [`end`](Self::end) is called with the result.
    pub(crate) fn begin_alone(&self, why: WaitReason) -> u64 {
        self.register(self.env.monotonic_micros(), why, None)
    }

    fn register(&self, micros: u64, why: WaitReason, keyspace: Option<&Arc<str>>) -> u64 {
        let mut current = self.current.lock();
        let id = current.next_id;
        current.next_id += 1;
        let keyspace = keyspace.cloned();
        current.waits.push(Registered { id, why, keyspace, began_micros: micros, since_micros: micros });
        self.enter(&mut current, why, micros);
        id
    }

    /// Ends a registered wait.
    pub(crate) fn end(&self, id: u64) {
        let now_micros = self.env.monotonic_micros();
        let mut current = self.current.lock();
        if let Some(index) = current.waits.iter().position(|wait| wait.id == id) {
            let wait = current.waits.swap_remove(index);
            self.leave(&mut current, wait.why, wait.since_micros, now_micros);
        }
    }

    /// Takes something that `quickly` gets in a short time or `slowly` in any time, and counts the time.
    #[cold]
    pub(crate) fn wait_for_lock<T>(
        &self,
        why: WaitReason,
        quickly: impl FnOnce(Duration) -> Option<T>,
        slowly: impl FnOnce() -> T,
    ) -> T {
        /// Most waits for a lock are far shorter. Those do not take the lock of the list of waits.
        const SHORT: Duration = Duration::from_millis(1);
        let began_micros = self.env.monotonic_micros();
        if let Some(taken) = quickly(SHORT) {
            self.count(why, self.env.monotonic_micros() - began_micros);
            return taken;
        }
        let waiting = self.begun_at(began_micros, why, None);
        let taken = slowly();
        drop(waiting);
        taken
    }

    /// The calls that wait now, the longest waiting one first.
    pub(crate) fn list(&self) -> Vec<Wait> {
        let (now_micros, unix_micros) = (self.env.monotonic_micros(), self.env.unix_micros());
        let current = self.current.lock();
        let mut waits: Vec<Wait> = current
            .waits
            .iter()
            .map(|wait| {
                let micros = now_micros.saturating_sub(wait.began_micros);
                let since = Duration::from_micros(unix_micros.saturating_sub(micros));
                let (why, keyspace) = (wait.why, wait.keyspace.clone());
                Wait { why, keyspace, since: SystemTime::UNIX_EPOCH + since, micros }
            })
            .collect();
        waits.sort_by_key(|wait| std::cmp::Reverse(wait.micros));
        waits
    }

    /// The time that calls have waited for this reason. Waits that still last count up to now.
    pub(crate) fn micros(&self, why: WaitReason) -> u64 {
        let current = self.current.lock();
        let now_micros = self.env.monotonic_micros();
        let lasting = current.waits.iter().filter(|wait| wait.why == why);
        self.micros.get(why as usize).map_or(0, Counter::get)
            + lasting.map(|wait| now_micros.saturating_sub(wait.since_micros)).sum::<u64>()
    }

    /// How many waits for this reason have ended.
    pub(crate) fn count_of(&self, why: WaitReason) -> u64 {
        self.times.get(why as usize).map_or(0, |times| times.snapshot().count())
    }

    /// How long the waits took that have ended, by reason.
    pub(crate) fn metrics(&self) -> Vec<WaitMetrics> {
        let of =
            |(why, times): (&WaitReason, &Histogram)| WaitMetrics { why: *why, latency: times.snapshot() };
        REASONS.iter().zip(&self.times).map(of).collect()
    }

    fn count(&self, why: WaitReason, micros: u64) {
        if let (Some(counter), Some(times)) = (self.micros.get(why as usize), self.times.get(why as usize)) {
            counter.add(micros);
            times.record_micros(micros);
        }
    }

    /// A call begins to wait for a reason.
    fn enter(&self, current: &mut Current, why: WaitReason, now_micros: u64) {
        let Some(stall) = current.stalls.get_mut(why as usize) else { return };
        stall.waiting += 1;
        if stall.waiting == 1 && why.is_stall() {
            stall.began_micros = now_micros;
            self.events.emit(EventKind::StallBegin { why });
        }
    }

    /// A call that waited for a reason since `since_micros` does so no longer.
    fn leave(&self, current: &mut Current, why: WaitReason, since_micros: u64, now_micros: u64) {
        let micros = now_micros.saturating_sub(since_micros);
        self.count(why, micros);
        let Some(stall) = current.stalls.get_mut(why as usize) else { return };
        stall.waiting -= 1;
        if why.is_stall() {
            if stall.waiting == 0 {
                let micros = now_micros.saturating_sub(stall.began_micros);
                self.events.emit(EventKind::StallEnd { why, micros });
            }
        } else if why.is_of_writes() && micros >= LONG_MICROS && since_micros >= stall.reported_micros {
            // Others may have waited for the same sync. One event is enough.
            stall.reported_micros = now_micros;
            self.events.emit(EventKind::StallEnd { why, micros });
        }
    }
}

/// A registered wait. It ends when this is dropped.
pub(crate) struct Waiting<'w> {
    waits: &'w Waits,
    id: u64,
}

impl Waiting<'_> {
    /// Changes the reason of the wait.
    pub(crate) fn change(&mut self, why: WaitReason) {
        let waits = self.waits;
        let now_micros = waits.env.monotonic_micros();
        let mut current = waits.current.lock();
        let Some(wait) = current.waits.iter_mut().find(|wait| wait.id == self.id) else { return };
        if wait.why != why {
            let before = std::mem::replace(&mut wait.why, why);
            let since_micros = std::mem::replace(&mut wait.since_micros, now_micros);
            waits.leave(&mut current, before, since_micros, now_micros);
            waits.enter(&mut current, why, now_micros);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.end(self.id);
    }
}

#[cfg(test)]
mod tests {
    use lsm_core::env::SimEnv;

    use super::*;

    #[test]
    fn time_counts_for_the_reason_that_a_call_waits_for_and_while_it_waits() {
        let env = Arc::new(SimEnv::new(1));
        let waits = Waits::new(Arc::clone(&env) as _, Arc::new(EventRing::new(Arc::clone(&env) as _)));
        let mut waiting = waits.begin(WaitReason::Memory, None);
        env.advance(300);
        let other = waits.begin(WaitReason::LogSync, None);
        waiting.change(WaitReason::DiskSpace);
        env.advance(50);
        let micros = |why| waits.micros(why);
        assert!((300..350).contains(&micros(WaitReason::Memory)), "{}", micros(WaitReason::Memory));
        assert!((50..100).contains(&micros(WaitReason::DiskSpace)));
        let reasons: Vec<_> = waits.list().into_iter().map(|wait| wait.why).collect();
        assert_eq!(reasons, [WaitReason::DiskSpace, WaitReason::LogSync], "the longest first");
        drop((waiting, other));
        assert_eq!(waits.list(), []);
        let counted = micros(WaitReason::DiskSpace);
        env.advance(1000);
        assert_eq!(micros(WaitReason::DiskSpace), counted);
    }
}
