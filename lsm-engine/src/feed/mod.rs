//! The change feed: every durable batch in order, from a position on.
//!
//! Input: the log, as far as it is there, and what the manifest knows of epochs and keyspaces. Output: batches of changes,
//! and slots that keep the log for readers that are away. Code here writes nothing but the edits of slots; writers know
//! nothing of it.

mod batch;
mod changes;
mod positions;
mod slot;

pub use batch::{Change, ChangeBatch, ChangeKind, IngestedTable};
pub use changes::{Changes, ChangesCanceller};
pub(crate) use positions::{current, of_snapshot, oldest};
pub use slot::ChangeSlot;
pub(crate) use slot::{change_slot, change_slots, drop_change_slot};
