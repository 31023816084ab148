//! The block cache: decoded blocks of all open tables, within one byte budget.
//!
//! Each open table has an array with a slot for every block, so that finding a block is an index into an array,
//! not a hash lookup. A slot is eight bytes; a reader pins what is in it with one atomic addition. Blocks are evicted
//! by CLOCK: a hand goes round all cached blocks, spares those that were referenced since it last came by, and
//! takes the others.
//!
//! Frames lie in huge pages, all but those of the first 2 MiB, which makes a lookup a third faster: it is mostly misses, of
//! the address translation too. A page counts against the budget as soon as it is mapped. Frames too large for the pool, or for which the
//! budget has no further page, are allocations of their own. In a full cache a block whose size few have takes a frame
//! that is somewhat too long, or is not kept: emptying a span for it would empty half of the cache.
//!
//! While there is room every block that a point read missed is kept. Once full, one in eight is: writing a block
//! to memory that is not in the processor's cache costs half as much as decoding it again, and blocks that are
//! asked for often get in soon anyway. Scans keep nothing.

mod block_cache;
mod budget;
mod cached_table;
mod clock;
mod counters;
mod slots;

pub use block_cache::BlockCache;
pub(crate) use cached_table::CachedTable;
pub use counters::CacheStats;
