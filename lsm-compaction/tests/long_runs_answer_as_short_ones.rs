//! Runs of many tables are kept in chunks with sums of their own: whatever was changed, they answer as a plain list.

use lsm_compaction::{
    Action, Compaction, InputLevel, LevelShape, OutputRun, Reason, RunShape, TableShape, TreeShape,
    small_tables, validate,
};
use lsm_core::Slice;
use proptest::prelude::*;
use std::sync::Arc;

const KEYS: u32 = 3000;

fn key(number: u32) -> Slice {
    Slice::from(&number.to_be_bytes())
}

/// A table of a key or two, the second of which the next table may begin with.
fn table(id: u64, first: u32, bytes: u64) -> Arc<TableShape> {
    let largest = key(first + u32::from(bytes.is_multiple_of(2)));
    Arc::new(TableShape { id, smallest: key(first), largest, bytes, entries: bytes, ..TableShape::default() })
}

/// One change: tables from here on go, as many, and others come, each with its bytes.
#[derive(Clone, Debug)]
struct Change {
    first: u32,
    removed: usize,
    added: Vec<(u32, u64)>,
    busy: u32,
}

fn change() -> impl Strategy<Value = Change> {
    let wide = prop::collection::vec((0..KEYS, 1..40_u64), 0..400);
    let narrow = (0..KEYS, prop::collection::vec(1..40_u64, 0..60)).prop_map(|(first, bytes)| {
        bytes.into_iter().enumerate().map(|(index, bytes)| ((first + index as u32) % KEYS, bytes)).collect()
    });
    (0..KEYS, prop_oneof![0..40_usize, 0..1000_usize], prop_oneof![wide, narrow], 0..KEYS)
        .prop_map(|(first, removed, added, busy)| Change { first, removed, added, busy })
}

/// The plain list, and which of it is busy.
#[derive(Default)]
struct Model(Vec<(Arc<TableShape>, bool)>);

impl Model {
    /// Positions of what goes, and what comes: keys that are free.
    fn change(&mut self, change: &Change, next_id: &mut u64) -> (Vec<usize>, Vec<Arc<TableShape>>) {
        let first = self.0.partition_point(|(table, _)| table.smallest < key(change.first));
        let gone: Vec<usize> =
            (first..self.0.len()).step_by(1 + change.removed % 3).take(change.removed).collect();
        let mut position = 0;
        self.0.retain(|_| {
            position += 1;
            gone.binary_search(&(position - 1)).is_err()
        });
        let mut come: Vec<Arc<TableShape>> = Vec::new();
        for &(first, bytes) in &change.added {
            if self.0.iter().all(|(table, _)| table.smallest != key(first))
                && come.iter().all(|table| table.smallest != key(first))
            {
                *next_id += 1;
                come.push(table(*next_id, first, bytes));
            }
        }
        self.0.extend(come.iter().cloned().map(|table| (table, false)));
        self.0.sort_by(|(a, _), (b, _)| a.smallest.cmp(&b.smallest));
        (gone, come)
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(table, _)| table.bytes).sum()
    }
}

fn check(run: &RunShape, model: &Model, probes: &[(u32, u32)]) -> Result<(), TestCaseError> {
    let all: Vec<_> = model.0.iter().map(|(table, _)| table.clone()).collect();
    prop_assert!(run.tables().eq(&all) && run.tables().rev().eq(all.iter().rev()));
    prop_assert_eq!((run.len(), run.is_empty(), run.bytes()), (all.len(), all.is_empty(), model.bytes()));
    prop_assert_eq!(run.entries(), all.iter().map(|table| table.entries).sum::<u64>());
    prop_assert_eq!((run.first(), run.last(), run.get(all.len())), (all.first(), all.last(), None));
    let free: Vec<_> = model.0.iter().filter(|(_, busy)| !busy).map(|(table, _)| table).collect();
    prop_assert!(run.free_tables().eq(free.iter().copied()));
    prop_assert_eq!(run.free_bytes(), free.iter().map(|table| table.bytes).sum::<u64>());
    prop_assert_eq!(run.is_busy(), free.len() < all.len());
    for (position, (table, busy)) in model.0.iter().enumerate() {
        prop_assert_eq!((run.get(position), run.position(table)), (Some(table), Some(position)));
        prop_assert_eq!(run.is_busy_at(position), *busy);
    }
    for &(a, b) in probes {
        let (smallest, largest) = (key(a.min(b)), key(a.max(b)));
        let met = run.overlapping(&smallest, &largest);
        let expected: Vec<_> = all.iter().filter(|table| table.overlaps(&smallest, &largest)).collect();
        prop_assert!(run.range(met.clone()).eq(expected.iter().copied()));
        prop_assert_eq!(run.bytes_in(met.clone()), expected.iter().map(|table| table.bytes).sum::<u64>());
        prop_assert_eq!(run.is_busy_in(&met), model.0[met.clone()].iter().any(|(_, busy)| *busy));
        prop_assert_eq!(
            &all[met.clone()],
            &all.iter().filter(|table| table.overlaps(&smallest, &largest)).cloned().collect::<Vec<_>>()
        );
    }
    prop_assert!(*run == RunShape::new(all) || run.is_busy());
    Ok(())
}

