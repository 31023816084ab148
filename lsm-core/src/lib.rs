//! Shared ground of the lsm crates.
//!
//! An LSM store orders versions of keys by *internal key* ([`key`]), reads every sorted source through one
//! [`Cursor`], merges sources with a merging cursor, and reaches files, clocks, randomness and threads only
//! through the traits [`Vfs`](vfs::Vfs) and [`Env`](env::Env), so that the whole store runs unchanged in a
//! seeded simulator (feature `sim`).

#![deny(unsafe_code)]

pub mod checksum;
pub mod coding;
mod cursor;
pub mod env;
mod error;
pub mod hash;
pub mod key;
mod merging_cursor;
pub mod range_tombstone;
mod slice;
pub mod vfs;

pub use cursor::Cursor;
pub use error::{Error, Result};
pub use key::{Entry, SEQUENCE_MAX, SequenceNumber, ValueKind};
pub use merging_cursor::MergingCursor;
pub use slice::Slice;
