//! One small story for each way in which a compaction can be wrong.

use lsm_compaction::{
    Action, Compaction, InputLevel, LevelShape, OutputRun, Reason, Rejection, RunShape, RunningShape,
    TableShape, TreeShape, small_tables, validate,
};
use std::sync::Arc;

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

/// Level 0: 9 [a-m], 8 [k-z], 7 [a-c]. Level 1: 4 [a-f] 5 [h-m] 6 [p-z]. Level 2: 2 [a-z]. Level 3: two runs,
/// 1 [a-m] newer than 3 [n-z] and 10 [m-n] beside it.
fn shape() -> TreeShape {
    let level = |runs: Vec<RunShape>| LevelShape { runs };
    TreeShape {
        levels: vec![
            level(vec![run(&[(9, "a", "m")]), run(&[(8, "k", "z")]), run(&[(7, "a", "c")])]),
            level(vec![run(&[(4, "a", "f"), (5, "h", "m"), (6, "p", "z")])]),
            level(vec![run(&[(2, "a", "z")])]),
            level(vec![run(&[(1, "a", "m")]), run(&[(10, "k", "l"), (3, "n", "z")])]),
        ],
        ..TreeShape::default()
    }
}

/// The table of [`shape`] with this id, or one that it does not have.
fn named(id: u64) -> Arc<TableShape> {
    let shape = shape();
    let known = shape.tables().map(|(_, table)| table).find(|table| table.id == id);
    known.cloned().unwrap_or_else(|| Arc::new(table(id, "a", "z")))
}

fn merge(inputs: &[(usize, &[u64])], output_level: usize, output_run: OutputRun) -> Compaction {
    Compaction {
        inputs: inputs
            .iter()
            .map(|(level, ids)| InputLevel {
                level: *level,
                tables: ids.iter().map(|id| named(*id)).collect(),
            })
            .collect(),
        output_level,
        output_run,
        action: Action::Merge,
        target_table_bytes: 100,
        reason: Reason::Manual,
    }
}

fn refused(compaction: &Compaction) -> Rejection {
    validate(&shape(), compaction).expect_err("this compaction is unsound")
}

use OutputRun::{Join, NewRun};

#[test]
fn a_sound_one_is_accepted() {
    let all: &[(usize, &[u64])] = &[(0, &[7, 8, 9]), (1, &[4, 5, 6])];
    validate(&shape(), &merge(all, 1, Join)).unwrap();
    validate(&shape(), &merge(&[(0, &[7]), (1, &[4])], 1, Join)).unwrap();
    validate(&shape(), &merge(&[(1, &[5]), (2, &[2])], 2, Join)).unwrap();
    validate(&shape(), &merge(&[(0, &[8, 9])], 0, NewRun)).unwrap();
    validate(&shape(), &merge(&[(2, &[2])], 3, NewRun)).unwrap();
}

#[test]
fn names_must_be_right() {
    assert_eq!(refused(&merge(&[], 1, Join)), Rejection::NoInputs);
    assert_eq!(refused(&merge(&[(0, &[])], 1, Join)), Rejection::NoInputs);
    assert_eq!(refused(&merge(&[(0, &[7])], 4, Join)), Rejection::NoSuchLevel { level: 4, level_count: 4 });
    assert_eq!(refused(&merge(&[(9, &[7])], 1, Join)), Rejection::NoSuchLevel { level: 9, level_count: 4 });
    assert_eq!(refused(&merge(&[(0, &[4])], 1, Join)), Rejection::NoSuchTable { level: 0, table: 4 });
    assert_eq!(refused(&merge(&[(0, &[7, 7])], 1, Join)), Rejection::NamedTwice { level: 0 });
    assert_eq!(refused(&merge(&[(0, &[7]), (0, &[8])], 1, Join)), Rejection::NamedTwice { level: 0 });
    let empty = Compaction { target_table_bytes: 0, ..merge(&[(0, &[8, 9])], 0, NewRun) };
    assert_eq!(refused(&empty), Rejection::ZeroTableBytes);
}

