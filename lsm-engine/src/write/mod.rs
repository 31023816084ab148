//! Writing: a batch is admitted, logged, put into memtables, and then visible.
//!
//! In come batches and single operations; out goes the number of the write, durable as asked. Writers wait here and
//! nowhere else: for the write controller, for memory, for the sync of the log. Nothing here writes a table.

mod admission;
mod commit;
mod committer;
mod controller;
mod keyspace_writer;
mod log_bound;
mod path;
mod payload;
mod prepare;
mod queue;
mod reservation;

pub(crate) use committer::Committer;
pub(crate) use controller::Pressure;
pub(crate) use keyspace_writer::KeyspaceWriter;
pub(crate) use path::{Compactor, WritePath};
pub(crate) use payload::{
    COUNT_BYTES, Payload, check_key, check_range, check_value, encode_operation, inverted,
};
pub use payload::{Operation, Operations};
