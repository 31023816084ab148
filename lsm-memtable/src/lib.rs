//! Sorted maps in memory, as log-structured stores need them: one writer, many readers that never wait, all
//! versions of a key kept until the table is dropped.
//!
//! A store talks to [`MemtableFactory`], [`MemtableWriter`] and [`MemtableReader`] and does not know which
//! structure is behind them. [`BPlusMemtable`] is the default; [`SkipListMemtable`] is the classic, slower at random
//! and simpler; [`ReferenceMemtable`] is the plain one, the model of the tests.
//!
//! ```
//! use lsm_core::ValueKind;
//! use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader};
//!
//! let (mut writer, reader) = BPlusMemtable::default().create();
//! writer.insert(b"alice", 1, ValueKind::Put, b"30")?;
//! writer.insert(b"alice", 2, ValueKind::Put, b"42")?;
//! assert_eq!(reader.get(b"alice", 1).unwrap().value, b"30");
//! assert_eq!(reader.get(b"alice", 9).unwrap().value, b"42");
//! # Ok::<(), lsm_memtable::Full>(())
//! ```
#![deny(unsafe_code)]

mod arena;
mod bplus;
mod memtable;
mod reference;
mod skiplist;
mod sync;

pub use bplus::BPlusMemtable;
pub use memtable::{Full, MemtableFactory, MemtableReader, MemtableWriter};
pub use reference::ReferenceMemtable;
pub use skiplist::SkipListMemtable;
