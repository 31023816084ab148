use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lsm_core::env::{Env, Event, Job, Priority, SimEnv};

use crate::layer::Layer;

/// An environment over another one. Each method does what the one below does, until a type changes it.
#[expect(missing_docs, reason = "the methods are those of `Env`")]
pub trait EnvLayer: Send + Sync {
    /// The environment below.
    fn below(&self) -> &dyn Env;

    fn monotonic_micros(&self) -> u64 {
        self.below().monotonic_micros()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.below().monotonic_nanos()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        self.below().spawn(priority, job);
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        self.below().wait(event, seen, deadline_micros)
    }

    fn worker_count(&self) -> usize {
        self.below().worker_count()
    }
}

impl<L: EnvLayer> Env for Layer<L> {
    fn monotonic_micros(&self) -> u64 {
        self.0.monotonic_micros()
    }

    fn monotonic_nanos(&self) -> u64 {
        self.0.monotonic_nanos()
    }

    fn unix_micros(&self) -> u64 {
        self.0.below().unix_micros()
    }

    fn random(&self) -> u64 {
        self.0.below().random()
    }

    fn spawn(&self, priority: Priority, job: Box<dyn Job>) {
        self.0.spawn(priority, job);
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        self.0.wait(event, seen, deadline_micros)
    }

    fn worker_count(&self) -> usize {
        self.0.worker_count()
    }

    fn is_forked(&self) -> bool {
        self.0.below().is_forked()
    }
}

/// What a test wants to be called with; `None` while it does not.
pub type Hook<T> = Arc<Mutex<Option<Box<dyn FnMut(T) + Send>>>>;

/// A simulated environment that calls its hook whenever a caller begins to wait.
pub struct Observed {
    /// The environment below.
    pub env: Arc<SimEnv>,
    /// What is called.
    pub hook: Hook<()>,
    /// What passes before each call, so that it is there to be counted.
    pub micros: u64,
    /// Steps of jobs before each call, so that they could do what they must not.
    pub steps: usize,
}

impl EnvLayer for Observed {
    fn below(&self) -> &dyn Env {
        &*self.env
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        if let Some(hook) = &mut *self.hook.lock().unwrap() {
            self.env.advance(self.micros);
            for _ in 0..self.steps {
                self.env.step();
            }
            hook(());
        }
        self.env.wait(event, seen, deadline_micros)
    }
}

/// A simulated environment that fails the test if a caller waits for a minute, or checks too many times: then the engine
/// forgot to wake it, or woke it for nothing.
pub struct Impatient {
    env: Arc<SimEnv>,
    looks_left: AtomicUsize,
}

impl Impatient {
    /// One over `env` in which callers may check `looks_max` times in all.
    pub fn over(env: &Arc<SimEnv>, looks_max: usize) -> Arc<Layer<Self>> {
        Arc::new(Layer(Self { env: Arc::clone(env), looks_left: AtomicUsize::new(looks_max) }))
    }
}

impl EnvLayer for Impatient {
    fn below(&self) -> &dyn Env {
        &*self.env
    }

    fn wait(&self, event: &Event, seen: u64, deadline_micros: Option<u64>) -> bool {
        assert!(self.looks_left.fetch_sub(1, Ordering::Relaxed) > 0, "woken for nothing again and again");
        let minute = self.env.monotonic_micros() + 60_000_000;
        let woken = self.env.wait(event, seen, Some(deadline_micros.map_or(minute, |at| at.min(minute))));
        assert!(woken || deadline_micros.is_some(), "nothing woke the waiting caller for a minute");
        woken
    }
}

/// The simulated environment. It has one thread, but reports several, so that several compactions may run at once.
pub struct Wide(SimEnv);

impl Wide {
    /// One whose jobs run in an order drawn from `seed`.
    pub fn new(seed: u64) -> Layer<Self> {
        Layer(Self(SimEnv::new(seed)))
    }
}

impl std::ops::Deref for Wide {
    type Target = SimEnv;

    fn deref(&self) -> &SimEnv {
        &self.0
    }
}

impl EnvLayer for Wide {
    fn below(&self) -> &dyn Env {
        &self.0
    }

    fn worker_count(&self) -> usize {
        4
    }
}
