//! Follows blob pointers to values: the one place that does.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use lsm_compaction::BlobSource;
use lsm_core::{BlobPointer, Slice};

use crate::error::{Error, Result};
use crate::keyspaces::read_point::{Meaning, ReadPoint};
use crate::keyspaces::read_state::ReadState;
use crate::memory::Memory;
use crate::version::BlobFile;

impl ReadState {
    /// The value that a blob pointer of `key` points to. The caller uses the state for its number.
    #[cold]
    pub(crate) fn resolve(&self, key: &[u8], stored: &[u8]) -> Result<Slice> {
        let (file, pointer) = self.follow(key, stored)?;
        file.read(&pointer)
    }

    /// A part of that value. Nothing else of it is read.
    fn resolve_part(&self, key: &[u8], stored: &[u8], part: Range<u64>) -> Result<Slice> {
        let (file, pointer) = self.follow(key, stored)?;
        file.read_part(&pointer, part)
    }

    fn follow(&self, key: &[u8], stored: &[u8]) -> Result<(Arc<BlobFile>, BlobPointer)> {
        let pointer = BlobPointer::decode(stored).ok_or_else(|| self.malformed(key))?;
        let in_version = self.version.blobs().find(pointer.blob).map(|live| Arc::clone(&live.file));
        let found = in_version
            .or_else(|| self.memtables().find_map(|memtable| memtable.find_blob(pointer.blob)))
            .ok_or_else(|| self.dangling(key, pointer.blob))?;
        Ok((found, pointer))
    }

    /// The error for a pointer to a blob that the keyspace does not have. Only a table that was tampered with has one.
    #[cold]
    fn dangling(&self, key: &[u8], blob: u64) -> Error {
        let detail =
            format!("key \"{}\" points to blob {blob}, which the keyspace does not have", key.escape_ascii());
        let mut paths = self.version.runs().filter_map(|run| run.find(key)).map(|table| table.path());
        Error::corruption(paths.next().unwrap_or_else(|| Path::new("memtable")), 0, detail)
    }

    /// Whether the key has a value. None is read from a blob file.
    pub(crate) fn contains(&self, key: &[u8], point: &ReadPoint<'_>) -> Result<bool> {
        let state = self.at(point.sequence);
        if !state.version.blobs().is_empty() || state.memtables().any(|memtable| memtable.has_blobs()) {
            return Ok(self.get_part(key, point, 0..0)?.is_some());
        }
        Ok(self.get(key, point)?.is_some())
    }

    /// The bytes of a value in `part`, as far as it has them. Of a value in a blob file only that part is read.
    pub(crate) fn get_part(
        &self,
        key: &[u8],
        point: &ReadPoint<'_>,
        part: Range<u64>,
    ) -> Result<Option<Slice>> {
        let state = self.at(point.sequence);
        let newest = state.versions(key, point.sequence, |entry, is_covered| {
            let newest = (!is_covered).then(|| (entry.kind, Slice::copy_from(entry.value)));
            Ok(ControlFlow::Break(newest))
        })?;
        let ControlFlow::Break(Some((kind, stored))) = newest else { return Ok(None) };
        match point.meaning(kind, &stored) {
            Meaning::Value(value) => Ok(Some(cut(value, &part))),
            Meaning::Blob(pointer) => state.resolve_part(key, pointer, part).map(Some),
            Meaning::Operand(_) => Ok(state.get_merged(key, point)?.map(|value| cut(&value, &part))),
            Meaning::Absent => Ok(None),
            Meaning::Malformed => Err(state.malformed(key)),
        }
    }
}

/// Reads the values that operands of a merge apply to, and those that a compaction filter asks for.
pub(crate) struct BlobBases {
    /// Ascending by their blobs.
    files: Vec<Arc<BlobFile>>,
    bytes_max: u64,
}

/// Longer values than this part of the memory are not read in background work.
const BASE_MEMORY_PART: u64 = 32;

impl BlobBases {
    pub(crate) fn of(mut files: Vec<Arc<BlobFile>>, memory: &Memory) -> Option<Arc<dyn BlobSource>> {
        files.sort_by_key(|file| file.blob());
        let bytes_max = memory.budget.memory_bytes / BASE_MEMORY_PART;
        (!files.is_empty()).then(|| Arc::new(Self { files, bytes_max }) as Arc<dyn BlobSource>)
    }
}

impl BlobSource for BlobBases {
    fn read(&self, pointer: &[u8]) -> Option<Slice> {
        let pointer = BlobPointer::decode(pointer).filter(|pointer| pointer.bytes <= self.bytes_max)?;
        let index = self.files.binary_search_by_key(&pointer.blob, |file| file.blob()).ok()?;
        let read = self.files.get(index)?.read(&pointer);
        read.inspect_err(|error| tracing::warn!(%error, "a value in a blob file cannot be read")).ok()
    }
}

/// The bytes of `value` in `part`, as far as it has them.
pub(crate) fn cut(value: &[u8], part: &Range<u64>) -> Slice {
    let end = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(value.len());
    value.get(end(part.start)..end(part.end)).map_or_else(Slice::new, Slice::copy_from)
}
