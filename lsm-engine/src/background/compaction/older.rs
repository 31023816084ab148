//! What exists below a merge.

use std::collections::HashSet;
use std::sync::Arc;

use lsm_compaction::{OlderTables, OlderVersions};
use lsm_core::SEQUENCE_MAX;
use lsm_core::hash::key_hash;

use crate::version::{Placement, Run, Version};

/// Versions older than the inputs of a merge, outside of it. The key ranges of tables tell where they may be. For a single
/// delete the tables themselves are asked, so that it leaves with its put on any level: most often their filters answer.
pub(crate) struct Older {
    /// `None`: they may be anywhere.
    tables: Option<OlderTables>,
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
        Self { tables: Some(tables), runs, inputs: inputs.iter().map(|input| input.table.number()).collect() }
    }

    /// Below the oldest memtables of a keyspace whose tables are `version`.
    pub(crate) fn below_memtables(version: &Version) -> Self {
        Self { tables: None, runs: version.runs().cloned().collect(), inputs: HashSet::new() }
    }
}

impl OlderVersions for Older {
    fn may_hold(&mut self, key: &[u8]) -> bool {
        self.tables.as_mut().is_none_or(|tables| tables.may_hold(key))
    }

    fn may_hold_precisely(&mut self, key: &[u8]) -> bool {
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
