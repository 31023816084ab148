//! The write controller: limits the byte rate of writers, smoothly, by the compaction debt.
//!
//! Each keyspace that is behind has its own limit, so its own writers are slowed first. When several keyspaces are
//! behind, a further limit applies to all writers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::keyspaces::RateLimit;
use crate::waits::Waits;

/// Number of runs in level 0 above which writers are slowed. Each run adds to the cost of a read.
const LEVEL_0_RUNS_SOFT: f64 = 16.0;
/// Compaction debt, in memtable sizes, above which writers are slowed.
const DEBT_MEMTABLES_SOFT: f64 = 64.0;
/// And in bytes, where memtables are small: a single compaction takes many of them.
const DEBT_BYTES_SOFT: f64 = (4_u64 << 30) as f64;
/// All writers are slowed when more than this many keyspaces have reached their limit of debt.
const KEYSPACES_SOFT: f64 = 4.0;
/// Lowest rate limit, in bytes per second.
const RATE_MIN: f64 = 1e6;
/// Check flag: some rate limit is on.
const RATE: u8 = 1;
/// Check flag: a keyspace that cannot be flushed pins too much of the log.
const LOG: u8 = 2;

/// Slows writers before they would have to stop.
#[derive(Debug, Default)]
pub(crate) struct WriteController {
    /// What writers must check: [`RATE`], [`LOG`]. Zero for the fast path.
    checks: AtomicU8,
    /// The limit of all writers together.
    all: RateLimit,
    /// Smoothed throughput of background work, in bytes of input per second.
    throughput: Mutex<f64>,
    /// The start of the log at the last check.
    log_start: AtomicU64,
}

/// How far a tree is behind, relative to the soft limits. Writers are slowed above 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pressure {
    level_0_runs: f64,
    debt: f64,
}

#[expect(clippy::cast_sign_loss, reason = "rates are positive")]
impl Pressure {
    pub(crate) fn of(level_0_runs: usize, debt_bytes: u64, memtable_bytes: usize) -> Self {
        let debt = debt_bytes as f64 / (memtable_bytes as f64 * DEBT_MEMTABLES_SOFT).max(DEBT_BYTES_SOFT);
        Self { level_0_runs: level_0_runs as f64 / LEVEL_0_RUNS_SOFT, debt }
    }

    /// The pressure on all writers: the debt of many keyspaces. Each keyspace counts at most 1, since it has its own
    /// limit.
    fn of_all(keyspaces: impl Iterator<Item = Self>) -> Self {
        let debt: f64 = keyspaces.map(|pressure| pressure.debt.min(1.0)).sum();
        Self { level_0_runs: 0.0, debt: debt / KEYSPACES_SOFT }
    }

    fn factor(self) -> f64 {
        self.level_0_runs.max(self.debt)
    }

    /// Whether the debt slows writers, rather than the runs of level 0.
    fn is_debt(self) -> bool {
        self.debt > self.level_0_runs
    }

    /// Whether writers will be slowed if the debt grows to twice what it is.
    pub(crate) fn is_near(self) -> bool {
        self.factor() > 0.5
    }

    pub(crate) fn slows(self) -> bool {
        self.factor() > 1.0
    }

    /// The rate limit in bytes per second for this throughput of background work; 0 for no limit.
    fn rate(self, throughput: f64) -> u64 {
        if self.slows() {
            (throughput.max(RATE_MIN) / (self.factor() * self.factor())).max(RATE_MIN) as u64
        } else {
            0
        }
    }
}

impl WriteController {
    /// Whether writers must check the limits or the log.
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

    /// Records that background work read `bytes` of input in `micros`.
    pub(crate) fn observe(&self, bytes: u64, micros: u64) {
        let mut throughput = self.throughput.lock();
        let now = bytes as f64 * 1e6 / micros.max(1) as f64;
        *throughput = if *throughput == 0.0 { now } else { *throughput * 0.8 + now * 0.2 };
    }

