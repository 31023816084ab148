//! Memory: one number bounds it all. Here it is cut into parts, and each part is counted.
//!
//! Whoever takes memory says so here, before it takes it where it can be much. Nothing here knows keyspaces, files
//! or jobs.

mod accounting;
mod budget;
pub(crate) mod file_cache;

pub(crate) use accounting::{
    Charge, EMPTY_MEMTABLE_BYTES, Memory, Part, Unpinned, batch_bytes, room_for, too_large,
};
