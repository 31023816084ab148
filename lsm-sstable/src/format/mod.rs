//! The bytes of a table file that are not data blocks: header, sections and footer, and the checksums over all of it.
//! Knows nothing of open tables.

pub(crate) mod checksum;
pub(crate) mod compression;
pub(crate) mod file_header;
pub(crate) mod footer;
pub(crate) mod properties;
pub(crate) mod range_tombstones;
pub(crate) mod section;
