//! The inside of keyspaces: the memtables and the version of each, and how the two change together.
//!
//! A reader loads the read state of a tree and may keep it. A flush, compaction or clear installs a new state. Code here
//! does no I/O. It waits only for a rate limit.

mod blob_value;
mod empty_spans;
mod fold;
mod memtable;
mod merging;
mod rate_limit;
mod read_point;
mod read_state;
mod snapshots;
mod tree;
mod tree_set;
mod trees;
mod visibility;

pub(crate) use blob_value::{BlobBases, cut};
pub(crate) use empty_spans::{EmptySpans, Watch, WriteExclusion, successor};
pub(crate) use fold::Fold;
pub(crate) use memtable::Memtable;
pub(crate) use merging::Merging;
pub(crate) use rate_limit::RateLimit;
pub(crate) use read_point::{Meaning, ReadPoint};
pub(crate) use read_state::ReadState;
pub(crate) use snapshots::SnapshotPin;
pub(crate) use tree::Tree;
pub(crate) use tree_set::TreeSet;
pub(crate) use trees::Trees;
pub(crate) use visibility::Visibility;
