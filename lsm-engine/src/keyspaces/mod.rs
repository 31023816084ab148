//! The inside of keyspaces: memtables, the version of the tables, and how the two change together.
//!
//! A reader takes the read state of a tree and keeps it as long as it likes; a flush, a compaction or a clear makes a
//! new one. Nothing here does I/O or waits.

mod empty_spans;
mod memtable;
mod rate_limit;
mod read_state;
mod tree;
mod tree_set;
mod trees;
mod visibility;

pub(crate) use empty_spans::{EmptySpans, Watch, WriteExclusion, successor};
pub(crate) use memtable::Memtable;
pub(crate) use rate_limit::RateLimit;
pub(crate) use read_state::ReadState;
pub(crate) use tree::Tree;
pub(crate) use tree_set::TreeSet;
pub(crate) use trees::Trees;
pub(crate) use visibility::Visibility;
