//! Blob files: large values, written once and read one by one, or a part of one.
//!
//! ```text
//! blob file := file header  value*  directory  footer
//! value     := byte*bytes  check:u32*chunks        a chunk is 16 KiB, the last one of a value is what is left
//! directory := entry*numbers
//! entry     := offset:u64 bytes:u32 check:u32      of the value with this number; offset and bytes 0 if it is gone
//! ```
//!
//! | part | drawn in | checksum |
//! |---|---|---|
//! | file header, 80 bytes | `format/file_header.rs` | CRC-32 |
//! | values | here | CRC-32 of each chunk, seeded with id and offset of the chunk |
//! | directory | here | CRC-32 of the first 12 bytes of each entry, seeded with id and offset of the entry |
//! | footer, 128 bytes | `blob/footer.rs` | CRC-32; it holds a CRC-64 of everything before it |
//!
//! Values follow each other without a gap, in the order of their numbers. They are stored as they are: a part of one is
//! found without looking at the rest. A file that was rewritten keeps the numbers, so those who point into the file need
//! not be changed: the value is found by its number in the directory. In one that was not, it is where it was written.

mod footer;
mod reader;
mod verify;
mod writer;

pub(crate) use footer::blob_body_checksum;
pub use reader::{BlobExpectation, BlobReader};
pub use verify::BlobVerifyReport;
pub use writer::{BlobMeta, BlobPlace, BlobWriter, UnsyncedBlobs};

/// Bytes under one checksum.
const CHUNK_BYTES: u64 = 16 << 10;
/// Bytes of a checksum of a chunk.
const CHECK_BYTES: u64 = 4;
/// Bytes of an entry of the directory.
const ENTRY_BYTES: u64 = 16;
/// Bytes read or written at a time: whole chunks.
const PIECE_BYTES: u64 = 1 << 20;

/// Bytes that the checksums of a value take behind it.
const fn check_bytes(value_bytes: u64) -> u64 {
    value_bytes.div_ceil(CHUNK_BYTES) * CHECK_BYTES
}
