//! What the lsm crates share: keys, cursors, range tombstones, checksums, and the traits for files and threads.
//!
//! An LSM store orders versions of keys by *internal key* ([`key`]), reads every sorted source through one
//! [`Cursor`], merges sources with a merging cursor, and reaches files, clocks, randomness and threads only
//! through the traits [`Vfs`](vfs::Vfs) and [`Env`](env::Env), so that the whole store runs unchanged in a
//! seeded simulator (feature `sim`).
//!
//! ```
//! use std::path::Path;
//! use lsm_core::checksum::crc64;
//! use lsm_core::vfs::{PosixFs, Vfs};
//!
//! /// Writes a file that is whole and durable, or fails; on any file system.
//! fn publish(vfs: &dyn Vfs, directory: &Path, name: &str, bytes: &[u8]) -> lsm_core::Result<()> {
//!     let path = directory.join(name);
//!     let error = |operation| { let path = path.clone(); move |e| lsm_core::Error::io(operation, &path, e) };
//!     let file = vfs.create_new(&path).map_err(error("create"))?;
//!     file.write_at(bytes, 0).map_err(error("write"))?;
//!     file.write_at(&crc64(0, bytes).to_le_bytes(), bytes.len() as u64).map_err(error("write"))?;
//!     file.sync_data().map_err(error("sync"))?;
//!     vfs.sync_dir(directory).map_err(error("sync the directory of"))
//! }
//!
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! # let directory = directory.path();
//! publish(&PosixFs, directory, "1.table", b"apple banana cherry")?;
//! let taken = publish(&PosixFs, directory, "1.table", b"again").unwrap_err();
//! assert!(taken.to_string().contains("cannot create"));
//! # Ok::<(), lsm_core::Error>(())
//! ```

#![deny(unsafe_code)]

mod blob_pointer;
mod block_cursor;
pub mod checksum;
pub mod coding;
mod cursor;
mod encryption;
pub mod env;
mod error;
pub mod expiry;
pub mod frame;
pub mod hash;
mod huge_page;
pub mod key;
pub mod merge_operator;
mod merging_cursor;
mod prefetch;
pub mod range_tombstone;
mod slice;
mod split_mix;
pub mod vfs;

pub use blob_pointer::BlobPointer;
pub use block_cursor::{Block, BlockCursor};
pub use cursor::Cursor;
pub use encryption::Encryption;
pub use error::{DecodeError, Error, Result};
pub use huge_page::HugePage;
pub use key::{Entry, SEQUENCE_MAX, SequenceNumber, ValueKind};
pub use merge_operator::{BuiltInMerge, MergeError, MergeOperator};
pub use merging_cursor::MergingCursor;
pub use prefetch::prefetch;
pub use slice::Slice;
