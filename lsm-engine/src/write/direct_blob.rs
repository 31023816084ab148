//! Values that are too large for memtable and log: each is written to a blob file of its own, which is durable before the
//! log record that points to it is appended. So no record of the log ever points to a value that a crash has taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use lsm_core::{BlobPointer, ValueKind, expiry};
use lsm_sstable::{BlobExpectation, BlobWriter};

use crate::error::{Error, Result};
use crate::keyspaces::Tree;
use crate::memory::{Charge, Part, batch_bytes};
use crate::pins::PinKind;
use crate::version::{BlobFile, files};
use crate::write::path::WritePath;
use crate::write::payload::{COUNT_BYTES, Operation, Operations, encode_operation};

/// Longer values are not copied into a buffer on their way to the file.
const BUFFER_BYTES: usize = 16 << 10;

/// A value in a blob file of its own. The file is removed if nothing was appended to the log.
pub(super) struct DirectBlob {
    pub(super) file: Arc<BlobFile>,
    pub(super) pointer: Vec<u8>,
    /// Whether the log may have a record that points to it: after a failed append it may still.
    may_be_logged: bool,
}

impl Drop for DirectBlob {
    fn drop(&mut self) {
        if !self.may_be_logged {
            self.file.mark_obsolete();
        }
    }
}

impl DirectBlob {
    /// What the committer needs to insert the pointer. From now on the file stays.
    pub(super) fn log(&mut self) -> Arc<BlobFile> {
        self.may_be_logged = true;
        Arc::clone(&self.file)
    }
}

/// A batch whose large values are in blob files.
pub(super) struct Separated {
    pub(super) encoded: Vec<u8>,
    pub(super) memory_bytes: usize,
    pub(super) blobs: Vec<DirectBlob>,
    _charge: Charge,
}

impl WritePath {
    /// Writes a value to a blob file, durably, if it is as large as that and its keyspace has blob files.
    #[cold]
    pub(super) fn write_direct(
        &self,
        tree: &Tree,
        kind: ValueKind,
        stored: &[u8],
    ) -> Result<Option<DirectBlob>> {
        let Some((expiry_micros, value)) = separable(kind, stored) else { return Ok(None) };
        if !self.is_direct(tree, value) {
            return Ok(None);
        }
        self.admit(tree, value.len())?;
        let resources = &*self.resources;
        let number = self.numbers.next();
        let path = files::blob(&resources.directory, number);
        let write = || {
            let mut writer = BlobWriter::create(&*resources.vfs, &path, resources.random_id(), BUFFER_BYTES)?;
            let place = writer.add(value)?;
            let written = writer.finish_unsynced()?;
            written.sync()?;
            resources.sync_directory()?;
            let expected = BlobExpectation::from(written.meta());
            let (memory, obsolete_files) = (&resources.memory, &resources.obsolete_files);
            let (directory, numbers) = (&resources.directory, (number, number));
            let file = BlobFile::open(memory, directory, numbers, Some(&expected), obsolete_files)?;
            Ok((place, file))
        };
        let (place, file) = write().inspect_err(|error| {
            resources.close_files_after(error);
            resources.obsolete_files.remove_later(path.clone());
        })?;
        resources.counters.blob_bytes_out.add(file.meta().file_bytes);
        let mut pointer = Vec::with_capacity(BlobPointer::BYTES_MAX);
        let (offset, bytes) = (place.offset, place.bytes);
        BlobPointer { expiry_micros, blob: number, number: place.number, offset, bytes }.encode(&mut pointer);
        Ok(Some(DirectBlob { file, pointer, may_be_logged: false }))
    }

    fn is_direct(&self, tree: &Tree, value: &[u8]) -> bool {
        let direct_bytes = self.resources.memory.budget.direct_blob_bytes;
        // A change slot keeps the log, but no blob file that the database does not need any more.
        value.len() >= direct_bytes.max(tree.options().blobs_from) && !self.log_pins.has(PinKind::ChangeSlot)
    }

    /// The batch with pointers in place of its large values, which are in blob files then; `None` if it has none.
    #[cold]
    pub(super) fn separated(&self, encoded: &[u8]) -> Result<Option<Separated>> {
        let direct_bytes = self.resources.memory.budget.direct_blob_bytes;
        let mut trees: BTreeMap<u32, Option<Arc<Tree>>> = BTreeMap::new();
        for operation in Operations::new(encoded, 0) {
            let Operation { keyspace, value, .. } = operation.map_err(Error::invalid)?;
            if value.len() >= direct_bytes {
                trees.insert(keyspace, None);
            }
        }
        if trees.is_empty() {
            return Ok(None);
        }
        {
            let committer = self.committer.lock();
            // A keyspace that was dropped is reported later.
            for (id, tree) in &mut trees {
                *tree = committer.tree(*id).cloned();
            }
        }
        let tree_of = |keyspace| trees.get(&keyspace).and_then(Option::as_deref);
        let (mut blobs, mut range_deletes, mut count) = (Vec::new(), 0, 0);
        let mut separated = encoded.get(..COUNT_BYTES).unwrap_or_default().to_vec();
        let mut charge = Charge::new(&self.resources.memory, Part::Buffers, 0);
        for operation in Operations::new(encoded, 0) {
            let Operation { keyspace, kind, key, value, .. } = operation.map_err(Error::invalid)?;
            let large = tree_of(keyspace).filter(|_| value.len() >= direct_bytes);
            let blob = large.map(|tree| self.write_direct(tree, kind, value)).transpose()?.flatten();
            let (kind, value) = match &blob {
                Some(blob) => (ValueKind::BlobPointer, &*blob.pointer),
                None => (kind, value),
            };
            let has_value = !kind.is_tombstone() && kind != ValueKind::KeyspaceClear;
            encode_operation(&mut separated, keyspace, kind, key, has_value.then_some(value));
            charge.set(separated.capacity());
            blobs.extend(blob);
            range_deletes += u64::from(kind == ValueKind::RangeDelete);
            count += 1;
        }
        if blobs.is_empty() {
            return Ok(None);
        }
        let memory_bytes = batch_bytes(separated.len(), count, range_deletes);
        Ok(Some(Separated { encoded: separated, memory_bytes, blobs, _charge: charge }))
    }
}

/// The value of an operation that may go to a blob file, and when it expires.
fn separable(kind: ValueKind, stored: &[u8]) -> Option<(u64, &[u8])> {
    match kind {
        ValueKind::Put => Some((expiry::NEVER, stored)),
        ValueKind::PutWithExpiry => expiry::split(stored),
        _ => None,
    }
}
