//! The blob files of a version, and how much of each its tables point to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::blob_file::BlobFile;
use super::placement::Placement;

/// The blob files of a version, ascending by their blobs. Most versions have none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blobs(Arc<[LiveBlob]>);

/// A blob file, and what is alive in it. The rest of it is garbage.
#[derive(Clone, Debug)]
pub(crate) struct LiveBlob {
    pub(crate) file: Arc<BlobFile>,
    /// Number of pointers to it.
    pub(crate) live_values: u64,
    /// Bytes of the values that they point to.
    pub(crate) live_bytes: u64,
}

impl LiveBlob {
    /// Bytes of values that no table points to.
    pub(crate) fn garbage_bytes(&self) -> u64 {
        self.file.meta().value_bytes.saturating_sub(self.live_bytes)
    }
}

impl Blobs {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, LiveBlob> {
        self.0.iter()
    }

    pub(crate) fn files(&self) -> Vec<Arc<BlobFile>> {
        self.iter().map(|live| Arc::clone(&live.file)).collect()
    }

    pub(crate) fn find(&self, blob: u64) -> Option<&LiveBlob> {
        let index = self.0.binary_search_by_key(&blob, |live| live.file.blob()).ok()?;
        self.0.get(index)
    }

    /// The same with these files. A file whose blob is there already takes its place.
    pub(super) fn with(&self, files: &[Arc<BlobFile>]) -> Self {
        if files.is_empty() {
            return self.clone();
        }
        let mut all: BTreeMap<u64, LiveBlob> = self.by_blob();
        for file in files {
            let live = all.entry(file.blob());
            let none = || LiveBlob { file: Arc::clone(file), live_values: 0, live_bytes: 0 };
            live.and_modify(|live| live.file = Arc::clone(file)).or_insert_with(none);
        }
        Self(all.into_values().collect())
    }

    /// The same after a change of tables, which is in the manifest. Files to which no table points any more are left out,
    /// and obsolete.
    pub(super) fn changed(&self, removed: &[Placement], added: &[Placement]) -> Self {
        let holds_blobs = |placement: &Placement| !placement.table.meta().blobs.is_empty();
        if self.0.is_empty() || !removed.iter().chain(added).any(holds_blobs) {
            return self.clone();
        }
        let mut all = self.by_blob();
        for held in added.iter().flat_map(|placement| placement.table.meta().blobs.iter()) {
            if let Some(live) = all.get_mut(&held.blob) {
                live.live_values = live.live_values.saturating_add(held.values);
                live.live_bytes = live.live_bytes.saturating_add(held.bytes);
            }
        }
        for held in removed.iter().flat_map(|placement| placement.table.meta().blobs.iter()) {
            if let Some(live) = all.get_mut(&held.blob) {
                live.live_values = live.live_values.saturating_sub(held.values);
                live.live_bytes = live.live_bytes.saturating_sub(held.bytes);
                if live.live_values == 0 {
                    live.file.mark_obsolete();
                    all.remove(&held.blob);
                }
            }
        }
        Self(all.into_values().collect())
    }

    fn by_blob(&self) -> BTreeMap<u64, LiveBlob> {
        self.0.iter().map(|live| (live.file.blob(), live.clone())).collect()
    }
}
