//! The payload of one log record: the operations of a write batch, encoded.
//!
//! ```text
//! payload   := count:u32 op*count
//! op        := kind:u8 keyspace:varint key:bytes            Delete, SingleDelete, KeyspaceClear (empty key)
//!            | kind:u8 keyspace:varint key:bytes value:bytes  Put, PutWithExpiry (the value begins with the time), Merge (the
//!                                                             value is an operand), BlobPointer, RangeDelete (the value
//!                                                             is the end, exclusive), Ingest (empty key, and the tables)
//! bytes     := length:varint byte*length
//! ```
//!
//! The record's tag is the sequence number of the first operation; each operation takes the next one.

use lsm_core::coding::{Decoder, put_bytes, put_varint};
use lsm_core::key::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use lsm_core::{BlobPointer, SEQUENCE_MAX, SequenceNumber, ValueKind, expiry};

use crate::error::{Error, Result};

/// Size of the operation count at the front of a payload.
pub(crate) const COUNT_BYTES: usize = 4;

/// An encoded batch that is ready to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload<'b> {
    pub(crate) encoded: &'b [u8],
    /// Number of operations.
    pub(crate) count: u64,
    /// Upper bound of what they take in memtables.
    pub(crate) memory_bytes: usize,
    /// Keyspaces that get merge operands.
    pub(crate) merged: &'b [u32],
    /// The database whose keyspaces it names. `None` if it writes only to the default keyspace.
    pub(crate) database: Option<u64>,
    /// It has values that expire, with durations in front of them; see [`expiry`](crate::write::expiry).
    pub(crate) expires: bool,
}

/// Fails for a key over the limit.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "key",
            bytes: key.len() as u64,
            bytes_max: KEY_BYTES_MAX as u64,
        });
    }
    Ok(())
}

/// Fails for a value over the limit.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() as u64 > VALUE_BYTES_MAX {
        return Err(Error::TooLarge { what: "value", bytes: value.len() as u64, bytes_max: VALUE_BYTES_MAX });
    }
    Ok(())
}

/// Fails for a range that ends before it starts. An empty range is allowed and deletes nothing.
pub(crate) fn check_range(start: &[u8], end: &[u8]) -> Result<()> {
    check_key(start)?;
    check_key(end)?;
    if start > end {
        return Err(Error::inverted(start, end));
    }
    Ok(())
}

/// Whether an operation only deletes.
#[inline]
pub(crate) fn deletes(kind: ValueKind) -> bool {
    kind.is_tombstone() || matches!(kind, ValueKind::RangeDelete | ValueKind::KeyspaceClear)
}

/// Encodes a batch of one operation into `out`, which is cleared first.
#[inline]
pub(crate) fn encode_single(
    out: &mut Vec<u8>,
    keyspace: u32,
    kind: ValueKind,
    key: &[u8],
    value: Option<&[u8]>,
) {
    out.clear();
    out.extend_from_slice(&1_u32.to_le_bytes());
    encode_operation(out, keyspace, kind, key, value);
}

/// Appends an operation to a payload. The caller writes the count.
#[inline]
pub(crate) fn encode_operation(
    out: &mut Vec<u8>,
    keyspace: u32,
    kind: ValueKind,
    key: &[u8],
    value: Option<&[u8]>,
) {
    out.push(kind as u8);
    put_varint(out, u64::from(keyspace));
    put_bytes(out, key);
    if let Some(value) = value {
        put_bytes(out, value);
    }
}

/// One operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// The id of its keyspace.
    pub keyspace: u32,
    /// What it does.
    pub kind: ValueKind,
    /// Its key, or the start of a range delete.
    pub key: &'a [u8],
    /// Its value, or the end of a range delete.
    pub value: &'a [u8],
}

/// An iterator over the operations in the payload of a log record. If the payload is malformed, it yields one `Err`
/// with the reason and ends.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    decoder: Decoder<'a>,
    left: u32,
    sequence: SequenceNumber,
    failed: bool,
}

impl<'a> Operations<'a> {
    /// Reads `payload`. `first_sequence` is the tag of its log record.
    pub fn new(payload: &'a [u8], first_sequence: SequenceNumber) -> Self {
        let mut decoder = Decoder::new(payload);
        let left = decoder.u32();
        let end = first_sequence.checked_add(u64::from(left.unwrap_or(0)));
        let failed = left.is_none() || end.is_none_or(|end| end > SEQUENCE_MAX + 1);
        Self { decoder, left: left.unwrap_or(0), sequence: first_sequence, failed }
    }

    fn read(&mut self) -> Option<Operation<'a>> {
        let kind = ValueKind::from_u8(self.decoder.u8()?)?;
        let keyspace = u32::try_from(self.decoder.varint()?).ok()?;
        let key = self.decoder.bytes()?;
        let value = match kind {
            ValueKind::Put | ValueKind::Merge | ValueKind::RangeDelete | ValueKind::Ingest => {
                self.decoder.bytes()?
            }
            ValueKind::PutWithExpiry => {
                self.decoder.bytes().filter(|value| value.len() >= expiry::EXPIRY_BYTES)?
            }
            ValueKind::BlobPointer => {
                self.decoder.bytes().filter(|value| BlobPointer::decode(value).is_some())?
            }
            ValueKind::Delete | ValueKind::SingleDelete | ValueKind::KeyspaceClear => &[],
            _ => return None,
        };
        let sequence = self.sequence;
        self.sequence += 1;
        (key.len() <= KEY_BYTES_MAX).then_some(Operation { sequence, keyspace, kind, key, value })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.failed) {
            self.left = 0;
            self.decoder = Decoder::new(&[]);
            return Some(Err("the batch is malformed"));
        }
        if self.left == 0 {
            self.failed = !self.decoder.is_empty();
            return self.failed.then(|| self.next()).flatten();
        }
        self.left -= 1;
        let operation = self.read();
        self.failed = operation.is_none();
        match operation {
            Some(operation) => Some(Ok(operation)),
            None => self.next(),
        }
    }
}
