use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::version::manifest::ManifestState;

/// Bytes of the log that are rather copied than flushed first.
const FLUSH_ABOVE_BYTES_DEFAULT: u64 = 16 << 20;

/// How a checkpoint or a backup is made.
///
/// ```
/// use lsm_engine::CheckpointOptions;
/// let options = CheckpointOptions::new().flush_above(0).keyspaces(["users"]);
/// ```
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    pub(crate) flush_above_bytes: u64,
    keyspaces: Option<Vec<String>>,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl CheckpointOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self { flush_above_bytes: FLUSH_ABOVE_BYTES_DEFAULT, keyspaces: None }
    }

    /// Flushes the memtables first if more than `bytes` of the log are not in tables yet; by default 16 MiB. What is below
    /// is copied as log, and replayed when the copy is opened. With 0 there is nearly nothing to replay, but the call
    /// waits for the flush.
    ///
    /// There is no flush while background work is paused, or in a database that was opened read-only.
    #[must_use]
    pub fn flush_above(mut self, bytes: u64) -> Self {
        self.flush_above_bytes = bytes;
        self
    }

    /// Copies only these keyspaces, by name; by default all. The default keyspace is always there, and empty if it is not
    /// among them. The log of the copy may still hold recent writes to the others: the copy does not show them, and its
    /// first flush removes them.
    #[must_use]
    pub fn keyspaces<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.keyspaces = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Removes the other keyspaces from `state`. No write has a higher sequence number than `last_sequence`. Returns whose
    /// data stays.
    pub(super) fn select(&self, state: &mut ManifestState, last_sequence: u64) -> Result<BTreeSet<u32>> {
        let mut selected: BTreeSet<u32> = state.keyspaces.keys().copied().collect();
        let Some(names) = &self.keyspaces else { return Ok(selected) };
        let is_there =
            |name: &&String| state.keyspaces.values().any(|keyspace| *keyspace.record.name == ***name);
        if let Some(missing) = names.iter().find(|name| !is_there(name)) {
            return Err(Error::invalid(format!("there is no keyspace {missing:?} to copy")));
        }
        let is_named = |name: &str| names.iter().any(|other| other == name);
        state.keyspaces.retain(|&id, keyspace| {
            let is_kept = is_named(&keyspace.record.name);
            if !is_kept {
                selected.remove(&id);
            }
            if id == 0 && !is_kept {
                // So replay passes over its writes.
                keyspace.tables.clear();
                keyspace.flushed = last_sequence;
            }
            is_kept || id == 0
        });
        Ok(selected)
    }
}
