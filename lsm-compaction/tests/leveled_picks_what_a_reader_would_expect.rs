//! Small trees, each with the compaction that leveling is expected to start.

use lsm_compaction::{
    Action, Compaction, CompactionPolicy, LevelShape, Leveled, LeveledOptions, OutputRun, Reason, RunShape,
    TableShape, TreeShape, validate,
};
use std::sync::Arc;

const HOUR: u64 = 3_600_000_000;

/// Levels of at most 40, 400, 4000 bytes in tables of 10.
fn policy() -> Leveled {
    Leveled::new(LeveledOptions {
        level_count: 5,
        level0_runs_max: 4,
        base_bytes: 40,
        fanout: 10,
        target_table_bytes: 10,
        compaction_bytes_max: 250,
        tombstone_age_micros_max: HOUR,
        tombstone_percent_max: 50,
        hidden_percent_max: 30,
    })
}

fn table(id: u64, smallest: &str, largest: &str) -> TableShape {
    TableShape {
        id,
        smallest: smallest.into(),
        largest: largest.into(),
        bytes: 10,
        entries: 10,
        ..TableShape::default()
    }
}

fn run(tables: &[(u64, &str, &str)]) -> RunShape {
    tables.iter().map(|(id, a, b)| Arc::new(table(*id, a, b))).collect()
}

fn tree(levels: Vec<Vec<RunShape>>) -> TreeShape {
    let mut shape = TreeShape::empty(5);
    for (level, runs) in levels.into_iter().enumerate() {
        shape.levels[level] = LevelShape { runs };
    }
    shape
}

/// `count` tables side by side between two letters, ids from `first_id` on.
fn many(first_id: u64, count: u64, prefix: &str) -> RunShape {
    let tables = (0..count).map(|index| {
        let key = |end: &str| format!("{prefix}{index:04}{end}");
        Arc::new(table(first_id + index, &key("a"), &key("z")))
    });
    tables.collect()
}

fn pick(shape: &TreeShape) -> Option<Compaction> {
    let compaction = policy().pick(shape)?;
    validate(shape, &compaction).unwrap();
    Some(compaction)
}

