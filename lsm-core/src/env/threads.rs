//! Jobs on worker threads.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "ThreadEnv is what everyone else must go through"
)]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

use super::environment::Env;
use super::event::Event;
use super::job::{Job, Priority, Step};
use super::origin::Origin;
use crate::split_mix::mix;

/// Number of values of [`Priority`].
const PRIORITY_COUNT: usize = 3;

/// The clock of the system, its randomness, and a fixed number of worker threads.
///
/// - Jobs of equal priority take turns, step by step. With two workers or more, one never takes a
///   [`Priority::Low`] job, so that a long step of one cannot hold up a flush on every worker.
/// - A job whose step panics is dropped; the worker and the other jobs go on. The panic hook has reported it.
/// - A [`Step::Pending`] job costs no thread. It may be stepped although its event was not notified.
/// - Dropping the environment waits for the steps that are running, then drops all jobs, done or not. A job that
///   holds the environment keeps it alive.
/// - In a child by `fork` there are no workers: dropping it there does nothing.
///
/// ```
/// use lsm_core::env::{Env, Event, Job, Priority, Step, ThreadEnv};
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
/// let env = ThreadEnv::new(2);
/// let event = Event::new();
/// let seen = event.epoch();
/// env.spawn(Priority::High, Box::new(Notify(event.clone())));
/// assert!(env.wait(&event, seen, None));
/// ```
#[derive(Debug)]
pub struct ThreadEnv {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    random: Random,
    origin: Origin,
}

/// 64 random bits from the operating system, good enough for identifiers, for whoever has no [`Env`].
pub fn system_random() -> u64 {
    RandomState::new().hash_one(0)
}

impl ThreadEnv {
    /// An environment with `worker_count` threads, at least one, and randomness from the operating system.
    ///
    /// # Panics
    /// If the operating system refuses the first thread. When it refuses a later one, there are fewer.
    pub fn new(worker_count: usize) -> Self {
        let system = RandomState::new();
        Self::start(worker_count, Random::new(system.hash_one(0), system.hash_one(1)))
    }

    /// Like [`new`](ThreadEnv::new), with randomness that repeats for the same `seed`.
    ///
    /// # Panics
    /// As [`new`](ThreadEnv::new).
    pub fn with_seed(worker_count: usize, seed: u64) -> Self {
        Self::start(worker_count, Random::new(seed, 0))
    }

    fn start(worker_count: usize, random: Random) -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            queues: Mutex::default(),
            any_work: Condvar::new(),
            urgent_work: Condvar::new(),
        });
        let mut workers = Vec::new();
        for index in 0..worker_count.max(1) {
            // The second worker is the one that takes no low jobs: it exists whenever there are two.
            let role = if index == 1 { Role::UrgentOnly } else { Role::Any };
            let worker = Arc::clone(&shared);
            match thread::Builder::new().name(format!("lsm-worker-{index}")).spawn(move || worker.work(role))
            {
                Ok(handle) => workers.push(handle),
                Err(error) => {
                    assert!(index > 0, "cannot start a worker thread: {error}");
                    break;
                }
            }
        }
        Self { shared, workers, random, origin: Origin::here() }
    }
}

impl Env for ThreadEnv {
    fn monotonic_micros(&self) -> u64 {
        self.shared.now_micros()
    }

    fn monotonic_nanos(&self) -> u64 {
        u64::try_from(self.shared.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn unix_micros(&self) -> u64 {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        self.random.next()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        let mut queues = self.shared.queues.lock();
        let id = queues.next_id;
        queues.next_id += 1;
        let waker = Arc::new(TaskWaker { shared: Arc::downgrade(&self.shared), id });
        self.shared.push(&mut queues, Task { id, priority, waker: waker.into(), job });
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        if event.epoch() != seen {
            return true;
        }
        let Some(deadline) = deadline_micros else { return event.park(seen, None) };
        let left = deadline.saturating_sub(self.shared.now_micros());
        if left == 0 { false } else { event.park(seen, Some(Duration::from_micros(left))) }
    }

    fn worker_count(&self) -> usize {
        self.workers.len()
    }

    #[inline]
    fn is_forked(&self) -> bool {
        self.origin.is_elsewhere()
    }
}

impl Drop for ThreadEnv {
    fn drop(&mut self) {
        if self.is_forked() {
            // There are no threads to end, and one of those in the parent may have held a lock.
            std::mem::forget((std::mem::take(&mut self.workers), Arc::clone(&self.shared)));
            return;
        }
        {
            let mut queues = self.shared.queues.lock();
            queues.stopping = true;
            self.shared.any_work.notify_all();
            self.shared.urgent_work.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A job may have held the last reference; its thread ends by itself after this step.
            if worker.thread().id() != thread::current().id() {
                let _ = worker.join();
            }
        }
        let mut queues = self.shared.queues.lock();
        let ready = std::mem::take(&mut queues.ready);
        let pending = std::mem::take(&mut queues.pending);
        drop(queues);
        for task in ready.into_iter().flatten().chain(pending.into_values().map(|pending| pending.task)) {
            task.discard();
        }
    }
}

/// A job and what it takes to run it again.
struct Task {
    id: u64,
    priority: Priority,
    /// One for the life of the task, so that an event can tell that it has it already.
    waker: Waker,
    job: Box<dyn Job>,
}

impl Task {
    /// Drops the job, whatever its destructor does.
    fn discard(self) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self)));
    }
}