#[test]
fn data_never_goes_up_a_level() {
    let upwards = merge(&[(2, &[2])], 1, Join);
    assert_eq!(refused(&upwards), Rejection::Upwards { level: 2, output_level: 1 });
}

#[test]
fn level_zero_takes_only_what_replaces_its_own_runs() {
    assert_eq!(refused(&merge(&[(0, &[8, 9])], 0, Join)), Rejection::IntoLevelZero);
}

#[test]
fn newer_data_does_not_sink_past_an_older_run() {
    let lost = refused(&merge(&[(0, &[9]), (1, &[4, 5])], 1, Join));
    assert_eq!(lost, Rejection::OrderLost { level: 0, input: 9, passed_level: 0, passed: 8 });
    let message = lost.to_string();
    assert!(message.contains("table 9 of level 0 cannot pass table 8 of level 0"), "{message}");
}

#[test]
fn newer_data_does_not_sink_past_a_level_between() {
    let lost = refused(&merge(&[(0, &[7]), (2, &[2])], 2, Join));
    assert_eq!(lost, Rejection::OrderLost { level: 0, input: 7, passed_level: 1, passed: 4 });
}

/// The run that it joins is the oldest, and overlaps nothing of it.
#[test]
fn a_moved_table_does_not_sink_past_a_newer_run_of_the_level_that_it_joins() {
    let mut tree = shape();
    tree.levels[0].runs = vec![run(&[(7, "a", "c")])];
    tree.levels[1].runs.clear();
    tree.levels[2].runs.clear();
    let moved = Compaction { action: Action::Move, ..merge(&[(0, &[7])], 3, Join) };
    let lost = validate(&tree, &moved).unwrap_err();
    assert_eq!(lost, Rejection::OrderLost { level: 0, input: 7, passed_level: 3, passed: 1 });
}

#[test]
fn joining_a_run_takes_in_what_it_overlaps() {
    let lost = refused(&merge(&[(0, &[7])], 1, Join));
    assert_eq!(lost, Rejection::OrderLost { level: 0, input: 7, passed_level: 1, passed: 4 });
}

#[test]
fn older_data_does_not_rise_past_a_newer_run() {
    let mut tree = shape();
    tree.levels[0].runs[1] = run(&[(8, "b", "z")]);
    let lost = validate(&tree, &merge(&[(0, &[7, 9])], 0, NewRun)).unwrap_err();
    assert_eq!(lost, Rejection::OrderLost { level: 0, input: 7, passed_level: 0, passed: 8 });
    let rises = merge(&[(3, &[1, 3])], 3, NewRun);
    validate(&shape(), &rises).unwrap();
    let mut tree = shape();
    tree.levels[3].runs.insert(1, run(&[(11, "x", "y")]));
    let lost = validate(&tree, &rises).unwrap_err();
    assert_eq!(lost, Rejection::OrderLost { level: 3, input: 3, passed_level: 3, passed: 11 });
}

#[test]
fn outputs_do_not_span_a_table_of_their_run() {
    let mut tree = shape();
    tree.levels[0].runs = vec![run(&[(8, "g", "g"), (9, "n", "n")])];
    let spanning = merge(&[(0, &[8, 9])], 1, Join);
    assert_eq!(validate(&tree, &spanning), Err(Rejection::RunOverlap { level: 1, table: 5 }));
    // Moved one by one, they span nothing.
    validate(&tree, &Compaction { action: Action::Move, ..spanning }).unwrap();
}

#[test]
fn outputs_do_not_span_a_table_of_a_run_that_may_become_the_oldest() {
    let mut tree = shape();
    tree.levels[2].runs.clear();
    tree.levels[3].runs = vec![run(&[(1, "m", "n")]), run(&[(10, "k", "l"), (3, "o", "p")])];
    let spanning = merge(&[(3, &[3, 10])], 3, Join);
    assert_eq!(validate(&tree, &spanning), Err(Rejection::RunOverlap { level: 3, table: 1 }));
}

