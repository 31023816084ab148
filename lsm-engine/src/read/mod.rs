//! Reading: the newest visible version of a key, one by one or in order.
//!
//! In comes a read state and a sequence number; out go keys and values. Nothing here takes a lock that writers hold,
//! waits for them, or changes what the database holds.

mod bounds;
mod cursor;
mod iterator;
mod merge_input;
mod range_deletes;
mod search;
mod skip;

pub(crate) use bounds::{Bounds, borrow_range};
pub use cursor::DbCursor;
pub use iterator::Iter;
