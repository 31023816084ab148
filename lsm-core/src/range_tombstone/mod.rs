//! Deletes of whole key ranges.
//!
//! A [`RangeTombstone`] hides every older version of every key in `[start, end)`. Tombstones overlap freely;
//! to answer "what covers this key?" by binary search they are cut at each other's boundaries into fragments
//! that do not: [`FragmentedRangeTombstones`], immutable, as a table carries them. The tombstones of a memtable
//! arrive one by one while others read: [`RangeTombstoneSet`].

mod append_vec;
mod builder;
mod fragmented;
mod fragmenter;
mod painted_tree;
mod set;
mod walk;

pub use fragmented::{Fragment, FragmentedRangeTombstones};
pub use set::{Cover, RangeTombstoneSet};
pub use walk::FragmentWalk;

use crate::{SequenceNumber, Slice};

/// Deletes the versions below `sequence` of all keys from `start` up to `end`, exclusive.
///
/// If `start` is not below `end`, nothing is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeTombstone {
    /// The first key deleted.
    pub start: Slice,
    /// The first key after `start` that is not deleted.
    pub end: Slice,
    /// When the deletion was written.
    pub sequence: SequenceNumber,
}
