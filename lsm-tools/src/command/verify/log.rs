use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use lsm_core::vfs::{PosixFs, Vfs};
use lsm_core::{BlobPointer, DecodeError, Error, ValueKind};
use lsm_engine::inspect::{AddedTable, Current, Operation, Operations, current, decode_ingested};
use lsm_wal::{Extent, LogExpectation, Position, VerifyReport};

use super::{Contents, OnlyInLog, Verifier, read_manifest};
use crate::exit::{Failure, Result};
use crate::output::grouped;

/// What was found in the log.
struct LogCheck {
    report: VerifyReport,
    writes: u64,
    /// Tables that are not in the manifest yet.
    ingested: BTreeMap<u64, AddedTable>,
    /// Blob files that writes point to which are not in tables.
    blobs: BTreeSet<u64>,
    /// What is wrong, and in which file.
    wrong: Vec<(PathBuf, Failure)>,
}

impl Verifier<'_> {
    /// Checks the log. Returns the tables, and the numbers of the blob files, that only it names.
    pub(super) fn log(&mut self, found: &Current, contents: &Contents) -> Result<OnlyInLog> {
        let mut check = self.check_log(found, contents);
        if !check.wrong.is_empty() {
            // A process that writes may have changed what was being read; damage stays.
            let found = current(&PosixFs, self.db)?;
            let (contents, _) = read_manifest(&self.manifest_path(&found), &found)?;
            let before = std::mem::replace(&mut check, self.check_log(&found, &contents)).wrong;
            check.wrong.retain(|(_, failure)| before.iter().any(|(_, known)| known == failure));
        }
        let LogCheck { report, writes, ingested, blobs, wrong } = check;
        for file in &report.files {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            let what = &file.what;
            match file.extent {
                _ if wrong.iter().any(|(path, _)| *path == file.path) => {}
                Extent::Whole => self.sound(&name, format_args!("{what}"))?,
                Extent::Nothing => self.note(format_args!("{name} is not in use: {what}"))?,
                _ => self.note(format_args!("{name}: {what}, whose records were not compared"))?,
            }
            for note in &file.notes {
                self.note(format_args!("{name}: {note}"))?;
            }
        }
        for dropped in &report.recovery.dropped {
            self.note(format_args!("torn tail, promised to nobody: {dropped}"))?;
        }
        if wrong.is_empty() {
            let records = grouped(report.records);
            self.sound("log", format_args!("{records} records to replay, {} writes", grouped(writes)))?;
        }
        wrong.into_iter().try_for_each(|(_, failure)| self.wrong(failure))?;
        Ok((ingested, blobs))
    }

    fn check_log(&self, current: &Current, contents: &Contents) -> LogCheck {
        let start = contents.log.unwrap_or_default();
        let (mut writes, mut ingested, mut blobs) = (0, BTreeMap::new(), BTreeSet::new());
        let mut wrong = Vec::new();
        let mut unknown_keyspace = None;
        let vfs: Arc<dyn Vfs> = Arc::new(PosixFs);
        let expected = LogExpectation {
            from: Position(start.position),
            // What is in tables need not be in the log any more.
            synced: Position(if start.synced > start.position { start.synced } else { 0 }),
            clean: current.clean,
            begun: contents.log_begun,
        };
        let report = lsm_wal::verify(&vfs, self.db, &expected, &mut |record| {
            for operation in Operations::new(record.payload, record.tag) {
                match operation {
                    Ok(operation) => {
                        writes += 1;
                        if operation.kind == ValueKind::BlobPointer
                            && contents
                                .flushed
                                .get(&operation.keyspace)
                                .is_some_and(|&flushed| operation.sequence > flushed)
                            && let Some(pointer) = BlobPointer::decode(operation.value)
                        {
                            blobs.insert(pointer.blob);
                        }
                        if operation.keyspace >= contents.next_keyspace {
                            unknown_keyspace.get_or_insert((record.start.0, operation.keyspace));
                        }
                        if let Err(error) = note_ingest(&operation, contents, &mut ingested) {
                            wrong.push((record.path.to_owned(), error.at(record.path, record.offset).into()));
                            break;
                        }
                    }
                    Err(reason) => {
                        let error = Error::corruption(record.path, record.offset, reason);
                        wrong.push((record.path.to_owned(), error.into()));
                        break;
                    }
                }
            }
        });
        let errors = report.errors.iter().map(|error| {
            let path = match error {
                Error::Corruption { path, .. }
                | Error::UnsupportedVersion { path, .. }
                | Error::Io { path, .. } => path.to_path_buf(),
                _ => PathBuf::new(),
            };
            (path, Failure::from(error.clone()))
        });
        wrong.extend(errors);
        if let Some((position, keyspace)) = unknown_keyspace {
            // The manifest's edits were there before the first record that relies on them.
            let manifest = self.manifest_path(current);
            let detail = format!(
                "the log's record at position {position} names keyspace {keyspace}, which never existed"
            );
            wrong.push((manifest.clone(), Error::corruption(&manifest, 0, detail).into()));
        }
        LogCheck { report, writes, ingested, blobs, wrong }
    }
}

/// Notes the tables that an operation brings, or takes away.
fn note_ingest(
    operation: &Operation<'_>,
    contents: &Contents,
    ingested: &mut BTreeMap<u64, AddedTable>,
) -> std::result::Result<(), DecodeError> {
    let Operation { keyspace, sequence, kind, value, .. } = *operation;
    if contents.flushed.get(&keyspace).is_none_or(|&flushed| sequence <= flushed) {
        return Ok(());
    }
    match kind {
        ValueKind::Ingest => {
            let tables = decode_ingested(value, keyspace, sequence)?;
            ingested.extend(tables.into_iter().map(|table| (table.number, table)));
        }
        ValueKind::KeyspaceClear => ingested.retain(|_, table| table.keyspace != keyspace),
        _ => {}
    }
    Ok(())
}
