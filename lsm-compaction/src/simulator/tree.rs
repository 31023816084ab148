use super::contents::{Contents, Population};
use super::cut::{bytes_of, cut, merge_runs};
use super::popularity::classes;
use super::workload::{KeyDistribution, Workload};
use crate::compaction::{Action, Compaction};
use crate::shape::{RunShape, TableShape, TreeShape};
use lsm_core::Slice;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A run with more tables than this has neighbours counted as one, at multiples of a fixed share of the key
/// space, so that the time a pick takes does not grow with the tree.
pub(super) const CELLS: usize = 512;

/// What happened to a level.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LevelTotals {
    pub(super) compactions: u64,
    pub(super) bytes_read: f64,
    pub(super) bytes_written: f64,
}

/// What happened to a tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) bytes_written: f64,
    pub(super) bytes_flushed: f64,
    pub(super) merges: u64,
    pub(super) moves: u64,
    pub(super) drops: u64,
    pub(super) largest_merge_bytes: f64,
    pub(super) bytes_peak: f64,
    pub(super) live_bytes_at_peak: f64,
    pub(super) levels: Vec<LevelTotals>,
}

/// A tree whose tables hold expected numbers of keys.
pub(super) struct Tree {
    workload: Workload,
    shape: TreeShape,
    contents: BTreeMap<u64, Vec<Contents>>,
    population: Population,
    totals: Totals,
    /// Live keys of each class.
    live: Vec<f64>,
    /// Keys put and deleted so far, in the order of sequential keys.
    put_to: f64,
    deleted_to: f64,
    bytes: f64,
    next_id: u64,
}

impl Tree {
    pub(super) fn new(level_count: usize, workload: &Workload) -> Self {
        let classes = classes(workload);
        let sequential = workload.distribution == KeyDistribution::Sequential;
        Self {
            workload: workload.clone(),
            shape: TreeShape::empty(level_count),
            contents: BTreeMap::new(),
            live: vec![0.0; classes.len()],
            // In order, the keys of an interval are all there or not at all.
            population: Population { classes, inserted: f64::from(u8::from(sequential)) },
            totals: Totals { levels: vec![LevelTotals::default(); level_count], ..Totals::default() },
            put_to: 0.0,
            deleted_to: 0.0,
            bytes: 0.0,
            next_id: 1,
        }
    }

