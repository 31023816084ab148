use lsm_core::Entry;
use lsm_core::coding::put_varint;
use lsm_core::key::{common_prefix_bytes, pack_trailer};

use super::header::{BLOCK_HEADER_BYTES_MAX, BlockHeader, ROWS_MAX};
use crate::capacity::grown;
use crate::format::checksum::BlockChecksum;
use crate::format::compression::Compressor;

/// Gathers the rows of one block and writes it; `header.rs` draws the format. Reused from block to block.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    /// Records, then, while the block is written, the column of trailers.
    stream: Vec<u8>,
    trailers: Vec<u64>,
    header: Vec<u8>,
    first_key: (usize, usize),
    last_key: (usize, usize),
    sequence_min: u64,
    sequence_max: u64,
    /// All kinds, or'ed and and'ed: equal if there is only one.
    kinds_or: u8,
    kinds_and: u8,
}

impl BlockBuilder {
    /// Bytes of all records so far.
    #[inline]
    pub(crate) fn record_bytes(&self) -> usize {
        self.stream.len()
    }

    #[inline]
    pub(crate) fn rows(&self) -> usize {
        self.trailers.len()
    }

    /// Key of the first row; empty without rows.
    #[inline]
    pub(crate) fn first_key(&self) -> &[u8] {
        &self.stream[self.first_key.0..self.first_key.1]
    }

    /// Key of the last row; empty without rows.
    #[inline]
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.stream[self.last_key.0..self.last_key.1]
    }

    /// Appends a row, which the caller has found to be in order.
    #[inline]
    pub(crate) fn add(&mut self, entry: Entry<'_>) {
        let (key, value) = (entry.key, entry.value);
        self.stream.reserve(key.len() + value.len() + 16);
        if key.len() < 0x80 && value.len() < 0x80 {
            self.stream.extend_from_slice(&[key.len() as u8, value.len() as u8]);
        } else {
            put_varint(&mut self.stream, key.len() as u64);
            put_varint(&mut self.stream, value.len() as u64);
        }
        let key_at = self.stream.len();
        self.stream.extend_from_slice(key);
        self.stream.extend_from_slice(value);
        self.last_key = (key_at, key_at + key.len());
        let kind = entry.kind as u8;
        if self.trailers.is_empty() {
            self.first_key = self.last_key;
            self.sequence_min = entry.sequence;
            self.sequence_max = entry.sequence;
            self.kinds_or = kind;
            self.kinds_and = kind;
        } else {
            self.sequence_min = self.sequence_min.min(entry.sequence);
            self.sequence_max = self.sequence_max.max(entry.sequence);
            self.kinds_or |= kind;
            self.kinds_and &= kind;
        }
        self.trailers.push(pack_trailer(entry.sequence, entry.kind));
    }

    /// Bytes of the stream when the block is finished, at most.
    pub(crate) fn stream_bytes_max(&self) -> usize {
        self.stream.len() + size_of::<u64>() * self.rows()
    }

    /// Bytes of memory that the builder holds when the block is finished, the struct itself excepted.
    pub(crate) fn heap_bytes_max(&self) -> usize {
        grown(&self.stream, self.stream_bytes_max() - self.stream.len())
            + self.trailers.capacity() * size_of::<u64>()
            + BLOCK_HEADER_BYTES_MAX
    }

    /// Gives memory back that a huge entry has made it take. There must be no rows.
    pub(crate) fn give_back(&mut self) {
        debug_assert!(self.stream.is_empty());
        self.stream = Vec::new();
    }

    /// Gives the block, which will stand at `offset` in the file, to `put` in two pieces, and starts afresh. Returns
    /// the raw length of its stream. There must be a row.
    pub(crate) fn finish<E>(
        &mut self,
        compressor: &mut Compressor,
        checksum: BlockChecksum,
        offset: u64,
        put: impl FnOnce(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        debug_assert!((1..=ROWS_MAX).contains(&self.rows()));
        let mixed = self.kinds_or != self.kinds_and;
        let base = self.sequence_min << 8 | if mixed { 0 } else { u64::from(self.kinds_or) };
        let (shift, number_max) = if mixed {
            (0, (self.sequence_max - self.sequence_min) << 8 | 0xff)
        } else {
            (8, self.sequence_max - self.sequence_min)
        };
        let width = (64 - number_max.leading_zeros() as usize).div_ceil(8);
        let prefix_bytes = common_prefix_bytes(self.first_key(), self.last_key());
        for &trailer in &self.trailers {
            let number = (trailer - base) >> shift;
            self.stream.extend_from_slice(&number.to_le_bytes()[..width]);
        }
        let (codec, stored) = compressor.compress(&self.stream);
        let header = BlockHeader {
            codec,
            rows: self.trailers.len(),
            stored_bytes: stored.len(),
            raw_bytes: self.stream.len(),
            prefix_bytes,
            width,
            mixed,
            base,
        };
        self.header.clear();
        header.encode(&mut self.header);
        let mut value = checksum.start(offset);
        value.update(&self.header[4..]);
        value.update(stored);
        self.header[..4].copy_from_slice(&value.value().to_le_bytes());
        put(&self.header, stored)?;
        let raw_bytes = self.stream.len();
        self.stream.clear();
        self.trailers.clear();
        self.first_key = (0, 0);
        self.last_key = (0, 0);
        Ok(raw_bytes)
    }
}
