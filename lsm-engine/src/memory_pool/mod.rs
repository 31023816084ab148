//! The memory pool: the bytes that one database may hold, or several databases of a process together.
//!
//! Each database has a pool, of its own unless [`Options::memory_pool`](crate::Options::memory_pool) gives one. The pool
//! keeps the sums over its databases and never knows more of a database than its [`Holding`]. Memory for memtables is
//! granted before it is used, so that databases that write at the same time cannot take it twice.

mod holding;
mod line;
mod member;
mod pool;
mod shares;
mod total;
mod work;

pub(crate) use holding::{Holding, Relief};
pub(crate) use member::{Flushing, Wakers};
pub use pool::MemoryPool;
pub(crate) use pool::Pool;
pub(crate) use shares::Shares;
pub(crate) use total::Total;
pub(crate) use work::{Turn, Work};
