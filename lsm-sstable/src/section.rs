//! Sections: everything in a table file that is neither a data block nor header nor footer.
//!
//! ```text
//! section := checksum:u32  tag:u8  zero:[u8; 3]  payload_bytes:u64  payload
//! ```
//!
//! The checksum covers everything after itself and is seeded with the table's id and the section's offset.

use lsm_core::coding::Decoder;

use crate::checksum::BlockChecksum;

pub(crate) const SECTION_HEADER_BYTES: usize = 16;

/// What a section holds; the numbers are part of the format. Data blocks have 1 in the high half of their tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SectionTag {
    Filter = 0x20,
    RangeTombstones = 0x30,
    Index = 0x40,
    Properties = 0x50,
}

/// Appends a section that will stand at `offset` in the file.
pub(crate) fn put_section(
    out: &mut Vec<u8>,
    tag: SectionTag,
    payload: &[u8],
    checksum: BlockChecksum,
    offset: u64,
) {
    let start = out.len();
    out.reserve(SECTION_HEADER_BYTES + payload.len());
    out.extend_from_slice(&[0, 0, 0, 0, tag as u8, 0, 0, 0]);
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(payload);
    let value = checksum.compute(offset, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&value.to_le_bytes());
}

/// Checks a section that stands at `offset` and returns its payload.
pub(crate) fn payload(
    section: &[u8],
    tag: SectionTag,
    checksum: BlockChecksum,
    offset: u64,
) -> Result<&[u8], String> {
    let mut fields = Decoder::new(checksum.verify(offset, section)?);
    let header = (fields.u8(), fields.take(3), fields.u64());
    let (Some(found), Some(zeros), Some(bytes)) = header else {
        return Err(format!("section of {} bytes is too short", section.len()));
    };
    if found != tag as u8 || zeros != [0; 3] {
        return Err(format!("section is tagged {found:#04x}, expected {:#04x} ({tag:?})", tag as u8));
    }
    if bytes != fields.rest().len() as u64 {
        return Err(format!("section says it holds {bytes} bytes, it has {}", fields.rest().len()));
    }
    Ok(fields.rest())
}
