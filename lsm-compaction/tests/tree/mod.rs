//! A tree with real contents, small enough to check after every step: the model that compactions run on.
#![expect(dead_code, reason = "each test uses its part of the model")]

use lsm_compaction::{
    Action, Compaction, CompactionPolicy, OutputRun, RunShape, RunningShape, TableShape, TreeShape, validate,
};
use lsm_core::Slice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One version of a key; a tombstone if `delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: u16,
    pub(crate) sequence: u64,
    pub(crate) delete: bool,
}

/// What a merge keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Garbage {
    /// Every version, so that their whole order can be checked.
    Keep,
    /// Only the newest version of a key that each snapshot sees, and no tombstone at the bottom that all see.
    Collect,
}

pub(crate) struct Tree {
    pub(crate) shape: TreeShape,
    pub(crate) written_bytes: u64,
    pub(crate) flushed_bytes: u64,
    contents: BTreeMap<u64, Vec<Version>>,
    /// Versions of each key, newest first.
    truth: BTreeMap<u16, Vec<Version>>,
    jobs: Vec<(Compaction, RunningShape, bool)>,
    garbage: Garbage,
    /// The numbers that snapshots read at, ascending.
    snapshots: Vec<u64>,
    /// Whether tables end where the next one of the run begins, as if a range tombstone had been cut there.
    touching: bool,
    next_id: u64,
    next_sequence: u64,
}

pub(crate) fn key(number: u16) -> Slice {
    Slice::from(&number.to_be_bytes())
}

impl Tree {
    pub(crate) fn new(level_count: usize, garbage: Garbage, touching: bool) -> Self {
        Self {
            shape: TreeShape::empty(level_count),
            written_bytes: 0,
            flushed_bytes: 0,
            contents: BTreeMap::new(),
            truth: BTreeMap::new(),
            jobs: Vec::new(),
            garbage,
            snapshots: Vec::new(),
            touching,
            next_id: 1,
            next_sequence: 1,
        }
    }

    /// Writes the keys in this order and flushes them into one run of tables of `table_bytes`.
    pub(crate) fn flush(&mut self, writes: &[(u16, bool)], table_bytes: u64) {
        let mut versions = Vec::new();
        for &(key, delete) in writes {
            let version = Version { key, sequence: self.next_sequence, delete };
            self.next_sequence += 1;
            self.truth.entry(key).or_default().insert(0, version);
            versions.push(version);
        }
        versions.sort_by_key(|version| (version.key, u64::MAX - version.sequence));
        self.collect(&mut versions, false);
        self.flushed_bytes += versions.len() as u64;
        let older: Vec<_> = self.shape.tables().map(|(_, table)| table.clone()).collect();
        let mut tables = self.write(&versions, table_bytes, &[], None);
        estimate_hidden(&mut tables, &older, false);
        if !tables.is_empty() {
            self.shape.levels[0].runs.insert(0, RunShape::new(tables));
        }
    }

    /// Takes a snapshot.
    pub(crate) fn snapshot(&mut self) {
        self.snapshots.push(self.next_sequence - 1);
    }

    pub(crate) fn drop_snapshots(&mut self) {
        self.snapshots.clear();
    }

    /// Tells the policy which numbers are read at.
    pub(crate) fn show_snapshots(&mut self) {
        if self.garbage == Garbage::Keep {
            // All that ever was is looked at.
            self.shape.snapshots = vec![0];
            return;
        }
        self.shape.snapshots.clone_from(&self.snapshots);
        self.shape.snapshots.push(self.next_sequence - 1);
        self.shape.snapshots.dedup();
    }

    /// Leaves out what nobody sees of sorted versions.
    fn collect(&self, versions: &mut Vec<Version>, bottommost: bool) {
        if self.garbage == Garbage::Keep {
            return;
        }
        let stripe =
            |version: &Version| self.snapshots.partition_point(|snapshot| *snapshot < version.sequence);
        versions.dedup_by_key(|version| (version.key, stripe(version)));
        if bottommost {
            let all = versions.clone();
            let mut index = 0;
            versions.retain(|version| {
                index += 1;
                let is_last = all.get(index).is_none_or(|next| next.key != version.key);
                !(version.delete && is_last && stripe(version) == 0)
            });
        }
    }

    /// Cuts versions into tables between user keys, at `bounds` if they are half full. One entry is one byte.
    fn write(
        &mut self,
        versions: &[Version],
        table_bytes: u64,
        bounds: &[Slice],
        oldest: Option<u64>,
    ) -> Vec<Arc<TableShape>> {
        let mut groups: Vec<Vec<Version>> = Vec::new();
        for &version in versions {
            let fits = groups.last().is_some_and(|group| {
                let same_key = group.last().unwrap().key == version.key;
                let half = group.len() as u64 >= table_bytes.div_ceil(2);
                let between = |bound: &Slice| *bound > key(group[0].key) && *bound <= key(version.key);
                let passed =
                    bounds.iter().any(|bound| between(bound) && *bound > key(group.last().unwrap().key));
                same_key || (group.len() as u64) < table_bytes && !(half && passed)
            });
            match groups.last_mut().filter(|_| fits) {
                Some(group) => group.push(version),
                None => groups.push(vec![version]),
            }
        }
        let firsts: Vec<u16> = groups.iter().skip(1).map(|group| group[0].key).collect();
        let mut tables = Vec::new();
        for (index, group) in groups.into_iter().enumerate() {
            let id = self.next_id;
            self.next_id += 1;
            self.written_bytes += group.len() as u64;
            let end = firsts.get(index).copied().filter(|_| self.touching);
            tables.push(Arc::new(TableShape {
                id,
                smallest: key(group[0].key),
                largest: key(end.unwrap_or(group.last().unwrap().key)),
                bytes: group.len() as u64,
                entries: group.len() as u64,
                tombstones: group.iter().filter(|version| version.delete).count() as u64,
                created_micros: self.shape.now_micros,
                oldest_tombstone_micros: Some(oldest.unwrap_or(self.shape.now_micros)),
                smallest_sequence: group.iter().map(|version| version.sequence).min().unwrap(),
                largest_sequence: group.iter().map(|version| version.sequence).max().unwrap(),
                ..TableShape::default()
            }));
            self.contents.insert(id, group);
        }
        tables
    }

    /// Starts an accepted compaction.
    pub(crate) fn start(&mut self, compaction: Compaction) {
        let running = compaction.running(&self.shape).expect("accepted compactions have inputs");
        let bottommost = compaction.is_bottommost(&self.shape);
        self.shape.start(&compaction);
        self.jobs.push((compaction, running, bottommost));
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    pub(crate) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Commits one of the compactions under way.
    pub(crate) fn finish(&mut self, job: usize) {
        let (compaction, running, bottommost) = self.jobs.remove(job);
        let position = self.shape.running.iter().position(|other| *other == running).unwrap();
        self.shape.running.remove(position);
        let inputs = named(&compaction);
        let bounds: Vec<Slice> =
            compaction.tables_below(&self.shape).map(|table| table.smallest.clone()).collect();
        let older: Vec<_> = compaction.tables_older_than_output(&self.shape).into_iter().cloned().collect();
        let is_input = |level: usize, table: &TableShape| inputs.contains(&(level, table.id));
        let output_level = compaction.output_level;
        let place = match compaction.action {
            Action::Drop => 0,
            _ => self.shape.levels[output_level]
                .runs
                .iter()
                .position(|run| run.tables().any(|table| is_input(output_level, table)))
                .unwrap_or(0),
        };
        let mut removed: Vec<Arc<TableShape>> = Vec::new();
        for (level, level_shape) in self.shape.levels.iter_mut().enumerate() {
            for run in &mut level_shape.runs {
                let (gone, kept): (Vec<_>, Vec<_>) =
                    run.tables().cloned().partition(|table| is_input(level, table));
                *run = RunShape::new(kept);
                removed.extend(gone);
            }
        }
        assert_eq!(removed.len(), inputs.len(), "inputs must still be there");
        let mut outputs = match compaction.action {
            Action::Drop => {
                for table in &removed {
                    for version in self.contents.remove(&table.id).unwrap() {
                        let versions = self.truth.get_mut(&version.key).unwrap();
                        // What was older must be gone too, or it would reappear.
                        versions.retain(|other| other.sequence > version.sequence);
                    }
                }
                Vec::new()
            }
            Action::Move => removed,
            Action::Merge => {
                let mut tables = self.merge(&removed, bottommost, compaction.target_table_bytes, &bounds);
                estimate_hidden(&mut tables, &older, true);
                tables
            }
        };
        let runs = self.shape.levels.get_mut(output_level).map(|level| &mut level.runs);
        if let Some(runs) = runs.filter(|_| !outputs.is_empty()) {
            if compaction.output_run == OutputRun::NewRun {
                outputs.sort_by(|a, b| a.smallest.cmp(&b.smallest).then(a.largest.cmp(&b.largest)));
                runs.insert(place, RunShape::new(outputs));
            } else {
                runs.retain(|run| !run.is_empty());
                if runs.is_empty() {
                    runs.push(RunShape::default());
                }
                let run = runs.last_mut().unwrap();
                let mut tables: Vec<_> = run.tables().cloned().chain(outputs).collect();
                tables.sort_by(|a, b| a.smallest.cmp(&b.smallest).then(a.largest.cmp(&b.largest)));
                *run = RunShape::new(tables);
            }
        }
        for level in &mut self.shape.levels {
            level.runs.retain(|run| !run.is_empty());
        }
        for (level, id) in self.jobs.iter().flat_map(|(compaction, ..)| named(compaction)) {
            for run in &mut self.shape.levels[level].runs {
                let position = run.tables().position(|table| table.id == id);
                if let Some(position) = position {
                    run.mark_busy(position);
                }
            }
        }
    }

    fn merge(
        &mut self,
        inputs: &[Arc<TableShape>],
        bottommost: bool,
        bytes: u64,
        bounds: &[Slice],
    ) -> Vec<Arc<TableShape>> {
        let oldest = inputs.iter().filter(|table| table.has_tombstones());
        let oldest = oldest.filter_map(|table| table.oldest_tombstone_micros).min();
        let mut versions: Vec<Version> =
            inputs.iter().flat_map(|table| self.contents.remove(&table.id).unwrap()).collect();
        versions.sort_by_key(|version| (version.key, u64::MAX - version.sequence));
        self.collect(&mut versions, bottommost);
        self.write(&versions, bytes, bounds, oldest)
    }

    /// Picks and carries out until the policy has nothing more to do; returns how many compactions that took.
    pub(crate) fn settle(&mut self, policy: &dyn CompactionPolicy, steps_max: usize) -> usize {
        self.show_snapshots();
        for step in 0..steps_max {
            let Some(compaction) = self.pick(policy) else { return step };
            self.start(compaction);
            self.finish(0);
            self.check();
        }
        panic!("{} is not done after {steps_max} steps: {:#?}", policy.name(), self.shape);
    }

    /// A sound pick, checked to be the same when asked again.
    pub(crate) fn pick(&self, policy: &dyn CompactionPolicy) -> Option<Compaction> {
        let picked = policy.pick(&self.shape);
        assert_eq!(picked, policy.pick(&self.shape), "picks are deterministic");
        let compaction = picked?;
        if let Err(rejection) = validate(&self.shape, &compaction) {
            panic!("{} picked {compaction:?}: {rejection}\n{:#?}", policy.name(), self.shape);
        }
        Some(compaction)
    }

    /// Every run is sorted and disjoint, and every key's versions are found in order.
    pub(crate) fn check(&self) {
        let mut found: BTreeMap<u16, Vec<Version>> = BTreeMap::new();
        for level in &self.shape.levels {
            for run in &level.runs {
                assert!(!run.is_empty());
                let mut keys = BTreeSet::new();
                for table in run.tables() {
                    let versions = &self.contents[&table.id];
                    let table_keys: BTreeSet<u16> = versions.iter().map(|version| version.key).collect();
                    assert!(keys.is_disjoint(&table_keys), "a key spans two tables of a run");
                    keys.extend(table_keys);
                    for version in versions {
                        found.entry(version.key).or_default().push(*version);
                    }
                }
                for pair in run.tables().zip(run.tables().skip(1)) {
                    assert!(pair.0.largest <= pair.1.smallest, "tables of a run overlap: {pair:#?}");
                }
            }
        }
        for (key, truth) in &self.truth {
            let found = found.remove(key).unwrap_or_default();
            match self.garbage {
                Garbage::Keep => assert_eq!(&found, truth, "versions of key {key}"),
                Garbage::Collect => {
                    for &snapshot in self.snapshots.iter().chain([&u64::MAX]) {
                        let live = |versions: &[Version]| {
                            let newest = versions.iter().find(|version| version.sequence <= snapshot);
                            newest.filter(|version| !version.delete).map(|version| version.sequence)
                        };
                        assert_eq!(live(&found), live(truth), "version of key {key} at {snapshot}");
                    }
                }
            }
        }
        assert!(found.is_empty(), "versions out of nowhere: {found:?}");
    }

    /// Keys that have a value.
    pub(crate) fn live_keys(&self) -> usize {
        self.truth.values().filter(|versions| versions.first().is_some_and(|newest| !newest.delete)).count()
    }
}

/// What the tombstones of new tables hide in `older` ones, or in themselves if a merge found nothing older.
fn estimate_hidden(tables: &mut [Arc<TableShape>], older: &[Arc<TableShape>], merged: bool) {
    for table in tables.iter_mut().filter(|table| table.has_tombstones()) {
        let itself = table.clone();
        let met: Vec<_> =
            older.iter().filter(|older| older.overlaps(&itself.smallest, &itself.largest)).collect();
        let table = Arc::make_mut(table);
        if met.is_empty() && merged {
            table.estimate_hidden([&itself], 0);
        } else {
            table.estimate_hidden(met, 0);
        }
    }
}

fn named(compaction: &Compaction) -> Vec<(usize, u64)> {
    let inputs = compaction.inputs.iter();
    inputs.flat_map(|input| input.tables.iter().map(|table| (input.level, table.id))).collect()
}
