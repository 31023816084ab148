//! The checks of a table from outside, before it may become part of the database.

use std::path::Path;
use std::sync::Arc;

use lsm_core::vfs::Vfs;
use lsm_core::{Entry, Slice, ValueKind};
use lsm_sstable::{Table, TableMeta, TableOpen};

use crate::error::{Error, Result};

/// A table that is to be taken in.
pub(super) struct Checked {
    pub(super) meta: TableMeta,
    /// The last key of an entry. The largest key of the table may be the end of a range delete, which is exclusive.
    last_key: Option<Slice>,
    /// It has merge operands.
    pub(super) has_operands: bool,
}

/// Opens a table that a user gave, and checks what is known without reading its entries.
pub(super) fn open(vfs: &dyn Vfs, path: &Path, open: &TableOpen) -> Result<Arc<Table>> {
    let metadata = vfs.metadata(path).map_err(|error| Error::io("open", path, error))?;
    if metadata.is_dir {
        return Err(refused(path, "is a directory; give the paths of its tables"));
    }
    let table = Table::open(vfs, path, None, &TableOpen { pinned_bytes_max: 0, ..open.clone() })?;
    if table.meta().largest_sequence > 0 {
        let number = table.meta().largest_sequence;
        return Err(refused(
            path,
            &format!(
                "has the sequence number {number}; a table to ingest has none: build it with TableBuilder"
            ),
        ));
    }
    Ok(table)
}

/// Proves every byte of a table, and that it holds only what may be ingested. `path` is what the user gave.
pub(super) fn verify(table: &Table, path: &Path) -> Result<Checked> {
    let (mut last_key, mut has_operands) = (Vec::new(), false);
    let mut refusal = None;
    let verified = table.verify_entries(|entry: &Entry<'_>| {
        match entry.kind {
            ValueKind::Put | ValueKind::PutWithExpiry | ValueKind::Delete | ValueKind::SingleDelete => {}
            ValueKind::Merge => has_operands = true,
            kind => {
                let key = entry.key.escape_ascii();
                let detail =
                    format!("has an entry of kind {kind:?} for key \"{key}\", which cannot be ingested");
                refusal = Some(refused(path, &detail));
                return Err(String::new());
            }
        }
        last_key.clear();
        last_key.extend_from_slice(entry.key);
        Ok(())
    });
    match (refusal, verified) {
        (Some(refusal), _) => Err(refusal),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(report)) => {
            let last_key = (report.entries > 0).then(|| Slice::from(last_key));
            Ok(Checked { meta: table.meta().clone(), last_key, has_operands })
        }
    }
}

impl Checked {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.meta.entries == 0 && self.meta.range_tombstones == 0
    }

    /// Whether it ends before `next` begins, which does not begin before it.
    fn ends_before(&self, next: &Self) -> bool {
        let (end, start) = (&self.meta.largest, &next.meta.smallest);
        end < start || (end == start && self.last_key.as_ref() != Some(end))
    }
}

/// Puts tables into the order of their keys. Fails if two overlap: they would be one write, so neither could be the newer.
pub(super) fn order<T>(tables: &mut [T], parts: impl Fn(&T) -> (&Path, &Checked)) -> Result<()> {
    tables.sort_by(|a, b| {
        let ends = |table| (&parts(table).1.meta.smallest, &parts(table).1.meta.largest);
        ends(a).cmp(&ends(b))
    });
    for pair in tables.windows(2) {
        let [(path, table), (other, next)] = [parts(&pair[0]), parts(&pair[1])];
        if !table.ends_before(next) {
            let (from, to) = (next.meta.smallest.escape_ascii(), table.meta.largest.escape_ascii());
            let other = other.display();
            let detail = format!(
                "overlaps {other}: the one ends at \"{to}\", the other begins at \"{from}\"; ingest them one after \
                 the other, the older first"
            );
            return Err(refused(path, &detail));
        }
    }
    Ok(())
}

/// The error for a table that cannot be ingested as it is.
#[cold]
pub(super) fn refused(path: &Path, detail: &str) -> Error {
    Error::RefusedTable(format!("{} {detail}", path.display()).into())
}
