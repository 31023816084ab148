//! The index: which data block may hold a key.
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
//! A table has its index in memory ([`Index`]), or only where the pages of it are ([`IndexDirectory`]).

mod builder;
mod directory;
mod page;
mod pinned;

use std::cmp::Ordering;

use lsm_core::coding::Decoder;
use lsm_core::key::{self, KEY_BYTES_MAX};
use lsm_core::{SEQUENCE_MAX, SequenceNumber};

pub(crate) use builder::IndexBuilder;
pub(crate) use directory::IndexDirectory;
pub(crate) use page::{IndexPage, PagePlace};
pub(crate) use pinned::Index;

/// One block in the encoded index.
#[derive(Clone, Copy)]
struct IndexEntry<'a> {
    block_bytes: u64,
    suffix: &'a [u8],
    /// The highest there is, if the separator stands before all versions of its key.
    sequence: SequenceNumber,
    has_sequence: bool,
}

impl<'a> IndexEntry<'a> {
    /// Longest encoding.
    const BYTES_MAX: usize = 10 + 3 + KEY_BYTES_MAX + 8;

    /// Decodes the next entry; `None` if it is malformed.
    #[inline]
    fn next(fields: &mut Decoder<'a>) -> Option<Self> {
        // A block of some kilobytes whose separator is short and has no sequence number: nearly all are.
        if let &[low @ 0x80..=0xff, high @ 1..=0x7f, form @ 0..=0x7f, ..] = fields.rest()
            && form & 1 == 0
        {
            let block_bytes = u64::from(low & 0x7f) | u64::from(high) << 7;
            fields.take(3)?;
            let suffix = fields.take(usize::from(form >> 1))?;
            return Some(Self { block_bytes, suffix, sequence: SEQUENCE_MAX, has_sequence: false });
        }
        let block_bytes = fields.varint().filter(|&bytes| bytes > 0)?;
        let form = fields.varint_usize().filter(|&form| form >> 1 <= KEY_BYTES_MAX)?;
        let suffix = fields.take(form >> 1)?;
        let has_sequence = form & 1 == 1;
        let sequence = if has_sequence {
            fields.varint().filter(|&sequence| sequence < SEQUENCE_MAX)?
        } else {
            SEQUENCE_MAX
        };
        Some(Self { block_bytes, suffix, sequence, has_sequence })
    }
}

/// An internal key that is looked for among separators, of which a prefix is known.
#[derive(Clone, Copy)]
pub(crate) enum Target<'k> {
    /// Below all keys with the prefix.
    BelowAll,
    AboveAll,
    /// What follows the prefix.
    Within(&'k [u8], SequenceNumber),
}

impl<'k> Target<'k> {
    fn new(prefix: &[u8], key: &'k [u8], sequence: SequenceNumber) -> Self {
        match key.strip_prefix(prefix) {
            Some(rest) => Self::Within(rest, sequence),
            None if key < prefix => Self::BelowAll,
            None => Self::AboveAll,
        }
    }

    #[inline]
    fn is_below(&self, suffix: &[u8], sequence: SequenceNumber) -> bool {
        match self {
            Self::BelowAll => true,
            Self::AboveAll => false,
            Self::Within(rest, target) => key::compare(suffix, sequence, rest, *target) == Ordering::Greater,
        }
    }
}
