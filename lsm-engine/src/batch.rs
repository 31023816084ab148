use std::time::Duration;

use lsm_core::ValueKind;

use crate::error::{Error, Result};
use crate::keyspace::Keyspace;
use crate::memory::batch_bytes;
use crate::write::{
    COUNT_BYTES, Payload, after_micros, check_key, check_range, check_value, encode_operation, stored_value,
};

/// Writes that are atomic across keyspaces: they become visible and durable together, or not at all.
///
/// Operations take effect in the order in which they were added. Each is encoded when it is added, so a commit only
/// copies the encoded batch into the log. An operation with a bad key, value or range is not added; the commit then fails
/// with its error.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let db = lsm_engine::Db::open(dir.path())?;
/// let mut batch = lsm_engine::WriteBatch::new();
/// batch.put("a", "1").put("b", "2").delete("c").delete_range("x".."y");
/// db.write(batch)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct WriteBatch {
    payload: Vec<u8>,
    count: u32,
    /// Number of operations that are range deletes.
    range_deletes: u32,
    /// Keyspaces that get merge operands.
    merged: Vec<u32>,
    /// It has values that expire.
    expires: bool,
    /// The error of the first operation that could not be added. The commit returns it.
    invalid: Option<Error>,
    /// The database that the named keyspaces belong to. A commit to another database fails: keyspace ids mean something
    /// else there.
    database: Option<u64>,
}

