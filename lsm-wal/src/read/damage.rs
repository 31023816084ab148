//! Tells a torn record from a corrupt one, in time linear in the file.

use lsm_core::Result;

use crate::files::record_reader::{Found, FoundRecord, RecordReader};
use crate::format::bit_flip;
use crate::format::record::{self, HEADER_BYTES, RecordHeader};

/// Bytes that a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// How much is skipped at once where nothing stands.
const ZEROS_BYTES: usize = 4096;

/// What stands in a file behind a bad record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TailScan {
    /// The highest position that a sound record header says was synced, and the offset of that header.
    pub(crate) claim: Option<(u64, u64)>,
    /// Offset after the last sound record header at its place, 0 if there is none.
    pub(crate) sound_end: u64,
    /// Offset after the last byte that is not zero, 0 if all are.
    pub(crate) nonzero_end: u64,
}

/// Reads the rest of a file from `offset`, a multiple of 8 after its header. Headers count if they are at the
/// position where they belong; with `placed` false the file's own header is lost, and they count for what they
/// say about the same file.
pub(crate) fn scan_tail(reader: &mut RecordReader, offset: u64, placed: bool) -> Result<TailScan> {
    let mut seen = TailScan::default();
    let decode = reader.decoder();
    let mut at = offset;
    while at < reader.len() {
        // What was allocated and not written yet, by far the most.
        if (at - offset).is_multiple_of(ZEROS_BYTES as u64) {
            let ahead = reader.load(at, ZEROS_BYTES)?;
            if ahead.len() == ZEROS_BYTES && ahead.iter().fold(0, |any, byte| any | byte) == 0 {
                at += ZEROS_BYTES as u64;
                continue;
            }
        }
        let bytes = reader.load(at, HEADER_BYTES)?;
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
                seen.nonzero_end = at + last as u64 + 1;
            }
            break;
        };
        let (words, _) = header.as_chunks::<8>();
        let [first, place, ..] = words else { break };
        if let Some(last) = first.iter().rposition(|&byte| byte != 0) {
            seen.nonzero_end = at + last as u64 + 1;
        }
        let place = u64::from_le_bytes(*place);
        if place != 0 {
            let header = *header;
            let position = place & (record::POSITION_MAX - 1);
            let belongs = !placed || reader.position_of(at) == Some(position);
            if belongs && let Some(header) = decode(&header) {
                seen.sound_end = at + HEADER_BYTES as u64;
                // Without a header of the file, a claim reaches back no further than the file does.
                let reach = if placed {
                    0
                } else {
                    position.saturating_sub(at.saturating_sub(reader.first_offset()))
                };
                if header.synced > reach && seen.claim.is_none_or(|(synced, _)| header.synced > synced) {
                    seen.claim = Some((header.synced, at));
                }
            }
        }
        at += 8;
    }
    Ok(seen)
}

/// The file offset of the one byte in which one flipped bit explains why no sound record stands at `position`.
///
/// If the bit would be the only one set in the record's part of its sector, the sector may as well never have
/// been written: that counts as a tear.
pub(crate) fn flipped_byte(reader: &mut RecordReader, position: u64, chain: u64) -> Result<Option<u64>> {
    let Some(offset) = reader.offset_of(position) else { return Ok(None) };
    let Some(&stored) = reader.load(offset, HEADER_BYTES)?.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let left = reader.len().saturating_sub(offset);
    let fits = |header: &RecordHeader| header.position == position && header.record_bytes() <= left;
    let decode = reader.decoder();
    if let Some(header) = decode(&stored) {
        if !fits(&header) {
            return Ok(None);
        }
        return flipped_behind_header(reader, offset, &header, chain);
    }
    for bit in 0..HEADER_BYTES * 8 {
        let mut mended = stored;
        mended[bit / 8] ^= 1 << (bit % 8);
        let Some(header) = decode(&mended).filter(fits) else { continue };
        let Ok(bytes) = usize::try_from(header.record_bytes()) else { continue };
        let record = reader.load(offset, bytes)?;
        let Some(rest) = record.get(HEADER_BYTES..) else { continue };
        let checksum = record::expected_checksum(rest, lsm_core::checksum::crc64(chain, &mended));
        if record.len() == bytes && record::stored_checksum(record) == Some(checksum) {
            return Ok(unless_torn(record, offset, bit / 8));
        }
    }
    Ok(None)
}

fn flipped_behind_header(
    reader: &mut RecordReader,
    offset: u64,
    header: &RecordHeader,
    chain: u64,
) -> Result<Option<u64>> {
    let Ok(bytes) = usize::try_from(header.record_bytes()) else { return Ok(None) };
    let record = reader.load(offset, bytes)?;
    if record.len() != bytes {
        return Ok(None);
    }
    let Some(stored) = record::stored_checksum(record) else { return Ok(None) };
    let syndrome = record::expected_checksum(record, chain) ^ stored;
    let covered = bytes - record::CHECKSUM_BYTES;
    if syndrome.is_power_of_two() {
        return Ok(unless_torn(record, offset, covered + syndrome.trailing_zeros() as usize / 8));
    }
    let bits = covered as u64 * 8;
    let Some(after) = bit_flip::bits_after_flip(syndrome, bits) else { return Ok(None) };
    let byte = ((bits - 1 - after) / 8) as usize;
    // The header has a checksum of its own, and that one holds.
    Ok(if byte < HEADER_BYTES { None } else { unless_torn(record, offset, byte) })
}

fn unless_torn(record: &[u8], offset: u64, byte: usize) -> Option<u64> {
    let at = offset + byte as u64;
    let sector = at / SECTOR_BYTES * SECTOR_BYTES;
    let start = sector.saturating_sub(offset) as usize;
    let end = record.len().min((sector + SECTOR_BYTES - offset) as usize);
    let unwritten = record.get(start..end)?.iter().all(|&byte| byte == 0);
    (!unwritten).then_some(at)
}

/// The next sound record at or after `offset`, where the chain is taken up from the checksum that stands before
/// it. Gives up when it had to checksum more than a few times the file, as only a forged file demands.
pub(crate) fn next_sound(reader: &mut RecordReader, mut offset: u64) -> Result<Option<(u64, FoundRecord)>> {
    let mut budget = reader.len().saturating_mul(4);
    let decode = reader.decoder();
    while offset < reader.len() {
        let before = offset.checked_sub(record::CHECKSUM_BYTES as u64);
        let window = match before {
            Some(before) => reader.load(before, record::CHECKSUM_BYTES + HEADER_BYTES)?,
            None => return Ok(None),
        };
        let Some((chain, rest)) = window.split_first_chunk::<8>() else { return Ok(None) };
        let chain = u64::from_le_bytes(*chain);
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        if header[15] != 0
            && let Some(header) = decode(header)
            && reader.position_of(offset) == Some(header.position)
        {
            match budget.checked_sub(header.record_bytes()) {
                Some(rest) => budget = rest,
                None => return Ok(None),
            }
            if let Found::Record(found) = reader.record_at(header.position, chain)? {
                return Ok(Some((offset, found)));
            }
        }
        offset += 8;
    }
    Ok(None)
}
