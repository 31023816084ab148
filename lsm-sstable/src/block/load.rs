use lsm_core::ValueKind;
use lsm_core::coding::Decoder;
use lsm_core::key::KEY_BYTES_MAX;

use super::frame::{FRAME_HEADER_BYTES, FRAME_PADDING_BYTES, Shape, head};
use super::header::BlockHeader;
use crate::format::compression::decompress;

/// Turns a block of the file, of which `covered` is what follows the verified checksum, into a frame at the front
/// of `buffer`, which grows as needed and keeps its length. Returns the frame's length.
///
/// Heads and offsets are rebuilt here: not storing them makes files a tenth smaller, and costs 3 ns a row. Every
/// length, kind and the order of heads is checked, so that nothing that reads the frame can step outside it.
pub(crate) fn load(covered: &[u8], buffer: &mut Vec<u8>) -> Result<usize, String> {
    let (header, stored) = BlockHeader::decode(covered)?;
    let too_large = || format!("block of {} raw bytes does not fit memory", header.raw_bytes);
    let (shape, frame_bytes) = Shape::plan(&header).ok_or_else(too_large)?;
    // The column comes behind the records and is moved to the front; the padding takes its place.
    let column_bytes = header.rows * header.width;
    let loaded_bytes = frame_bytes + column_bytes;
    if buffer.len() < loaded_bytes {
        buffer.try_reserve_exact(loaded_bytes - buffer.len()).map_err(|_| too_large())?;
        buffer.resize(loaded_bytes, 0);
    }
    let (front, stream) = buffer[..loaded_bytes].split_at_mut(shape.records_at);
    decompress(header.codec, stored, &mut stream[..header.raw_bytes])?;
    let (records, behind) = stream.split_at_mut(header.raw_bytes - column_bytes);
    let (front, column) = front.split_at_mut(shape.column_at);
    column.copy_from_slice(&behind[..column_bytes]);
    behind[..FRAME_PADDING_BYTES].fill(0);
    shape.write(front);
    let (prefix, tables) = front[FRAME_HEADER_BYTES..].split_at_mut(header.prefix_bytes);
    let (heads, offsets) = tables.split_at_mut(4 * header.rows);
    let heads = heads.as_chunks_mut().0;
    let last_key = match shape.offset_width {
        2 => index_rows(records, prefix, heads, offsets.as_chunks_mut::<2>().0, |at| {
            (at as u16).to_le_bytes()
        })?,
        4 => index_rows(records, prefix, heads, offsets.as_chunks_mut::<4>().0, |at| {
            (at as u32).to_le_bytes()
        })?,
        _ => index_rows(records, prefix, heads, offsets.as_chunks_mut::<8>().0, |at| {
            (at as u64).to_le_bytes()
        })?,
    };
    if !last_key.starts_with(prefix) {
        return Err("first and last key do not share the block's prefix".into());
    }
    if header.mixed {
        let kinds = column.iter().step_by(header.width.max(1));
        if header.width == 0 || kinds.copied().any(|kind| ValueKind::from_u8(kind).is_none()) {
            return Err("block has an entry of unknown kind".into());
        }
    }
    Ok(frame_bytes)
}

/// Writes the heads and offsets of all records, and the common prefix. Returns the last key.
#[inline]
fn index_rows<'a, const N: usize>(
    records: &'a [u8],
    prefix: &mut [u8],
    heads: &mut [[u8; 4]],
    offsets: &mut [[u8; N]],
    encode: impl Fn(usize) -> [u8; N],
) -> Result<&'a [u8], String> {
    let mut at = 0;
    let mut previous_head = 0;
    let mut in_order = true;
    let mut last_key: &[u8] = &[];
    let prefix_bytes = prefix.len();
    let Some((end, starts)) = offsets.split_last_mut() else {
        return Err("block has no rows".into());
    };
    for (index, (head_slot, start)) in heads.iter_mut().zip(starts).enumerate() {
        let malformed = || format!("record {index} of the block is malformed");
        let (key_at, key_bytes, value_bytes) = lengths(records, at).ok_or_else(malformed)?;
        let key_end = key_at.checked_add(key_bytes).ok_or_else(malformed)?;
        let key = records.get(key_at..key_end).ok_or_else(malformed)?;
        let rest = key.get(prefix_bytes..).ok_or_else(malformed)?;
        if index == 0 {
            prefix.copy_from_slice(&key[..prefix_bytes]);
        }
        let head = head(rest);
        in_order &= previous_head <= head;
        previous_head = head;
        *head_slot = head.to_le_bytes();
        *start = encode(at);
        at = key_end.checked_add(value_bytes).ok_or_else(malformed)?;
        last_key = key;
    }
    *end = encode(at);
    if at != records.len() {
        return Err(format!("records end at {at} of {} bytes", records.len()));
    }
    if !in_order {
        return Err("keys of the block are out of order".into());
    }
    Ok(last_key)
}

