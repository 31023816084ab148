//! Jobs on one thread, in an order drawn from a seed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

use super::environment::Env;
use super::event::Event;
use super::job::{Job, Priority, Step};
use crate::split_mix::mix;

/// Where the simulated calendar starts: 2026-01-01 00:00 UTC.
const UNIX_START_MICROS: u64 = 1_767_225_600_000_000;
/// One step in so many goes to a job drawn from all that can run, whatever their priority: a scheduler gives no
/// guarantees.
const EXCEPTION_ODDS: u64 = 8;

/// A clock, randomness and a scheduler that do the same again for the same seed.
///
/// - Jobs run only while a client waits in [`wait`](Env::wait), or in [`run_until_idle`](SimEnv::run_until_idle):
///   one step at a time, on the client's thread, the job drawn from those of the highest priority and now and then
///   from all.
/// - The clock stands still while code runs. Each step takes a microsecond; when no job can run, the clock jumps
///   to the nearest deadline, of a job or the client.
/// - When no job can run and nobody has a deadline, `wait` panics with a message that begins with `deadlock:`.
/// - A panic in a job goes through to the client, so that a test fails.
/// - One thread at a time may use it: a second one in `wait` panics.
///
/// Clones are the same environment. Jobs usually hold a clone, so an environment with unfinished jobs is not freed
/// before [`drop_jobs`](SimEnv::drop_jobs), which also is what the death of a process does to them.
///
/// ```
/// use lsm_core::env::{Env, Event, Job, Priority, SimEnv, Step};
///
/// struct Notify(Event);
///
/// impl Job for Notify {
///     fn step(&mut self) -> Step {
///         self.0.notify();
///         Step::Done
///     }
/// }
///
/// let env = SimEnv::new(1);
/// let event = Event::new();
/// assert!(!env.wait(&event, 0, Some(1_000_000)), "nobody notifies: a second passes in no time");
/// env.spawn(Priority::Low, Box::new(Notify(event.clone())));
/// assert!(env.wait(&event, 0, None));
/// ```
#[derive(Clone)]
pub struct SimEnv {
    state: Arc<Mutex<State>>,
}

struct State {
    now_micros: u64,
    unix_start_micros: u64,
    /// For clients.
    random: Random,
    /// For the scheduler: apart, so that a client that draws once more does not change the order of jobs.
    schedule: Random,
    ready: BTreeMap<u64, Task>,
    pending: BTreeMap<u64, Pending>,
    next_id: u64,
    steps: u64,
    stepping: bool,
    forked: bool,
}

struct Task {
    priority: Priority,
    /// One for the life of the task, so that an event can tell that it has it already.
    waker: Waker,
    job: Box<dyn Job>,
}

struct Pending {
    task: Task,
    deadline_micros: Option<u64>,
}

