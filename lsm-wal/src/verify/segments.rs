//! Checks segments, beyond what a reader needs of them.

use std::fmt::Write as _;

use lsm_core::Result;
use lsm_core::vfs::Vfs;

use super::accepted_log::{AcceptedLog, AcceptedSegment, overlap};
use super::check::{Bits, Check};
use crate::files::record_reader::{Found, RecordReader};
use crate::format::record::RecordType;
use crate::format::segment::{self, SegmentHeader};
use crate::read::{damage, segment_list};

const CHUNK_BYTES: usize = 64 << 10;

/// Checks what the reader did not need of a segment.
pub(super) fn check(
    vfs: &dyn Vfs,
    check: &mut Check,
    accepted: &AcceptedLog,
    index: usize,
    clean: bool,
) -> Result<()> {
    let Some(part) = accepted.parts.get(index) else { return Ok(()) };
    check.file.what = format!("segment, {} records from position {} on", part.records, part.header.start);
    let Some(mut reader) = segment_list::open_reader(vfs, &part.path, Some(&part.header))? else {
        return Ok(());
    };
    copies(check, accepted, index, &mut reader)?;
    let last = index + 1 == accepted.parts.len();
    behind(check, &mut reader, part, last, last && clean)
}

/// Compares what stands in the segment where the reader had to turn to the window.
fn copies(check: &mut Check, accepted: &AcceptedLog, index: usize, reader: &mut RecordReader) -> Result<()> {
    let (Some(part), Some(window)) = (accepted.parts.get(index), &accepted.window) else { return Ok(()) };
    let mut area = window.area(0);
    let mut missing = 0;
    for taken in &accepted.taken {
        let there = overlap(&taken.positions, &(part.header.start..part.end));
        let mut position = there.start;
        while position < there.end {
            let offset = part.offset_of(position);
            // Sector by sector of the segment.
            let bytes = (damage::SECTOR_BYTES - offset % damage::SECTOR_BYTES).min(there.end - position);
            let right = area.load(taken.offset + (position - taken.positions.start), bytes as usize)?;
            let stored = reader.load(offset, bytes as usize)?;
            if let Some(byte) = (0..right.len()).find(|&at| right.get(at) != stored.get(at)) {
                missing += bytes;
                let at = offset + byte as u64;
                if position + (byte as u64) < accepted.synced {
                    let synced = accepted.synced;
                    check.damaged(
                        at,
                        format!(
                            "the window has another byte here, and up to position {synced} all was synced"
                        ),
                    );
                    return Ok(());
                }
                if stored.iter().skip(byte).any(|&byte| byte != 0) {
                    check.damaged(at, "the window has another byte here, and no crash explains it");
                    return Ok(());
                }
            }
            position += bytes;
        }
    }
    if missing > 0 {
        let _ = write!(check.file.what, "; {missing} bytes stand in the window only");
    }
    Ok(())
}

/// Checks what stands behind the last record that counts.
fn behind(
    check: &mut Check,
    reader: &mut RecordReader,
    part: &AcceptedSegment,
    is_last: bool,
    clean: bool,
) -> Result<()> {
    let (mut position, mut chain) = (part.end, part.checksum);
    let mut closed = false;
    while let Found::Record(found) = reader.record_at(position, chain)? {
        closed |= found.header.kind == RecordType::Close;
        position += found.header.record_bytes();
        chain = found.checksum;
    }
    let given_up = position - part.end;
    let Some(offset) = reader.offset_of(position) else { return Ok(()) };
    if clean && !closed {
        check.damaged(offset, "the record that closes the log is missing");
        return Ok(());
    }
    if let Some(byte) = damage::flipped_byte(reader, position, chain)? {
        check.damaged(byte, "one bit of this byte was flipped");
        return Ok(());
    }
    let bits = bits(reader, offset)?;
    if bits.count == 1 || bits.count > 0 && clean {
        check.damaged(bits.last, "nothing was ever written here");
    } else if !is_last && given_up + bits.count > 0 && !(closed && bits.count == 0) {
        check.note(format!("{} bytes were given up", given_up.max((bits.last + 1).saturating_sub(offset))));
    }
    Ok(())
}

/// Checks a segment that was never used, or whose header is lost.
pub(super) fn check_headless(vfs: &dyn Vfs, check: &mut Check, number: u64) -> Result<()> {
    check.file.what = "spare segment".into();
    let Some(mut reader) = segment_list::open_reader(vfs, &check.file.path, None)? else { return Ok(()) };
    let header = reader.load(0, segment::HEADER_BYTES)?;
    if !SegmentHeader::is_part(header, number) {
        let byte = header.iter().position(|&byte| byte != 0).unwrap_or(0);
        check.damaged(byte as u64, "this is no header of a segment");
        return Ok(());
    }
    let bits = bits(&mut reader, 0)?;
    match bits.count {
        0 => {}
        // A part of a header may be as little as this, but a flipped bit of a spare is likelier.
        1 => check.damaged(bits.last, "nothing was ever written here"),
        _ => {
            let follow = (bits.last + 1).saturating_sub(segment::HEADER_BYTES as u64);
            check.note(format!("its header was lost before it was synced; {follow} bytes follow"));
        }
    }
    Ok(())
}

fn bits(reader: &mut RecordReader, mut offset: u64) -> Result<Bits> {
    let mut bits = Bits::default();
    loop {
        let bytes = reader.load(offset, CHUNK_BYTES)?;
        if bytes.is_empty() {
            return Ok(bits);
        }
        bits.add(bytes, offset);
        offset += bytes.len() as u64;
    }
}
