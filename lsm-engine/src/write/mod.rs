//! Writing: a batch is admitted, logged, put into memtables, and then visible.
//!
//! In come batches and single operations; out goes the number of the write, durable as asked. Writers wait here and
//! nowhere else: for the write controller, for memory, for the sync of the log. Nothing here writes a table.

mod admission;
mod batch;
mod commit;
mod committer;
mod controller;
mod keyspace_writer;
mod log_bound;
mod path;
mod queue;
mod reservation;

pub use batch::{Operation, Operations, WriteBatch};
pub(crate) use batch::{check_range, inverted};
pub(crate) use committer::Committer;
pub(crate) use controller::Pressure;
pub(crate) use keyspace_writer::KeyspaceWriter;
pub(crate) use path::{Compactor, WritePath};
