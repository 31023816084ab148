//! Locks of transactions on keys and key ranges.
//!
//! Input: requests of transactions. A request waits in a queue until no other transaction is in its way. Nothing here knows
//! what is read or written under a lock; plain writes take none.

mod owner;
mod table;

pub(crate) use owner::{LockOwner, Locks};
pub(crate) use table::{LockMode, Lockable};
