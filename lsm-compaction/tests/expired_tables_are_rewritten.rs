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

/// The ids of the inputs, and whether the output joins their run.
fn pick(shape: &TreeShape) -> Option<(Vec<u64>, bool)> {
    let compaction = expired_tables(shape)?;
    validate(shape, &compaction).unwrap();
    assert_eq!((compaction.action, compaction.reason), (Action::Merge, Reason::Expiry));
    assert_eq!(compaction.output_level, compaction.inputs[0].level, "in place");
    let ids = compaction.inputs.iter().flat_map(|input| input.tables.iter().map(|table| table.id));
    Some((ids.collect(), compaction.output_run == OutputRun::Join))
}

#[test]
fn a_table_of_the_last_run_is_rewritten_alone_once_a_third_has_expired() {
    let one = table(1, ["a", "b"], 100, (0, 0, 0));
    // 50 of 100 expire between 1000 and 2000.
    let two = table(2, ["c", "d"], 100, (50, 1000, 2000));
    let at = |now| tree([vec![], vec![], vec![vec![one.clone(), two.clone()]]], now);
    assert_eq!(pick(&at(999)), None);
    assert_eq!(pick(&at(1500)), None, "a quarter");
    assert_eq!(pick(&at(1600)), Some((vec![2], true)));
    assert_eq!(pick(&at(u64::MAX)), Some((vec![2], true)));
}

#[test]
fn a_single_expired_entry_waits_for_a_week() {
    let table = table(1, ["a", "b"], 1_000_000, (1, 1000, 1000));
    let at = |now| tree([vec![], vec![], vec![vec![table.clone()]]], now);
    assert_eq!(pick(&at(1000 + WEEK - 1)), None);
    assert_eq!(pick(&at(1000 + WEEK)), Some((vec![1], true)));
}

#[test]
fn other_runs_are_rewritten_as_a_whole_and_busy_tables_wait() {
    let expired = |id, keys| table(id, keys, 10, (10, 5, 5));
    let fresh = |id, keys| table(id, keys, 10, (0, 0, 0));
    let newer = vec![fresh(5, ["a", "c"]), expired(6, ["d", "e"])];
    let level_1 = vec![newer, vec![fresh(3, ["a", "z"])]];
    let mut shape = tree([vec![], level_1, vec![vec![fresh(1, ["a", "z"])]]], 10);
    assert_eq!(pick(&shape), Some((vec![5, 6], false)));
    shape.levels[1].runs[0].mark_busy(1);
    assert_eq!(pick(&shape), None);
    let shape = tree([vec![vec![expired(9, ["a", "b"])]], vec![], vec![]], 10);
    assert_eq!(pick(&shape), Some((vec![9], false)), "a run of level 0 keeps its place");
}
