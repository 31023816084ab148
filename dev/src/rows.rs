use std::sync::Arc;

use lsm_core::{Cursor, Entry, Error, SequenceNumber, ValueKind};

const VALUE: [u8; 100] = [7; 100];

const ROW_BYTES: usize = Rows::KEY_BYTES + 8 + VALUE.len();

/// A source of a merge that costs next to nothing, for benchmarks of what merges it: puts of fixed size in one buffer.
/// A seek goes to the first row.
#[derive(Clone, Default)]
pub struct Rows {
    bytes: Arc<Vec<u8>>,
    at: usize,
}

impl Rows {
    /// Bytes of a key.
    pub const KEY_BYTES: usize = 16;

    /// Adds a row, behind all others in order. Its value are 100 bytes.
    pub fn push(&mut self, key: [u8; Self::KEY_BYTES], sequence: SequenceNumber) {
        let bytes = Arc::make_mut(&mut self.bytes);
        bytes.extend_from_slice(&key);
        bytes.extend_from_slice(&sequence.to_le_bytes());
        bytes.extend_from_slice(&VALUE);
    }
}

impl Cursor for Rows {
    fn first(&mut self) {
        self.at = 0;
    }

    fn last(&mut self) {
        self.at = self.bytes.len().saturating_sub(ROW_BYTES);
    }

    fn seek(&mut self, _: &[u8], _: SequenceNumber) {
        self.at = 0;
    }

    fn seek_for_prev(&mut self, _: &[u8], _: SequenceNumber) {
        self.at = 0;
    }

    #[inline]
    fn next(&mut self) {
        self.at = self.at.saturating_add(ROW_BYTES);
    }

    #[inline]
    fn prev(&mut self) {
        self.at = self.at.wrapping_sub(ROW_BYTES);
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        let row = self.bytes.get(self.at..self.at.checked_add(ROW_BYTES)?)?;
        let (key, rest) = row.split_at(Self::KEY_BYTES);
        let (sequence, value) = rest.split_first_chunk()?;
        Some(Entry { key, sequence: u64::from_le_bytes(*sequence), kind: ValueKind::Put, value })
    }

    fn error(&self) -> Option<&Error> {
        None
    }
}
