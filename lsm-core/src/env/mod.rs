//! Clocks, randomness and threads, as a trait.
//!
//! Background work is [`Job`]s made of short steps; clients block in [`Env::wait`] and nowhere else. Under
//! [`ThreadEnv`] jobs run on worker threads. Under `SimEnv` (feature `sim`) they run, one step at a time in an
//! order drawn from a seed, while a client waits, so that a whole database runs on one thread and every run can
//! be repeated.

mod environment;
mod event;
mod job;
mod origin;
#[cfg(feature = "sim")]
mod sim;
mod threads;

pub use environment::Env;
pub use event::Event;
pub use job::{Job, Priority, Step};
#[cfg(feature = "sim")]
pub use sim::SimEnv;
pub use threads::{ThreadEnv, system_random};
