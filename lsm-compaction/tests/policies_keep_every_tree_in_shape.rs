//! Every policy, on trees that evolve at random with several compactions under way: picks are sound and
//! deterministic, versions stay in order, and left alone the tree comes to rest without debt.

mod tree;

use lsm_compaction::{
    CompactionPolicy, Fifo, FifoOptions, LazyLeveled, LazyLeveledOptions, LevelShape, Leveled,
    LeveledOptions, ManualOptions, RunShape, SizeTiered, SizeTieredOptions, TreeShape, manual, validate,
};
use proptest::prelude::*;
use std::ops::Bound;
use tree::{Garbage, Tree, key};

const TABLE_BYTES: u64 = 4;
const KEYS: u16 = 300;

fn policies() -> Vec<Box<dyn CompactionPolicy>> {
    vec![
        Box::new(Leveled::new(LeveledOptions {
            level_count: 4,
            level0_runs_max: 3,
            base_bytes: 16,
            fanout: 3,
            target_table_bytes: TABLE_BYTES,
            compaction_bytes_max: 40,
            tombstone_age_micros_max: 5_000_000,
            ..LeveledOptions::default()
        })),
        Box::new(LazyLeveled::new(LazyLeveledOptions {
            level_count: 5,
            level0_runs_max: 3,
            base_bytes: 16,
            runs_max: 3,
            last_fanout: 2,
            target_table_bytes: TABLE_BYTES,
            compaction_bytes_max: 40,
            tombstone_age_micros_max: 5_000_000,
            hidden_percent_max: 20,
        })),
        Box::new(SizeTiered::new(SizeTieredOptions {
            runs_max: 4,
            target_table_bytes: TABLE_BYTES,
            tombstone_age_micros_max: 5_000_000,
            ..SizeTieredOptions::default()
        })),
        Box::new(Fifo::new(FifoOptions { bytes_max: 100, time_to_live_micros: 5_000_000 })),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Flush(Vec<(u16, bool)>),
    FlushRange(u16, u16),
    Start,
    Finish(usize),
    Wait(u64),
    Settle,
    Snapshot,
    DropSnapshots,
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop_oneof![0..KEYS, 0..20_u16];
    let writes = prop::collection::vec((key, prop::bool::weighted(0.3)), 1..20);
    prop_oneof![
        6 => writes.prop_map(Step::Flush),
        2 => (0..KEYS, 1..20_u16).prop_map(|(first, count)| Step::FlushRange(first, count)),
        6 => Just(Step::Start),
        4 => (0..4_usize).prop_map(Step::Finish),
        1 => (0..4_000_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Settle),
        1 => Just(Step::Snapshot),
        1 => Just(Step::DropSnapshots),
    ]
}

fn run(policy: &dyn CompactionPolicy, steps: &[Step], garbage: Garbage, touching: bool) {
    let mut tree = Tree::new(policy.level_count(), garbage, touching);
    play(&mut tree, policy, steps);
    tree.settle(policy, 2000);
    assert_eq!(
        policy.debt_bytes(&tree.shape),
        0,
        "{} rests with debt: {}",
        policy.name(),
        summary(&tree.shape)
    );
}

fn summary(shape: &TreeShape) -> String {
    let run = |run: &RunShape| format!("{} tables {} bytes", run.len(), run.bytes());
    let level = |level: &LevelShape| level.runs.iter().map(run).collect::<Vec<_>>();
    format!("{:#?}", shape.levels.iter().map(level).collect::<Vec<_>>())
}

fn play(tree: &mut Tree, policy: &dyn CompactionPolicy, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Flush(writes) => tree.flush(writes, 8),
            Step::FlushRange(first, count) => {
                let writes: Vec<_> = (*first..(first + count).min(KEYS)).map(|key| (key, false)).collect();
                tree.flush(&writes, 8);
            }
            Step::Start => {
                tree.show_snapshots();
                if let Some(compaction) = tree.pick(policy) {
                    tree.start(compaction);
                }
            }
            Step::Finish(job) if tree.jobs() > 0 => tree.finish(job % tree.jobs()),
            Step::Finish(_) => {}
            Step::Snapshot => tree.snapshot(),
            Step::DropSnapshots => tree.drop_snapshots(),
            Step::Wait(micros) => tree.shape.now_micros += micros,
            Step::Settle => {
                while tree.jobs() > 0 {
                    tree.finish(0);
                }
                tree.settle(policy, 2000);
            }
        }
        tree.check();
    }
    while tree.jobs() > 0 {
        tree.finish(tree.jobs() - 1);
        tree.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_policy_comes_to_rest(
        steps in prop::collection::vec(step(), 1..80),
        collect in any::<bool>(),
        touching in any::<bool>(),
    ) {
        let garbage = if collect { Garbage::Collect } else { Garbage::Keep };
        for policy in policies() {
            run(&*policy, &steps, if policy.drops_data() { Garbage::Keep } else { garbage }, touching);
        }
    }

    /// Whatever tree a policy made, a manual compaction brings the range to the bottom and its tombstones out.
    #[test]
    fn a_manual_compaction_of_any_tree_ends_at_the_bottom(
        steps in prop::collection::vec(step(), 1..60),
        first in 0..KEYS,
        count in 1..KEYS,
        touching in any::<bool>(),
    ) {
        for policy in policies().into_iter().filter(|policy| !policy.drops_data()) {
            let mut tree = Tree::new(policy.level_count(), Garbage::Collect, touching);
            play(&mut tree, &*policy, &steps);
            tree.drop_snapshots();
            let options = ManualOptions {
                target_table_bytes: TABLE_BYTES,
                compaction_bytes_max: 30,
                rewritten_since: tree.next_id(),
                ..ManualOptions::default()
            };
            let (first, end) = (key(first), key(first.saturating_add(count)));
            let range = (Bound::Included(&*first), Bound::Excluded(&*end));
            let mut left = 1000;
            while let Some(compaction) = manual(&tree.shape, range, &options) {
                validate(&tree.shape, &compaction).unwrap();
                tree.start(compaction);
                tree.finish(0);
                tree.check();
                left -= 1;
                prop_assert!(left > 0, "no end: {}", summary(&tree.shape));
            }
            let last = policy.level_count() - 1;
            for (level, table) in tree.shape.tables() {
                if *table.largest >= *first && *table.smallest < *end {
                    prop_assert_eq!(level, last);
                    prop_assert_eq!(table.tombstones, 0);
                }
            }
        }
    }

    /// A tree that another policy left is brought into shape.
    #[test]
    fn every_policy_takes_over_from_every_other(
        before in prop::collection::vec(step(), 1..40),
        after in prop::collection::vec(step(), 1..40),
        touching in any::<bool>(),
    ) {
        for first in policies() {
            for second in policies() {
                if first.drops_data() || second.drops_data() {
                    continue;
                }
                let mut tree = Tree::new(first.level_count().max(second.level_count()), Garbage::Collect, touching);
                play(&mut tree, &*first, &before);
                play(&mut tree, &*second, &after);
                tree.settle(&*second, 2000);
                prop_assert_eq!(second.debt_bytes(&tree.shape), 0, "{} after {}: {}", second.name(), first.name(), summary(&tree.shape));
            }
        }
    }
}