fn ids(compaction: &Compaction, level: usize) -> Vec<u64> {
    let inputs = compaction.inputs.iter().filter(|input| input.level == level);
    let mut ids: Vec<u64> = inputs.flat_map(|input| &input.tables).map(|table| table.id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_tree_in_shape_is_left_alone() {
    assert_eq!(pick(&tree(vec![])), None);
    assert_eq!(
        pick(&tree(vec![vec![run(&[(3, "a", "z")]), run(&[(2, "a", "z")]), run(&[(1, "a", "z")])]])),
        None
    );
}

#[test]
fn a_small_tree_is_level_zero_and_the_last_level() {
    let flushed = (1..=4).rev().map(|id| run(&[(id, "a", "z")])).collect();
    let shape = tree(vec![flushed]);
    let compaction = pick(&shape).unwrap();
    assert_eq!((compaction.action, compaction.output_level), (Action::Merge, 4));
    assert_eq!(ids(&compaction, 0), [1, 2, 3, 4]);
    assert!(policy().debt_bytes(&shape) >= 40);
}

#[test]
fn keys_written_in_order_are_moved_and_never_rewritten() {
    let flushed = vec![
        run(&[(9, "m", "n")]),
        run(&[(8, "k", "l")]),
        run(&[(6, "g", "h"), (7, "i", "j")]),
        run(&[(5, "e", "f")]),
    ];
    let shape = tree(vec![flushed, vec![], vec![], vec![], vec![run(&[(1, "a", "b"), (2, "c", "d")])]]);
    let compaction = pick(&shape).unwrap();
    assert_eq!((compaction.action, compaction.output_level), (Action::Move, 4));
    assert_eq!(ids(&compaction, 0), [5, 6, 7, 8, 9]);
}

#[test]
fn the_last_level_sets_the_size_of_the_levels_above() {
    let mut shape = tree(vec![]);
    let last = u64::MAX;
    assert_eq!(policy().level_bytes_max(&shape), [0, 0, 0, 0, last]);
    shape.levels[4].runs = vec![many(1, 40, "k")];
    assert_eq!(policy().level_bytes_max(&shape), [0, 0, 0, 40, last]);
    shape.levels[4].runs = vec![many(1, 400, "k")];
    assert_eq!(policy().level_bytes_max(&shape), [0, 0, 40, 400, last]);
}

#[test]
fn the_table_that_overlaps_least_goes_down() {
    let upper = run(&[
        (101, "k0000a", "k0009z"),
        (102, "k0010b", "k0010c"),
        (103, "k0011b", "k0015z"),
        (104, "k0016b", "k0020z"),
        (105, "k0021b", "k0025z"),
    ]);
    let shape = tree(vec![vec![], vec![], vec![], vec![upper], vec![many(1, 40, "k")]]);
    let compaction = pick(&shape).unwrap();
    assert_eq!((compaction.action, compaction.reason), (Action::Merge, Reason::LevelBytes));
    assert_eq!((ids(&compaction, 3), ids(&compaction, 4)), (vec![102], vec![11]));
}

#[test]
fn among_equals_the_oldest_table_goes_down_so_that_all_have_their_turn() {
    let upper = |ids: [u64; 5]| {
        let tables = ids.iter().enumerate();
        let tables = tables.map(|(index, id)| {
            let key = |end: &str| format!("k{index:04}{end}");
            Arc::new(table(*id, &key("b"), &key("c")))
        });
        tables.collect()
    };
    let shape = |ids| tree(vec![vec![], vec![], vec![], vec![upper(ids)], vec![many(1, 40, "k")]]);
    assert_eq!(ids(&pick(&shape([101, 102, 103, 104, 105])).unwrap(), 3), [101]);
    assert_eq!(ids(&pick(&shape([106, 102, 103, 104, 105])).unwrap(), 3), [102]);
}

/// In a level of very many tables not all are compared.
#[test]
fn in_a_long_level_the_table_that_overlaps_least_after_the_last_merge_goes_down() {
    let long = |first_id: u64, change: &dyn Fn(usize, &mut TableShape)| -> RunShape {
        let tables = many(first_id, 300, "k").tables().cloned().collect::<Vec<_>>();
        let tables = tables.into_iter().enumerate().map(|(index, mut table)| {
            change(index, Arc::make_mut(&mut table));
            table
        });
        tables.collect()
    };
    let pick_after = |newest: usize| {
        let upper = long(1001, &|index, table| match index {
            100 => table.bytes = 40,
            250 => table.bytes = 20,
            _ => {}
        });
        let below = long(1, &|index, table| table.id += if index == newest { 9000 } else { 0 });
        let shape = tree(vec![vec![], vec![], vec![], vec![upper], vec![below]]);
        ids(&pick(&shape).unwrap(), 3)
    };
    assert_eq!(pick_after(200), [1251], "a better one is further away");
    assert_eq!(pick_after(290), [1101], "after the end the beginning follows");
}

#[test]
fn disjoint_parts_are_compacted_beside_each_other() {
    let mut shape = tree(vec![vec![], vec![], vec![], vec![many(101, 8, "k")], vec![many(1, 40, "k")]]);
    let mut started = Vec::new();
    while let Some(compaction) = pick(&shape) {
        started.extend(ids(&compaction, 3));
        shape.start(&compaction);
    }
    // 80 bytes where 40 should be: four tables of ten, each on its own.
    assert_eq!(started, [101, 102, 103, 104]);
}

#[test]
fn level_zero_is_merged_within_itself_while_the_way_down_is_blocked() {
    let flushed = |ids: std::ops::RangeInclusive<u64>| ids.rev().map(|id| run(&[(id, "a", "z")])).collect();
    let mut shape = tree(vec![flushed(1..=4)]);
    let down = pick(&shape).unwrap();
    shape.start(&down);
    for id in 5..=7 {
        shape.levels[0].runs.insert(0, run(&[(id, "a", "z")]));
        assert_eq!(pick(&shape), None, "three runs are not worth it");
    }
    shape.levels[0].runs.insert(0, run(&[(8, "a", "z")]));
    let within = pick(&shape).unwrap();
    assert_eq!((within.reason, within.output_level), (Reason::IntraLevel0, 0));
    assert_eq!(within.output_run, OutputRun::NewRun);
    assert_eq!(ids(&within, 0), [5, 6, 7, 8]);
}

/// Runs of level 0 of so many bytes, newest first, above a last level of 70 bytes.
fn gathered(run_bytes: &[u64]) -> TreeShape {
    let ids = (101..101 + run_bytes.len() as u64).rev();
    let runs = run_bytes
        .iter()
        .zip(ids)
        .map(|(&bytes, id)| RunShape::new(vec![Arc::new(TableShape { bytes, ..table(id, "a", "z") })]));
    tree(vec![runs.collect(), vec![], vec![], vec![], vec![many(1, 7, "k")]])
}

#[test]
fn level_zero_goes_down_once_it_is_a_fourth_of_what_it_meets() {
    let within = pick(&gathered(&[2, 2, 2, 2])).unwrap();
    assert_eq!((within.reason, within.output_level), (Reason::IntraLevel0, 0));
    assert_eq!(policy().debt_bytes(&gathered(&[2, 2, 2, 2])), 8);
    let shape = gathered(&[2, 2, 2, 12]);
    let down = pick(&shape).unwrap();
    assert_eq!((down.reason, down.output_level), (Reason::Level0, 4));
    assert_eq!((ids(&down, 0), ids(&down, 4).len()), (vec![101, 102, 103, 104], 7));
    assert_eq!(policy().debt_bytes(&shape), 88);
}

#[test]
fn runs_of_level_zero_are_merged_with_their_like() {
    let shape = gathered(&[1, 1, 1, 4, 4, 4]);
    assert_eq!((pick(&shape), policy().debt_bytes(&shape)), (None, 0));
    assert_eq!(ids(&pick(&gathered(&[1, 1, 1, 1, 5, 5])).unwrap(), 0), [103, 104, 105, 106]);
    assert_eq!(ids(&pick(&gathered(&[1, 2, 2, 2, 2])).unwrap(), 0), [101, 102, 103, 104]);
    assert_eq!(ids(&pick(&gathered(&[1, 1, 1, 1, 4, 4])).unwrap(), 0), [101, 102, 103, 104, 105, 106]);
}

#[test]
fn old_tombstones_reach_the_bottom_and_then_stop() {
    let with_tombstone = |id, written: u64| TableShape {
        tombstones: 1,
        created_micros: written,
        oldest_tombstone_micros: Some(0),
        ..table(id, "k0003a", "k0003z")
    };
    let single = |table| vec![RunShape::new(vec![Arc::new(table)])];
    let mut shape = tree(vec![single(with_tombstone(100, 0)), vec![], vec![], vec![], vec![many(1, 6, "k")]]);
    shape.now_micros = HOUR - 1;
    assert_eq!(pick(&shape), None);
    shape.now_micros = HOUR;
    let compaction = pick(&shape).unwrap();
    assert_eq!((compaction.reason, compaction.output_level), (Reason::TombstoneAge, 4));
    assert!(compaction.is_bottommost(&shape));
    // A snapshot kept it: the table was just written, and is left alone for a while.
    let mut shape = tree(vec![vec![], vec![], vec![], vec![], single(with_tombstone(101, HOUR))]);
    shape.now_micros = HOUR + 1;
    assert_eq!(pick(&shape), None);
    shape.snapshots = vec![7];
    assert_eq!(ids(&pick(&shape).unwrap(), 4), [101], "nobody needs it");
    shape.snapshots = Vec::new();
    shape.now_micros = 2 * HOUR;
    assert_eq!(ids(&pick(&shape).unwrap(), 4), [101]);
}

#[test]
fn a_table_that_is_mostly_tombstones_goes_down_early() {
    let dense = TableShape { tombstones: 5, ..table(100, "k0003a", "k0003z") };
    let upper = RunShape::new(vec![Arc::new(dense)]);
    let shape = tree(vec![vec![], vec![], vec![], vec![upper], vec![many(1, 40, "k")]]);
    let compaction = pick(&shape).unwrap();
    assert_eq!((compaction.reason, ids(&compaction, 3)), (Reason::TombstoneDensity, vec![100]));
}

#[test]
fn tombstones_that_meet_nothing_are_left_out_instead_of_moved() {
    let deletes = TableShape { tombstones: 10, ..table(100, "x", "y") };
    let upper = RunShape::new(vec![Arc::new(deletes)]);
    let shape = tree(vec![vec![], vec![], vec![], vec![upper], vec![many(1, 40, "k")]]);
    let compaction = pick(&shape).unwrap();
    assert_eq!(compaction.action, Action::Merge);
    assert!(compaction.is_bottommost(&shape));
}

#[test]
fn tombstones_that_hide_much_go_down_unless_a_snapshot_holds_them() {
    let hiding = |hidden_bytes| TableShape {
        tombstones: 1,
        hidden_bytes,
        older_bytes: 100,
        largest_sequence: 9,
        ..table(100, "k0003a", "k0003z")
    };
    let shape = |hidden_bytes, level: usize| {
        let mut levels = vec![vec![], vec![], vec![], vec![], vec![many(1, 40, "k")]];
        levels[level] = vec![RunShape::new(vec![Arc::new(hiding(hidden_bytes))])];
        tree(levels)
    };
    for level in [0, 3] {
        assert_eq!(pick(&shape(29, level)), None);
        let mut shape = shape(30, level);
        let compaction = pick(&shape).unwrap();
        assert_eq!((compaction.reason, ids(&compaction, level)), (Reason::HiddenBytes, vec![100]));
        shape.snapshots = vec![8, 20];
        assert_eq!(pick(&shape), None, "a snapshot sees what they hide");
        shape.snapshots = vec![9, 20];
        assert_eq!(pick(&shape), Some(compaction));
    }
}

#[test]
fn tombstones_that_are_on_their_way_send_nothing_else_down() {
    let hiding =
        TableShape { tombstones: 1, hidden_bytes: 100, older_bytes: 100, ..table(100, "k0003a", "k0003z") };
    let mut newest = RunShape::new(vec![Arc::new(hiding)]);
    newest.mark_busy(0);
    let shape = tree(vec![
        vec![newest, run(&[(99, "k0003a", "k0003z")])],
        vec![],
        vec![],
        vec![],
        vec![many(1, 40, "k")],
    ]);
    assert_eq!(pick(&shape), None);
}

#[test]
fn tombstones_that_a_snapshot_kept_at_the_bottom_go_when_it_goes() {
    let kept = TableShape {
        tombstones: 1,
        hidden_bytes: 50,
        older_bytes: 100,
        largest_sequence: 9,
        ..table(100, "k0003a", "k0003z")
    };
    let mut shape = tree(vec![vec![], vec![], vec![], vec![], vec![RunShape::new(vec![Arc::new(kept)])]]);
    for (snapshots, is_due) in [(vec![8, 20], false), (vec![20], true), (vec![9, 20], true)] {
        shape.snapshots = snapshots;
        let pick = pick(&shape);
        assert_eq!(pick.as_ref().map(|compaction| ids(compaction, 4)), is_due.then(|| vec![100]));
    }
}
