use std::sync::Arc;

use lsm_compaction::TableShape;

use super::edit::AddedTable;
use super::table_file::TableFile;

/// A table with its level and run.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) level: usize,
    /// The number of its run in the level. Higher numbers are newer.
    pub(crate) run: u64,
    pub(crate) table: Arc<TableFile>,
}

impl Placement {
    /// What a version edit says to add the table to a keyspace.
    pub(crate) fn added_to(&self, keyspace: u32) -> AddedTable {
        AddedTable {
            keyspace,
            level: self.level as u32,
            run: self.run,
            number: self.table.number(),
            created_micros: self.table.created_micros(),
            tombstones_since_micros: self.table.oldest_tombstone_micros(),
            meta: self.table.meta().clone(),
        }
    }
}

/// A table that a compaction uses, or that cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BusyTable<'t> {
    pub(crate) level: usize,
    pub(crate) run: u64,
    pub(crate) table: &'t TableShape,
}

impl<'t> From<&'t Placement> for BusyTable<'t> {
    fn from(placement: &'t Placement) -> Self {
        Self { level: placement.level, run: placement.run, table: placement.table.metadata() }
    }
}
