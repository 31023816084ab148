//! How fast writers may go: a smooth byte rate that follows the debt of compactions.
//!
//! Each keyspace that is behind has a limit of its own, so that its writers are slowed first. When several are behind,
//! there is one more for all writers together.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use lsm_core::env::Env;
use parking_lot::Mutex;

use crate::keyspaces::RateLimit;

/// Runs in level 0 beyond which writers are slowed down: every one costs every read.
const LEVEL_0_RUNS_SOFT: f64 = 16.0;
/// Debt in memtables beyond which writers are slowed down.
const DEBT_MEMTABLES_SOFT: f64 = 64.0;
/// This many keyspaces with as much debt as one may have slow writers of all keyspaces down.
const KEYSPACES_SOFT: f64 = 4.0;
/// Writers are never slowed below this, in bytes a second.
const RATE_MIN: f64 = 1e6;
/// There is a limit somewhere.
const RATE: u8 = 1;
/// A keyspace that is not flushed keeps too much of the log.
const LOG: u8 = 2;

/// Slows writers down before they would have to stop.
#[derive(Debug, Default)]
pub(crate) struct WriteController {
    /// Why writers must look closer: [`RATE`], [`LOG`].
    checks: AtomicU8,
    /// Of all writers together.
    all: RateLimit,
    /// Bytes a second that background work takes in, smoothed.
    throughput: Mutex<f64>,
    /// Where the log began when last looked at.
    log_start: AtomicU64,
}

/// How far a tree is beyond what it should be: writers are slowed from 1 on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pressure {
    level_0_runs: f64,
    debt: f64,
}

#[expect(clippy::cast_sign_loss, reason = "rates are positive")]
impl Pressure {
    pub(crate) fn of(level_0_runs: usize, debt_bytes: u64, memtable_bytes: usize) -> Self {
        let debt = debt_bytes as f64 / (memtable_bytes as f64 * DEBT_MEMTABLES_SOFT);
        Self { level_0_runs: level_0_runs as f64 / LEVEL_0_RUNS_SOFT, debt }
    }

    /// On writers of all keyspaces: the debt of many, not that of one, which has a limit of its own.
    fn of_all(keyspaces: impl Iterator<Item = Self>) -> Self {
        let debt: f64 = keyspaces.map(|pressure| pressure.debt.min(1.0)).sum();
        Self { level_0_runs: 0.0, debt: debt / KEYSPACES_SOFT }
    }

    fn factor(self) -> f64 {
        self.level_0_runs.max(self.debt)
    }

    pub(crate) fn slows(self) -> bool {
        self.factor() > 1.0
    }

    /// Bytes a second, 0 for no limit, where background work takes in `throughput`.
    fn rate(self, throughput: f64) -> u64 {
        if self.slows() {
            (throughput.max(RATE_MIN) / (self.factor() * self.factor())).max(RATE_MIN) as u64
        } else {
            0
        }
    }
}

