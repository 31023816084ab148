//! Tables with expired entries are rewritten in place: when enough has expired, or when it has waited for long, and not
//! before it has expired for all readers.

use std::sync::Arc;

use lsm_compaction::{Action, OutputRun, Reason, RunShape, TableShape, TreeShape, expired_tables, validate};

const WEEK: u64 = 7 * 24 * 3600 * 1_000_000;

fn table(id: u64, keys: [&str; 2], entries: u64, expiring: (u64, u64, u64)) -> Arc<TableShape> {
    let (expiring, earliest_expiry_micros, latest_expiry_micros) = expiring;
    let [smallest, largest] = keys.map(Into::into);
    Arc::new(TableShape {
        id,
        smallest,
        largest,
        bytes: 100,
        entries,
        expiring,
        earliest_expiry_micros,
        latest_expiry_micros,
        ..TableShape::default()
    })
}

fn tree(levels: [Vec<Vec<Arc<TableShape>>>; 3], expired_micros: u64) -> TreeShape {
    let mut shape = TreeShape::empty(3);
    for (level, runs) in shape.levels.iter_mut().zip(levels) {
        level.runs = runs.into_iter().map(RunShape::new).collect();
    }
    TreeShape { expired_micros, ..shape }
}

/// The ids of the inputs, and what becomes of them.
fn pick(shape: &TreeShape) -> Option<(Vec<u64>, How)> {
    let compaction = expired_tables(shape)?;
    validate(shape, &compaction).unwrap();
    assert_eq!(compaction.reason, Reason::Expiry);
    assert_eq!(compaction.output_level, compaction.inputs[0].level, "in place");
    let ids = compaction.inputs.iter().flat_map(|input| input.tables.iter().map(|table| table.id));
    let how = match compaction.action {
        Action::Drop => How::Dropped,
        _ if compaction.output_run == OutputRun::Join => How::Joined,
        _ => How::Rewritten,
    };
    Some((ids.collect(), how))
}

#[derive(Debug, PartialEq)]
enum How {
    /// Rewritten, and the outputs join their run.
    Joined,
    /// Rewritten as a run.
    Rewritten,
    Dropped,
}
use How::{Dropped, Joined, Rewritten};

#[test]
fn a_table_of_the_last_run_is_rewritten_alone_once_a_third_has_expired() {
    let one = table(1, ["a", "b"], 100, (0, 0, 0));
    // 50 of 100 expire between 1000 and 2000.
    let two = table(2, ["c", "d"], 100, (50, 1000, 2000));
    let at = |now| tree([vec![], vec![], vec![vec![one.clone(), two.clone()]]], now);
    assert_eq!(pick(&at(999)), None);
    assert_eq!(pick(&at(1500)), None, "a quarter");
    assert_eq!(pick(&at(1600)), Some((vec![2], Joined)));
    assert_eq!(pick(&at(u64::MAX)), Some((vec![2], Joined)));
}

#[test]
fn a_single_expired_entry_waits_for_a_week() {
    let table = table(1, ["a", "b"], 1_000_000, (1, 1000, 1000));
    let at = |now| tree([vec![], vec![], vec![vec![table.clone()]]], now);
    assert_eq!(pick(&at(1000 + WEEK - 1)), None);
    assert_eq!(pick(&at(1000 + WEEK)), Some((vec![1], Joined)));
}

#[test]
fn other_runs_are_rewritten_as_a_whole_and_busy_tables_wait() {
    let expired = |id, keys| table(id, keys, 10, (10, 5, 5));
    let fresh = |id, keys| table(id, keys, 10, (0, 0, 0));
    let newer = vec![fresh(5, ["a", "c"]), expired(6, ["d", "e"])];
    let level_1 = vec![newer, vec![fresh(3, ["a", "z"])]];
    let mut shape = tree([vec![], level_1, vec![vec![fresh(1, ["a", "z"])]]], 10);
    assert_eq!(pick(&shape), Some((vec![5, 6], Rewritten)));
    shape.levels[1].runs[0].mark_busy(1);
    assert_eq!(pick(&shape), None);
}

#[test]
fn a_table_of_which_all_has_expired_is_dropped_if_it_hides_nothing() {
    let expired = |id, keys| table(id, keys, 10, (10, 5, 5));
    let fresh = |id, keys| table(id, keys, 10, (0, 0, 0));
    let at = |last, now| tree([vec![vec![expired(9, ["a", "c"])]], vec![], vec![vec![last]]], now);
    assert_eq!(pick(&at(fresh(1, ["x", "z"]), 5)), Some((vec![9], Dropped)));
    assert_eq!(pick(&at(fresh(1, ["c", "z"]), 5)), Some((vec![9], Rewritten)), "it may hide something");
    assert_eq!(pick(&at(fresh(1, ["x", "z"]), 4)), None);
    let level = |run| tree([vec![], vec![], vec![run]], 10);
    assert_eq!(pick(&level(vec![expired(1, ["a", "b"]), fresh(2, ["c", "d"])])), Some((vec![1], Dropped)));
    let mut deletes = (*expired(1, ["a", "b"])).clone();
    deletes.range_tombstones = 1;
    assert_eq!(pick(&level(vec![Arc::new(deletes)])), Some((vec![1], Joined)));
    assert_eq!(pick(&level(vec![table(1, ["a", "b"], 11, (10, 5, 5))])), Some((vec![1], Joined)));
}
