/// A point in a transaction to which its writes can be rolled back.
///
/// Made by [`Transaction::savepoint`](crate::Transaction::savepoint), and only good for that transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savepoint {
    pub(super) database: u64,
    pub(super) transaction: u64,
    pub(super) number: u64,
}
