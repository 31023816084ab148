//! Transactions.
//!
//! A transaction reads at a snapshot and keeps its writes in memory, in key order (`overlay.rs`), where its own reads find
//! them (`own_cursor.rs`). It notes what it depends on (`tracked.rs`). The commit (`conflicts.rs`) looks whether any of
//! that was changed after the snapshot, and writes one batch. No other part of the engine knows of transactions.

mod conflicts;
mod cursor;
mod iterator;
mod locking;
mod options;
mod overlay;
mod own_cursor;
mod savepoint;
mod session;
mod state;
mod tracked;
mod transact;
#[expect(clippy::module_inception, reason = "the file of the type has the name of the type")]
mod transaction;
mod untracked;
mod view;
mod walks;

pub use cursor::TransactionCursor;
pub use iterator::TransactionIter;
pub use options::{Isolation, TransactionOptions};
pub use savepoint::Savepoint;
pub(crate) use transact::transact;
pub use transaction::Transaction;
pub use untracked::Untracked;
