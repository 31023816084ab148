//! The commit: append to the log, insert into memtables and publish under one short lock, then sync outside the lock.

use std::ops::RangeInclusive;
use std::sync::Arc;

use lsm_core::{SequenceNumber, ValueKind};
use lsm_wal::{Durability, Position};

use crate::callbacks::caught;
use crate::error::{Error, ErrorKind, Result};
use crate::keyspaces::{ReadState, Tree};
use crate::memory::{Charge, Part, batch_bytes};
use crate::metrics::Call;
use crate::write::committer::Committer;
use crate::write::direct_blob::DirectBlob;
use crate::write::path::WritePath;
use crate::write::payload::{self, Operation, Operations, Payload};
use crate::write::reservation;
use crate::write::written::Written;

/// A record buffer that grew larger than this is freed.
const SCRATCH_BYTES_MAX: usize = 64 << 10;
/// Part of the disk reserve to release for a new log segment, besides the record itself.
const LOG_RESERVE_BYTES: u64 = 80 << 10;

impl WritePath {
    /// Writes one key.
    pub(crate) fn write_one(
        &self,
        tree: &Tree,
        kind: ValueKind,
        key: &[u8],
        value: Option<&[u8]>,
        durability: Durability,
    ) -> Result<Written> {
        self.write_one_checked(tree, kind, key, value, durability, || Ok(()))
    }

