//! Taking checked, durable tables into a keyspace.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm_core::{SequenceNumber, ValueKind};
use lsm_sstable::{TableExpectation, TableId, TableMeta};
use lsm_wal::Durability;

use super::check::{self, Checked, refused};
use super::request::{Ingest, Placing};
use super::staged::StagedFiles;
use crate::callbacks::caught;
use crate::database::{Database, WriteSide};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::keyspaces::Tree;
use crate::read::KeyRange;
use crate::version::open_table;
use crate::write::{PreparedIngest, PreparedTable};

/// A table of the user that was brought into the directory.
struct Brought {
    given: PathBuf,
    number: u64,
    path: PathBuf,
    checked: Checked,
}

/// Takes tables of a user into a keyspace. Returns the number of the write that this is.
pub(crate) fn ingest(database: &Database, tree: &Arc<Tree>, request: &Ingest) -> Result<SequenceNumber> {
    let side = database.write_side()?;
    side.write.check()?;
    tree.check_usable()?;
    let replaced = request.replaced()?;
    if request.tables.is_empty() {
        return Err(Error::invalid("an ingest needs at least one table"));
    }
    let resources = &database.resources;
    let open = tree.options().table_open();
    // Look at all tables before any is copied.
    let mut ids = BTreeSet::new();
    for path in &request.tables {
        let table = caught("the opening of a table", || check::open(&*resources.vfs, path, &open))?;
        if !ids.insert(table.meta().id) {
            return Err(refused(path, "is given twice, by this or another name"));
        }
        check_new(database, path, table.meta().id)?;
    }
    let mut staged = StagedFiles::new(resources);
    let mut brought = Vec::new();
    for given in &request.tables {
        let (number, path) = staged.place(&side.versions, given, request.placing)?;
        // Check the file that is going to be used: that of the user may change at any time.
        let checked = caught("the check of a table", || {
            let table = check::open(&*resources.vfs, &path, &open)?;
            check::verify(&table, given)
        });
        let checked = checked.map_err(|error| named(error, &path, given))?;
        if checked.has_operands {
            tree.load().merging.check_writable()?;
        }
        brought.push(Brought { given: given.clone(), number, path, checked });
    }
    check::order(&mut brought, |table| (&table.given, &table.checked))?;
    brought.retain(|table| !table.checked.is_empty());
    let files = brought.iter().map(|table| (table.number, table.path.clone(), &table.checked.meta));
    let sequence = install(side, tree, files, replaced, staged)?;
    if request.placing == Placing::Move {
        for path in &request.tables {
            if let Err(error) = resources.vfs.remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "failed to remove a table that was ingested");
            }
        }
    }
    Ok(sequence)
}

/// The error with the name that the user knows.
fn named(error: Error, path: &Path, given: &Path) -> Error {
    match error {
        Error::Storage(lsm_core::Error::Corruption { path: found, offset, detail }) if *found == *path => {
            Error::corruption(given, offset, detail)
        }
        error => error,
    }
}

/// Fails if the database has a table with this id.
fn check_new(database: &Database, path: &Path, id: TableId) -> Result<()> {
    for tree in database.all_trees() {
        if tree.load().version.tables().any(|table| table.meta().id == id) {
            let keyspace = &tree.name;
            return Err(refused(
                path,
                &format!("is in keyspace {keyspace:?} already; to have it twice, build it twice"),
            ));
        }
    }
    Ok(())
}

/// Takes tables into a keyspace: `files` with their numbers, paths and what they must be, in key order and without overlap.
/// They are synced, but their names are not. After a failure `staged` removes them.
pub(super) fn install<'f>(
    side: &WriteSide,
    tree: &Arc<Tree>,
    files: impl IntoIterator<Item = (u64, PathBuf, &'f TableMeta)>,
    replaced: Option<KeyRange>,
    staged: StagedFiles,
) -> Result<SequenceNumber> {
    let resources = &side.write.resources;
    let options = tree.options();
    let mut tables = Vec::new();
    let mut bytes = 0;
    for (number, path, meta) in files {
        let expected = Some(TableExpectation::from(meta));
        let (table, charge) = caught("the opening of a table", || {
            Ok(open_table(&resources.memory, &path, &options, expected)?)
        })?;
        bytes += meta.file_bytes;
        tables.push(PreparedTable {
            number,
            table,
            charge,
            created_micros: side.versions.clock_micros(),
            obsolete_files: Arc::clone(&resources.obsolete_files),
        });
    }
    resources.memory.check_tables()?;
    if tables.is_empty() {
        return delete_only(side, tree, replaced);
    }
    resources.sync_directory()?;
    let count = tables.len() as u64;
    let ingested = {
        let _manifest = side.lock_manifest();
        side.write.ingest(tree, PreparedIngest { tables, replaced })
    };
    let written = match ingested {
        Ok(written) => written,
        Err(failed) => {
            if failed.may_be_logged {
                staged.keep();
            }
            return Err(failed.error);
        }
    };
    staged.keep();
    let counters = &resources.counters;
    counters.ingests.add(1);
    counters.ingested_tables.add(count);
    counters.ingested_bytes.add(bytes);
    let keyspace = Arc::clone(&tree.name);
    resources.events.emit(EventKind::Ingested { keyspace, tables: count, bytes });
    side.background.compaction_queue.add(tree);
    side.write.wait_durable(written.position.0)?;
    Ok(written.sequence)
}

/// An ingest of tables without content.
fn delete_only(side: &WriteSide, tree: &Arc<Tree>, replaced: Option<KeyRange>) -> Result<SequenceNumber> {
    let Some(KeyRange { start, end }) = replaced else { return Ok(side.write.visibility.sequence()) };
    let kind = ValueKind::RangeDelete;
    let written = side.write.write_one(tree, kind, &start, end.as_deref(), Durability::Sync)?;
    Ok(written.sequence)
}
