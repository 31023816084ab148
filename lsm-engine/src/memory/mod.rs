//! Memory: divides the memory budget into parts and accounts for each part.
//!
//! Code that takes memory charges it here; where it may be much, it does so before it takes it. Code here knows no
//! keyspaces and no jobs.

mod accounting;
mod budget;
pub(crate) mod file_cache;
mod transactions;

pub(crate) use accounting::{
    Charge, EMPTY_MEMTABLE_BYTES, Memory, Part, Unpinned, batch_bytes, room_for, too_large,
};
pub(crate) use transactions::TransactionCharge;
