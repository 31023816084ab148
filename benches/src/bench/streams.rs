//! Streams of the permutations, so that no two workloads share an order.

pub(super) const FILL: u64 = 1;
pub(super) const READ_HOT: u64 = 2;
pub(super) const READ: u64 = 3;
pub(super) const MISSING: u64 = 4;
pub(super) const SEEK: u64 = 5;
pub(super) const OVERWRITE: u64 = 6;
pub(super) const READ_BESIDE: u64 = 7;
pub(super) const WRITE_BESIDE: u64 = 8;
pub(super) const DELETE: u64 = 9;
pub(super) const TRANSACTIONS: u64 = 10;
