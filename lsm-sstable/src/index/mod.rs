//! The index: which data block may hold a key. Papers call its separators *fence pointers*.
//!
//! ```text
//! index     := prefix_bytes:varint  prefix  block*                   as many blocks as the properties say
//! block     := block_bytes:varint  form:varint  suffix  [sequence:varint]
//! form      := suffix_bytes << 1 | has_sequence
//! ```
//!
//! Blocks stand one after the other from the end of the file header on. Each has a *separator*, `prefix ++ suffix`:
//! at or below everything in it, and above everything in the blocks before. The first is the first key of the table;
//! the others are the shortest that do. Where the versions of one user key fill several blocks, the separator is an
//! internal key: it has a sequence number.
//!
//! A table has its whole index in memory ([`Index`]), or only where the pages of it are ([`IndexDirectory`]): the top
//! level of what RocksDB calls a partitioned index.

mod builder;
mod directory;
mod entry;
mod page;
mod pinned;
mod target;

pub(crate) use builder::IndexBuilder;
pub(crate) use directory::IndexDirectory;
pub(crate) use page::{IndexPage, PagePlace};
pub(crate) use pinned::Index;
