//! Reading an open table: lookups and cursors.
//!
//! In comes a key, a sequence number or a step; out comes an entry. The index and the filter lead to a block, wherever
//! they are ([`BlockFinder`](block_finder::BlockFinder), `paged`), and `blocks` takes it from the cache or the file.
//! Nothing here writes, and nothing that a file says is believed before its checksum was compared.

pub(super) mod block_finder;
pub(super) mod blocks;
mod cursor;
mod paged;
mod reader;
mod value;

pub use cursor::{CursorAccess, TableCursor};
pub use value::TableValue;
