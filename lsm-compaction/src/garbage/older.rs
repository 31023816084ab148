use crate::RunShape;

/// Knows where versions older than the inputs of a merge may exist outside of it.
///
/// "Versions" means range tombstones too. Answering `true` is always safe; it only keeps tombstones alive.
pub trait OlderVersions {
    /// Whether an older version of `key` may exist. Asked in ascending order of keys.
    fn may_hold(&mut self, key: &[u8]) -> bool;

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
    runs: Vec<(RunShape, usize)>,
}

impl OlderTables {
    /// Looks at `runs`: every run older than the inputs, except for tables that are inputs themselves.
    pub fn new(runs: impl IntoIterator<Item = RunShape>) -> Self {
        Self { runs: runs.into_iter().filter(|run| !run.tables.is_empty()).map(|run| (run, 0)).collect() }
    }
}

impl OlderVersions for OlderTables {
    fn may_hold(&mut self, key: &[u8]) -> bool {
        self.runs.iter_mut().any(|(run, next)| {
            while let Some(table) = run.tables.get(*next) {
                if *table.largest >= *key {
                    return *table.smallest <= *key;
                }
                *next += 1;
                // The next table is the likely one; a merge that begins in the middle has far to go.
                if run.tables.get(*next).is_some_and(|table| *table.largest < *key) {
                    *next += run.tables[*next..].partition_point(|table| *table.largest < *key);
                }
            }
            false
        })
    }

    fn may_overlap(&mut self, start: &[u8], end: &[u8]) -> bool {
        self.runs.iter().any(|(run, _)| {
            let first = run.tables.partition_point(|table| *table.largest < *start);
            run.tables.get(first).is_some_and(|table| *table.smallest < *end)
        })
    }
}
