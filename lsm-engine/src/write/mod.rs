//! Writing: a write is admitted, appended to the log, inserted into memtables, and made visible.
//!
//! Input: single operations and batches. When a call returns, the write has the durability that the caller asked for.
//! Writers wait only here: for the write controller, for memory, and for the sync of the log. Code here writes no
//! table.

mod admission;
mod change_slots;
mod commit;
mod committer;
mod controller;
mod direct_blob;
mod expiry;
mod ingest;
mod keyspace_writer;
mod log_bound;
mod log_handle;
mod log_pins;
mod path;
mod payload;
mod prepare;
mod queue;
mod reservation;
mod times_to_live;
mod update;
mod update_queue;
mod watch;
mod watching;
mod written;

pub(crate) use change_slots::{Slot, owner as slot_owner};
pub(crate) use committer::Committer;
pub(crate) use controller::Pressure;
pub(crate) use expiry::{after_micros, stored_value};
pub(crate) use ingest::{PreparedIngest, PreparedTable};
pub(crate) use keyspace_writer::KeyspaceWriter;
pub(crate) use log_pins::{LogPin, LogPinOwner};
pub(crate) use path::{Compactor, WritePath};
pub(crate) use payload::{COUNT_BYTES, Payload, check_key, check_range, check_value, encode_operation};
pub use payload::{Operation, Operations};
pub(crate) use update::Next;
pub(crate) use watch::RangeWatch;
pub(crate) use written::Written;