impl Default for WriteBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            payload: vec![0; COUNT_BYTES],
            count: 0,
            range_deletes: 0,
            merged: Vec::new(),
            expires: false,
            invalid: None,
            database: None,
        }
    }

    /// Sets `key` to `value` in the default keyspace.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push(0, ValueKind::Put, key.as_ref(), Some(value.as_ref()));
        self
    }

    /// Sets `key` to `value` in the default keyspace, until `after` from the commit on; see
    /// [`Db::put_expiring`](crate::Db::put_expiring).
    pub fn put_expiring(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> &mut Self {
        self.push_expiring(0, key.as_ref(), value.as_ref(), after);
        self
    }

    /// Deletes `key`, which was put at most once since it was deleted last, from the default keyspace; see
    /// [`Db::single_delete`](crate::Db::single_delete).
    pub fn single_delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.push(0, ValueKind::SingleDelete, key.as_ref(), None);
        self
    }

    /// Deletes `key` from the default keyspace.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.push(0, ValueKind::Delete, key.as_ref(), None);
        self
    }

    /// Merges `operand` into the value of `key` in the default keyspace; see [`Keyspace::merge`].
    pub fn merge(&mut self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> &mut Self {
        self.push(0, ValueKind::Merge, key.as_ref(), Some(operand.as_ref()));
        self
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end` in the default keyspace.
    pub fn delete_range<K: AsRef<[u8]>>(&mut self, range: std::ops::Range<K>) -> &mut Self {
        self.push_range(0, range.start.as_ref(), range.end.as_ref());
        self
    }

    /// Sets `key` to `value` in `keyspace`.
    pub fn put_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.claim(keyspace);
        self.push(keyspace.id(), ValueKind::Put, key.as_ref(), Some(value.as_ref()));
        self
    }

    /// Sets `key` to `value` in `keyspace`, until `after` from the commit on; see
    /// [`Db::put_expiring`](crate::Db::put_expiring).
    pub fn put_expiring_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        after: Duration,
    ) -> &mut Self {
        self.claim(keyspace);
        self.push_expiring(keyspace.id(), key.as_ref(), value.as_ref(), after);
        self
    }

    /// Deletes `key`, which was put at most once since it was deleted last, from `keyspace`; see
    /// [`Db::single_delete`](crate::Db::single_delete).
    pub fn single_delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        self.claim(keyspace);
        self.push(keyspace.id(), ValueKind::SingleDelete, key.as_ref(), None);
        self
    }

    /// Deletes `key` from `keyspace`.
    pub fn delete_in(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut Self {
        self.claim(keyspace);
        self.push(keyspace.id(), ValueKind::Delete, key.as_ref(), None);
        self
    }

    /// Merges `operand` into the value of `key` in `keyspace`; see [`Keyspace::merge`].
    pub fn merge_in(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> &mut Self {
        self.claim(keyspace);
        self.push(keyspace.id(), ValueKind::Merge, key.as_ref(), Some(operand.as_ref()));
        self
    }

    /// Deletes all keys from `range.start` up to, but not including, `range.end` in `keyspace`.
    pub fn delete_range_in<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        range: std::ops::Range<K>,
    ) -> &mut Self {
        self.claim(keyspace);
        self.push_range(keyspace.id(), range.start.as_ref(), range.end.as_ref());
        self
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no operations.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the batch takes in the log.
    pub fn encoded_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Bytes that the batch takes in memtables at most. The limit is a quarter of
    /// [`Options::memory`](crate::Options::memory), and 1 GiB. Short entries take many times their size in the log, and
    /// a range delete takes some kilobytes.
    pub fn memory_bytes(&self) -> usize {
        batch_bytes(self.payload.len(), u64::from(self.count), u64::from(self.range_deletes))
    }

    /// Removes all operations and keeps the buffer.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.payload.extend_from_slice(&[0; COUNT_BYTES]);
        self.count = 0;
        self.range_deletes = 0;
        self.merged.clear();
        self.expires = false;
        self.invalid = None;
        self.database = None;
    }

    /// The encoded batch, or the error of the first operation that could not be added.
    pub(crate) fn finish(&mut self) -> Result<Payload<'_>> {
        if let Some(error) = &self.invalid {
            return Err(error.clone());
        }
        let (count, _) = self.payload.split_at_mut(COUNT_BYTES);
        count.copy_from_slice(&self.count.to_le_bytes());
        let (memory_bytes, count) = (self.memory_bytes(), u64::from(self.count));
        let (encoded, merged, expires) = (&*self.payload, &*self.merged, self.expires);
        Ok(Payload { encoded, count, memory_bytes, merged, database: self.database, expires })
    }

    fn claim(&mut self, keyspace: &Keyspace) {
        let database = keyspace.database_id();
        if *self.database.get_or_insert(database) != database {
            self.refuse(Error::foreign("the batch names keyspaces of two databases"));
        }
    }

    fn push_range(&mut self, keyspace: u32, start: &[u8], end: &[u8]) {
        match check_range(start, end) {
            Ok(()) => self.push(keyspace, ValueKind::RangeDelete, start, Some(end)),
            Err(error) => self.refuse(error),
        }
    }

    fn push_expiring(&mut self, keyspace: u32, key: &[u8], value: &[u8], after: Duration) {
        match after_micros(key, after) {
            Ok(micros) => {
                self.push(keyspace, ValueKind::PutWithExpiry, key, Some(&stored_value(micros, value)));
            }
            Err(error) => self.refuse(error),
        }
    }

    pub(crate) fn push(&mut self, keyspace: u32, kind: ValueKind, key: &[u8], value: Option<&[u8]>) {
        let checked = check_key(key).and_then(|()| check_value(value.unwrap_or_default()));
        match (checked, self.count.checked_add(1)) {
            (Ok(()), Some(count)) => {
                encode_operation(&mut self.payload, keyspace, kind, key, value);
                self.count = count;
                self.range_deletes += u32::from(kind == ValueKind::RangeDelete);
                self.expires |= kind == ValueKind::PutWithExpiry;
                if kind == ValueKind::Merge && !self.merged.contains(&keyspace) {
                    self.merged.push(keyspace);
                }
            }
            (Ok(()), None) => self.refuse(Error::TooLarge {
                what: "batch",
                bytes: self.payload.len() as u64,
                bytes_max: self.payload.len() as u64,
            }),
            (Err(error), _) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: Error) {
        self.invalid.get_or_insert(error);
    }
}

impl From<&WriteBatch> for WriteBatch {
    fn from(batch: &WriteBatch) -> Self {
        batch.clone()
    }
}

#[cfg(test)]
mod tests {
    use lsm_core::ValueKind;

    use super::WriteBatch;
    use crate::error::Error;
    use crate::write::{Operation, Operations};

    #[test]
    fn a_batch_survives_encoding() {
        let mut batch = WriteBatch::new();
        batch.put("a", "1").delete("b").delete_range("c".."d").put("", "");
        let read: Vec<_> =
            Operations::new(batch.finish().unwrap().encoded, 10).collect::<Result<_, _>>().unwrap();
        let op = |sequence, kind, key: &'static str, value: &'static str| Operation {
            sequence,
            keyspace: 0,
            kind,
            key: key.as_bytes(),
            value: value.as_bytes(),
        };
        assert_eq!(
            read,
            [
                op(10, ValueKind::Put, "a", "1"),
                op(11, ValueKind::Delete, "b", ""),
                op(12, ValueKind::RangeDelete, "c", "d"),
                op(13, ValueKind::Put, "", ""),
            ]
        );
    }

    #[test]
    fn decoding_any_cut_of_a_batch_fails_and_ends() {
        let mut batch = WriteBatch::new();
        batch.put("key", "value").delete("other");
        let payload = batch.finish().unwrap().encoded;
        for cut in 0..payload.len() {
            let read: Vec<_> = Operations::new(&payload[..cut], 1).take(10).collect();
            assert_eq!(read.last(), Some(&Err("the batch is malformed")), "cut at {cut}");
            assert!(read.len() < 3);
        }
        let mut longer = payload.to_vec();
        longer.push(0);
        assert!(Operations::new(&longer, 1).any(|operation| operation.is_err()));
    }

    #[test]
    fn a_batch_rejects_keys_and_ranges_out_of_limits() {
        let mut batch = WriteBatch::new();
        batch.put(vec![0; 65_536], "");
        let error = batch.finish().unwrap_err();
        assert!(matches!(error, Error::TooLarge { what: "key", .. }));
        assert_eq!(error.to_string(), "key of 65536 bytes is over the limit of 65535");
        batch.clear();
        batch.delete_range("b".."a");
        assert!(batch.finish().unwrap_err().to_string().contains("ends before it starts"));
        batch.clear();
        batch.put(vec![0; 65_535], "");
        assert!(batch.finish().is_ok());
    }
}
