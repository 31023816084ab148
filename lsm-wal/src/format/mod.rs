//! The bytes on disk: records and the headers of segments, and what one flipped bit does to their checksums.

pub(crate) mod bit_flip;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod window;
