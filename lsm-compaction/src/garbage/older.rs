use crate::compaction::Compaction;
use crate::shape::{RunShape, TableShape, TreeShape};
use std::sync::Arc;

/// Knows where versions older than the inputs of a merge may exist outside of it.
///
/// "Versions" means range tombstones too. Answering `true` is always safe; it only keeps tombstones alive.
pub trait OlderVersions {
    /// Whether an older version of `key` may exist. Asked in ascending order of keys.
    fn may_hold(&mut self, key: &[u8]) -> bool;

    /// The same for a single delete, for which it is worth to look closer: at the filters of tables, say.
    fn may_hold_precisely(&mut self, key: &[u8]) -> bool {
        self.may_hold(key)
    }

    /// Whether an older version of a key in `[start, end)` may exist. Asked in ascending order of ranges, before
    /// the first key.
    fn may_overlap(&mut self, start: &[u8], end: &[u8]) -> bool;
}

/// Older versions of anything may exist.
impl OlderVersions for () {
    fn may_hold(&mut self, _: &[u8]) -> bool {
        true
    }

    fn may_overlap(&mut self, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

/// A closure answers for keys; every range may hold older versions.
impl<F: FnMut(&[u8]) -> bool> OlderVersions for F {
    fn may_hold(&mut self, key: &[u8]) -> bool {
        self(key)
    }

    fn may_overlap(&mut self, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

/// The key ranges of the tables in all older runs that take no part in a merge.
///
/// A walk along the tables: the cost of an answer is a comparison for each run that reaches this far.
#[derive(Clone, Debug, Default)]
pub struct OlderTables {
    runs: Vec<OlderRun>,
}

/// A run without the tables that take part, and where the walk is.
#[derive(Clone, Debug)]
struct OlderRun {
    run: RunShape,
    /// Positions of the tables that take part, ascending.
    inputs: Vec<usize>,
    /// The table that the walk has reached.
    next: Option<Arc<TableShape>>,
    position: usize,
}

impl OlderRun {
    fn new(run: RunShape, inputs: Vec<usize>) -> Self {
        let mut older = Self { run, inputs, next: None, position: 0 };
        older.go_to(0);
        older
    }

    /// The first position from this one on that has no input.
    fn without_inputs(&self, mut position: usize) -> usize {
        let first = self.inputs.partition_point(|input| *input < position);
        for input in &self.inputs[first..] {
            if *input != position {
                break;
            }
            position += 1;
        }
        position
    }

    fn go_to(&mut self, position: usize) {
        self.position = self.without_inputs(position);
        self.next = self.run.get(self.position).cloned();
    }

    fn may_hold(&mut self, key: &[u8]) -> bool {
        while let Some(table) = &self.next {
            if *table.largest >= *key {
                return *table.smallest <= *key;
            }
            self.go_to(self.position + 1);
            // The next table is the likely one; a merge that begins in the middle has far to go.
            if self.next.as_ref().is_some_and(|table| *table.largest < *key) {
                self.go_to(self.run.partition_point(|table| *table.largest < *key));
            }
        }
        false
    }

    fn may_overlap(&self, start: &[u8], end: &[u8]) -> bool {
        let first = self.without_inputs(self.run.partition_point(|table| *table.largest < *start));
        self.run.get(first).is_some_and(|table| *table.smallest < *end)
    }
}

impl OlderTables {
    /// Looks at `runs`: every run older than the inputs, except for tables that are inputs themselves.
    pub fn new(runs: impl IntoIterator<Item = RunShape>) -> Self {
        Self { runs: runs.into_iter().map(|run| OlderRun::new(run, Vec::new())).collect() }
    }

    /// Looks at all that is in the output level of a compaction or below, except for its inputs.
    pub fn beside(compaction: &Compaction, shape: &TreeShape) -> Self {
        let inputs = compaction.input_tables(shape);
        let mut runs = Vec::new();
        for (level, level_shape) in shape.levels.iter().enumerate().skip(compaction.output_level) {
            for (run, run_shape) in level_shape.runs.iter().enumerate() {
                let own = inputs.iter().filter(|input| (input.level, input.run) == (level, run));
                let own: Vec<usize> = own.map(|input| input.position).collect();
                // Tables of one run share no key, even where they touch.
                if own.is_empty() || own.len() < inputs.len() {
                    runs.push(OlderRun::new(run_shape.clone(), own));
                }
            }
        }
        Self { runs }
    }
}

impl OlderVersions for OlderTables {
    fn may_hold(&mut self, key: &[u8]) -> bool {
        self.runs.iter_mut().any(|run| run.may_hold(key))
    }

    fn may_overlap(&mut self, start: &[u8], end: &[u8]) -> bool {
        self.runs.iter().any(|run| run.may_overlap(start, end))
    }
}