impl SimEnv {
    /// An environment at the start of its time, without jobs.
    pub fn new(seed: u64) -> Self {
        let state = State {
            now_micros: 0,
            unix_start_micros: UNIX_START_MICROS,
            random: Random(mix(seed)),
            schedule: Random(mix(!seed)),
            ready: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_id: 0,
            steps: 0,
            stepping: false,
            forked: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets time pass. Runs nothing; jobs whose deadline has come can run at the next wait.
    pub fn advance(&self, micros: u64) {
        let mut state = self.state.lock();
        state.now_micros = state.now_micros.saturating_add(micros);
    }

    /// Sets the calendar, forward or back; the monotonic clock goes on.
    pub fn set_unix_micros(&self, micros: u64) {
        let mut state = self.state.lock();
        state.unix_start_micros = micros.wrapping_sub(state.now_micros);
    }

    /// Whether this process is a child, by `fork`, of the one that made the environment, or that one again. Nothing else
    /// changes: a test sees to it that no job runs.
    pub fn set_forked(&self, forked: bool) {
        self.state.lock().forked = forked;
    }

    /// Runs jobs until none can run at this time, and returns how many steps that took. The clock does not jump.
    pub fn run_until_idle(&self) -> u64 {
        let before = self.steps();
        while self.step() {}
        self.steps() - before
    }

    /// Runs one step of one job; `false` if none can run at this time.
    ///
    /// # Panics
    /// If called by a job or while another thread runs one, and if the job panics.
    pub fn step(&self) -> bool {
        let Some((id, mut task)) = self.take() else { return false };
        // Also when the job panics: the test may go on to look at what is left.
        let stepping = Stepping(&self.state);
        let step = task.job.step();
        drop(stepping);
        match step {
            // Dropped outside the lock: a job's destructor may come back here.
            Step::Done => drop(task),
            Step::Again => {
                self.state.lock().ready.insert(id, task);
            }
            Step::Pending { event, seen, deadline_micros } => {
                let waker = task.waker.clone();
                self.state.lock().pending.insert(id, Pending { task, deadline_micros });
                event.register(seen, waker);
            }
        }
        true
    }

    /// Steps run so far.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Jobs that are not done.
    pub fn job_count(&self) -> usize {
        let state = self.state.lock();
        state.ready.len() + state.pending.len()
    }

    /// Drops all jobs, done or not, as the death of a process does.
    pub fn drop_jobs(&self) {
        loop {
            let (ready, pending) = {
                let mut state = self.state.lock();
                (std::mem::take(&mut state.ready), std::mem::take(&mut state.pending))
            };
            // A destructor may spawn another job.
            if ready.is_empty() && pending.is_empty() {
                return;
            }
        }
    }

    /// Takes a job that can run out of the queue.
    fn take(&self) -> Option<(u64, Task)> {
        let mut state = self.state.lock();
        assert!(!state.stepping, "jobs must not wait, and one thread at a time may use a SimEnv");
        let now = state.now_micros;
        let expired = |(id, pending): (&u64, &Pending)| {
            pending.deadline_micros.is_some_and(|deadline| deadline <= now).then_some(*id)
        };
        let expired: Vec<u64> = state.pending.iter().filter_map(expired).collect();
        for id in expired {
            state.resume(id);
        }
        let highest = state.ready.values().map(|task| task.priority).max()?;
        let exception = state.schedule.below(EXCEPTION_ODDS) == 0;
        let candidates: Vec<u64> = state
            .ready
            .iter()
            .filter_map(|(id, task)| (exception || task.priority == highest).then_some(*id))
            .collect();
        let drawn = state.schedule.below(candidates.len() as u64) as usize;
        let id = candidates[drawn];
        let task = state.ready.remove(&id)?;
        state.stepping = true;
        state.steps += 1;
        state.now_micros = now.saturating_add(1);
        Some((id, task))
    }

    /// Moves the clock to the nearest deadline; `false` if there is none.
    fn jump(&self, deadline_micros: Option<u64>) -> bool {
        let mut state = self.state.lock();
        let jobs = state.pending.values().filter_map(|pending| pending.deadline_micros);
        let Some(nearest) = jobs.chain(deadline_micros).min() else { return false };
        state.now_micros = state.now_micros.max(nearest);
        true
    }
}

impl Env for SimEnv {
    fn monotonic_micros(&self) -> u64 {
        self.state.lock().now_micros
    }

    fn unix_micros(&self) -> u64 {
        let state = self.state.lock();
        state.unix_start_micros.wrapping_add(state.now_micros)
    }

    fn random(&self) -> u64 {
        self.state.lock().random.next()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let waker = Arc::new(TaskWaker { state: Arc::downgrade(&self.state), id }).into();
        state.ready.insert(id, Task { priority, waker, job });
    }

    fn is_forked(&self) -> bool {
        self.state.lock().forked
    }

    /// # Panics
    /// When nothing can ever notify the event: no job can run and nobody has a deadline. When called by a job or by
    /// two threads at once.
    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        loop {
            if event.epoch() != seen {
                return true;
            }
            if deadline_micros.is_some_and(|deadline| deadline <= self.monotonic_micros()) {
                return false;
            }
            if !self.step() && !self.jump(deadline_micros) {
                let pending = self.state.lock().pending.len();
                panic!("deadlock: nothing can run, nobody has a deadline, {pending} jobs wait for an event");
            }
        }
    }
}

impl fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimEnv")
            .field("now_micros", &state.now_micros)
            .field("steps", &state.steps)
            .field("ready", &state.ready.len())
            .field("pending", &state.pending.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn resume(&mut self, id: u64) {
        if let Some(pending) = self.pending.remove(&id) {
            self.ready.insert(id, pending.task);
        }
    }
}

/// While it lives, a job is stepped.
struct Stepping<'a>(&'a Mutex<State>);

impl Drop for Stepping<'_> {
    fn drop(&mut self) {
        self.0.lock().stepping = false;
    }
}

/// Resumes a task when its event is notified.
struct TaskWaker {
    state: Weak<Mutex<State>>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(state) = self.state.upgrade() {
            state.lock().resume(self.id);
        }
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
