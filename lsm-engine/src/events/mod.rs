//! Events: what the engine does in the background and where callers wait, as a bounded ring that readers pull from.
//!
//! Input: calls of [`EventRing::emit`] from all other parts. Output: the last events, in order. Emitting takes a short
//! lock and never waits for a reader: the oldest event makes room, and a reader that missed some learns how many.
//! Nothing is emitted for a single read or write, only for work and waits that take long compared to that.

mod event;
mod ring;
mod wait_reason;

pub use event::{Event, EventKind};
pub(crate) use ring::{EVENTS_MAX, EventRing, Next};
pub(crate) use wait_reason::REASONS;
pub use wait_reason::WaitReason;