/// Where the key of the record at `at` starts, its length and the value's.
#[inline]
fn lengths(records: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    let rest = records.get(at..)?;
    let &[key_bytes, value_bytes] = rest.first_chunk::<2>()?;
    if key_bytes | value_bytes < 0x80 {
        return Some((at + 2, usize::from(key_bytes), usize::from(value_bytes)));
    }
    let mut fields = Decoder::new(rest);
    let key_bytes = fields.varint_usize().filter(|&bytes| bytes <= KEY_BYTES_MAX)?;
    let value_bytes = fields.varint_usize()?;
    Some((records.len() - fields.rest().len(), key_bytes, value_bytes))
}

#[cfg(test)]
mod tests {
    use super::super::builder::BlockBuilder;
    use super::super::frame::Frame;
    use super::*;
    use crate::format::checksum::BlockChecksum;
    use crate::format::compression::{Compression, Compressor};
    use crate::meta::TableId;
    use lsm_core::{Entry, SEQUENCE_MAX};
    use proptest::prelude::*;

    /// A block behind its checksum.
    fn block(entries: &[(&[u8], u64, ValueKind, &[u8])], compression: Compression) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for &(key, sequence, kind, value) in entries {
            builder.add(Entry { key, sequence, kind, value });
        }
        let mut out = Vec::new();
        let mut compressor = Compressor::new(compression).unwrap();
        let put = |header: &[u8], stored: &[u8]| {
            out.extend_from_slice(header);
            out.extend_from_slice(stored);
            Ok::<(), std::convert::Infallible>(())
        };
        builder.finish(&mut compressor, BlockChecksum::new(TableId(1)), 0, put).unwrap();
        out.split_off(4)
    }

    /// Everything that reads a frame, for whoever panics.
    fn read_everything(covered: &[u8]) {
        let mut buffer = vec![0xaa; 100];
        let Ok(frame_bytes) = load(covered, &mut buffer) else { return };
        let bytes = &buffer[..frame_bytes];
        let frame = Frame::new(bytes);
        let shape = frame.shape();
        let mut walked = frame.row(0);
        for index in 0..shape.rows() {
            let row = frame.row(index);
            assert_eq!(row, walked);
            let entry = row.entry(bytes).unwrap();
            for sequence in [0, entry.sequence, SEQUENCE_MAX] {
                frame.get(entry.key, sequence);
                assert!(frame.lower_bound(entry.key, sequence) <= shape.rows());
            }
            if index + 1 < shape.rows() {
                walked = shape.row_after(bytes, &row);
            }
        }
        for key in [&b""[..], b"a", b"key", b"key\xff\xff\xff\xff"] {
            frame.get(key, 5);
            frame.lower_bound(key, 5);
        }
    }

    fn samples() -> Vec<Vec<u8>> {
        let long = vec![b'v'; 70_000];
        let put = ValueKind::Put;
        vec![
            block(
                &[(b"key1", 9, put, b"one"), (b"key2", 3, put, b"two"), (b"key2", 1, put, b"")],
                Compression::None,
            ),
            block(
                &[(b"", 0, put, b""), (b"a", 0, put, &[7; 200]), (&[b'b'; 300], 0, put, b"")],
                Compression::Lz4,
            ),
            block(&[(b"k", 1 << 50, put, b"x"), (b"ka", 5, ValueKind::Delete, b"")], Compression::None),
            block(&[(b"key", 7, put, &long), (b"kez", 8, put, b"y")], Compression::Lz4),
        ]
    }

    #[test]
    fn what_was_built_is_found() {
        for sample in samples() {
            let mut buffer = Vec::new();
            let frame_bytes = load(&sample, &mut buffer).unwrap();
            let frame = Frame::new(&buffer[..frame_bytes]);
            for index in 0..frame.shape().rows() {
                let row = frame.row(index);
                let key = row.key(&buffer[..frame_bytes]).to_vec();
                assert_eq!(frame.get(&key, row.sequence()), Some(row));
                assert_eq!(frame.lower_bound(&key, row.sequence()), index);
            }
            read_everything(&sample);
        }
    }

    proptest! {
        #[test]
        fn bytes_that_pass_a_checksum_but_mean_nothing_do_no_harm(
            sample in prop::sample::select(samples()),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let mut bytes = sample;
            for (at, byte) in damage {
                // Most bytes of the long value are alike; the front is where the meaning is.
                let at = at.index(bytes.len().min(80));
                bytes[at] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            read_everything(&bytes);
        }

        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_everything(&[&[0x10][..], &bytes].concat());
        }
    }
}
