//! Whatever `validate` accepts, on any tree and beside any other running compaction, keeps every key's versions
//! newest first and every run disjoint.

mod tree;

use lsm_compaction::{Action, Compaction, InputLevel, OutputRun, Reason, TreeShape, validate};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::sync::atomic::{AtomicU64, Ordering};
use tree::{Garbage, Tree, key};

#[derive(Clone, Debug)]
enum Step {
    Flush { keys: Vec<(u16, bool)>, table_bytes: u64 },
    Start(Guess),
    Finish(usize),
}

/// A compaction that is sound often enough to get somewhere.
#[derive(Clone, Debug)]
struct Guess {
    levels: (usize, usize),
    /// Which runs of the first level to leave alone, counted from the newest.
    skip_runs: usize,
    bounds: (u16, u16),
    join: bool,
    action: u8,
    /// Leaves out one of the inputs.
    forget: Option<usize>,
    /// Whether inputs that overlap bring in what overlaps them.
    widen: bool,
}

const LEVELS: usize = 4;
const KEYS: u16 = 40;

fn guess() -> impl Strategy<Value = Guess> {
    (
        (0..LEVELS, 0..LEVELS),
        0..3_usize,
        (0..KEYS, 0..KEYS),
        any::<bool>(),
        0..8_u8,
        prop::option::weighted(0.2, 0..8_usize),
        any::<bool>(),
    )
        .prop_map(|(levels, skip_runs, bounds, join, action, forget, widen)| Guess {
            levels: (levels.0.min(levels.1), levels.0.max(levels.1)),
            skip_runs,
            bounds: (bounds.0.min(bounds.1), bounds.0.max(bounds.1)),
            join,
            action,
            forget,
            widen,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let writes = prop::collection::vec((0..KEYS, prop::bool::weighted(0.2)), 1..12);
    prop_oneof![
        3 => (writes, 1..5_u64).prop_map(|(keys, table_bytes)| Step::Flush { keys, table_bytes }),
        8 => guess().prop_map(Step::Start),
        2 => (0..4_usize).prop_map(Step::Finish),
    ]
}

fn compaction(shape: &TreeShape, guess: &Guess) -> Compaction {
    let (first, last) = guess.levels;
    let mut bounds = (key(guess.bounds.0), key(guess.bounds.1));
    let mut inputs = Vec::new();
    for level in first..=last {
        let skip = if level == first { guess.skip_runs } else { 0 };
        let mut tables = Vec::new();
        for run in shape.levels[level].runs.iter().skip(skip) {
            for table in run.range(run.overlapping(&bounds.0, &bounds.1)) {
                if guess.widen {
                    bounds.0 = bounds.0.min(table.smallest.clone());
                    bounds.1 = bounds.1.max(table.largest.clone());
                }
                tables.push(table.clone());
            }
        }
        if let Some(forget) = guess.forget.filter(|forget| *forget < tables.len() && level < last) {
            tables.remove(forget);
        }
        if !tables.is_empty() {
            inputs.push(InputLevel { level, tables });
        }
    }
    Compaction {
        inputs,
        output_level: last,
        output_run: if guess.join { OutputRun::Join } else { OutputRun::NewRun },
        action: match guess.action {
            0 => Action::Drop,
            1 | 2 => Action::Move,
            _ => Action::Merge,
        },
        target_table_bytes: 1 + u64::from(guess.action),
        reason: Reason::Manual,
    }
}

static ACCEPTED: AtomicU64 = AtomicU64::new(0);
static REJECTED: AtomicU64 = AtomicU64::new(0);

fn run(steps: &[Step], garbage: Garbage, touching: bool) {
    let mut tree = Tree::new(LEVELS, garbage, touching);
    for step in steps {
        match step {
            Step::Flush { keys, table_bytes } => tree.flush(keys, *table_bytes),
            Step::Start(guess) => {
                let compaction = compaction(&tree.shape, guess);
                // A drop removes whole versions, which the newest-only model cannot follow.
                let skip = garbage == Garbage::Collect && compaction.action == Action::Drop;
                if !skip && validate(&tree.shape, &compaction).is_ok() {
                    ACCEPTED.fetch_add(1, Ordering::Relaxed);
                    tree.start(compaction);
                } else {
                    REJECTED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Step::Finish(job) if tree.jobs() > 0 => tree.finish(job % tree.jobs()),
            Step::Finish(_) => {}
        }
        tree.check();
    }
    while tree.jobs() > 0 {
        tree.finish(tree.jobs() - 1);
        tree.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12_000))]

    #[test]
    fn all_versions_stay_in_order(steps in prop::collection::vec(step(), 1..50), touching in any::<bool>()) {
        run(&steps, Garbage::Keep, touching);
    }

    #[test]
    fn deleted_keys_stay_deleted(steps in prop::collection::vec(step(), 1..50), touching in any::<bool>()) {
        run(&steps, Garbage::Collect, touching);
    }
}

#[test]
fn the_random_compactions_are_neither_all_sound_nor_all_bad() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(step(), 50);
    for _ in 0..100 {
        let steps = strategy.new_tree(&mut runner).unwrap().current();
        run(&steps, Garbage::Keep, false);
    }
    let (accepted, rejected) = (ACCEPTED.load(Ordering::Relaxed), REJECTED.load(Ordering::Relaxed));
    assert!(accepted * 10 > rejected, "{accepted} accepted, {rejected} rejected");
    assert!(rejected * 10 > accepted, "{accepted} accepted, {rejected} rejected");
}