#[test]
fn outputs_keep_clear_of_what_is_running() {
    let mut tree = shape();
    tree.levels[1].runs.clear();
    tree.levels[0].runs = vec![run(&[(9, "d", "e")])];
    let moved = Compaction { action: Action::Move, ..merge(&[(0, &[9])], 1, Join) };
    validate(&tree, &moved).unwrap();
    let running = |output_run, smallest: &str, largest: &str| RunningShape {
        output_level: 1,
        output_run,
        smallest: smallest.into(),
        largest: largest.into(),
    };
    tree.running = vec![running(Join, "a", "c")];
    validate(&tree, &moved).unwrap();
    tree.running = vec![running(Join, "a", "z")];
    assert_eq!(validate(&tree, &moved), Err(Rejection::RunningOverlap { level: 1 }));
    tree.running = vec![running(NewRun, "a", "c")];
    assert_eq!(validate(&tree, &moved), Err(Rejection::RunningOverlap { level: 1 }));
}

/// Found by the random test: of two compactions that replace parts of one run, whoever finished last would have
/// stood before the other, although table 9 holds newer versions than table 1 of keys k and l.
#[test]
fn a_run_is_replaced_whole() {
    let mut tree = shape();
    tree.levels[0].runs = vec![run(&[(9, "k", "p")])];
    tree.levels[1].runs = vec![run(&[(1, "a", "l"), (3, "n", "z")])];
    let left_behind = |table| Err(Rejection::RunLeftBehind { level: 1, table });
    assert_eq!(validate(&tree, &merge(&[(1, &[1])], 1, NewRun)), left_behind(3));
    assert_eq!(validate(&tree, &merge(&[(0, &[9]), (1, &[3])], 1, NewRun)), left_behind(1));
    validate(&tree, &merge(&[(0, &[9]), (1, &[1, 3])], 1, NewRun)).unwrap();
}

#[test]
fn data_from_above_becomes_part_of_the_newest_run_or_of_none() {
    let mut tree = shape();
    tree.levels[0].runs = vec![run(&[(9, "a", "b")])];
    tree.levels[1].runs = vec![run(&[(11, "x", "y")]), run(&[(1, "a", "z")])];
    let both = merge(&[(0, &[9]), (1, &[1])], 1, NewRun);
    assert_eq!(validate(&tree, &both), Err(Rejection::RunLeftBehind { level: 1, table: 11 }));
    tree.levels[1].runs.remove(0);
    validate(&tree, &both).unwrap();
    // A run that is being added could hold newer versions than table 1 and yet end up below it.
    tree.running.push(RunningShape {
        output_level: 1,
        output_run: NewRun,
        smallest: "x".into(),
        largest: "y".into(),
    });
    assert_eq!(validate(&tree, &both), Err(Rejection::RunningOverlap { level: 1 }));
    validate(&tree, &merge(&[(1, &[1])], 1, NewRun)).unwrap();
}

#[test]
fn busy_tables_are_left_alone() {
    let mut tree = shape();
    tree.levels[1].runs[0].mark_busy(0);
    let busy = merge(&[(0, &[7]), (1, &[4])], 1, Join);
    assert_eq!(validate(&tree, &busy), Err(Rejection::Busy { level: 1, table: 4 }));
}

#[test]
fn tables_that_overlap_are_not_moved_into_one_run() {
    let mut tree = shape();
    tree.levels[1].runs.clear();
    let moved = Compaction { action: Action::Move, ..merge(&[(0, &[8, 9])], 1, NewRun) };
    tree.levels[0].runs.pop();
    assert_eq!(validate(&tree, &moved), Err(Rejection::MoveOverlap { first: 9, second: 8 }));
    let stays = Compaction { action: Action::Move, ..merge(&[(2, &[2])], 2, Join) };
    assert_eq!(refused(&stays), Rejection::MoveWithinLevel { level: 2, table: 2 });
}