/// The first four small neighbours of a list that are free and together come to no more than so many bytes.
fn first_small(model: &Model, bytes_max: u64) -> Option<Vec<u64>> {
    model.0.windows(4).find_map(|window| {
        let bytes: u64 = window.iter().map(|(table, _)| table.bytes).sum();
        let largest = window.iter().map(|(table, _)| table.bytes).max()?;
        let is_small = largest <= bytes / 3 && bytes <= bytes_max && window.iter().all(|(_, busy)| !busy);
        is_small.then(|| window.iter().map(|(table, _)| table.id).collect())
    })
}

fn tree(run: &RunShape) -> TreeShape {
    TreeShape {
        levels: vec![LevelShape::default(), LevelShape { runs: vec![run.clone()] }],
        ..TreeShape::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_run_answers_as_a_list_whatever_was_changed(
        changes in prop::collection::vec(change(), 1..10),
        probes in prop::collection::vec((0..KEYS, 0..KEYS), 10),
    ) {
        let (mut run, mut model, mut next_id) = (RunShape::default(), Model::default(), 0);
        for change in &changes {
            let (gone, come) = model.change(change, &mut next_id);
            run = run.with_changes(&gone, come);
            let busy = run.overlapping(&key(change.busy), &key(change.busy + 2));
            for position in busy {
                run.mark_busy(position);
                model.0[position].1 = true;
            }
            check(&run, &model, &probes)?;
        }
    }

    #[test]
    fn small_tables_are_found_in_long_runs_as_in_a_list(
        changes in prop::collection::vec(change(), 1..6),
        bytes_max in 4..160_u64,
    ) {
        let (mut run, mut model, mut next_id) = (RunShape::default(), Model::default(), 0);
        for change in &changes {
            let (gone, come) = model.change(change, &mut next_id);
            run = run.with_changes(&gone, come);
            for position in run.overlapping(&key(change.busy), &key(change.busy + 2)) {
                run.mark_busy(position);
                model.0[position].1 = true;
            }
            let picked = small_tables(&tree(&run), |bytes, _| bytes <= bytes_max);
            let picked = picked.map(|it| it.inputs[0].tables.iter().map(|table| table.id).collect::<Vec<_>>());
            prop_assert_eq!(picked, first_small(&model, bytes_max));
        }
    }
}

#[test]
fn small_tables_are_found_wherever_they_lie_in_a_long_run() {
    for first in 0..497 {
        let bytes = |number: u32| if (first..first + 4).contains(&number) { 10 } else { 1000 };
        let run: RunShape =
            (0..500).map(|number| table(u64::from(number), 2 * number, bytes(number))).collect();
        let picked = small_tables(&tree(&run), |bytes, _| bytes <= 40).expect("four small tables");
        let ids: Vec<u64> = picked.inputs[0].tables.iter().map(|table| table.id).collect();
        assert_eq!(ids, (first..first + 4).map(u64::from).collect::<Vec<_>>());
    }
}

/// A flush, or a merge of a few tables, copies nothing of the tables that it leaves alone.
#[test]
fn shapes_share_what_a_change_leaves_alone() {
    let long = |first_id: u64| -> RunShape {
        (0..1000).map(|number| table(first_id + u64::from(number), 2 * number, 9)).collect()
    };
    let mut shape = TreeShape::empty(3);
    shape.levels[1].runs = vec![long(1)];
    shape.levels[2].runs = vec![long(2000)];
    let before = shape.clone();
    shape.levels[0].runs.insert(0, RunShape::new(vec![table(5000, 3, 9)]));
    let merge = Compaction {
        inputs: vec![InputLevel::new(1, before.levels[1].runs[0].range(500..502))],
        output_level: 1,
        output_run: OutputRun::Join,
        action: Action::Merge,
        target_table_bytes: 9,
        reason: Reason::Manual,
    };
    validate(&shape, &merge).unwrap();
    shape.apply(&merge, vec![table(5001, 1000, 18)]);
    assert!(shape.levels[2].runs[0].is_shared_with(&before.levels[2].runs[0]));
    assert!(!shape.levels[1].runs[0].is_shared_with(&before.levels[1].runs[0]));
    assert_eq!(shape.levels[1].runs[0].len(), 999);
}
