//! The default table: a B+ tree whose leaves are appended to.
//!
//! ```text
//! inner node   63 children, separators in order, changed in place under a version
//!   leaf       32 keys in the order of insertion, found by one-byte fingerprints, replaced when full
//!     record   the newest version of a key, written once
//!       older versions, newest first, with jumps
//! ```
//!
//! How a version becomes visible: the record is written; a releasing store puts it into a slot of its leaf (a known
//! key) or raises the count of the leaf over its slot (a new key); or the leaf was full and two new ones are put
//! into the parent under its version. Whoever sees that store sees the record.

mod cursor;
mod inner;
mod leaf;
mod prefix;
mod reader;
mod tree;
mod writer;

use std::sync::Arc;

use self::tree::Tree;
use self::writer::Writer;
use crate::arena::ChunkPool;
use crate::memtable::{MemtableFactory, MemtableReader, MemtableWriter};

/// A factory of B+ trees: the default memtable.
///
/// Memory comes in chunks that start at 64 KiB and double up to huge pages of 2 MiB; a table holds up to 4 GiB, not
/// counting values longer than an eighth of a chunk, and then is [`Full`](crate::Full). Clones share one pool of
/// chunks, through which the memory of a dropped table comes to the next: the first touch of fresh memory may cost more
/// than the inserts.
#[derive(Clone, Debug)]
pub struct BPlusMemtable {
    pool: Arc<ChunkPool>,
}

impl BPlusMemtable {
    /// Bytes that the pool of [`default`](Self::default) keeps at most.
    pub const POOL_BYTES_DEFAULT: usize = ChunkPool::BYTES_MAX_DEFAULT;

    /// A factory that keeps up to `bytes_max` of memory of dropped tables for the next ones.
    pub fn with_pool_bytes(bytes_max: usize) -> Self {
        Self { pool: Arc::new(ChunkPool::new(bytes_max)) }
    }

    /// Fills the pool with fresh memory until it holds `bytes`, or as much as it may, so that the first tables are
    /// as fast as the later ones. Takes milliseconds per 2 MiB: to be called in the background.
    pub fn warm(&self, bytes: usize) {
        self.pool.warm(bytes);
    }
}

impl Default for BPlusMemtable {
    fn default() -> Self {
        Self::with_pool_bytes(Self::POOL_BYTES_DEFAULT)
    }
}

impl MemtableFactory for BPlusMemtable {
    fn name(&self) -> &'static str {
        "b+ tree"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let writer = Writer::new(Tree::new(Arc::clone(&self.pool)));
        let reader = Arc::clone(writer.tree());
        (Box::new(writer), reader)
    }

    fn pooled_bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// For clones too.
    fn set_pool_bytes(&self, bytes_max: usize) {
        self.pool.set_bytes_max(bytes_max);
    }
}
