//! The second table: a skip list (Pugh, 1990) in the same arena.
//!
//! ```text
//! level 2    ------------------> e -------------->     every sixteenth node or so
//! level 1    ----> c ----------> e ------> g ---->     every fourth
//! nodes     a > b > c > d > ... e > f > g > h ...     one per key, with its newest version
//! ```
//!
//! Simpler than the tree, nothing is ever replaced or read twice, and ascending keys are as fast. Random access pays
//! a cache miss per step, which is why it is not the default.

mod cursor;
mod list;
mod reader;
mod writer;

use std::sync::Arc;

use self::list::List;
use self::writer::Writer;
use crate::arena::ChunkPool;
use crate::memtable::{MemtableFactory, MemtableReader, MemtableWriter};

/// A factory of skip lists.
///
/// The memory of the tables is that of [`BPlusMemtable`](crate::BPlusMemtable), with the same bounds.
#[derive(Clone, Debug)]
pub struct SkipListMemtable {
    pool: Arc<ChunkPool>,
}

impl SkipListMemtable {
    /// A factory that keeps up to `bytes_max` of memory of dropped tables for the next ones.
    pub fn with_pool_bytes(bytes_max: usize) -> Self {
        Self { pool: Arc::new(ChunkPool::new(bytes_max)) }
    }

    /// See [`BPlusMemtable::warm`](crate::BPlusMemtable::warm).
    pub fn warm(&self, bytes: usize) {
        self.pool.warm(bytes);
    }
}

impl Default for SkipListMemtable {
    fn default() -> Self {
        Self::with_pool_bytes(ChunkPool::BYTES_MAX_DEFAULT)
    }
}

impl MemtableFactory for SkipListMemtable {
    fn name(&self) -> &'static str {
        "skip list"
    }

    fn create(&self) -> (Box<dyn MemtableWriter>, Arc<dyn MemtableReader>) {
        let writer = Writer::new(List::new(Arc::clone(&self.pool)));
        let reader = Arc::clone(writer.list());
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
