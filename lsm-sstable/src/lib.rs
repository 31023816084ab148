//! Immutable sorted table files: write once, find and scan fast, prove every byte.
//!
//! A table holds versions of keys in the order of internal keys. [`TableWriter`] takes them in that order and writes
//! the file from front to back; [`Table`] finds the newest version of a key that a read may see, and
//! [`TableCursor`] walks both ways. Any number of tables share one [`BlockCache`]. Every byte of a file is under a checksum
//! that also knows which table it belongs to and where in it; [`Table::verify`] reads and proves all of them. Values that
//! are too large to be copied by every merge go to blob files, of [`BlobWriter`], and tables hold pointers to them.
//!
//! ```
//! use lsm_core::{Cursor, Entry, SEQUENCE_MAX, ValueKind, hash::key_hash, vfs::PosixFs};
//! use lsm_sstable::{CursorAccess, Table, TableId, TableOpen, TableOptions, TableWriter};
//!
//! # let directory = tempfile::tempdir()?;
//! let path = directory.path().join("1.sst");
//! let id = TableId(0x5eed); // random, never used again
//! let mut writer = TableWriter::create(&PosixFs, &path, id, &TableOptions::default())?;
//! for (key, value) in [("apple", "red"), ("lemon", "yellow"), ("plum", "blue")] {
//!     let (key, value) = (key.as_bytes(), value.as_bytes());
//!     writer.add(Entry { key, sequence: 1, kind: ValueKind::Put, value })?;
//! }
//! let meta = writer.finish()?;
//!
//! let table = Table::open(&PosixFs, &path, None, &TableOpen::expecting(&meta))?;
//! let found = table.get(b"lemon", key_hash(b"lemon"), SEQUENCE_MAX)?;
//! assert_eq!(found.map(|version| version.value), Some("yellow".into()));
//!
//! let mut cursor = table.cursor(CursorAccess::Cached);
//! cursor.seek_for_prev(b"melon", 0);
//! assert_eq!(cursor.entry().map(|entry| entry.key), Some(&b"lemon"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod blob;
mod block;
mod cache;
mod capacity;
mod file_writer;
mod filter;
mod format;
mod index;
mod meta;
mod options;
mod prefix;
mod table;

pub use blob::{
    BlobExpectation, BlobMeta, BlobPlace, BlobReader, BlobVerifyReport, BlobWriter, UnsyncedBlobs,
};
pub use cache::{BlockCache, CacheStats};
pub use filter::{BloomFilter, FilterPolicy};
pub use format::compression::Compression;
pub use format::properties::Properties;
pub use meta::{BlobRef, TableId, TableMeta};
pub use options::{TableExpectation, TableOpen, TableOptions};
pub use prefix::{DelimitedPrefix, FixedPrefix, PrefixExtractor, built_in_prefix_extractor};
pub use table::{
    CopyCheck, CursorAccess, Table, TableBlock, TableCursor, TableValue, TableWriter, UnsyncedTable,
    VerifyReport,
};
