//! The files that a database names, read in the way of the tools.

use std::path::Path;
use std::sync::Arc;

use lsm_engine::RecoveryMode;
use lsm_engine::inspect::{Current, VersionEdit, current};
use lsm_engine::vfs::{SimFs, Vfs};
use lsm_wal::{LogExpectation, Position, RecordFileReader};

/// `None` if the creation of the database was interrupted.
pub(crate) fn edits(fs: &SimFs, directory: &Path) -> Option<(Current, Vec<VersionEdit>)> {
    let current = current(fs, directory).ok()?;
    let manifest = directory.join(format!("MANIFEST-{:06}", current.manifest));
    let mode = RecoveryMode::TolerateTornTail;
    let mut records = RecordFileReader::open(fs, &manifest, current.manifest_synced, mode).unwrap();
    let mut edits = Vec::new();
    while let Some(record) = records.next().unwrap() {
        edits.push(VersionEdit::decode(record.payload).unwrap());
    }
    Some((current, edits))
}

/// Checks that the log does not look damaged. No crash may cause that.
pub(crate) fn verify_log(fs: &SimFs, directory: &Path, what: &dyn Fn() -> String) {
    let Some((current, edits)) = edits(fs, directory) else { return };
    let mut expected = LogExpectation { clean: current.clean, ..LogExpectation::default() };
    for edit in edits {
        expected.begun = expected.begun.max(edit.log_begun.unwrap_or(0));
        if let Some(log) = edit.log {
            expected.from = Position(log.position);
            expected.synced = Position(log.synced);
        }
    }
    let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
    let report = lsm_wal::verify(&vfs, directory, &expected, &mut |_| ());
    assert!(report.errors.is_empty(), "{}: {:?}", what(), report.errors);
}