#[test]
fn what_is_dropped_uncovers_nothing() {
    let drop = |tables: &[u64]| Compaction { action: Action::Drop, ..merge(&[(3, tables)], 3, NewRun) };
    validate(&shape(), &drop(&[3])).unwrap();
    assert_eq!(refused(&drop(&[1])), Rejection::Uncovers { input: 1, uncovered: 10 });
}

#[test]
fn neighbours_that_touch_are_told_from_overlap() {
    // A range tombstone that was cut at g ends the first table exclusively there.
    let mut tree = shape();
    tree.levels[0].runs.clear();
    tree.levels[1].runs = vec![run(&[(4, "a", "g"), (5, "g", "m")])];
    tree.levels[2].runs.clear();
    tree.levels[3].runs.clear();
    validate(&tree, &merge(&[(1, &[4])], 1, Join)).unwrap();
    assert!(merge(&[(1, &[4])], 1, Join).is_bottommost(&tree));
    tree.levels[0].runs = vec![run(&[(9, "a", "g")])];
    let lost = validate(&tree, &merge(&[(0, &[9]), (1, &[4])], 1, Join)).unwrap_err();
    assert_eq!(lost, Rejection::OrderLost { level: 0, input: 9, passed_level: 1, passed: 5 });
}

/// Whoever cannot read all runs at once begins with the oldest: what is left out stays above them.
#[test]
fn the_oldest_runs_of_a_sound_compaction_make_a_sound_one() {
    let shape = shape();
    let whole = merge(&[(0, &[9, 8, 7]), (1, &[4, 5, 6])], 1, Join);
    assert_eq!(validate(&shape, &whole), Ok(()));
    assert_eq!(whole.input_runs(&shape), 4);
    assert_eq!(whole.of_oldest_runs(&shape, 4), whole);
    assert_eq!(whole.of_oldest_runs(&shape, 9), whole);
    let fewer = |runs: usize| {
        let fewer = whole.of_oldest_runs(&shape, runs);
        assert_eq!(validate(&shape, &fewer), Ok(()));
        fewer
    };
    assert_eq!(fewer(3), merge(&[(0, &[8, 7]), (1, &[4, 5, 6])], 1, Join));
    assert_eq!(fewer(2), merge(&[(0, &[7]), (1, &[4, 5, 6])], 1, Join));
    assert_eq!(fewer(1), merge(&[(1, &[4, 5, 6])], 1, Join));
    let within = merge(&[(0, &[9, 8, 7])], 0, NewRun);
    assert_eq!(validate(&shape, &within.of_oldest_runs(&shape, 2)), Ok(()));
}

/// Tables that were moved down one after the other, as inserts in the order of keys make them.
#[test]
fn small_neighbours_are_merged_a_few_times_each() {
    let mut shape = TreeShape::empty(3);
    shape.levels[2].runs.push(RunShape::default());
    let mut rewritten = 0;
    for id in 0..4096_u64 {
        let key = format!("{id:05}");
        let run = &mut shape.levels[2].runs[0];
        *run = run.with_changes(&[], vec![Arc::new(table(id, &key, &key))]);
        while let Some(compaction) =
            small_tables(&shape, |bytes, entries| bytes <= 10_000 && entries <= 10_000)
        {
            assert_eq!(validate(&shape, &compaction), Ok(()));
            let bytes = compaction.input_bytes(&shape);
            rewritten += bytes;
            let (smallest, largest) = compaction.bounds(&shape).unwrap();
            let (smallest, largest) = (smallest.clone(), largest.clone());
            let one =
                TableShape { id: 10_000 + id, smallest, largest, bytes, entries: bytes, ..table(0, "", "") };
            shape.apply(&compaction, vec![Arc::new(one)]);
        }
        assert!(shape.levels[2].runs[0].len() < 24, "{id}");
    }
    assert!(rewritten <= 6 * 10 * 4096, "{rewritten} bytes were rewritten of 40960");
    // A large one is not rewritten for the sake of small ones, and what would not fit is left alone.
    assert_eq!(small_tables(&shape, |_, _| false), None);
}
