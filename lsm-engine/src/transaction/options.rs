use std::time::Duration;

/// How far a transaction is isolated from other writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// All reads see the database as it was when the transaction began. The commit fails if another writer changed a key
    /// that the transaction writes, or that it read with [`get_for_update`](crate::Transaction::get_for_update). Reads
    /// cost nothing at the commit. Two transactions that read what the other writes can both commit (write skew).
    Snapshot,
    /// As if transactions ran one after the other, in the order of their commits. The commit also fails if another writer
    /// changed a key that the transaction read, or any key of a range as far as it was read.
    #[default]
    Serializable,
}

/// Options of a transaction.
///
/// ```
/// use std::time::Duration;
/// use lsm_engine::{Isolation, TransactionOptions};
/// let optimistic = TransactionOptions::default();
/// assert_eq!(optimistic.isolation, Isolation::Serializable);
/// let pessimistic = TransactionOptions { locks: Some(Duration::from_secs(1)), ..optimistic };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TransactionOptions {
    /// The isolation; serializable by default.
    pub isolation: Isolation,
    /// Whether the transaction locks what it reads and writes, and how long it waits for a lock at most. `None`, the
    /// default, takes no locks: conflicts are found at the commit. Locks pay when conflicts are frequent, since a
    /// transaction then waits instead of being repeated.
    pub locks: Option<Duration>,
}