/// A task that has nothing to do for now.
struct Pending {
    task: Task,
    deadline_micros: Option<u64>,
}

#[derive(Default)]
struct Queues {
    /// Tasks to step, by priority.
    ready: [VecDeque<Task>; PRIORITY_COUNT],
    /// Tasks that wait, by id.
    pending: HashMap<u64, Pending>,
    /// Deadlines of pending tasks, with their ids.
    timers: BTreeSet<(u64, u64)>,
    next_id: u64,
    stopping: bool,
}

/// Which jobs a worker takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Any,
    UrgentOnly,
}

struct Shared {
    started: Instant,
    queues: Mutex<Queues>,
    /// Where idle workers that take any job wait.
    any_work: Condvar,
    /// Where the idle worker that takes no low job waits.
    urgent_work: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn now_micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Makes a task ready and wakes one worker that may take it.
    fn push(&self, queues: &mut Queues, task: Task) {
        let priority = task.priority;
        queues.ready[priority as usize].push_back(task);
        if !self.any_work.notify_one() && priority != Priority::Low {
            self.urgent_work.notify_one();
        }
    }

    /// The life of a worker.
    fn work(&self, role: Role) {
        let mut queues = self.queues.lock();
        while !queues.stopping {
            self.promote_expired(&mut queues);
            let Some(mut task) = queues.take(role) else {
                self.idle(&mut queues, role);
                continue;
            };
            drop(queues);
            let step = catch_unwind(AssertUnwindSafe(|| task.job.step()));
            queues = match step {
                Ok(Step::Again) => {
                    // Wakes nobody: this worker looks for work next, and were there other work that an idle
                    // worker may take, whoever pushed it would have woken one.
                    let mut queues = self.queues.lock();
                    queues.ready[task.priority as usize].push_back(task);
                    queues
                }
                Ok(Step::Pending { event, seen, deadline_micros }) => {
                    self.suspend(task, &event, seen, deadline_micros);
                    self.queues.lock()
                }
                Ok(Step::Done) | Err(_) => {
                    task.discard();
                    self.queues.lock()
                }
            };
        }
    }

    /// Sets a task aside until its event or its deadline.
    fn suspend(&self, task: Task, event: &Event, seen: u64, deadline_micros: Option<u64>) {
        let waker = task.waker.clone();
        {
            let mut queues = self.queues.lock();
            if let Some(deadline) = deadline_micros {
                let earliest = queues.timers.first().is_none_or(|&(first, _)| deadline < first);
                queues.timers.insert((deadline, task.id));
                // Idle workers sleep until the deadline that was the earliest before.
                if earliest && !self.any_work.notify_one() {
                    self.urgent_work.notify_one();
                }
            }
            queues.pending.insert(task.id, Pending { task, deadline_micros });
        }
        // Outside the lock: the event calls the waker at once if it was notified meanwhile.
        event.register(seen, waker);
    }

    /// Makes every task ready whose deadline has come.
    fn promote_expired(&self, queues: &mut Queues) {
        if queues.timers.is_empty() {
            return;
        }
        let now = self.now_micros();
        while let Some(&(deadline, id)) = queues.timers.first() {
            if deadline > now {
                break;
            }
            self.resume(queues, id);
        }
    }

    /// Makes a pending task ready; nothing if it is not pending any more.
    fn resume(&self, queues: &mut Queues, id: u64) {
        if let Some(Pending { task, deadline_micros }) = queues.pending.remove(&id) {
            if let Some(deadline) = deadline_micros {
                queues.timers.remove(&(deadline, id));
            }
            self.push(queues, task);
        }
    }

    /// Parks a worker until there may be work for it.
    fn idle(&self, queues: &mut parking_lot::MutexGuard<'_, Queues>, role: Role) {
        let condvar = match role {
            Role::Any => &self.any_work,
            Role::UrgentOnly => &self.urgent_work,
        };
        match queues.timers.first() {
            None => condvar.wait(queues),
            Some(&(deadline, _)) => {
                let left = deadline.saturating_sub(self.now_micros());
                condvar.wait_for(queues, Duration::from_micros(left));
            }
        }
    }
}

impl Queues {
    /// The task to step next.
    fn take(&mut self, role: Role) -> Option<Task> {
        let lowest = if role == Role::Any { Priority::Low } else { Priority::Normal };
        self.ready[lowest as usize..].iter_mut().rev().find_map(VecDeque::pop_front)
    }
}

/// Resumes a task when its event is notified.
struct TaskWaker {
    shared: Weak<Shared>,
    id: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            let mut queues = shared.queues.lock();
            if !queues.stopping {
                shared.resume(&mut queues, self.id);
            }
        }
    }
}

/// A counter behind a bijective mix (`SplitMix64`) on both sides of a key: no lock, 128 bits of seed.
#[derive(Debug)]
struct Random {
    counter: AtomicU64,
    key: u64,
}

impl Random {
    fn new(seed: u64, key: u64) -> Self {
        Self { counter: AtomicU64::new(seed), key }
    }

    fn next(&self) -> u64 {
        let count = self.counter.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mix(mix(count) ^ self.key)
    }
}