    pub(super) fn shape(&self) -> &TreeShape {
        &self.shape
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(super) fn population(&self) -> &Population {
        &self.population
    }

    pub(super) fn workload(&self) -> &Workload {
        &self.workload
    }

    pub(super) fn contents(&self, table: u64) -> &[Contents] {
        self.contents.get(&table).map_or(&[], Vec::as_slice)
    }

    pub(super) fn bytes(&self) -> f64 {
        self.bytes
    }

    /// Size of what a reader could still see.
    pub(super) fn live_bytes(&self) -> f64 {
        let live: f64 = match self.workload.distribution {
            KeyDistribution::Sequential => (self.put_to - self.deleted_to).min(self.workload.keys as f64),
            _ => self.live.iter().sum(),
        };
        // What a policy dropped is not live either.
        (live * self.workload.put_bytes()).min(self.bytes)
    }

    /// All writes from here on are deletes.
    pub(super) fn only_delete(&mut self) {
        self.workload.delete_share = 1.0;
        self.workload.overwrite_share = 0.0;
    }

    /// One memtable is written full, with this many bytes, and flushed.
    pub(super) fn flush(&mut self, bytes: f64) {
        let writes = bytes / self.workload.write_bytes();
        self.totals.bytes_written += bytes;
        let micros = bytes / self.workload.bytes_per_second as f64 * 1e6;
        self.shape.now_micros += to_u64(micros);
        let parts = if self.workload.distribution == KeyDistribution::Sequential {
            self.write_in_order(writes)
        } else {
            vec![vec![self.write_anywhere(writes)]]
        };
        let segments = merge_runs(&parts, &self.population, false);
        let older = self.shape.tables().map(|(_, table)| table.clone()).collect::<Vec<_>>();
        let flushed = self.add_tables(vec![segments], None, &older);
        let flushed_bytes = bytes_of_tables(&flushed);
        self.totals.bytes_flushed += flushed_bytes;
        if let Some(level) = self.totals.levels.first_mut() {
            level.bytes_written += flushed_bytes;
        }
        if !flushed.is_empty() {
            self.shape.levels[0].runs.insert(0, RunShape::new(flushed));
        }
        self.note_peak();
    }

    /// Fresh keys all over the key space, and draws from those there are.
    fn write_anywhere(&mut self, writes: f64) -> Contents {
        let keys = self.workload.keys as f64;
        let deletes = writes * self.workload.delete_share;
        let left = keys * (1.0 - self.population.inserted);
        let mut fresh = writes * (1.0 - self.workload.delete_share - self.workload.overwrite_share);
        if self.population.inserted == 0.0 {
            // There must be something to overwrite or delete.
            fresh = fresh.max(1.0);
        }
        fresh = fresh.min(left);
        let drawn = writes - fresh;
        let dead_share = if drawn > 0.0 { (deletes / drawn).min(1.0) } else { 0.0 };
        self.population.inserted = (self.population.inserted + fresh / keys).min(1.0);
        let mut contents = Contents { start: 0.0, end: 1.0, fresh, drawn: Vec::new(), dead_share };
        for (class, live) in self.population.classes.iter().zip(&mut self.live) {
            let class_keys = class.keys * self.population.inserted;
            let hit = class_keys * -(-drawn * class.share / class_keys.max(f64::MIN_POSITIVE)).exp_m1();
            *live += fresh * class.keys / keys;
            *live += hit * (1.0 - dead_share - (*live / class_keys.max(f64::MIN_POSITIVE)).min(1.0));
            contents.drawn.push(hit);
        }
        contents
    }

    /// Puts at the front, deletes behind, newest first.
    fn write_in_order(&mut self, writes: f64) -> Vec<Vec<Contents>> {
        let keys = self.workload.keys as f64;
        let puts = writes * (1.0 - self.workload.delete_share);
        let put_from = self.put_to;
        self.put_to += puts;
        let deletes = (writes * self.workload.delete_share).min(self.put_to - self.deleted_to);
        let delete_from = self.deleted_to;
        // What was put a second time is deleted in its new place.
        self.deleted_to = (self.deleted_to + deletes).max(self.put_to - keys);
        let mut writes = [(delete_from, deletes, 1.0), (put_from, puts, 0.0)];
        if put_from - delete_from > keys / 2.0 {
            // Deletes so far behind are of keys that are about to be put again.
            writes.swap(0, 1);
        }
        let mut runs = Vec::new();
        for (from, count, dead_share) in writes {
            let count = count.min(keys);
            // The same arithmetic at the end of one interval and the start of the next, so that they touch.
            let rounds = (from / keys).floor();
            let start = from / keys - rounds;
            let end = (from + count) / keys - rounds;
            let mut run = Vec::new();
            for (start, end) in [(0.0, end - 1.0), (start, end.min(1.0))] {
                if end > start {
                    let present = keys * (end - start);
                    let is_fresh = from < keys && dead_share == 0.0;
                    run.push(Contents {
                        start,
                        end,
                        fresh: if is_fresh { present } else { 0.0 },
                        drawn: vec![if is_fresh { 0.0 } else { present }],
                        dead_share,
                    });
                }
            }
            runs.push(run);
        }
        runs
    }

    /// Does what an accepted compaction says.
    pub(super) fn carry_out(&mut self, compaction: &Compaction) {
        let inputs: Vec<(usize, Arc<TableShape>)> = compaction
            .input_tables(&self.shape)
            .into_iter()
            .map(|input| (input.level, input.table.clone()))
            .collect();
        let input_bytes: f64 = inputs.iter().map(|(_, table)| table.bytes as f64).sum();
        match compaction.action {
            Action::Move => {
                self.totals.moves += 1;
                self.shape.apply(compaction, inputs.into_iter().map(|(_, table)| table).collect());
                self.coarsen(compaction.output_level);
            }
            Action::Drop => {
                self.totals.drops += 1;
                for (_, table) in &inputs {
                    self.contents.remove(&table.id);
                }
                self.bytes -= input_bytes;
                self.shape.apply(compaction, Vec::new());
            }
            Action::Merge => {
                let outputs = self.merge(compaction, &inputs);
                let output_bytes = bytes_of_tables(&outputs);
                self.totals.merges += 1;
                self.totals.largest_merge_bytes = self.totals.largest_merge_bytes.max(input_bytes);
                for (level, table) in &inputs {
                    self.totals.levels[*level].bytes_read += table.bytes as f64;
                }
                let level = &mut self.totals.levels[compaction.output_level];
                level.compactions += 1;
                level.bytes_written += output_bytes;
                // Inputs go when outputs are durable.
                self.note_peak();
                self.bytes -= input_bytes;
                self.shape.apply(compaction, outputs);
                self.coarsen(compaction.output_level);
            }
        }
    }

    fn merge(
        &mut self,
        compaction: &Compaction,
        inputs: &[(usize, Arc<TableShape>)],
    ) -> Vec<Arc<TableShape>> {
        let bottommost = compaction.is_bottommost(&self.shape);
        let level_bytes = self.shape.levels[compaction.output_level].bytes();
        let input_bytes: u64 = inputs.iter().map(|(_, table)| table.bytes).sum();
        let target = compaction.target_table_bytes;
        let coarse = level_bytes.max(input_bytes) / target.max(1) > CELLS as u64;
        let below: Vec<f64> = if coarse {
            (1..CELLS).map(|cell| cell as f64 / CELLS as f64).collect()
        } else {
            compaction.tables_below(&self.shape).map(|table| position(&table.smallest)).collect()
        };
        let oldest = inputs.iter().filter(|(_, table)| table.tombstones > 0);
        let oldest_tombstone = oldest.filter_map(|(_, table)| table.oldest_tombstone_micros).min();
        let older: Vec<_> = compaction.tables_older_than_output(&self.shape).into_iter().cloned().collect();
        let runs = self.take_runs(compaction, inputs);
        let segments = merge_runs(&runs, &self.population, bottommost);
        let tables = cut(segments, &below, target as f64, coarse, &self.population, &self.workload);
        self.add_tables(tables, oldest_tombstone, &older)
    }

    /// The contents of the inputs, run by run, newest first.
    fn take_runs(
        &mut self,
        compaction: &Compaction,
        inputs: &[(usize, Arc<TableShape>)],
    ) -> Vec<Vec<Contents>> {
        let mut runs: Vec<Vec<Contents>> = Vec::new();
        let mut before = None;
        for input in compaction.input_tables(&self.shape) {
            let run = Some((input.level, input.run));
            if run != before {
                runs.push(Vec::new());
                before = run;
            }
            if let (Some(run), Some(contents)) = (runs.last_mut(), self.contents.remove(&input.table.id)) {
                run.extend(contents);
            }
        }
        debug_assert!(!inputs.is_empty());
        runs
    }

    fn add_tables(
        &mut self,
        tables: Vec<Vec<Contents>>,
        oldest_tombstone: Option<u64>,
        older: &[Arc<TableShape>],
    ) -> Vec<Arc<TableShape>> {
        let mut shapes = Vec::new();
        for contents in tables {
            if let Some(mut shape) = self.table_shape(&contents, oldest_tombstone) {
                if shape.tombstones > 0 {
                    let (smallest, largest) = (shape.smallest.clone(), shape.largest.clone());
                    let met = older.iter().filter(|table| table.overlaps(&smallest, &largest));
                    shape.estimate_hidden(met, 0);
                }
                self.contents.insert(shape.id, contents);
                self.bytes += shape.bytes as f64;
                shapes.push(Arc::new(shape));
            }
        }
        shapes
    }

    fn table_shape(&mut self, contents: &[Contents], oldest_tombstone: Option<u64>) -> Option<TableShape> {
        let bytes: f64 = contents.iter().map(|part| bytes_of(part, &self.population, &self.workload)).sum();
        let (first, last) = contents.first().zip(contents.last())?;
        if bytes < 1.0 {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let now = self.shape.now_micros;
        let sum = |part: &dyn Fn(&Contents) -> f64| to_u64(contents.iter().map(part).sum::<f64>().round());
        Some(TableShape {
            id,
            smallest: key(first.start, false),
            largest: key(last.end, true),
            bytes: to_u64(bytes),
            entries: sum(&|part| part.entries(&self.population)).max(1),
            tombstones: sum(&Contents::tombstones),
            created_micros: now,
            oldest_tombstone_micros: Some(oldest_tombstone.unwrap_or(now)),
            ..TableShape::default()
        })
    }

    /// Counts neighbours as one table where a run has very many.
    fn coarsen(&mut self, level: usize) {
        for run in 0..self.shape.levels[level].runs.len() {
            let shape = self.shape.levels[level].runs[run].clone();
            if shape.len() <= 2 * CELLS {
                continue;
            }
            let cell = |table: &TableShape| to_u64(position(&table.smallest) * CELLS as f64);
            let mut groups: Vec<Vec<Arc<TableShape>>> = Vec::new();
            for table in shape.tables() {
                match groups.last_mut().filter(|group| cell(&group[0]) == cell(table)) {
                    Some(group) => group.push(table.clone()),
                    None => groups.push(vec![table.clone()]),
                }
            }
            let mut coarse = Vec::new();
            for group in groups {
                coarse.push(if group.len() == 1 { group[0].clone() } else { self.join(&group) });
            }
            self.shape.levels[level].runs[run] = RunShape::new(coarse);
        }
    }

    /// One table instead of neighbours.
    fn join(&mut self, group: &[Arc<TableShape>]) -> Arc<TableShape> {
        let mut joined = TableShape::clone(&group[0]);
        let mut segments = Vec::new();
        for table in group {
            segments.extend(self.contents.remove(&table.id).unwrap_or_default());
        }
        for table in &group[1..] {
            joined.largest = table.largest.clone();
            joined.bytes += table.bytes;
            joined.entries += table.entries;
            joined.tombstones += table.tombstones;
            joined.hidden_bytes += table.hidden_bytes;
            joined.older_bytes += table.older_bytes;
            joined.created_micros = joined.created_micros.max(table.created_micros);
            joined.oldest_tombstone_micros =
                joined.oldest_tombstone_micros.min(table.oldest_tombstone_micros);
        }
        joined.id = self.next_id;
        self.next_id += 1;
        self.contents.insert(joined.id, super::cut::coalesce(segments));
        Arc::new(joined)
    }

    fn note_peak(&mut self) {
        if self.bytes > self.totals.bytes_peak {
            self.totals.bytes_peak = self.bytes;
            self.totals.live_bytes_at_peak = self.live_bytes();
        }
    }
}

fn bytes_of_tables(tables: &[Arc<TableShape>]) -> f64 {
    tables.iter().map(|table| table.bytes as f64).sum()
}

#[expect(clippy::cast_sign_loss, reason = "numbers of bytes and keys are positive, and the cast saturates")]
pub(super) fn to_u64(number: f64) -> u64 {
    number as u64
}

/// The key at a position of the key space, or the last one before it.
fn key(position: f64, before: bool) -> Slice {
    let number = to_u64(position * 2.0_f64.powi(64));
    let saturated = position >= 1.0;
    let number = if before && !saturated { number.saturating_sub(1) } else { number };
    Slice::from(&number.to_be_bytes())
}

/// Where in the key space a key is.
fn position(key: &[u8]) -> f64 {
    lsm_core::key::head(key, 0) as f64 / 2.0_f64.powi(64)
}
