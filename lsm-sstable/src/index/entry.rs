use lsm_core::coding::Decoder;
use lsm_core::key::KEY_BYTES_MAX;
use lsm_core::{SEQUENCE_MAX, SequenceNumber};

/// One block in the encoded index.
#[derive(Clone, Copy)]
pub(super) struct IndexEntry<'a> {
    pub(super) block_bytes: u64,
    pub(super) suffix: &'a [u8],
    /// The highest there is, if the separator stands before all versions of its key.
    pub(super) sequence: SequenceNumber,
    pub(super) has_sequence: bool,
}

impl<'a> IndexEntry<'a> {
    /// Longest encoding.
    pub(super) const BYTES_MAX: usize = 10 + 3 + KEY_BYTES_MAX + 8;

    /// Decodes the next entry; `None` if it is malformed.
    #[inline]
    pub(super) fn next(fields: &mut Decoder<'a>) -> Option<Self> {
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
