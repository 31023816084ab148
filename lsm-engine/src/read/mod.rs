//! Reading: finds the newest visible version of a key, or scans keys in order.
//!
//! Input: a read state and a sequence number. Output: keys and values. Code here never waits for writers or for a lock
//! that writers hold, and never changes data.

mod bounds;
mod changes;
mod cursor;
mod ends;
mod iterator;
mod key_range;
mod merge_input;
mod range_deletes;
mod search;
mod skip;

pub(crate) use bounds::{Bounds, End, borrow_range, part_of};
pub(crate) use changes::{Change, Changes};
pub use cursor::DbCursor;
pub(crate) use ends::{Ends, Source, Steps, copy_entry, copy_key, copy_value, iterator};
pub use iterator::{Iter, Keys, Values};
pub(crate) use key_range::KeyRange;