impl WriteController {
    /// Whether writers must look at the limits and at the log.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.checks.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn is_log_pinned(&self) -> bool {
        self.checks.load(Ordering::Relaxed) & LOG != 0
    }

    pub(crate) fn set_log_pinned(&self, pinned: bool) {
        self.set(LOG, pinned);
    }

    fn set(&self, check: u8, needed: bool) {
        if needed {
            self.checks.fetch_or(check, Ordering::Relaxed);
        } else {
            self.checks.fetch_and(!check, Ordering::Relaxed);
        }
    }

    /// The limit that all writers share.
    pub(crate) fn of_all(&self) -> &RateLimit {
        &self.all
    }

    /// Background work took in `bytes` in `micros`.
    pub(crate) fn observe(&self, bytes: u64, micros: u64) {
        let mut throughput = self.throughput.lock();
        let now = bytes as f64 * 1e6 / micros.max(1) as f64;
        *throughput = if *throughput == 0.0 { now } else { *throughput * 0.8 + now * 0.2 };
    }

    /// Sets the limits that suit the state of the keyspaces; `true` if one changed, and whoever waits must look again.
    pub(crate) fn adjust(&self, env: &dyn Env, keyspaces: &[(&RateLimit, Pressure)]) -> bool {
        let throughput = *self.throughput.lock();
        let all = Pressure::of_all(keyspaces.iter().map(|&(_, pressure)| pressure));
        let (mut changed, mut limited) = (false, false);
        for (limit, pressure) in keyspaces.iter().copied().chain([(&self.all, all)]) {
            changed |= limit.set(env, pressure.rate(throughput));
            limited |= pressure.slows();
        }
        self.set(RATE, limited);
        changed
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

    use lsm_core::env::{Event, Job, Priority, SimEnv, Step};

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

    /// A keyspace, and what its writers wait for.
    struct World {
        env: Arc<SimEnv>,
        controller: WriteController,
        limit: RateLimit,
        changed: Event,
    }

    impl World {
        fn new() -> Arc<Self> {
            let env = Arc::new(SimEnv::new(1));
            Arc::new(Self {
                env,
                controller: WriteController::default(),
                limit: RateLimit::default(),
                changed: Event::new(),
            })
        }

        fn limited() -> Arc<Self> {
            let world = Self::new();
            world.adjust(40);
            assert_eq!(world.limit.rate(), Some(1_000_000));
            world
        }

        fn adjust(&self, level_0_runs: usize) {
            if self.controller.adjust(&*self.env, &[(&self.limit, Pressure::of(level_0_runs, 0, 1))]) {
                self.changed.notify();
            }
        }

        fn later(self: &Arc<Self>, change: impl FnOnce(&Self) + Send + 'static) {
            let world = Arc::clone(self);
            let job = Later(Arc::clone(&self.env), Some(move || change(&world)));
            self.env.spawn(Priority::Normal, Box::new(job));
        }

        fn wait_turn(&self, bytes: usize) -> u64 {
            self.limit.wait_turn(&*self.env, &self.changed, bytes, || false)
        }
    }

    #[test]
    fn a_write_waits_until_the_rate_has_paid_for_it() {
        let world = World::limited();
        assert_eq!(world.wait_turn(2_000_000), 2_000_000);
        assert_eq!(world.wait_turn(500), 0, "short waits are saved up");
        assert_eq!(world.wait_turn(600), 1100);
    }

    #[test]
    fn the_wait_ends_with_the_limit_and_leaves_no_debt() {
        let world = World::limited();
        world.later(|world| world.adjust(0));
        assert!((300_000..301_000).contains(&world.wait_turn(12 << 20)));
        assert!(!world.controller.is_limited());
        world.adjust(40);
        assert_eq!(world.wait_turn(500), 0, "the old write is charged again");
    }

    #[test]
    fn a_write_that_finds_the_limit_gone_is_not_charged_to_the_next() {
        let world = World::new();
        assert_eq!(world.wait_turn(12 << 20), 0);
        world.adjust(40);
        assert_eq!(world.wait_turn(500), 0);
    }

    #[test]
    fn the_wait_becomes_shorter_when_the_rate_rises() {
        let world = World::limited();
        world.controller.observe(100_000_000, 1_000_000);
        // 17 of 16 runs: nearly the throughput.
        world.later(|world| world.adjust(17));
        let waited = world.wait_turn(12_000_000);
        assert!((300_000..600_000).contains(&waited), "{waited}");
    }

    #[test]
    fn the_wait_ends_when_it_is_given_up() {
        let world = World::limited();
        let closing = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        world.later(move |world| {
            closed.store(true, Ordering::Relaxed);
            world.changed.notify();
        });
        let given_up = || closing.load(Ordering::Relaxed);
        let waited = world.limit.wait_turn(&*world.env, &world.changed, 12 << 20, given_up);
        assert!((300_000..301_000).contains(&waited), "{waited}");
    }

    /// One keyspace, however far behind, has no part in the limit of all.
    #[test]
    fn the_debt_of_several_keyspaces_slows_all_writers() {
        let (env, controller) = (SimEnv::new(1), WriteController::default());
        let limits: [RateLimit; 5] = Default::default();
        let far_behind = Pressure::of(100, 1 << 40, 1);
        for (behind, slowed) in [(0, false), (1, false), (4, false), (5, true)] {
            let pressure = |index| if index < behind { far_behind } else { Pressure::default() };
            let limits: Vec<_> = (0..5).map(|index| (&limits[index], pressure(index))).collect();
            assert_eq!(controller.adjust(&env, &limits), behind > 0);
            assert_eq!(controller.is_limited(), behind > 0);
            for (index, (limit, _)) in limits.iter().enumerate() {
                assert_eq!(limit.rate().is_some(), index < behind);
            }
            assert_eq!(controller.of_all().rate().is_some(), slowed, "{behind}");
        }
    }
}
