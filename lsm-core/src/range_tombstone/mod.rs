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
mod persistent_tree;
mod set;
mod tombstone;
mod walk;

pub use fragmented::{Fragment, FragmentedRangeTombstones};
pub use set::{Cover, RangeTombstoneSet};
pub use tombstone::RangeTombstone;
pub use walk::FragmentWalk;