    /// Writes one key if `check` succeeds. It is called under the commit lock, after all earlier writes have become
    /// visible and before anything is logged, so it must be short: it reads no file and takes no lock.
    #[inline]
    pub(crate) fn write_one_checked(
        &self,
        tree: &Tree,
        kind: ValueKind,
        key: &[u8],
        value: Option<&[u8]>,
        durability: Durability,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Written> {
        let started = self.resources.statistics.start();
        let expiring = match (kind, tree.ttl_micros()) {
            (ValueKind::Put, Some(ttl)) => Some(self.expiring_value(ttl, value.unwrap_or_default())),
            _ => None,
        };
        let (kind, value) = match &expiring {
            Some(value) => (ValueKind::PutWithExpiry, Some(&**value)),
            None => (kind, value),
        };
        payload::check_key(key)?;
        payload::check_value(value.unwrap_or_default())?;
        tree.check_usable()?;
        let value_len = value.map_or(0, <[u8]>::len);
        let mut blob = match value {
            Some(stored) if value_len >= self.resources.memory.budget.direct_blob_bytes => {
                self.write_direct(tree, kind, stored)?
            }
            _ => None,
        };
        let pointer = blob.as_ref().map(|blob| blob.pointer.clone());
        let (kind, value) = match &pointer {
            Some(pointer) => (ValueKind::BlobPointer, Some(&**pointer)),
            None => (kind, value),
        };
        let range_deletes = u64::from(kind == ValueKind::RangeDelete);
        let bytes = batch_bytes(key.len() + value.map_or(0, <[u8]>::len), 1, range_deletes);
        self.check_batch_bytes(bytes)?;
        self.admit(tree, bytes)?;
        let written = {
            let deletes = payload::deletes(kind);
            let mut committer = self.lock_committer(bytes, || deletes, |_| Ok([tree.id]))?.0;
            let committer = &mut *committer;
            // Check again under the lock: another thread may have dropped the keyspace meanwhile.
            tree.check_usable()?;
            check()?;
            if !committer.watches.is_empty() {
                let value = value.unwrap_or_default();
                committer.note_one(&Operation { sequence: 0, keyspace: tree.id, kind, key, value });
            }
            let value_bytes = [value.map_or(0, <[u8]>::len)];
            self.prepare(committer, tree.id, &reservation::of_one(kind, key, &value_bytes))?;
            let mut scratch = std::mem::take(&mut committer.scratch);
            let _charge = (bytes > SCRATCH_BYTES_MAX)
                .then(|| Charge::new(&self.resources.memory, Part::Buffers, bytes));
            payload::encode_single(&mut scratch, tree.id, kind, key, value);
            if let Some(blob) = &mut blob {
                committer.set_blobs(vec![blob.log()]);
            }
            let log_start = committer.log_end();
            let appended = self.append(committer, &scratch, 1, |_| deletes);
            if scratch.capacity() <= SCRATCH_BYTES_MAX {
                committer.scratch = scratch;
            }
            let (sequence, position) = appended?;
            let operation =
                Operation { sequence, keyspace: tree.id, kind, key, value: value.unwrap_or_default() };
            let mut is_whole = false;
            let taken = caught("a write", || {
                committer.insert(&operation, log_start, sequence - 1)?;
                is_whole = true;
                self.visibility.publish(sequence);
                committer.after_write(tree.id);
                self.bound_log(committer);
                Ok(())
            });
            if let Err(error) = taken {
                let rest = (!is_whole).then_some(Ok(operation)).into_iter();
                self.finish_write(committer, rest, log_start, sequence..=sequence, error)?;
            }
            Written { sequence, position }
        };
        let written = self.make_durable(written, durability)?;
        self.resources.statistics.end(Call::of(kind), started);
        Ok(written)
    }

    /// Writes a batch. An empty one has nothing to make durable.
    pub(crate) fn write_batch(&self, batch: Payload<'_>, durability: Durability) -> Result<Written> {
        self.write_batch_checked(batch, durability, || Ok(()))
    }

    /// Writes a batch if `check` succeeds; see [`write_one_checked`](Self::write_one_checked). An empty batch is not
    /// checked.
    #[inline]
    pub(crate) fn write_batch_checked(
        &self,
        batch: Payload<'_>,
        durability: Durability,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Written> {
        let started = self.resources.statistics.start();
        let timed = if self.may_expire(&batch) { Some(self.timed(&batch)?) } else { None };
        let Payload { count, merged, database, .. } = batch;
        let (encoded, memory_bytes) = match &timed {
            Some(timed) => (&*timed.encoded, timed.memory_bytes),
            None => (batch.encoded, batch.memory_bytes),
        };
        if database.is_some_and(|id| id != self.resources.database_id) {
            return Err(Error::foreign("the batch names keyspaces of another database"));
        }
        let mut separated = None;
        if encoded.len() >= self.resources.memory.budget.direct_blob_bytes {
            self.check()?;
            separated = self.separated(encoded)?;
        }
        let mut blobs = separated.as_mut().map(|separated| std::mem::take(&mut separated.blobs));
        let (encoded, memory_bytes) = match &separated {
            Some(separated) => (&*separated.encoded, separated.memory_bytes),
            None => (encoded, memory_bytes),
        };
        self.check_batch_bytes(memory_bytes)?;
        self.admit_batch(encoded)?;
        if count == 0 {
            return Ok(Written { sequence: self.visibility.sequence(), position: Position::ZERO });
        }
        let written = {
            let (mut committer, shares) = self.lock_committer(
                memory_bytes,
                || only_deletes(encoded),
                |committer| committer.shares(encoded),
            )?;
            let committer = &mut *committer;
            if !merged.is_empty() {
                committer.check_merges(merged)?;
            }
            check()?;
            if !committer.watches.is_empty() {
                committer.note_batch(encoded);
            }
            shares
                .iter()
                .try_for_each(|(keyspace, share)| self.prepare(committer, keyspace, &share.reservation()))?;
            if let Some(blobs) = &mut blobs {
                committer.set_blobs(blobs.iter_mut().map(DirectBlob::log).collect());
            }
            let log_start = committer.log_end();
            let (sequence, position) = self.append(committer, encoded, count, only_deletes)?;
            let mut left = count;
            let taken = caught("a write", || {
                for operation in Operations::new(encoded, sequence) {
                    committer.insert(&operation.map_err(Error::invalid)?, log_start, sequence - 1)?;
                    left -= 1;
                }
                self.visibility.publish(sequence + count - 1);
                for &keyspace in shares.as_ref() {
                    committer.after_write(keyspace);
                }
                self.bound_log(committer);
                Ok(())
            });
            if let Err(error) = taken {
                let rest = Operations::new(encoded, sequence).skip((count - left) as usize);
                let sequences = sequence..=sequence + count - 1;
                self.finish_write(committer, rest, log_start, sequences, error)?;
            }
            Written { sequence: sequence + count - 1, position }
        };
        let written = self.make_durable(written, durability)?;
        self.resources.statistics.end(Call::Batch, started);
        Ok(written)
    }

    /// Finishes a write after a panic: the log has the record, and `rest` is not inserted yet. A batch must never
    /// become visible in part. If even the engine's own memtable fails, memory and log differ, so all writing stops.
    #[cold]
    fn finish_write<'o>(
        &self,
        committer: &mut Committer,
        rest: impl Iterator<Item = Result<Operation<'o>, &'static str>>,
        log_start: u64,
        sequences: RangeInclusive<SequenceNumber>,
        error: Error,
    ) -> Result<()> {
        let mut rest = rest.peekable();
        if rest.peek().is_none() {
            // All operations are inserted. The memtable panicked later, when it was asked for its size.
            committer.fail_measured(error);
            return Ok(());
        }
        committer
            .insert_rest(rest, log_start, sequences.start() - 1, &error)
            .inspect_err(|error| self.status.stop_writing(error.clone()))?;
        self.visibility.publish(*sequences.end());
        Err(error)
    }

    /// Logs the clear of a keyspace and empties it. The caller then logs the version edit. Returns the state before.
    pub(crate) fn clear_tree(&self, tree: &Tree) -> Result<(SequenceNumber, Arc<ReadState>)> {
        let mut committer = self.committer.lock();
        tree.check_usable()?;
        let mut payload = Vec::new();
        payload::encode_single(&mut payload, tree.id, ValueKind::KeyspaceClear, &[], None);
        let (sequence, _) = self.append(&mut committer, &payload, 1, |_| true)?;
        let cleared = tree.load_full();
        committer.clear(tree.id, sequence).inspect_err(|error| self.status.stop_writing(error.clone()))?;
        self.visibility.publish(sequence);
        Ok((sequence, cleared))
    }

    /// Appends a record. On a full disk, a record that only deletes may use the disk reserve.
    #[inline]
    pub(super) fn append(
        &self,
        committer: &mut Committer,
        payload: &[u8],
        count: u64,
        deletes: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(SequenceNumber, Position)> {
        let appended = committer.append(payload, count);
        if let Err(error) = &appended
            && error.kind() == ErrorKind::NoSpace
            && deletes(payload)
            && self.resources.disk_reserve.release(LOG_RESERVE_BYTES + payload.len() as u64)
        {
            return committer.append(payload, count);
        }
        appended
    }

    #[inline]
    fn make_durable(&self, written: Written, durability: Durability) -> Result<Written> {
        match durability {
            Durability::Sync => self.wait_durable(written.position.0)?,
            // The log syncs it in the background within a second.
            Durability::Buffered => {}
        }
        Ok(written)
    }
}

/// Whether a batch contains only deletes.
fn only_deletes(payload: &[u8]) -> bool {
    Operations::new(payload, 0).all(|operation| operation.is_ok_and(|found| payload::deletes(found.kind)))
}

#[cfg(test)]
mod tests;