    /// Sets the limits by the state of the keyspaces. Returns `true` if a limit changed; then waiting writers must
    /// check again.
    pub(crate) fn adjust(&self, waits: &Waits, keyspaces: &[(&Arc<str>, &RateLimit, Pressure)]) -> bool {
        let throughput = *self.throughput.lock();
        let all = Pressure::of_all(keyspaces.iter().map(|&(_, _, pressure)| pressure));
        let (mut changed, mut limited) = (false, false);
        let each = keyspaces.iter().map(|&(name, limit, pressure)| (Some(name), limit, pressure));
        for (name, limit, pressure) in each.chain([(None, &self.all, all)]) {
            changed |= limit.set(waits, name, pressure.rate(throughput), pressure.is_debt());
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
    use lsm_core::env::{Env, Event, Job, Priority, SimEnv, Step};

    use super::*;
    use crate::events::{EventKind, EventRing, Next, WaitReason};

    /// Makes a change after 300 ms.
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

    /// A keyspace, and the event that its writers wait for.
    struct World {
        env: Arc<SimEnv>,
        events: Arc<EventRing>,
        waits: Waits,
        controller: WriteController,
        limit: RateLimit,
        changed: Event,
    }

    impl World {
        fn new() -> Arc<Self> {
            let env = Arc::new(SimEnv::new(1));
            let events = Arc::new(EventRing::new(Arc::clone(&env) as _));
            Arc::new(Self {
                waits: Waits::new(Arc::clone(&env) as _, Arc::clone(&events)),
                env,
                events,
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
            let limit = (&"k".into(), &self.limit, Pressure::of(level_0_runs, 0, 1));
            if self.controller.adjust(&self.waits, &[limit]) {
                self.changed.notify();
            }
        }

        fn later(self: &Arc<Self>, change: impl FnOnce(&Self) + Send + 'static) {
            let world = Arc::clone(self);
            let job = Later(Arc::clone(&self.env), Some(move || change(&world)));
            self.env.spawn(Priority::Normal, Box::new(job));
        }

        fn wait_turn(&self, bytes: usize) -> u64 {
            self.limit.wait_turn(&self.waits, None, &self.changed, bytes, || false)
        }
    }

    #[test]
    fn what_one_merge_takes_slows_nobody_however_small_the_memtables() {
        assert!(!Pressure::of(0, 4 << 30, 1 << 20).slows());
        assert!(Pressure::of(0, 5 << 30, 1 << 20).slows());
        assert!(!Pressure::of(0, 5 << 30, 100 << 20).slows());
    }

    #[test]
    fn a_write_waits_until_the_rate_has_paid_for_it() {
        let world = World::limited();
        assert_eq!(world.wait_turn(2_000_000), 2_000_000);
        assert_eq!(world.wait_turn(500), 0, "a short wait is left to later writers");
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
    fn a_write_without_a_limit_is_not_charged_to_the_next_limit() {
        let world = World::new();
        assert_eq!(world.wait_turn(12 << 20), 0);
        world.adjust(40);
        assert_eq!(world.wait_turn(500), 0);
    }

    #[test]
    fn a_higher_rate_shortens_the_wait() {
        let world = World::limited();
        world.controller.observe(100_000_000, 1_000_000);
        // 17 runs are just above the limit of 16, so the rate is close to the throughput.
        world.later(|world| world.adjust(17));
        let waited = world.wait_turn(12_000_000);
        assert!((300_000..600_000).contains(&waited), "{waited}");
    }

    #[test]
    fn a_limit_is_an_event_when_it_begins_changes_much_and_ends() {
        let world = World::new();
        world.controller.observe(100_000_000, 1_000_000);
        // 33 runs instead of 32 change the limit a little.
        for runs in [32, 33, 64, 0] {
            world.adjust(runs);
        }
        let mut next = 0;
        let rates: Vec<_> = std::iter::from_fn(|| match world.events.read(&mut next) {
            Next::Event(event) => Some(event.kind),
            _ => None,
        })
        .map(|kind| match kind {
            EventKind::RateLimit { keyspace: Some(_), why: WaitReason::Level0Runs, bytes_per_second } => {
                bytes_per_second
            }
            kind => panic!("{kind}"),
        })
        .collect();
        assert_eq!(rates, [Some(25_000_000), Some(6_250_000), None]);
    }

    #[test]
    fn the_wait_ends_when_the_writer_gives_up() {
        let world = World::limited();
        let closing = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let closed = Arc::clone(&closing);
        world.later(move |world| {
            closed.store(true, Ordering::Relaxed);
            world.changed.notify();
        });
        let given_up = || closing.load(Ordering::Relaxed);
        let waited = world.limit.wait_turn(&world.waits, None, &world.changed, 12 << 20, given_up);
        assert!((300_000..301_000).contains(&waited), "{waited}");
    }

    /// The debt of a few keyspaces, however large, does not slow the others.
    #[test]
    fn only_the_debt_of_several_keyspaces_slows_all_writers() {
        let (world, controller) = (World::new(), WriteController::default());
        let name = "k".into();
        let limits: [RateLimit; 5] = Default::default();
        let far_behind = Pressure::of(100, 1 << 40, 1);
        for (behind, slowed) in [(0, false), (1, false), (4, false), (5, true)] {
            let pressure = |index| if index < behind { far_behind } else { Pressure::default() };
            let limits: Vec<_> = (0..5).map(|index| (&name, &limits[index], pressure(index))).collect();
            assert_eq!(controller.adjust(&world.waits, &limits), behind > 0);
            assert_eq!(controller.is_limited(), behind > 0);
            for (index, (_, limit, _)) in limits.iter().enumerate() {
                assert_eq!(limit.rate().is_some(), index < behind);
            }
            assert_eq!(controller.of_all().rate().is_some(), slowed, "{behind}");
        }
    }
}
