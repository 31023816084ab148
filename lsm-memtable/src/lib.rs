//! Sorted maps in memory, as log-structured stores need them: one writer, many readers that never wait, all
//! versions of a key kept until the table is dropped.
//!
//! A store talks to [`MemtableFactory`], [`MemtableWriter`] and [`MemtableReader`] and does not know which
//! structure is behind them. [`BPlusMemtable`] is the default; [`SkipListMemtable`] is the classic, slower at random
//! and simpler; [`ReferenceMemtable`] is the plain one, the model of the tests.
//!
//! ```
//! use lsm_core::{Cursor, SEQUENCE_MAX, ValueKind};
//! use lsm_memtable::{BPlusMemtable, MemtableFactory, MemtableReader, MemtableWriter};
//!
//! let (mut writer, table) = BPlusMemtable::default().create();
//! writer.insert(b"alice", 1, ValueKind::Put, b"30")?;
//! writer.insert(b"bob", 2, ValueKind::Put, b"25")?;
//! writer.insert(b"alice", 3, ValueKind::Put, b"42")?;
//!
//! assert_eq!(table.get(b"alice", 9).unwrap().value, b"42");
//! assert_eq!(table.get(b"alice", 2).unwrap().value, b"30"); // as of number 2
//!
//! let mut cursor = table.cursor();                          // owns the table; both directions
//! cursor.seek(b"b", SEQUENCE_MAX);
//! assert_eq!(cursor.entry().unwrap().key, b"bob");
//! # Ok::<(), lsm_memtable::Full>(())
//! ```
#![deny(unsafe_code)]

mod arena;
mod bplus;
mod memtable;
mod reference;
mod skiplist;
mod sync;
#[cfg(all(test, not(loom)))]
mod writer_checks;

pub use bplus::BPlusMemtable;
pub use memtable::{Full, MemtableFactory, MemtableReader, MemtableWriter, Reservation};
pub use reference::ReferenceMemtable;
pub use skiplist::SkipListMemtable;
