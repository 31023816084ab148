//! What exists below a merge.

use std::collections::HashSet;
use std::sync::Arc;

use lsm_compaction::{OlderTables, OlderVersions};
use lsm_core::SEQUENCE_MAX;
use lsm_core::hash::key_hash;

use crate::keyspaces::{Memtable, ReadState};
use crate::version::{Placement, Run, Version};

/// Versions older than the inputs of a merge, outside of it. The key ranges of tables tell where they may be. For a single
/// delete the tables themselves are asked, so that it leaves with its put on any level: most often their filters answer.
pub(crate) struct Older {
    /// `None`: they may be anywhere.
    tables: Option<OlderTables>,
    /// Memtables that are older than those in a flush: recovery writes tables of several before it installs them.
    memtables: Vec<Arc<Memtable>>,
    /// The runs that may hold older versions.
    runs: Vec<Arc<Run>>,
    /// Numbers of the tables of those runs that take part in the merge.
    inputs: HashSet<u64>,
}

impl Older {
    /// Below the inputs of a compaction into a level of `version`.
    pub(crate) fn below_inputs(
        tables: OlderTables,
        version: &Version,
        output_level: usize,
        inputs: &[Placement],
    ) -> Self {
        let runs = version.levels().iter().skip(output_level).flatten().cloned().collect();
        let inputs = inputs.iter().map(|input| input.table.number()).collect();
        Self { tables: Some(tables), memtables: Vec::new(), runs, inputs }
    }

    /// Below the memtable with the number `oldest`, in a state of its keyspace.
    pub(crate) fn below_memtable(state: &ReadState, oldest: u64) -> Self {
        let memtables = state.immutable.iter().filter(|memtable| memtable.number < oldest).cloned().collect();
        let runs = state.version.runs().cloned().collect();
        Self { tables: None, memtables, runs, inputs: HashSet::new() }
    }
}

impl OlderVersions for Older {
    fn may_hold(&mut self, key: &[u8]) -> bool {
        self.tables.as_mut().is_none_or(|tables| tables.may_hold(key))
    }

    fn may_hold_precisely(&mut self, key: &[u8]) -> bool {
        if self.memtables.iter().any(|memtable| memtable.reader.get(key, SEQUENCE_MAX).is_some()) {
            return true;
        }
        let hash = key_hash(key);
        let mut tables = self.runs.iter().filter_map(|run| run.find(key));
        // A table that cannot be read may hold it.
        tables.any(|table| {
            !self.inputs.contains(&table.number())
                && !matches!(table.table().get(key, hash, SEQUENCE_MAX), Ok(None))
        })
    }

    fn may_overlap(&mut self, start: &[u8], end: &[u8]) -> bool {
        self.tables.as_mut().is_none_or(|tables| tables.may_overlap(start, end))
    }
}
